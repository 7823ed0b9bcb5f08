"""`editr1 eval editor`: usage, exit status, what it prints, and the page that `editr1 report` makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image

from editr1_plugins.cli import main
from editr1_plugins.miniedit.model import load_pipeline
from editr1_plugins.miniedit.pairs import split_tasks
from editr1_plugins.miniedit.world import draw

DARKER = "make the image darker"


def editor(*arguments: object) -> int:
    return main(["eval", "editor", *(str(each) for each in arguments)])


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    """Three edits to be made of one photograph-like source; two were made, well and not at all."""
    noise = Image.effect_noise((64, 64), 60).convert("RGB")
    noise.save(tmp_path / "source.png")
    rows = [{"source": "source.png", "instruction": DARKER, "id": name, "category": name} for name in "abc"]
    rows[1]["instruction"] = f"{DARKER} <script>alert(1)</script>"
    (tmp_path / "edits.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "made").mkdir()
    noise.point(lambda level: level // 2).save(tmp_path / "made" / "a.png")
    noise.save(tmp_path / "made" / "b.png")
    return tmp_path


class TestImages:
    def test_made_images_are_judged_and_missing_ones_counted(
        self, edits: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = ["--bench", "edits", "--data", edits / "edits.jsonl", "--images", edits / "made", "--verifier", "measure"]
        assert editor(*run, "--output", edits / "out", "--json") == 3
        found = json.loads(capsys.readouterr().out)
        assert found["kind"] == "editor"
        assert set(found) >= {"official", "sane", "judge", "editor"}
        assert found["sane"]["by_category"]["a"]["score"] > 9
        assert found["sane"]["failures"]["no_image"] == 1
        assert json.loads((edits / "out" / "summary.json").read_text()) == found

    def test_the_page_shows_hostile_texts_as_text_and_loads_nothing(self, edits: Path) -> None:
        run = ["--bench", "edits", "--data", edits / "edits.jsonl", "--images", edits / "made", "--verifier", "measure"]
        editor(*run, "--output", edits / "out")
        assert main(["report", str(edits / "out"), "-o", str(edits / "page.html")]) == 0
        page = (edits / "page.html").read_text()
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "<script" not in page
        assert not re.search(r"""(src|href)=["'](?!data:)""", page)
        assert "default-src 'none'" in page
        assert "no_image: none named c.png" in page
        assert page.count("<img") >= 4
        # The judge's words are in the other page.
        assert main(["report", str(edits / "out"), "--records", "-o", str(edits / "records.html")]) == 0
        assert "<script" in (edits / "records.html").read_text()

    @pytest.mark.parametrize(
        ("part", "value"),
        [
            ("sane", {"mean": [1], "by_category": {"a": 7}, "failures": "x", "interval": {"score": ["a", {}]}}),
            ("limits", 5),
            ("comparison", {"numbers": {"score": {"interval": 3}}, "moved": {"up": 4, "down": [{"source": ["x"]}]}}),
            ("comparison", {"moved": {"up": [{"source": "../../secret.png", "before": 1, "after": {"edited": "/x"}}]}}),
            ("editor", {"call": {"a": {"b": 1}}, "model": ["<b>"]}),
        ],
    )
    def test_a_broken_summary_is_shown_as_far_as_it_goes(self, edits: Path, part: str, value: Any) -> None:
        run = ["--bench", "edits", "--data", edits / "edits.jsonl", "--images", edits / "made", "--verifier", "measure"]
        editor(*run, "--output", edits / "out")
        path = edits / "out" / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))
        assert main(["report", str(edits / "out"), "-o", str(edits / "page.html")]) == 0
        assert "secret" not in (edits / "page.html").read_text()


class TestMiniEdit:
    def test_gold_without_a_judge(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The goal itself, the source and nothing at all, measured by the truth of the world."""
        tasks = split_tasks(3, seed=7, held_out=True)
        (tmp_path / "made").mkdir()
        draw(tasks[0].goal).save(tmp_path / "made" / "00000.png")
        draw(tasks[1].scene).save(tmp_path / "made" / "00001.png")
        run = ["--bench", "miniedit:3", "--images", tmp_path / "made", "--output", tmp_path / "out"]
        assert editor(*run, "--json") == 3
        found = json.loads(capsys.readouterr().out)
        assert found["sane"]["mean"]["gold"] == pytest.approx(5.0, abs=0.1)
        assert found["judge"] == "gold measure"
        assert found["sane"]["failures"] == {"no_image": 1}

    def test_before_and_after_a_lora(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        torch.manual_seed(0)
        pipe = load_pipeline()
        pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
        layers = get_peft_model_state_dict(pipe.transformer)
        pipe.save_lora_weights(tmp_path / "lora", transformer_lora_layers=layers)
        run = ["--bench", "miniedit:4", "--model", "miniedit", "--steps", 2, "--lora", tmp_path / "lora", "--before"]
        run += ["--verifier", "measure", "--output", tmp_path / "out"]
        assert editor(*run) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "miniedit:4, 4 edits, 0 % failed"
        compared = lines[lines.index("comparison on the same edits") :]
        assert any(line.startswith("  gold ") and ".." in line for line in compared)
        found = json.loads((tmp_path / "out" / "summary.json").read_text())
        before = json.loads((tmp_path / "out" / "before" / "summary.json").read_text())
        assert (before["editor"]["lora"], found["editor"]["lora"]) == (None, str(tmp_path / "lora"))
        number = found["comparison"]["numbers"]["gold"]
        assert number["before"] == before["sane"]["mean"]["gold"]
        assert number["after"] == found["sane"]["mean"]["gold"] != number["before"]
        assert main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "page.html")]) == 0
        page = (tmp_path / "page.html").read_text()
        assert "Before and after" in page
        assert "no picture" not in page
        # Trained on, it is another LoRA at the same place.
        more = {name: 2 * layer for name, layer in layers.items()}
        pipe.save_lora_weights(tmp_path / "lora", transformer_lora_layers=more)
        capsys.readouterr()
        assert editor(*run) == 2
        assert "lora_digest was" in capsys.readouterr().err

    def test_processes_share_the_work(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = ["--bench", "miniedit:3", "--model", "miniedit", "--steps", 1, "--output", tmp_path / "out"]
        assert editor(*run, "--shard", "1/2") == 0
        assert capsys.readouterr().out == "1 edits made, 0 failed\n"
        # As `accelerate launch` tells a process who it is.
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "0")
        assert editor(*run, "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"kind": "shard", "shard": [0, 2], "made": 2, "failed": 0}
        assert not (tmp_path / "out" / "summary.json").exists()
        monkeypatch.delenv("WORLD_SIZE")
        assert editor(*run, "--json") == 0
        assert json.loads(capsys.readouterr().out)["items"] == 3
        assert len(list((tmp_path / "out").glob("edits-*.jsonl"))) == 2


def test_recorded_answers_are_counted_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, score in (("old", 3), ("new", 5)):
        (tmp_path / name / "biology").mkdir(parents=True)
        (tmp_path / name / "biology" / "metrics.json").write_text(json.dumps({"1": {"quality_score": score}}))
    run = ["--bench", "kris", "--predictions", tmp_path / "new", "--compare", tmp_path / "old", "--json"]
    assert editor(*run) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["official"]["average"] == 100.0
    assert found["comparison"]["numbers"]["VQ"]["difference"] == 50.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bench", "gedit"], "give one of --model ID, --images FOLDER and --predictions FILE"),
        (["--bench", "gedit", "--model", "m", "--images", "i"], "give one of --model ID"),
        (["--bench", "gedit", "--model", "m"], "give --output DIR"),
        (["--bench", "gedit", "--images", "i", "--lora", "l", "--output", "o"], "--lora needs --model"),
        (["--bench", "gedit", "--model", "m", "--before", "--output", "o"], "--before compares a LoRA"),
        (["--bench", "pairs", "--model", "m", "--output", "o"], "is about judges; use `editr1 eval judge`"),
        (["--bench", "gedits", "--model", "m", "--output", "o"], "did you mean 'gedit'"),
        (["--bench", "edits", "--model", "m", "--output", "o"], "--data"),
        (["--bench", "miniedit", "--model", "m", "--output", "o", "--limit", "0"], "--limit must be at least 1"),
        (["--bench", "miniedit", "--model", "m", "--output", "o", "--shard", "2/2"], "--shard is I/N"),
        (["--bench", "miniedit", "--model", "absent", "--output", "o"], "'absent' cannot be loaded"),
        (["--bench", "miniedit", "--model", "miniedit:no", "--output", "o"], "no MiniEdit weights 'no'"),
        (["--bench", "miniedit", "--images", "absent", "--output", "o"], "no folder absent"),
        (
            ["--bench", "miniedit", "--model", "m", "--output", "o", "--verifier", "pairwise:m@http://x/v1"],
            "one by one",
        ),
        (["--bench", "kris", "--predictions", "p", "--verifier", "measure"], "leave --verifier and --shard out"),
        (["--bench", "kris", "--predictions", "absent"], "no file or folder absent"),
    ],
)
def test_usage_errors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("EDITR1_VERIFIER", raising=False)
    assert editor(*arguments) == 2
    assert message in capsys.readouterr().err
