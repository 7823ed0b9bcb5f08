"""Flow-Factory's reward model: the contract of an adapter, against the base class as its processor uses it.

The base class is written anew here; `integrations/flow_factory` asks the real loader and processor.
"""

from __future__ import annotations

import importlib
import logging
import pickle
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from editr1_plugins.adapters import flow_factory
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

JUDGE: dict[str, Any] = {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}
EXAMPLES = sorted((Path(__file__).parents[2] / "integrations" / "flow_factory").glob("*.yaml"))


class PointwiseRewardModel:
    def __init__(self, config: Any, accelerator: Any) -> None:
        self.config, self.accelerator, self.device = config, accelerator, config.device


class RewardModelOutput:
    def __init__(self, rewards: Any, extra_info: Any = None) -> None:
        self.rewards, self.extra_info = rewards, extra_info


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = types.ModuleType("flow_factory.rewards.abc")
    vars(module).update(PointwiseRewardModel=PointwiseRewardModel, RewardModelOutput=RewardModelOutput)
    for name in ("flow_factory", "flow_factory.rewards"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    flow_factory._reward_model.cache_clear()
    yield
    flow_factory._reward_model.cache_clear()


def config(**settings: Any) -> Any:
    return types.SimpleNamespace(name="editr1", device=torch.device("cpu"), batch_size=16, extra_kwargs=settings)


def model(**settings: Any) -> Any:
    return flow_factory.EditRRMRewardModel(config(**settings), None)


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class TestFlowFactory(AdapterContract):
    def build(self, **settings: Any) -> Any:
        return model(**settings)

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        output = adapter(
            prompt=[edit.instruction for edit in edits],
            image=[tensor(edit.edited) for edit in edits],
            condition_images=[[tensor(edit.source)] for edit in edits],
        )
        # What the processor does with it.
        assert torch.as_tensor(output.rewards, dtype=torch.float32).shape == (len(edits),)
        return output.rewards  # type: ignore[no-any-return]


def test_it_is_what_the_host_loads() -> None:
    found = importlib.import_module("editr1_plugins.adapters.flow_factory").EditRRMRewardModel
    assert issubclass(found, PointwiseRewardModel)
    assert found.__qualname__ == "EditRRMRewardModel"
    assert found.required_fields == ("prompt", "image", "condition_images")
    copy = pickle.loads(pickle.dumps(found(config(**JUDGE), None)))
    assert type(copy) is found


def test_metrics_and_the_mean() -> None:
    edits = [Image.new("RGB", (8, 8), (red, 1, 1)) for red in (255, 1, 0)]
    output = model(**JUDGE)(prompt=["refuse"] * 3, image=edits, condition_images=[[Image.new("RGB", (8, 8))]] * 3)
    assert output.rewards == [10.0, 5.0, 0.0]
    assert output.extra_info == {"editr1/missing": pytest.approx(1 / 3), "editr1/score": 5.0}


def test_a_last_batch_of_one_gets_the_mean_of_those_before() -> None:
    judge = model(**JUDGE)
    source = [[Image.new("RGB", (8, 8))]]
    for red, expected in ((255, 10.0), (51, 2.0), (1, 6.0)):
        edited = [Image.new("RGB", (8, 8), (red, 1, 1))]
        assert judge(prompt=["refuse"], image=edited, condition_images=source).rewards == [expected]


def test_of_several_sources_the_first() -> None:
    verifier = ShadeVerifier()
    judge = model(**{**JUDGE, "verifier": verifier})
    edited = tensor(Image.new("RGB", (8, 8)))
    first, second = Image.new("RGB", (20, 10)), Image.new("RGB", (9, 9))
    judge(prompt=["x"], image=[edited], condition_images=[[first, second]])
    judge(prompt=["x"], image=[edited], condition_images=[torch.zeros(2, 3, 6, 4)])
    assert [seen[0] for seen in verifier.seen] == [(20, 10), (4, 6)]


def test_without_sources_or_images() -> None:
    picture = [Image.new("RGB", (8, 8))]
    # The processor leaves a field out where one sample of the batch has none.
    with pytest.raises(DataError, match="no source images"):
        model(**JUDGE)(prompt=["x"], image=picture)
    with pytest.raises(DataError, match="no images"):
        model(**JUDGE)(prompt=["x"], condition_images=[picture])


def test_a_misspelt_key_of_the_yaml_ends_the_run_when_it_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="'verifer'"):
        model(verifer="measure")
    with pytest.raises(ConfigError, match="no-such-judge"):
        model(verifier="no-such-judge")
    with caplog.at_level(logging.INFO):
        model(verifier="measure")
    assert "reward 'editr1': {'verifier'" in caplog.text


def test_without_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flow_factory.rewards.abc", None)
    with pytest.raises(MissingExtraError, match="checkout of X-GenGroup/Flow-Factory"):
        flow_factory.EditRRMRewardModel  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Typo'"):
        flow_factory.Typo  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_settings_are_ours_or_the_hosts(path: Path, tmp_path: Path) -> None:
    (reward,) = yaml.safe_load(path.read_text(encoding="utf-8"))["rewards"]
    module, _, name = reward.pop("reward_model").rpartition(".")
    for field in ("name", "weight", "dtype", "device", "batch_size", "async_reward", "num_workers"):
        reward.pop(field, None)
    getattr(importlib.import_module(module), name)(config(**{**reward, "record": tmp_path}), None)
