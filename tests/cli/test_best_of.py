"""`editr1 best-of` with MiniEdit's pipeline: pictures and record on disk, exit status, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1_plugins.cli import main
from editr1_plugins.miniedit import model
from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import draw
from editr1_plugins.types import Verification
from editr1_plugins.verifiers.measure import MeasureVerifier


@pytest.fixture(scope="module")
def pipe() -> Any:
    return model.load_pipeline()


@pytest.fixture(autouse=True)
def loaded_once(pipe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model, "load_pipeline", lambda: pipe)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def best_of(*arguments: str, n: int = 3) -> int:
    return main(["best-of", *arguments, "-n", str(n), "--steps", "4", "--verifier", "measure", "--output", "out"])


def test_a_drawing_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert best_of("--seed", "5", "--save-all") == 0
    lines = capsys.readouterr().out.splitlines()
    record = json.loads(Path("out/best_of.json").read_text())
    scores = [row["score"] for row in record["candidates"]]
    assert record["best"] == int(np.argmax(scores))
    assert lines[0] == record["instruction"] == sample_tasks(1, seed=5)[0].instruction
    assert lines[1 + record["best"]].endswith("best")
    best = Image.open("out/best.png")
    assert best.tobytes() == Image.open(f"out/edit-{record['best']:02}.png").tobytes()
    assert len(list(Path("out").glob("edit-*.png"))) == 3
    assert [row["seed"] for row in record["candidates"]] == [5, 6, 7]
    assert record["judge"]["verifier"].startswith("measure")


def test_the_same_command_gives_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    def once() -> dict[str, Any]:
        assert best_of("--json") == 0
        record: dict[str, Any] = json.loads(capsys.readouterr().out)
        del record["seconds"]
        return record

    assert once() == once()


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    [task] = sample_tasks(1, seed=3)
    draw(task.scene).save("scene.png")
    assert best_of("scene.png", task.instruction, n=1) == 0
    assert Image.open("out/source.png").tobytes() == Image.open("scene.png").tobytes()


def test_what_is_not_reached_is_exit_status_4_and_saved(capsys: pytest.CaptureFixture[str]) -> None:
    assert best_of("--until", "10", "--max-rounds", "2", "--seed", "1", n=1) == 4
    assert capsys.readouterr().out.splitlines()[-1] == "10 was not reached in 2 round(s)"
    assert Path("out/best.png").exists()


def test_nothing_judged_is_exit_status_3_and_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(self: Any, edits: Sequence[Any], principles: Sequence[Any]) -> list[Verification]:
        return [Verification(score=None, failure="the judge\x1b[2J is ill") for _ in edits]

    Path("out").mkdir()
    Path("out/best.png").write_bytes(b"of a former run")
    monkeypatch.setattr(MeasureVerifier, "verify", verify)
    assert best_of("--seed", "5") == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("no best edit: none of 3 edits could be judged")
    assert "\x1b" not in last
    assert not Path("out/best.png").exists()
    assert json.loads(Path("out/best_of.json").read_text())["failure"] is not None


def test_records_for_the_report() -> None:
    assert best_of("--record", "records") == 0
    assert main(["report", "records", "-o", "page.html"]) == 0


def test_a_folder_with_a_lora(tmp_path: Path) -> None:
    from diffusers import FluxKontextPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    own = FluxKontextPipeline.from_pretrained(model.weights_path())
    own.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights="gaussian"))
    own.save_lora_weights("lora", transformer_lora_layers=get_peft_model_state_dict(own.transformer))
    [task] = sample_tasks(1, seed=3)
    draw(task.scene).save("scene.png")
    call = json.dumps(dict(model.CALL))
    options = ["--model", str(model.weights_path()), "--device", "cpu", "--call", call]
    assert best_of("scene.png", task.instruction, *options, "--lora", "lora", n=1) == 0
    assert best_of("scene.png", task.instruction, *options, "--lora", "./none", n=1) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png"], "SOURCE and INSTRUCTION"),
        (["photo.png", "make it red"], "got 64x48; give --model"),
        (["none.png", "make it red"], "cannot be read"),
        (["--model", "x/y"], "--model needs SOURCE"),
        (["--call", "{"], "--call is not JSON"),
        (["--call", "[1]"], "must be a JSON object"),
        (["--call", '{"depth": 1}'], "takes no depth"),
        (["--until", "12"], "until=12"),
        (["photo.png", "x", "--model", "./none"], "cannot be loaded"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 48)).save("photo.png")
    assert best_of(*arguments) == 2
    assert message in capsys.readouterr().err
