"""PKU's Edit-R1: its own configurations with our rewards, and our reward under the name of its judge.

    EDITR1_HOST_EDIT_R1=CHECKOUT pytest integrations/edit_r1

Run with 4217f25. The contract of an adapter and the arithmetic around it are tested in `integrations/flow_grpo`, with
this checkout named there as well: the reward module is a fork. The configuration needs ml_collections.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from editr1_plugins.adapters.flow_grpo import install
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier

FOLDER = os.environ.get("EDITR1_HOST_EDIT_R1")
NAMES = ["kontext_mllm_reward", "kontext_mllm_reward_ban_prompt", "qwen_mllm_reward"]

pytestmark = pytest.mark.skipif(
    not FOLDER, reason="$EDITR1_HOST_EDIT_R1 names no checkout of PKU-YuanGroup/Edit-R1; run with 4217f25"
)


@pytest.fixture
def rewards(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in [each for each in sys.modules if each.partition(".")[0] == "flow_grpo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(str(FOLDER))
    yield importlib.import_module("flow_grpo.rewards")
    for name in [each for each in sys.modules if each.partition(".")[0] == "flow_grpo"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_file(rewards: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ml_collections")
    from absl import flags
    from ml_collections import config_flags

    monkeypatch.setenv("EDITR1_VERIFIER", "measure")
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    # ml_collections looks for overrides in the command line itself.
    monkeypatch.setattr(
        sys, "argv", ["script", f"--config={Path(__file__).with_name('editr1.py')}:{name}", "--config.dataset=mine"]
    )
    values(sys.argv)
    config = values.config
    assert config.reward_fn.to_dict() == {"editr1": 1.0}
    assert config.dataset == "mine"
    assert config.base_model == ("qwen_image_edit" if "qwen" in name else "kontext")
    assert config.sample.ban_mean_thres == 0.9  # of rewards in 0..1, as ours are
    reward = rewards.multi_score("cpu", config.reward_fn)
    details, _ = reward(torch.zeros(1, 3, 16, 16), ["make it darker"], [{}], [_source()], only_strict=True)
    assert set(details) == {"editr1", "editr1_missing", "avg"}


def test_in_the_place_of_its_own_judge(rewards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_asked(device: Any) -> Any:
        raise AssertionError("the host's judge was built")

    monkeypatch.setattr(rewards, "mllm_score_continue", not_asked)
    install(name="mllm_score_continue", verifier=ShadeVerifier(), decomposer=OneQuestion(), guards=())
    images = torch.zeros(2, 3, 16, 16)
    images[0, 0] = 1.0
    reward = rewards.multi_score("cpu", {"mllm_score_continue": 1.0})
    details, _ = reward(images, ["make it red"] * 2, [{"requirement": "None"}] * 2, [_source()] * 2, only_strict=True)
    assert details["mllm_score_continue"] == details["avg"] == [1.0, 0.0]


def _source() -> Image.Image:
    return Image.new("RGB", (16, 16), (90, 90, 90))
