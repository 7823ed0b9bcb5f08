"""The adapter of verl keeps the contract, called as verl 0.9's reward managers call it; and what is special to verl."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from editr1_plugins.adapters import verl
from editr1_plugins.adapters.policy_rows import PolicyRows
from editr1_plugins.errors import ConfigError, DataError, UnscoredError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.testing.judge_server import JudgeServer
from editr1_plugins.types import Edit, Principle, Verification

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
_HOSTS_KEYS = ("path", "name", "weight", "required")
QUESTION = OneQuestion()
REPLY = """It is red now.
[{"question": "Was it done?", "score": 1}]
{"average_score": 1.0}
<score>7.5</score>"""


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sample(edit: Edit) -> dict[str, Any]:
    """A row as verl's data set and a tool of its agent loop leave it."""
    return {
        "data_source": "editr1",
        "solution_str": "I called the tool.",
        "ground_truth": edit.instruction,
        "extra_info": {"source": {"bytes": png(edit.source), "path": None}, "edited": edit.edited, "num_turns": 2},
    }


async def call(function: Callable[..., Any], reward_kwargs: dict[str, Any], given: dict[str, Any]) -> Any:
    """How verl asks: by keyword, its `reward_kwargs` over its own arguments, and a plain function in a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(**{**given, **reward_kwargs})
    return await asyncio.get_running_loop().run_in_executor(None, lambda: function(**{**given, **reward_kwargs}))


def gathered(answers: Sequence[dict[str, Any]]) -> list[float]:
    """How verl collects the samples of a batch; it fails on None, and on keys that are not those of the first."""
    for key in answers[0]:
        assert np.array([answer[key] for answer in answers]).dtype == np.float64
    torch.tensor([answer["score"] for answer in answers])
    return [answer["score"] for answer in answers]


class TestVerl(AdapterContract):
    one_by_one = True
    function = staticmethod(verl.compute_score)

    def build(self, **settings: Any) -> Any:
        return partial(call, self.function, settings)

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        return asyncio.run(self.ask_in_loop(adapter, edits))

    async def ask_in_loop(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        return gathered([await adapter(sample(edit)) for edit in edits])


class TestVerlAsync(TestVerl):
    function = staticmethod(verl.compute_score_async)


class TestVerlFromZeroToOne(TestVerl):
    top = 1.0

    def build(self, **settings: Any) -> Any:
        return super().build(top=1.0, **settings)


class Slow(ShadeVerifier):
    """Takes its time, and says how many it judges at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        self.now += 1
        self.peak = max(self.peak, self.now)
        time.sleep(0.3)
        self.now -= 1
        return super().verify(edits, principles)


def edit(red: int = 255, instruction: str = "make it red") -> Edit:
    side = (16, 16)
    return Edit(source=Image.new("RGB", side), edited=Image.new("RGB", side, (red, 1, 1)), instruction=instruction)


def settings(verifier: Any) -> dict[str, Any]:
    return {"verifier": verifier, "decomposer": QUESTION, "guards": ()}


@pytest.mark.parametrize("function", [verl.compute_score, verl.compute_score_async])
def test_the_hosts_loop_goes_on_while_samples_are_judged_together(function: Any) -> None:
    slow = Slow()

    async def worker() -> tuple[list[Any], int]:
        asked = asyncio.gather(*(call(function, settings(slow), sample(edit(red))) for red in (10, 20, 30)))
        ticks = 0
        while not asked.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return await asked, ticks

    answers, ticks = asyncio.run(worker())
    assert gathered(answers) == pytest.approx([10 * red / 255 for red in (10, 20, 30)])
    assert slow.peak == 3
    assert ticks >= 10


def test_what_stands_in_is_counted_and_the_keys_stay() -> None:
    verifier = ShadeVerifier()
    ask = partial(verl.compute_score, **settings(verifier))
    assert ask(**sample(edit(255))) == {"score": 10.0, "editr1/missing": 0.0}
    assert ask(**sample(edit(1, "refuse"))) == {"score": 10.0, "editr1/missing": 1.0}


def test_a_sample_that_cannot_be_judged_is_no_number_where_none_is_known() -> None:
    broken = {**sample(edit()), "extra_info": {"source": png(edit().source), "edited": b"no image"}}
    with pytest.raises(UnscoredError, match="edited image"):
        verl.compute_score(**broken, **settings(ShadeVerifier()))


def test_a_job_that_is_wrongly_set_up_says_what_to_do() -> None:
    given = sample(edit())
    with pytest.raises(DataError, match=r"no edited image 'edited'.*no_edit"):
        verl.compute_score(**{**given, "extra_info": {"source": png(edit().source)}}, verifier="measure")
    with pytest.raises(DataError, match="no image 'source', only nothing"):
        verl.compute_score(**{**given, "extra_info": None}, verifier="measure")
    with pytest.raises(ConfigError, match="nonsense"):
        verl.compute_score(**given, verifier="measure", nonsense=1)
    with pytest.raises(ConfigError, match=r"reward\.reward_model\.enable"):
        verl.compute_score(**given, verifier="openai:judge@router")


def test_a_judge_that_verl_serves_itself() -> None:
    with JudgeServer(REPLY) as server:
        router = server.url.removeprefix("http://").removesuffix("/v1")
        given = {**sample(edit()), "reward_router_address": router, "reward_model_tokenizer": object()}
        answer = verl.compute_score(**given, verifier="openai:judge@router", decomposer=QUESTION, guards=())
    assert answer == {"score": 7.5, "editr1/missing": 0.0}


def test_a_policy_that_judges() -> None:
    given = {"data_source": "editr1", "solution_str": REPLY, "extra_info": {"index": 0}}
    answers = [
        verl.compute_judge_score(**given, ground_truth=label)
        for label in ("7.5", json.dumps({"score": 5.0, "questions": ["Was it done?"]}))
    ]
    assert gathered(answers) == [1.0, 0.75]
    unread = verl.compute_judge_score(**{**given, "solution_str": "Fine."}, ground_truth="7.5")
    assert unread == {"score": 0.0, "editr1/error": 10.0, "editr1/unread": 1.0}
    with pytest.raises(DataError, match="label"):
        verl.compute_judge_score(**given, ground_truth="good")


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, editr1_plugins.adapters.verl, editr1_plugins.adapters.easyr1, editr1_plugins.adapters.verl_omni;"
        "print([m for m in ('torch', 'verl', 'verl_omni', 'transformers', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["verl/edit.yaml", "verl/judge.yaml", "verl_omni/edit.yaml", "verl_omni/several.yaml"])
def test_the_configurations_name_what_exists(name: str) -> None:
    reward = yaml.safe_load((INTEGRATIONS / name).read_text())["reward"]
    entries = [reward["custom_reward_function"], *reward.get("reward_functions", {}).values()]
    ours = [each for each in entries if each["path"].startswith("pkg://editr1_plugins.")]
    assert ours
    for entry in ours:
        assert callable(getattr(importlib.import_module(entry["path"].removeprefix("pkg://")), entry["name"]))
        given = entry.get("reward_kwargs", {key: value for key, value in entry.items() if key not in _HOSTS_KEYS})
        _, others = PolicyRows.split(given)
        assert set(others) <= {"verifier", "top"}


_everyone: Any = None


def _starts(barrier: Any) -> None:
    global _everyone
    _everyone = barrier


def _worker(asked: tuple[str, int]) -> tuple[int, list[float], int]:
    """A reward worker: how many scorers it has before it is asked, the scores, and how many it has then."""
    from editr1_plugins.adapters import scorer

    _everyone.wait(60)  # so that each process takes one of the tasks
    url, red = asked
    before = len(scorer._shared)
    answers = [verl.compute_score(**sample(edit(red)), **settings(f"openai:judge@{url}")) for _ in range(2)]
    return before, [answer["score"] for answer in answers], len(scorer._shared)


def test_eight_workers_share_one_remote_judge_and_build_nothing_before_they_are_asked() -> None:
    fork = multiprocessing.get_context("fork")
    with fork.Pool(8, _starts, (fork.Barrier(8),)) as pool, JudgeServer(REPLY) as server:
        found = pool.map(_worker, [(server.url, red) for red in range(8)], chunksize=1)
        assert found == [(0, [7.5, 7.5], 1)] * 8
        assert len(server.requests) == 16
