"""UniRL's local backend keeps the contract, against its base class and request written anew; and the recipes parse."""

from __future__ import annotations

import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from editr1_plugins.adapters import unirl
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

FOLDER = Path(__file__).parents[2] / "integrations" / "unirl"


class Backend(ABC):
    """What UniRL's `RewardBackend` holds, and what it wants to be given."""

    input_kind = "image"

    def __init__(self, model_name: str = "", batch_size: int = 8, timeout: float = 60.0, **_: Any) -> None:
        self.model_name = model_name

    def get_model_name(self) -> str:
        return self.model_name

    @abstractmethod
    def compute_rewards(self, request: Any) -> Any: ...

    @abstractmethod
    def is_available(self) -> bool: ...


@dataclass
class Response:
    rewards: list[float] = field(default_factory=list)
    component_rewards: dict[str, list[float]] = field(default_factory=dict)
    successes: list[bool] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    compute_time: float = 0.0


@dataclass
class Request:
    primitives: dict[str, Any]
    generated: dict[str, Any]

    @property
    def prompts(self) -> list[str]:
        return list(self.primitives["text"].texts) if "text" in self.primitives else []


def images(pictures: Sequence[Image.Image]) -> Any:
    import numpy as np

    pixels = [torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255 for picture in pictures]
    return types.SimpleNamespace(pixels=torch.stack(pixels))


def request_of(edits: Sequence[Edit]) -> Request:
    texts = types.SimpleNamespace(texts=[edit.instruction for edit in edits])
    return Request(
        primitives={"image": images([edit.source for edit in edits]), "text": texts},
        generated={"image": images([edit.edited for edit in edits])},
    )


def attached(backend: Any, request: Request) -> dict[str, list[float]]:
    """What UniRL's `RewardService` makes of an answer: a sample that failed ends the step."""
    answer = backend.compute_rewards(request)
    if not all(answer.successes):
        raise RuntimeError(f"Reward computation flagged failures: {answer.errors}")
    count = len(answer.rewards)
    torch.tensor(answer.rewards)
    assert all(len(values) == count for values in answer.component_rewards.values())
    return {"rewards": answer.rewards, **answer.component_rewards}


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules = {name: types.ModuleType(name) for name in ("unirl", "unirl.reward", "unirl.types")}
    for module in modules.values():
        module.__path__ = []  # type: ignore[attr-defined]
    base, data = types.ModuleType("unirl.reward.base"), types.ModuleType("unirl.types.reward")
    base.RewardBackend, data.RewardResponse = Backend, Response  # type: ignore[attr-defined]
    for name, module in {**modules, "unirl.reward.base": base, "unirl.types.reward": data}.items():
        monkeypatch.setitem(sys.modules, name, module)
    unirl._backend.cache_clear()
    yield
    unirl._backend.cache_clear()


class TestUniRL(AdapterContract):
    def build(self, **settings: Any) -> Any:
        return unirl.EditBackend(base_device="cpu", **settings)

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        sizes = {(edit.source.size, edit.edited.size) for edit in edits}
        assert len(edits) > 1 or len(sizes) == 1
        if len(sizes) > 1:  # a batch of UniRL's has one size, so the contract's mixed one is asked for in parts
            return [value for edit in edits for value in self.ask(adapter, [edit])]
        return attached(adapter, request_of(edits))["rewards"]


class TestUniRLFromZeroToOne(TestUniRL):
    top = 1.0

    def build(self, **settings: Any) -> Any:
        return super().build(top=1.0, **settings)


def edit(red: int = 255, instruction: str = "make it red") -> Edit:
    side = (16, 16)
    return Edit(source=Image.new("RGB", side), edited=Image.new("RGB", side, (red, 1, 1)), instruction=instruction)


def settings() -> dict[str, Any]:
    return {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}


def test_what_only_stands_in_is_a_component_in_the_hosts_log() -> None:
    backend = unirl.EditBackend(**settings())
    assert isinstance(backend, Backend)
    assert backend.get_model_name() == "editr1"
    assert backend.is_available()
    found = attached(backend, request_of([edit(255, "refuse"), edit(1, "refuse")]))
    assert found == {"rewards": [10.0, 10.0], "editr1": [10.0, 10.0], "editr1_missing": [0.0, 1.0]}


def test_a_job_that_is_wrongly_set_up_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = unirl.EditBackend(**settings())
    request = request_of([edit()])
    with pytest.raises(DataError, match="no source images"):
        backend.compute_rewards(Request({"text": request.primitives["text"]}, request.generated))
    with pytest.raises(DataError, match="no edits"):
        backend.compute_rewards(Request(request.primitives, {}))
    with pytest.raises(DataError, match="2 source images, 1 edits and 2 instructions"):
        backend.compute_rewards(Request(request_of([edit(), edit()]).primitives, request.generated))
    with pytest.raises(ConfigError, match="nonsense"):
        unirl.EditBackend(verifier="measure", nonsense=1)
    with pytest.raises(AttributeError, match="Other"):
        _ = unirl.Other
    unirl._backend.cache_clear()
    monkeypatch.setitem(sys.modules, "unirl", None)
    monkeypatch.delitem(sys.modules, "unirl.reward.base")
    with pytest.raises(MissingExtraError, match="checkout of Tencent-Hunyuan/UniRL"):
        _ = unirl.EditBackend


def test_the_recipe_of_the_local_backend() -> None:
    reward = yaml.safe_load((FOLDER / "local.yaml").read_text())["reward"]
    assert reward["_target_"] == "unirl.reward.service.RewardService"
    backend = reward["backend"]
    assert backend.pop("_target_") == f"{unirl.__name__}.EditBackend"
    backend.pop("verifier")
    unirl.EditBackend(**backend, verifier="measure")


def test_the_recipe_of_the_server_names_the_reward_that_is_served() -> None:
    from editr1_plugins.adapters.server.settings import ServerSettings

    backend = yaml.safe_load((FOLDER / "server.yaml").read_text())["reward"]["backend"]
    assert backend["_target_"] == "unirl.reward.remote.RemoteRewardBackend"
    config = backend["config"]
    assert config["required_rewards"] == [ServerSettings().name]
    assert config["image_format"] == "PNG"
    assert config["base_url"].startswith("${oc.env:REWARD_SERVICE_URL,")
