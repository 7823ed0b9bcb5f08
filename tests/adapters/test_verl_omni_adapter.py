"""The adapter of verl-omni keeps the contract, called as its reward managers call it; the managers see the source."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1_plugins.adapters import verl_omni
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def sample(edit: Edit) -> dict[str, Any]:
    return {
        "data_source": "image_edit",
        "solution_image": pixels(edit.edited),
        "ground_truth": edit.instruction,
        "extra_info": {"source": edit.source, "index": 0},
    }


async def call(function: Callable[..., Any], reward_kwargs: dict[str, Any], given: dict[str, Any]) -> Any:
    """How both managers ask: a coroutine is awaited, a plain function runs in a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(**{**given, **reward_kwargs})
    return await asyncio.get_running_loop().run_in_executor(None, lambda: function(**{**given, **reward_kwargs}))


class TestVerlOmni(AdapterContract):
    one_by_one = True
    function = staticmethod(verl_omni.compute_score)

    def build(self, **settings: Any) -> Any:
        return partial(call, self.function, settings)

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        return asyncio.run(self.ask_in_loop(adapter, edits))

    async def ask_in_loop(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        answers = [await adapter(sample(edit)) for edit in edits]
        return [float(answer["score"]) for answer in answers]


class TestVerlOmniAsync(TestVerlOmni):
    function = staticmethod(verl_omni.compute_score_async)


def settings() -> dict[str, Any]:
    return {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}


SOURCE = Image.new("RGB", (16, 16), (0, 0, 60))
MADE = torch.full((3, 16, 16), 255, dtype=torch.uint8)


@pytest.mark.parametrize(
    "wrong",
    [
        MADE.float() / 255,
        torch.zeros(16, 4, 4),
        MADE.expand(5, 3, 16, 16),
        MADE[0],
        "an image",
    ],
    ids=["floats", "latents", "video", "one plane", "text"],
)
def test_what_is_no_image_says_so(wrong: Any) -> None:
    with pytest.raises(DataError, match="solution_image must be one image, uint8"):
        verl_omni.compute_score("d", wrong, "make it red", {"source": SOURCE}, **settings())


def test_what_is_set_up_wrongly() -> None:
    with pytest.raises(DataError, match="no image 'source', only edited, index"):
        verl_omni.compute_score("d", MADE, "make it red", {"index": 1}, **settings())
    with pytest.raises(ConfigError, match="takes no editor"):
        verl_omni.compute_score("d", MADE, "make it red", {"source": SOURCE}, editor="a.b", **settings())


def test_the_hosts_own_arguments_are_no_settings() -> None:
    own = {"reward_router_address": "127.0.0.1:1", "reward_model_tokenizer": object(), "model_name": None}
    answer = verl_omni.compute_score("d", MADE[None], "make it red", {"source": SOURCE}, **own, **settings())
    assert answer == {"score": 10.0, "editr1/missing": 0.0}


class Visual:
    """What verl-omni's manager does with a sample, for what the adapter's subclass needs of it."""

    def __init__(self, compute_score: Callable[..., Any]) -> None:
        self.compute_score = compute_score

    async def run_single(self, data: Sequence[Any]) -> dict[str, Any]:
        row = data[0].non_tensor_batch
        row.get("extra_info", {})["num_turns"] = None
        result = self.compute_score(
            data_source=row["data_source"],
            solution_image=data[0].batch["responses"],
            ground_truth=row["reward_model"]["ground_truth"],
            extra_info=row.get("extra_info", {}),
        )
        return {"reward_score": result["score"], "reward_extra_info": {"editr1/missing": result["editr1/missing"]}}


class Multi(Visual):
    pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = ("verl_omni", "verl_omni.reward_loop", "verl_omni.reward_loop.reward_manager")
    modules = [ModuleType(name) for name in names]
    for name, module in zip(names, modules, strict=True):
        monkeypatch.setitem(sys.modules, name, module)
    modules[1].reward_manager = modules[2]  # type: ignore[attr-defined]
    modules[2].VisualRewardManager, modules[2].MultiVisualRewardManager = Visual, Multi  # type: ignore[attr-defined]
    verl_omni._manager.cache_clear()
    yield
    verl_omni._manager.cache_clear()


def _data(prompt: Any, extra_info: dict[str, Any]) -> list[Any]:
    """A sample as the host's worker sees it; an array of messages, since it wraps each field in one."""
    fields = {
        "data_source": "image_edit",
        "reward_model": {"ground_truth": "make it red"},
        "extra_info": extra_info,
        "raw_prompt": np.array(prompt, dtype=object),
    }
    return [SimpleNamespace(non_tensor_batch=fields, batch={"responses": MADE})]


def _prompt(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "Edit."},
        {"role": "user", "content": [*parts, {"type": "text", "text": "x"}]},
    ]


@pytest.mark.parametrize(("name", "base"), [("EditRewardManager", Visual), ("MultiEditRewardManager", Multi)])
def test_the_managers_hand_over_the_image_that_the_policy_was_shown(host: None, name: str, base: type) -> None:
    manager_class = getattr(verl_omni, name)
    assert issubclass(manager_class, base)
    assert manager_class is getattr(verl_omni, name)
    assert manager_class.__name__ == name
    verifier = ShadeVerifier()
    own = {"verifier": verifier, "decomposer": OneQuestion(), "guards": ()}
    manager = manager_class(partial(verl_omni.compute_score, **own))
    second = Image.new("RGB", (99, 9))
    prompt = _prompt({"type": "image", "image": SOURCE}, {"type": "image", "image": second})
    found = asyncio.run(manager.run_single(_data(prompt, {"index": 0})))
    assert found == {"reward_score": 10.0, "reward_extra_info": {"editr1/missing": 0.0}}
    assert [size for size, _, _ in verifier.seen] == [(16, 16)]


def test_a_source_in_the_data_comes_first(host: None) -> None:
    given = {"source": SOURCE}
    manager = verl_omni.EditRewardManager(partial(verl_omni.compute_score, **settings()))
    asyncio.run(manager.run_single(_data(_prompt({"type": "image", "image": Image.new("RGB", (9, 9))}), given)))
    assert given["source"] is SOURCE


def test_a_prompt_without_an_image_says_what_is_missing(host: None) -> None:
    manager = verl_omni.EditRewardManager(partial(verl_omni.compute_score, **settings()))
    for prompt in (_prompt(), [{"role": "user", "content": "make it red"}], []):
        with pytest.raises(DataError, match="no image 'source'"):
            asyncio.run(manager.run_single(_data(prompt, {})))


def test_without_the_host_it_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verl_omni", None)
    verl_omni._manager.cache_clear()
    with pytest.raises(MissingExtraError, match="EditRewardManager needs verl-omni"):
        getattr(verl_omni, "EditRewardManager")  # noqa: B009  looking is what imports the host
    assert not hasattr(verl_omni, "Nothing")
