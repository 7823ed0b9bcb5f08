"""The page of an evaluation: of a judge, with curves and the worst cases; in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1_plugins.cli import main
from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.report.evaluation import is_evaluation, write_evaluation_report
from editr1_plugins.report.sections import curve, histogram, shown, spanned

DARKER = "make the image darker"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`measure` on three pairs, of which one is the wrong way round and says something hostile."""
    folder = tmp_path_factory.mktemp("pairs")
    noise = Image.effect_noise((64, 64), 60).convert("RGB")
    noise.save(folder / "source.png")
    noise.point(lambda level: level // 2).save(folder / "darker.png")
    good = {"source": "source.png", "winner": "darker.png", "loser": "source.png", "instruction": DARKER}
    wrong = {**good, "winner": "source.png", "loser": "darker.png", "category": "<img src=x onerror=alert(1)>"}
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in (good, {**good, "category": "b"}, wrong)))
    run = ["--bench", "pairs", "--data", str(folder / "pairs.jsonl"), "--verifier", "measure", "--samples", "2"]
    assert main(["eval", "judge", *run, "--output", str(folder / "out")]) == 0
    return folder / "out"


def test_the_page_of_a_judge(judged: Path, tmp_path: Path, browser: Any) -> None:
    made = write_evaluation_report(judged, tmp_path / "page.html", title="Judge <1>")
    assert (made.records, made.listed, made.missing) == (3, 1, 0)
    browser.open(tmp_path / "page.html")
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:", "about:"))] == []
    assert browser.run("document.querySelector('h1').textContent") == "Judge <1>"
    headings = browser.run("[...document.querySelectorAll('h2')].map(each => each.textContent)")
    assert {"Agreement with people", "By category", "Accuracy by samples", "Worst disagreements"} <= set(headings)
    shots = browser.run("[...document.querySelectorAll('.shot img')].map(each => each.naturalWidth)")
    assert shots == [64, 64, 64]
    assert "<img src=x onerror=alert(1)>" in browser.run("document.body.textContent")
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")


def test_it_fits_a_phone(judged: Path, tmp_path: Path, browser: Any) -> None:
    write_evaluation_report(judged, tmp_path / "page.html")
    browser.open(tmp_path / "page.html", width=400, dark=True)
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")


def test_what_is_no_evaluation(judged: Path, tmp_path: Path) -> None:
    assert is_evaluation(judged)
    assert not is_evaluation(tmp_path)
    (tmp_path / "summary.json").write_text("{oops")
    with pytest.raises(DataError, match=r"summary\.json is not JSON"):
        write_evaluation_report(tmp_path, tmp_path / "page.html")
    with pytest.raises(ConfigError, match="thumbnail must be in"):
        write_evaluation_report(judged, tmp_path / "page.html", thumbnail=1)


class TestSections:
    def test_intervals_lie_on_their_axis(self) -> None:
        axis = spanned([2.0, 4.0], 3.0, 0.0, 10.0)
        assert axis is not None
        assert (axis.low, axis.high, axis.middle, axis.zero) == (40.0, 80.0, 60.0, 0.0)
        kinds = [spanned(limits, 0.0, -5, 5, signed=True) for limits in ([0.1, 2.0], [-2.0, -0.1], [-1.0, 1.0])]
        assert [each.kind for each in kinds if each] == ["up", "down", "even"]
        assert spanned(None, None, 0, 1) is None

    def test_every_value_has_its_bar(self) -> None:
        made = histogram("x", [1.0, 1.1, 5.0, 3.0], 1.0, 5.0)
        heights = [bar[3] for bar in made.bars]
        assert (heights[0], heights[10], heights[-1], sum(height > 0 for height in heights)) == (120.0, 60.0, 60.0, 3)
        assert made.ticks[0] == (0.0, "1")

    def test_curves(self) -> None:
        assert curve("x", {"1": 50.0}) is None
        made = curve("x", {"1": 50.0, "4": 60.0})
        assert made is not None
        assert made.points[0][1] > made.points[1][1]

    def test_numbers(self) -> None:
        assert [shown(each) for each in (1, 1.0, None, [1.0, 2.5], float("nan"), "x")] == [
            "1",
            "1.00",
            "\N{EN DASH}",
            "1.00 to 2.50",
            "\N{EN DASH}",
            "\N{EN DASH}",
        ]
