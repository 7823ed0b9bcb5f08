"""Small real TRL jobs: an editor that paints, policies that can say a few sentences, and what their logs show."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pandas as pd
import pytest
from PIL import Image

from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier

FOLDER = Path(__file__).parents[1] / "integrations" / "trl"
#: What a policy can tell the painter; "make it fail" makes it raise.
PLANS = ("make it red", "make it maroon", "make it fail")
REWARDS = {"red": 10.0, "maroon": 10 * 128 / 255, "fail": None}
NAME = "edit_rrm_ShadeVerifier"


class Painter:
    """An editor that paints everything in the colour that the prompt's last word names; `told` is what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def edit(self, source: Image.Image, prompt: str) -> Image.Image:
        self.told.append(prompt)
        return Image.new("RGB", source.size, prompt.split()[-1])  # ValueError where it is no colour


class Shade(ShadeVerifier):
    """Ten times the red of the first pixel; an edit that is white, as sources are, was not edited and gets 0."""

    def _judged(self, edit: Any, asked: Any) -> Any:
        if edit.edited.getpixel((0, 0)) == (255, 255, 255):
            edit = type(edit)(source=edit.source, edited=Image.new("RGB", (1, 1)), instruction=edit.instruction)
        return super()._judged(edit, asked)


def judge(**settings: Any) -> EditRRMReward:
    return EditRRMReward(Shade(), OneQuestion(), guards=(), name=NAME, **settings)


def rows(column: str = "source_image", ask: str = "Tell the editor: make it red", count: int = 2) -> datasets.Dataset:
    columns = {
        "prompt": [[{"role": "user", "content": ask}]] * count,
        column: [Image.new("RGB", (16, 16), "white")] * count,
        "instruction": ["make it red"] * count,
    }
    return datasets.Dataset.from_dict(columns).cast_column(column, datasets.Image())


def settings(output: Path, **changed: Any) -> dict[str, Any]:
    """Of `GRPOConfig` and `RLOOConfig`: two steps, each of two groups of four."""
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 4,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "bf16": False,
        "logging_steps": 1,
        "log_completions": True,
        "num_completions_to_print": 0,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        **changed,
    }


def trained(trainer: Any) -> bool:
    """Train, and whether the weights have moved."""
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    return any(not value.equal(before[name]) for name, value in trainer.model.named_parameters())


def table(output: Path) -> pd.DataFrame:
    """TRL's own table of completions, rewards and advantages, all steps."""
    return pd.concat([pd.read_parquet(path) for path in sorted((output / "completions").glob("*.parquet"))])


def last_batch(trainer: Any) -> pd.DataFrame:
    """The same of the last step, from memory: `RLOOTrainer` keeps no table, and no table can hold images of tools."""
    logs = trainer._logs
    columns = {"completion": logs["completion"], **logs["rewards"], **logs["extra"], "advantage": logs["advantages"]}
    return pd.DataFrame({name: list(values) for name, values in columns.items()})


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def check_rewards(rewards: Sequence[float], colours: Sequence[str]) -> None:
    """The reward of each row is that of its colour, and all colours were there."""
    assert set(colours) == set(REWARDS)
    for reward, colour in zip(rewards, colours, strict=True):
        expected = REWARDS[colour]
        assert math.isnan(reward) if expected is None else reward == pytest.approx(expected)


def make_tiny() -> ModuleType:
    """The module `integrations/trl/make_tiny.py`."""
    spec = importlib.util.spec_from_file_location("make_tiny", FOLDER / "make_tiny.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
