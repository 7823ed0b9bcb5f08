"""The page of records: what it shows, that it is safe, and that it works in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pytest_httpserver import HTTPServer

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.report.entries import read_entry
from editr1_plugins.report.page import write_report
from editr1_plugins.reward.bulk import score_file
from editr1_plugins.reward.journal import RecordWriter
from editr1_plugins.reward.record import EditRecord, RaisedAlarm
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Alarm, Edit, Principle, Usage, Verdict, Verification

NAMES = (FOLLOW, KEEP, QUALITY)


def image(level: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    return Image.new("RGB", size, (level % 256, 80, 120))


def verdicts(*passed: bool | None) -> tuple[Verdict, ...]:
    return tuple(
        Verdict(principle=Principle(question=f"{name}, fine?", category=name), passed=each, reason=f"saw {each}")
        for name, each in zip(NAMES, passed, strict=False)
    )


def write(writer: RecordWriter, instruction: str, outcome: Verification, level: int, **more: Any) -> None:
    edit = more.pop("edit", None) or Edit(source=image(0), edited=image(level), instruction=instruction)
    fields: dict[str, Any] = {
        "principles": tuple(verdict.principle for verdict in outcome.verdicts),
        "judged_score": outcome.score,
        "alarms": (),
        "verifier": "judge/1",
        "decomposer": "rules/1",
        "aggregate": "score",
        "seconds": 1.5,
        "batch": 4,
    }
    writer.write(edit, EditRecord(instruction=instruction, verification=outcome, **fields | more), {"id": level})


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Five edits, one of each kind: good, bad, doubtful, capped by a guard, not judged."""
    writer = RecordWriter(tmp_path / "records")
    usage = Usage(prompt_tokens=1000, completion_tokens=50, latency=2.5)
    write(writer, "apple to pear", Verification(score=10.0, verdicts=verdicts(True, True, True), trace="clear"), 1)
    write(writer, "Brighten", Verification(score=0.0, verdicts=verdicts(False, True, True)), 2)
    doubtful = Verification(score=5.5, verdicts=verdicts(True, None, False), spread=2.0, samples=4, usage=usage)
    write(writer, "change the sky", doubtful, 3, model_version="openai:m@http://host", prompt_version="judge-abc")
    capped = Verification(score=3.0, verdicts=verdicts(True, False, True), flags=("border",))
    border = RaisedAlarm(guard="border", flag="border", reason="a white frame", cap=3.0)
    write(writer, "darken", capped, 4, alarms=(border,), judged_score=9.0)
    write(writer, "erase it", Verification(score=None, failure="timeout: no reply within 60 s", samples=0), 5)
    return writer.directory


class Page(HTMLParser):
    """The parts of a page that could load or run something."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.texts.append((self.tags[-1][0], data))

    def data(self) -> dict[str, Any]:
        text = re.search(r'<script type="application/json" id="data">(.*?)</script>', self.html, re.DOTALL)
        assert text is not None
        return dict(json.loads(text[1]))


def make(records: Path, **options: Any) -> Page:
    write_report(records, records.parent / "page.html", **options)
    return Page(records.parent / "page.html")


class TestWhatItHolds:
    def test_figures_are_over_all_edits(self, records: Path) -> None:
        page = make(records, title="A run")
        text = " ".join("".join(data for _, data in page.texts).split())
        assert "5 edits" in text
        assert "4.62 mean score of 10" in text
        assert "4.25 median" in text
        assert "1 not judged" in text
        assert "1,050 tokens" in text
        assert "Instruction Following75 % met of 4" in text
        assert "Feature Preservation67 % met of 3, 1 not judged" in text
        shown = [attributes.get("data-value") for tag, attributes in page.tags if tag == "button"]
        assert shown[:2] == ["failed: timeout", "border"]
        bars = re.findall(r"<title>score ([\d.]+) to [\d.]+: (\d+)</title>", page.html)
        assert [start for start, number in bars if number == "1"] == ["0", "3", "5.5", "9.5"]
        assert len(bars) == 20

    def test_every_edit_is_there_with_what_was_said(self, records: Path) -> None:
        page = make(records).data()
        entries = {entry["instruction"]: entry for entry in page["entries"]}
        doubtful, capped, failed = (entries[name] for name in ("change the sky", "darken", "erase it"))
        assert [verdict["passed"] for verdict in doubtful["verdicts"]] == [True, None, False]
        assert (doubtful["tokens"], doubtful["latency"], doubtful["spread"]) == (1050, 2.5, 2.0)
        assert ["Model", "openai:m@http://host"] in page["judges"][doubtful["judge"]]
        assert (capped["judged_score"], capped["alarms"][0]["reason"]) == (9.0, "a white frame")
        assert (failed["score"], failed["kind"], failed["failure"]) == (
            None,
            "timeout",
            "timeout: no reply within 60 s",
        )
        assert failed["label"] == "5"

    def test_images_are_small_and_each_is_there_once(self, tmp_path: Path) -> None:
        noise = Image.effect_noise((1600, 1000), 80).convert("RGB")
        writer = RecordWriter(tmp_path / "r")
        for level in range(2, 6):
            darker = noise.point(lambda at, level=level: at // level)
            write(
                writer,
                "darken",
                Verification(score=1.0),
                level,
                edit=Edit(source=noise, edited=darker, instruction="x"),
            )
        made = make(tmp_path / "r", thumbnail=200).data()["images"]
        assert len(made) == 5
        for one in made.values():
            small = Image.open(BytesIO(base64.b64decode(one["uri"].partition(",")[2])))
            assert max(small.size) == 200
            assert (one["width"], one["height"]) == (1600, 1000)
            assert len(one["uri"]) < 60_000

    def test_a_drawing_of_few_pixels_is_kept_exactly(self, records: Path) -> None:
        page = make(records).data()
        good = page["images"][page["entries"][0]["edited"]]
        assert Image.open(BytesIO(base64.b64decode(good["uri"].partition(",")[2]))).getpixel((3, 3)) == (1, 80, 120)

    def test_a_limit_lists_evenly_and_counts_all(self, tmp_path: Path) -> None:
        writer = RecordWriter(tmp_path / "r")
        for level in range(10):
            write(writer, f"edit {level}", Verification(score=float(level)), level)
        made = write_report(tmp_path / "r", tmp_path / "page.html", limit=4)
        assert (made.records, made.listed, made.images) == (10, 4, 5)  # one source, four edited images
        page = Page(tmp_path / "page.html")
        assert [entry["score"] for entry in page.data()["entries"]] == [2.0, 4.0, 7.0, 9.0]
        assert "The figures above are over all 10 edits. 4 of them are listed" in page.html
        assert "4.50</b> mean" in page.html

    def test_records_of_a_reward_and_of_bulk_judging(self, tmp_path: Path) -> None:
        source, darker = Image.effect_noise((48, 48), 60).convert("RGB"), tmp_path / "darker.png"
        edited = source.point(lambda level: level // 2)

        class Frame:
            needs_judge = False

            def inspect(self, edits: Sequence[Edit], *_: object) -> list[Alarm | None]:
                return [Alarm(flag="frame", reason="a frame", cap=4.0)] * len(edits)

        reward = EditRRMReward("measure", "rules", [Frame()], record=tmp_path / "one")
        reward.score([Edit(source=source, edited=edited, instruction="make the image darker")])
        source.save(tmp_path / "source.png")
        edited.save(darker)
        row = {"source": "source.png", "edited": "darker.png", "instruction": "make the image darker", "id": "a"}
        bad = {**row, "edited": "absent.png", "id": "b"}
        (tmp_path / "edits.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(bad)}\n")
        score_file(tmp_path / "edits.jsonl", tmp_path / "two", verifier="measure", decomposer="rules")
        score_file(
            tmp_path / "edits.jsonl", tmp_path / "two", retry_failed=True, verifier="measure", decomposer="rules"
        )
        [one] = make(tmp_path / "one").data()["entries"]
        assert (one["score"], one["flags"]) == (4.0, ["frame"])
        two = {entry["label"]: entry for entry in make(tmp_path / "two").data()["entries"]}
        assert two["a"]["score"] > 9
        assert (two["b"]["kind"], two["b"]["source"]) == ("bad_image", None)
        assert len(two) == 2


class TestBadInput:
    def test_odd_records_are_shown_as_far_as_they_go(self, tmp_path: Path) -> None:
        odd: list[dict[str, Any]] = [
            {},
            {"score": "10", "failure": 5, "flags": "abc", "verdicts": {"a": 1}, "usage": [], "row": 3, "alarms": None},
            {
                "score": float(11),
                "flags": [1, "real"],
                "verdicts": [1, {"question": 4, "passed": "yes"}],
                "samples": True,
            },
            {"score": 10**400, "usage": {"prompt_tokens": -1, "latency": "x"}, "row": {"id": [1]}, "verifier": 9},
            {"score": 7, "trace": "x" * 50_000 + "END", "failure": "ignored", "spread": -1},
        ]
        (tmp_path / "r").mkdir()
        text = "".join(json.dumps(record) + "\n" for record in odd)
        (tmp_path / "r" / "records-1.jsonl").write_text(text + '{"score": NaN}\n')
        entries = make(tmp_path / "r").data()["entries"]
        assert [entry["score"] for entry in entries] == [None] * 4 + [7.0, None]
        assert entries[1]["failure"] == "no reason given"
        assert entries[2]["flags"] == ["real"]
        assert [(verdict["passed"], verdict["category"]) for verdict in entries[2]["verdicts"]] == [(None, "Other")]
        assert len(entries[4]["trace"]) < 9000
        assert entries[4]["trace"].endswith("END")

    @pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "images/../../secret.png", "images/x.png", 5])
    def test_no_image_outside_the_directory_is_read(self, records: Path, name: object) -> None:
        image(9).save(records.parent / "secret.png")
        assert read_entry({"source_image": name}).source is None

    def test_missing_broken_and_linked_images_are_counted(self, records: Path) -> None:
        kept = sorted((records / "images").iterdir())
        kept[0].unlink()
        kept[1].write_bytes(b"no image")
        image(9).save(records.parent / "secret.png")
        kept[2].unlink()
        kept[2].symlink_to(records.parent / "secret.png")
        made = write_report(records, records.parent / "page.html")
        assert (made.images, made.missing) == (3, 3)

    def test_what_cannot_be_done_says_why(self, records: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="holds no records"):
            write_report(tmp_path / "empty", tmp_path / "page.html")
        with pytest.raises(DataError, match="no directory"):
            write_report(tmp_path / "absent", tmp_path / "page.html")
        with pytest.raises(ConfigError, match="cannot write"):
            write_report(records, tmp_path / "absent" / "page.html")
        with pytest.raises(ConfigError, match="limit must be at least 1"):
            write_report(records, tmp_path / "page.html", limit=0)
        with pytest.raises(DataError, match="a record of version 99"):
            read_entry({"version": 99})


HOSTILE = "</script><script>window.hacked=1</script><img src='{url}' onerror='hacked=2'><!--<script>\u202e&amp;\ud800"


def hostile_records(folder: Path, url: str) -> Path:
    writer = RecordWriter(folder)
    text = HOSTILE.replace("{url}", url)
    principle = Principle(question=text, category=FOLLOW)
    bad = Verification(
        score=5.0,
        verdicts=(Verdict(principle=principle, passed=None, reason=text),),
        trace=text,
        flags=(text, f'" autofocus onfocus="hacked=3" {url}'),
    )
    write(writer, text, bad, 1, verifier=text, alarms=(RaisedAlarm(guard=text, flag=text, reason=text, cap=None),))
    write(writer, text, Verification(score=None, failure=f"<b>{text}", samples=0), 2)
    return folder


class TestSafety:
    def test_the_page_is_all_of_it(self, records: Path) -> None:
        page = make(records)
        for tag, attributes in page.tags:
            for name in ("src", "href", "srcset", "data", "action", "poster"):
                assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert "url(" not in page.html.split("</style>")[0]
        assert "@import" not in page.html

    def test_only_our_script_and_style_may_run_and_no_network(self, records: Path) -> None:
        page = make(records)
        [policy] = [at["content"] for _, at in page.tags if at.get("http-equiv") == "Content-Security-Policy"]
        assert policy is not None
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
        [script] = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
        [style] = re.findall(r"<style>(.*?)</style>", page.html, re.DOTALL)
        for text, rule in ((script, "script-src"), (style, "style-src")):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert rules[rule] == f"'sha256-{digest}'"
        assert "innerHTML" not in script
        assert "insertAdjacent" not in script

    def test_hostile_texts_end_no_element_and_come_back_as_they_were(self, tmp_path: Path) -> None:
        folder = hostile_records(tmp_path / "r", "http://127.0.0.1:1/leak")
        page = make(folder, title="<script>alert(1)</script>")
        assert [tag for tag, _ in page.tags].count("script") == 2
        assert "img" not in [tag for tag, _ in page.tags]
        text = HOSTILE.replace("{url}", "http://127.0.0.1:1/leak")
        assert page.data()["entries"][0]["trace"] == text
        assert all("onfocus" not in attributes for _, attributes in page.tags)


class TestCommand:
    def test_it_says_what_it_made(self, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from editr1_plugins.cli import main

        page = tmp_path / "page.html"
        assert main(["report", str(records), "-o", str(page)]) == 0
        assert re.fullmatch(r".*page\.html: 5 edits, 5 listed, 0\.\d MB\n", capsys.readouterr().out)
        assert main(["report", str(records), "-o", str(page), "--limit", "2", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["records"], found["listed"], found["bytes"]) == (5, 2, page.stat().st_size)

    def test_bad_input_is_exit_status_2(self, records: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from editr1_plugins.cli import main

        assert main(["report", str(records)]) == 2
        assert main(["report", str(records / "images"), "-o", str(records.parent / "page.html")]) == 2
        assert capsys.readouterr().err.endswith("holds no records\n")


LOAD_IMAGE = """new Promise((done) => {
  const image = new Image();
  image.onerror = () => done("blocked");
  image.onload = () => done("loaded");
  image.src = %s;
})"""
ADD_SCRIPT = """(() => {
  const script = document.createElement("script");
  script.textContent = "window.hacked = 4";
  document.body.append(script);
})()"""
COLOURS = """[".card", ".reason", ".card h3", ".answer.met", ".answer.unmet", ".flags li", ".failure"].map((name) => {
  let each = document.querySelector(name);
  const ink = getComputedStyle(each).color;
  let back = getComputedStyle(each).backgroundColor;
  while (back === "rgba(0, 0, 0, 0)") {
    each = each.parentElement;
    back = getComputedStyle(each).backgroundColor;
  }
  return [name, ink, back];
})"""
UNNAMED = """[...document.querySelectorAll("input, select, button, summary, svg, img")].filter((each) =>
  !(each.labels?.length || each.ariaLabel || each.alt || each.textContent.trim() ||
    each.getAttribute("aria-labelledby"))
).map((each) => each.outerHTML)"""


class TestInABrowser:
    """Chromium, headless; `browser` skips where it is not installed."""

    def shown(self, browser: Any) -> list[str]:
        return list(browser.run("[...document.querySelectorAll('.card h3')].map((each) => each.textContent)"))

    def choose(self, browser: Any, **values: str) -> list[str]:
        """Set fields as a person would, after a reset, and wait for the list."""
        browser.run("document.querySelector('button[type=reset]').click()")
        browser.wait("location.hash === ''")
        for name, value in values.items():
            browser.run(
                f"(() => {{ const field = document.forms[0].elements[{name!r}]; field.value = {value!r};"
                "field.dispatchEvent(new Event('input', { bubbles: true })) })()"
            )
            browser.wait(f"new URLSearchParams(location.hash.slice(1)).get({name!r}) === {value!r}")
        return self.shown(browser)

    @pytest.fixture
    def page(self, records: Path) -> Path:
        write_report(records, records.parent / "page.html")
        return records.parent / "page.html"

    def test_cards_tell_everything_with_pictures(self, browser: Any, records: Path, page: Path) -> None:
        browser.open(page)
        assert browser.errors == []
        assert self.shown(browser) == ["apple to pear", "Brighten", "change the sky", "darken", "erase it"]
        assert browser.run("document.getElementById('count').textContent") == "5 edits"
        self.choose(browser, flag="border")
        # A card out of sight has no innerText until it is laid out (content-visibility: auto).
        browser.wait("document.querySelector('.card').innerText !== ''")
        [card] = browser.run("[...document.querySelectorAll('.card')].map((each) => each.innerText)")
        for text in ("3.00", "border", "Guard border caps the score at 3: a white frame", "✗ no", "saw False"):
            assert text in card
        self.choose(browser, outcome="failed")
        browser.wait("document.querySelector('.card').innerText.includes('timeout: no reply within 60 s')")
        pictures = "[...document.images].every((each) => each.complete && each.naturalWidth === 24 && each.alt)"
        browser.wait(pictures)
        assert browser.run("document.images.length") == 2

    def test_filters_work_alone_and_together(self, browser: Any, page: Path) -> None:
        browser.open(page)
        for chosen, expected in [
            ({"min": "5"}, {"apple to pear", "change the sky"}),
            ({"max": "3"}, {"Brighten", "darken"}),
            ({"min": "0", "max": "0"}, {"Brighten"}),
            ({"outcome": "failed"}, {"erase it"}),
            ({"outcome": "failed: timeout"}, {"erase it"}),
            ({"outcome": "scored", "q": "SKY"}, {"change the sky"}),
            ({"q": "white frame"}, {"darken"}),
            ({"q": "clear"}, {"apple to pear"}),
            ({"flag": "border"}, {"darken"}),
            ({"flag": "*"}, {"darken"}),
            ({"c0": "unmet"}, {"Brighten"}),
            ({"c1": "unjudged"}, {"change the sky"}),
            ({"c0": "met", "c2": "met"}, {"apple to pear", "darken"}),
            ({"c0": "met", "c1": "unmet", "min": "9"}, set()),
        ]:
            assert set(self.choose(browser, **chosen)) == expected, chosen
        assert browser.run("document.querySelector('.empty').textContent") == "No edit matches these filters."

    def test_sorting_puts_what_has_no_score_last(self, browser: Any, page: Path) -> None:
        browser.open(page)
        high = ["apple to pear", "change the sky", "darken", "Brighten", "erase it"]
        assert self.choose(browser, sort="high") == high
        assert self.choose(browser, sort="low") == [*reversed(high[:-1]), "erase it"]
        assert self.choose(browser, sort="spread")[0] == "change the sky"
        assert self.choose(browser, sort="slow")[0] == "change the sky"
        by_name = ["apple to pear", "Brighten", "change the sky", "darken", "erase it"]
        assert self.choose(browser, sort="instruction") == by_name

    def test_buttons_filter_and_a_view_can_be_linked_to(self, browser: Any, page: Path) -> None:
        browser.open(page)
        browser.run("document.querySelector('[data-set=outcome]').click()")
        assert self.shown(browser) == ["erase it"]
        assert browser.run("location.hash") == "#outcome=failed%3A+timeout"
        assert browser.run("document.getElementById('count').textContent") == "1 of 5 edits"
        browser.open(page, "#sort=low&min=1&flag=nonsense")
        assert self.shown(browser) == ["darken", "change the sky", "apple to pear"]

    def test_nothing_loads_from_the_network_and_nothing_hostile_runs(
        self, browser: Any, tmp_path: Path, httpserver: HTTPServer
    ) -> None:
        httpserver.expect_request(re.compile(".*")).respond_with_data("leaked")
        folder = hostile_records(tmp_path / "r", httpserver.url_for("/leak"))
        write_report(folder, tmp_path / "page.html")
        browser.open(tmp_path / "page.html")
        browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        assert browser.run("document.querySelectorAll('.card').length") == 2
        assert "onerror" in browser.run("document.querySelector('.card h3').textContent")
        assert browser.run("typeof window.hacked") == "undefined"
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith("data:")] == [(tmp_path / "page.html").as_uri()]
        # Were something to slip through all the same, the policy stops it.
        leak = json.dumps(httpserver.url_for("/leak"))
        blocked = "(error) => 'blocked'"
        assert browser.run(f"fetch({leak}).then(() => 'loaded', {blocked})") == "blocked"
        assert browser.run(LOAD_IMAGE % leak) == "blocked"
        browser.run(ADD_SCRIPT)
        assert browser.run("typeof window.hacked") == "undefined"
        assert httpserver.log == []

    def test_a_thousand_edits_stay_light(self, browser: Any, tmp_path: Path) -> None:
        write(RecordWriter(tmp_path / "r"), "edit 0", Verification(score=0.0, verdicts=verdicts(True, False, None)), 0)
        [path] = (tmp_path / "r").glob("records-*")
        line = path.read_text()
        path.write_text("".join(line.replace("edit 0", f"edit {at}") for at in range(1000)))
        write_report(tmp_path / "r", tmp_path / "page.html")
        browser.open(tmp_path / "page.html")
        assert browser.run("document.getElementById('count').textContent") == "1,000 edits"
        cards = "document.querySelectorAll('.card').length"
        first = browser.run(cards)
        assert 30 <= first <= 120
        browser.run("scrollTo(0, document.body.scrollHeight)")
        browser.wait(f"{cards} > {first}")
        browser.run("document.getElementById('more').click()")
        assert self.choose(browser, q="edit 999") == ["edit 999"]

    def test_dark_and_light_are_readable(self, browser: Any, page: Path) -> None:
        paper = set()
        for dark in (False, True):
            browser.open(page, dark=dark)
            colours = browser.run(COLOURS)
            paper.add(colours[0][2])
            for name, ink, back in colours:
                assert contrast(ink, back) >= 4.5, (dark, name, ink, back)
        assert len(paper) == 2

    def test_people_without_a_mouse_or_eyes(self, browser: Any, page: Path) -> None:
        browser.open(page)
        assert browser.run(UNNAMED) == []
        assert browser.run("document.querySelectorAll('[onclick], div[role=button], a:not([href])').length") == 0
        assert browser.run("document.documentElement.lang") == "en"
        # A narrow window scrolls in one direction only.
        browser.open(page, width=380)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two CSS colours `rgb(r, g, b)`."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
