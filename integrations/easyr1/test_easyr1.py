"""The adapter within EasyR1's own `AutoRewardManager` and configuration (EasyR1 at b44b311, from its checkout).

    EDITR1_HOST_EASYR1=CHECKOUT pytest integrations/easyr1

It needs torch, ray, tensordict, omegaconf and codetiming beside this package. EasyR1's package is named `verl`, as that
of PyPI is: in an environment that has both, run these tests alone.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("EDITR1_HOST_EASYR1"):
    pytest.skip("set EDITR1_HOST_EASYR1 to a checkout of EasyR1 (run with b44b311)", allow_module_level=True)
if "verl" in sys.modules:
    pytest.skip("another package named verl is loaded; run these tests alone", allow_module_level=True)
sys.path.insert(0, os.environ["EDITR1_HOST_EASYR1"])
try:
    from verl.protocol import DataProto
    from verl.workers.reward import AutoRewardManager, RewardConfig
except ImportError as error:
    pytest.skip(f"EasyR1 cannot be imported: {error}", allow_module_level=True)

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

from editr1_plugins.errors import UnscoredError
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

HERE = Path(__file__).parent
KWARGS = "worker.reward.reward_function_kwargs"


class Tokenizer:
    """Decodes a reply from its bytes."""

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return bytes(int(each) for each in ids).decode()


def manager_of(name: str, *overrides: str) -> Any:
    """The manager that a job gets from our YAML, read as EasyR1's `main` does; its working directory is ours."""
    reward = OmegaConf.merge(OmegaConf.load(HERE / name), OmegaConf.from_dotlist(list(overrides))).worker.reward
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RewardConfig()), reward))
    before = Path.cwd()
    os.chdir(HERE.parents[1])
    try:
        config.post_init()
        return AutoRewardManager(config, Tokenizer())
    finally:
        os.chdir(before)


@pytest.mark.parametrize("name", ["config.yaml", "judge.yaml"])
def test_the_host_knows_every_key(name: str) -> None:
    theirs = OmegaConf.load(Path(os.environ["EDITR1_HOST_EASYR1"]) / "examples" / "config.yaml")
    ours = OmegaConf.load(HERE / name)
    for room in ("data", "algorithm"):
        assert set(ours[room]) <= set(theirs[room])
    assert set(ours) <= set(theirs)


def base64_png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def data_of(truths: Sequence[str], texts: Sequence[str] | None = None) -> Any:
    texts = texts or ["done"] * len(truths)
    longest = max(len(text) for text in texts)
    replies = torch.tensor([[*text.encode(), *[0] * (longest - len(text))] for text in texts])
    masks = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    return DataProto.from_dict(
        tensors={"responses": replies, "response_mask": masks},
        non_tensors={"ground_truth": np.array(truths, dtype=object)},
    )


def truth(edit: Edit) -> str:
    images = {"source": base64_png(edit.source), "edited": base64_png(edit.edited)}
    return json.dumps({**images, "instruction": edit.instruction})


class TestEasyR1(AdapterContract):
    """The contract of an adapter, through EasyR1's manager."""

    picklable = False  # its module is loaded from a file and has no name to be found by; Ray makes one in its actor

    def build(self, **settings: Any) -> Any:
        manager = manager_of("config.yaml", f"{KWARGS}.top=10", f"{KWARGS}.editor=null", f"{KWARGS}.image_folder=null")
        manager.reward_fn = partial(manager.reward_fn, **settings)  # objects do not fit a configuration
        return manager

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        rewards, metrics = adapter.compute_reward(data_of([truth(edit) for edit in edits]))
        # The host keeps rewards as float32, at the last token.
        assert rewards[:, -1].tolist() == pytest.approx(metrics["overall"])
        assert len(metrics["editr1/missing"]) == len(edits)
        return metrics["overall"]


def test_an_editor_follows_the_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "darken.py").write_text(
        "def edit(source, text):\n    return source.point(lambda value: int(value * float(text)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    photo = Image.effect_noise((64, 48), 60).convert("RGB")
    photo.save(tmp_path / "one.png")
    settings = (f"{KWARGS}.verifier=measure", f"{KWARGS}.image_folder={tmp_path}", f"{KWARGS}.editor=darken.edit")
    manager = manager_of("config.yaml", *settings)
    row = json.dumps({"source": "one.png", "instruction": "make the image darker"})
    texts = ["<edit>0.5</edit>", "<edit>1.0</edit>", ""]
    rewards, metrics = manager.compute_reward(data_of([row] * 3, texts))
    edits = [
        Edit(
            source=photo, edited=photo.point(lambda value, by=by: int(value * by)), instruction="make the image darker"
        )
        for by in (0.5, 1.0, 1.0)
    ]
    said = [each.score for each in EditRRMReward("measure").score(edits)]
    assert metrics["overall"] == [score * 0.1 for score in said if score is not None]
    assert metrics["overall"][0] > 0.9 > 0.1 > metrics["overall"][1] == metrics["overall"][2]
    lengths = [len(text) for text in texts]
    assert [rewards[row, length - 1].item() for row, length in enumerate(lengths)] == pytest.approx(metrics["overall"])


def test_a_policy_that_judges() -> None:
    reply = '[{"question": "Is it red?", "score": 1}]\n{"average_score": 1.0}\n<score>6</score>'
    rewards, metrics = manager_of("judge.yaml").compute_reward(data_of(["7", "7"], [reply, "Fine."]))
    assert metrics == {"overall": [0.9, 0.0], "editr1/error": [1.0, 10.0], "editr1/unread": [0.0, 1.0]}
    assert rewards.sum(-1).tolist() == pytest.approx([0.9, 0.0])


def test_nothing_is_built_before_it_is_asked() -> None:
    manager = manager_of("config.yaml", f"{KWARGS}.verifier=openai:judge@http://127.0.0.1:9/v1")
    assert manager.reward_type == "batch"


def test_what_easyr1_makes_of_a_missing_score() -> None:
    manager = manager_of("config.yaml")
    manager.reward_fn = lambda inputs: [{"overall": None} for _ in inputs]
    with pytest.raises(TypeError):
        manager.compute_reward(data_of(["x"]))


def test_too_many_missing_scores_end_the_run() -> None:
    settings = {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}
    manager = manager_of("config.yaml", f"{KWARGS}.editor=null", f"{KWARGS}.image_folder=null")
    manager.reward_fn = partial(manager.reward_fn, **settings)
    black = Edit(source=Image.new("RGB", (9, 9)), edited=Image.new("RGB", (9, 9), (1, 1, 1)), instruction="refuse")
    with pytest.raises(UnscoredError, match="told to"):
        manager.compute_reward(data_of([truth(black)]))
