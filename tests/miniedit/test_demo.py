"""The demo: the shipped weights, what it writes, and that RL with the verified reward makes the editor better."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1_plugins.cli import main
from editr1_plugins.errors import ConfigError
from editr1_plugins.miniedit import demo
from editr1_plugins.miniedit.demo_run import DemoSettings
from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.model import CALL, load_pipeline, weights_path
from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import draw

FIGURES = {"heldout_before", "heldout_after", "heldout_control", "reward_first", "reward_last", "seconds"}


class OneByOne(ThreadPoolExecutor):
    """The arms of a run one after the other, here."""

    def __init__(self, workers: int, **_: Any) -> None:
        super().__init__(1)


def gold_mean(weights: str) -> float:
    import torch

    tasks = sample_tasks(96, seed=77)
    images = load_pipeline(weights)(
        image=[draw(task.scene) for task in tasks],
        prompt=[task.instruction for task in tasks],
        num_inference_steps=8,
        generator=torch.Generator().manual_seed(0),
        **CALL,
    ).images
    return float(np.mean([gold_score(task, image).score for task, image in zip(tasks, images, strict=True)]))


def test_shipped_weights_edit_and_the_start_has_room_to_grow() -> None:
    clean, start = gold_mean("clean"), gold_mean("start")
    assert clean > 7
    assert 1 < start < clean - 2
    size = sum(path.stat().st_size for path in weights_path("clean").parent.rglob("*.safetensors"))
    assert size < 10_000_000


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="one of: clean, start"):
        load_pipeline("dirty")


def test_demo_writes_what_it_promises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, fewer in {"held_out": 24, "prompts": 2, "group": 4}.items():
        monkeypatch.setitem(DemoSettings.__init__.__kwdefaults__, name, fewer)
    monkeypatch.setattr(demo, "ProcessPoolExecutor", OneByOne)  # two processes take longest to start
    assert main(["demo", "--output", str(tmp_path), "--updates", "1", "--json"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert json.loads(capsys.readouterr().out) == summary
    assert summary.keys() >= FIGURES
    (seed,) = summary["per_seed"]
    assert seed.keys() == {*FIGURES, "seed"}
    for name in ("before_after.png", "curve.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 500
    pipe = load_pipeline()
    pipe.load_lora_weights(str(tmp_path / "lora"))
    assert pipe.get_active_adapters() == ["default_0"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_rl_with_the_verified_reward_improves_held_out_edits(tmp_path: Path) -> None:
    assert main(["demo", "--output", str(tmp_path), "--json"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["heldout_after"] - summary["heldout_before"] >= 1.5
    assert summary["heldout_control"] - summary["heldout_before"] <= 0.3
    assert summary["reward_last"] > summary["reward_first"]
