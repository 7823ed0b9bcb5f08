"""The adapter within OpenRLHF's own code (0.11.2 from PyPI): the executor that asks, and what its trainer keeps.

pytest integrations/openrlhf        # in an environment with OpenRLHF (--no-deps), torch, ray and aiohttp

vLLM, deepspeed and the like need a GPU. They are replaced by empty modules, and the engine that samples by a stub; the
code that loads the function, asks it and makes its answer an experience is OpenRLHF's.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import logging
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

if importlib.util.find_spec("openrlhf") is None:
    pytest.skip("OpenRLHF is not installed; these tests were run with openrlhf==0.11.2", allow_module_level=True)

import torch
from PIL import Image

from editr1_plugins.adapters.openrlhf import EditReward
from editr1_plugins.errors import UnscoredError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

HERE = Path(__file__).parent
FOUND = importlib.util.find_spec("openrlhf")
PROMPT = "Rewrite: make it red. Answer: "
REPLACED = ("vllm", "deepspeed", "flash_attn", "optree", "pylatexenc", "bitsandbytes", "peft")


class Empty(types.ModuleType):
    """A module in which every name is an empty class."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Replaces(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for what is not installed and needs a GPU."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        wanted = name.split(".")[0] in REPLACED
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: Any) -> Any:
        return Empty(spec.name)

    def exec_module(self, module: Any) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Any:
    """OpenRLHF's modules `agent` and `samples_generator`."""
    finder = Replaces()
    sys.meta_path.append(finder)  # last: what is installed is found before
    folders = list(FOUND.submodule_search_locations or []) if FOUND else []
    for name in ("", ".utils", ".models", ".trainer", ".trainer.ppo_utils", ".trainer.ray"):
        package = types.ModuleType(f"openrlhf{name}")  # without the imports of the packages' own __init__
        package.__path__ = [folder + name.replace(".", "/") for folder in folders]
        sys.modules[f"openrlhf{name}"] = package
    yield types.SimpleNamespace(
        agent=importlib.import_module("openrlhf.utils.agent"),
        samples=importlib.import_module("openrlhf.trainer.ppo_utils.samples_generator"),
    )
    sys.meta_path.remove(finder)


class Tokenizer:
    """One token is one byte."""

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {"input_ids": torch.tensor([list(text.encode())])}

    def decode(self, ids: Any, **_: Any) -> str:
        return bytes(ids).decode()


class Engine:
    """Says the same each time."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    async def generate(self, *_: Any, **__: Any) -> Any:
        output = types.SimpleNamespace(token_ids=list(self.answer.encode()), finish_reason="stop", logprobs=None)
        return types.SimpleNamespace(outputs=[output])


async def response_of(executor: Any, label: Any, answer: str = "done<|im_end|>") -> dict[str, Any]:
    sampling = types.SimpleNamespace(max_tokens=32, logprobs=None)
    found: dict[str, Any] = await executor.execute(PROMPT, label, sampling, 4096, Tokenizer(), Engine(answer))
    return found


def experience_of(host: Any, response: dict[str, Any]) -> Any:
    return host.samples.SamplesGenerator._process_response_into_experience(None, response, max_len=4096)


def b64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def label_of(edit: Edit) -> str:
    return json.dumps({"source": b64(edit.source), "edited": b64(edit.edited), "instruction": edit.instruction})


def edit(red: int = 255, instruction: str = "make it red") -> Edit:
    side = (16, 16)
    return Edit(source=Image.new("RGB", side), edited=Image.new("RGB", side, (red, 1, 1)), instruction=instruction)


def settings() -> dict[str, Any]:
    return {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}


def executor_with(host: Any, function: Any) -> Any:
    executor = host.agent.SingleTurnAgentExecutor(None)
    executor.reward_endpoints, executor.reward_func = ["editr1.py"], function
    return executor


class SwallowedError(Exception):
    """The host went on without a reward."""


class TestOpenRLHF(AdapterContract):
    one_by_one = True
    picklable = False  # the executor holds an iterator; the function itself is pickled in the default tests
    unscored = (SwallowedError, UnscoredError)

    @pytest.fixture(autouse=True)
    def _with(self, host: Any, caplog: pytest.LogCaptureFixture) -> None:
        self.host, self.caplog = host, caplog

    def build(self, **settings: Any) -> Any:
        return executor_with(self.host, EditReward(**settings))

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        return asyncio.run(self.ask_in_loop(adapter, edits))

    async def ask_in_loop(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        values = []
        for each in edits:
            response = await response_of(adapter, label_of(each))
            if response["reward"] is None:
                raise SwallowedError(self.caplog.text)
            values.append(experience_of(self.host, response).rewards.item())
        return values

    def test_the_scores_of_the_reward_bit_by_bit_and_in_order(self, adapter: Any) -> None:
        """Bit by bit of the host's 32-bit floats."""
        wanted = torch.tensor([10 * red / 255 for red in (200, 3, 255)]).tolist()
        assert self.ask(adapter, [edit(red) for red in (200, 3, 255)]) == wanted


def test_the_file_is_loaded_and_its_figures_reach_the_trainers_log(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITR1_SCORER", '{"verifier": "measure", "guards": []}')
    executor = host.agent.SingleTurnAgentExecutor(str(HERE / "editr1.py"))
    grey, dark = (Image.new("RGB", (32, 32), (value,) * 3) for value in (128, 90))
    label = label_of(Edit(source=grey, edited=dark, instruction="make the image darker"))
    experience = experience_of(host, asyncio.run(response_of(executor, label)))
    assert experience.rewards.shape == experience.scores.shape == (1,)
    assert experience.rewards[0] > 5
    assert experience.scores[0] == pytest.approx(experience.rewards[0].item() / 10)
    assert experience.info["editr1_filled"].tolist() == [0.0]


def test_wrong_settings_end_the_job_while_it_starts(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITR1_SCORER", '{"verifier": "measure", "nonsense": 1}')
    with pytest.raises(Exception, match="nonsense"):
        host.agent.SingleTurnAgentExecutor(str(HERE / "editr1.py"))


def test_what_the_host_swallows_is_in_our_log(host: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        response = asyncio.run(response_of(executor_with(host, EditReward(**settings())), label_of(edit(1, "refuse"))))
    assert response["reward"] is None
    assert experience_of(host, response).rewards is None  # its trainer then asks for a reward model
    assert "no reward, and OpenRLHF will not say why: UnscoredError: 1 of 1 edits have no score" in caplog.text


def test_what_only_stands_in_is_counted(host: Any) -> None:
    executor = executor_with(host, EditReward(**settings()))
    asyncio.run(response_of(executor, label_of(edit(255, "refuse"))))
    experience = experience_of(host, asyncio.run(response_of(executor, label_of(edit(1, "refuse")))))
    assert (experience.rewards.tolist(), experience.info["editr1_filled"].tolist()) == ([10.0], [1.0])


def test_a_policy_that_judges(host: Any) -> None:
    executor = host.agent.SingleTurnAgentExecutor(str(HERE / "judge.py"))
    reply = 'It is red.\n[{"question": "Is it red?", "score": 1}]\n{"average_score": 1.0}\n<score>8.5</score><|im_end|>'
    experience = experience_of(host, asyncio.run(response_of(executor, "6.0", reply)))
    assert (experience.rewards.tolist(), experience.info["editr1_error"].tolist()) == ([0.75], [2.5])
