"""The adapter within Flow-Factory's own arguments, loader, samples, reward processor and buffer.

    EDITR1_HOST_FLOW_FACTORY=CHECKOUT pytest integrations/flow_factory

Run with a0b2bc5. Nothing of the host is replaced.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from editr1_plugins.errors import UnscoredError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

if "EDITR1_HOST_FLOW_FACTORY" not in os.environ:
    pytest.skip(
        "$EDITR1_HOST_FLOW_FACTORY names no checkout of X-GenGroup/Flow-Factory; run with a0b2bc5",
        allow_module_level=True,
    )
sys.path.insert(0, os.path.join(os.environ["EDITR1_HOST_FLOW_FACTORY"], "src"))

from accelerate import Accelerator
from flow_factory.hparams import MultiRewardArguments, RewardArguments
from flow_factory.hparams.args import Arguments
from flow_factory.rewards import MultiRewardLoader, RewardBuffer, RewardProcessor, get_reward_model_class
from flow_factory.samples import I2ISample

NAME = "editr1_plugins.adapters.flow_factory.EditRRMRewardModel"
HOST = Path(os.environ["EDITR1_HOST_FLOW_FACTORY"])
EXAMPLE = Path(__file__).with_name("kontext_editr1.yaml")


def arguments(**settings: Any) -> RewardArguments:
    given = {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": (), **settings}
    return RewardArguments.from_dict({"name": "editr1", "reward_model": NAME, "device": "cpu", **given})


def loader(*configs: RewardArguments) -> Any:
    return MultiRewardLoader(MultiRewardArguments(reward_configs=list(configs)), Accelerator(cpu=True)).load()


def processor(loaded: Any) -> Any:
    models, configs = loaded.get_training_reward_models(), loaded.get_reward_configs("train")
    return RewardProcessor(Accelerator(cpu=True), models, configs, verbose=False)


def sample(edit: Edit) -> Any:
    return I2ISample(prompt=edit.instruction, image=edit.edited, condition_images=[edit.source])


def edits(*reds: int, instruction: str = "make it red") -> list[Edit]:
    source = Image.new("RGB", (24, 24), (0, 0, 60))
    return [
        Edit(source=source, edited=Image.new("RGB", (24, 24), (red, 1, 1)), instruction=instruction) for red in reds
    ]


class TestInTheHost(AdapterContract):
    """Through its registry and base class; scores are compared as they leave the model, before they are rounded."""

    picklable = False  # nothing there pickles a reward model

    def build(self, **settings: Any) -> Any:
        return loader(arguments(**settings)).get_training_reward_models()["editr1"]

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        samples = [sample(edit) for edit in edits]
        said: list[float] = []

        def kept(**fields: Any) -> Any:
            output = adapter(**fields)
            said.extend(output.rewards)
            return output

        model = _Kept(adapter, kept)
        rewards = RewardProcessor(Accelerator(cpu=True), {}, verbose=False)._compute_pointwise_batch(
            "editr1", model, samples
        )
        assert torch.equal(rewards, torch.tensor(said, dtype=torch.float32))
        return said


class _Kept:
    """A reward model whose answers are looked at; the processor reads its call's signature."""

    def __init__(self, model: Any, call: Any) -> None:
        self.use_tensor_inputs, self.device, self._call = model.use_tensor_inputs, model.device, call

    def __call__(self, prompt: Any, image: Any = None, condition_images: Any = None) -> Any:
        return self._call(prompt=prompt, image=image, condition_images=condition_images)


def test_the_whole_way_in_batches() -> None:
    found = processor(loader(arguments(batch_size=2))).compute_rewards([sample(each) for each in edits(255, 51, 102)])
    assert found["editr1"].tolist() == [10.0, 2.0, 4.0]


def test_beside_sampling_in_threads() -> None:
    buffer = RewardBuffer(processor(loader(arguments(batch_size=2, async_reward=True, num_workers=4))), group_size=4)
    reds = list(range(0, 250, 10))
    for each in edits(*reds):
        buffer.add_samples([sample(each)])
    found = buffer.finalize()["editr1"]
    assert found.numpy() == pytest.approx(np.array(reds) / 25.5, abs=1e-5)
    buffer.clear()


def test_a_missing_score_gets_the_mean_and_too_many_end_the_run() -> None:
    judge = processor(loader(arguments(batch_size=2)))
    found = judge.compute_rewards([sample(each) for each in edits(255, 51, 1, instruction="refuse")])
    assert found["editr1"].tolist() == [10.0, 2.0, 6.0]
    with pytest.raises(UnscoredError, match="refused: told to"):
        processor(loader(arguments())).compute_rewards([sample(each) for each in edits(1, instruction="refuse")])


def test_training_and_evaluation_share_one_judge() -> None:
    rewards = MultiRewardArguments(reward_configs=[RewardArguments.from_dict(_plain("measure"))])
    both = MultiRewardLoader(rewards, Accelerator(cpu=True), eval_reward_args=rewards).load()
    assert both.get_unique_model_count() == 1


def test_a_misspelt_setting_is_an_error_when_the_rewards_are_loaded() -> None:
    with pytest.raises(ValueError, match="'sample'"):
        loader(RewardArguments.from_dict({**_plain("measure"), "sample": 2}))


def test_the_pixels_are_not_guessed_at() -> None:
    """The host reads pixels of -1e-3..1 as -1..1 where it makes PIL images; ours gets the tensor."""
    verifier = ShadeVerifier()
    pixels = torch.zeros(3, 24, 24)
    pixels[0] = 1.0
    pixels[1] = -1e-3
    source = Image.new("RGB", (24, 24))
    judge = processor(loader(arguments(verifier=verifier)))
    found = judge.compute_rewards([I2ISample(prompt="make it red", image=pixels, condition_images=[source])])
    assert found["editr1"].tolist() == [10.0]


def test_the_example(tmp_path: Path) -> None:
    config = Arguments.load_from_yaml(str(EXAMPLE))
    assert config.model_args.model_type == "flux1-kontext"
    assert config.training_args.trainer_type == "nft"
    (reward,) = config.reward_args
    assert get_reward_model_class(reward.reward_model).__name__ == "EditRRMRewardModel"
    assert set(reward.extra_kwargs) == {"verifier", "missing", "record"}
    reward.extra_kwargs["record"] = str(tmp_path)
    assert loader(reward).get_training_reward_models()["editr1"].device == torch.device("cpu")


def test_the_example_is_the_hosts_own_but_for_the_rewards() -> None:
    theirs = HOST / "examples" / "nft" / "lora" / "flux1_kontext" / "rational_rewards_edit.yaml"
    ours, own = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (EXAMPLE, theirs))
    assert ours.pop("rewards") != own.pop("rewards")
    assert ours == own


def _plain(verifier: str) -> dict[str, Any]:
    return {"name": "editr1", "reward_model": NAME, "device": "cpu", "verifier": verifier}
