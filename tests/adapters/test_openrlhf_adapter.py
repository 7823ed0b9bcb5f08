"""The adapter of OpenRLHF keeps the contract, called as OpenRLHF 0.11 calls it; and what is special there."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import re
import runpy
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1_plugins.adapters import openrlhf, policy_rows
from editr1_plugins.adapters.scorer import SCORER_VARIABLE
from editr1_plugins.errors import ConfigError, DataError, UnscoredError
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

FOLDER = Path(__file__).parents[2] / "integrations" / "openrlhf"
PROMPT = "<|im_start|>user\nRewrite: make it red<|im_end|>\n<|im_start|>assistant\n"
REPLY = 'It is red.\n[{"question": "Is it red?", "score": 1}]\n{"average_score": 1.0}\n<score>8.5</score>'


def b64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def label_of(edit: Edit) -> str:
    return json.dumps({"source": b64(edit.source), "edited": b64(edit.edited), "instruction": edit.instruction})


async def raw(function: Any, label: Any, answer: str = "done<|im_end|>", prompt: str = PROMPT) -> dict[str, Any]:
    """How OpenRLHF asks: lists of one, in a thread."""
    found: dict[str, Any] = await asyncio.to_thread(function, [prompt + answer], [prompt], [label])
    return found


async def asked(function: Any, label: Any) -> dict[str, Any]:
    """What its trainer keeps of a sample; an exception leaves no reward."""
    try:
        found = await raw(function, label)
    except Exception:
        return {"reward": None, "scores": None}
    logs = {name: value.flatten()[0].item() for name, value in found["extra_logs"].items()}
    reward, score = (torch.tensor([found[name]]) for name in ("rewards", "scores"))
    assert reward.shape == score.shape == (1,)
    return {"reward": reward, "scores": score, **logs}


class TestOpenRLHF(AdapterContract):
    one_by_one = True

    def build(self, **settings: Any) -> openrlhf.EditReward:
        return openrlhf.EditReward(**settings)

    def ask(self, adapter: openrlhf.EditReward, edits: Sequence[Edit]) -> list[float]:
        return asyncio.run(self.ask_in_loop(adapter, edits))

    async def ask_in_loop(self, adapter: openrlhf.EditReward, edits: Sequence[Edit]) -> list[float]:
        return [float((await raw(adapter, label_of(edit)))["rewards"][0]) for edit in edits]

    def test_the_scores_of_the_reward_bit_by_bit_and_in_order(self, adapter: openrlhf.EditReward) -> None:
        """Bit by bit of float32, which the host makes of all rewards."""
        edits = [edit(red) for red in (200, 3, 255, 77, 200)]
        said = EditRRMReward(**settings()).score(edits)
        assert self.ask(adapter, edits) == [float(np.float32(each.score * (self.top / 10))) for each in said]  # type: ignore[operator]


class TestOpenRLHFFromZeroToOne(TestOpenRLHF):
    top = 1.0

    def build(self, **settings: Any) -> openrlhf.EditReward:
        return openrlhf.EditReward(top=1.0, **settings)


def edit(red: int = 255, instruction: str = "make it red") -> Edit:
    side = (20, 16)
    return Edit(source=Image.new("RGB", side), edited=Image.new("RGB", side, (red, 1, 1)), instruction=instruction)


def settings() -> dict[str, Any]:
    return {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}


def test_what_the_trainer_keeps_of_a_sample() -> None:
    function = openrlhf.EditReward(**settings(), top=5.0)
    kept = asyncio.run(asked(function, label_of(edit(255))))
    assert kept == {"reward": torch.tensor([4.0]), "scores": torch.tensor([0.8]), "editr1_filled": 0.0}
    kept = asyncio.run(asked(function, label_of(edit(1, "refuse"))))
    assert kept == {"reward": torch.tensor([4.0]), "scores": torch.tensor([0.8]), "editr1_filled": 1.0}


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (label_of(edit(1, "refuse")), "UnscoredError: 1 of 1 edits have no score; edit 0: refused: told to"),
        ("no JSON", "DataError: a label must be a JSON object .*--data.label_key.* got 'no JSON'"),
        ("", "DataError: a label must be"),
        ("[1]", "DataError: a label must be"),
        ('{"edited": "x"}', "DataError: row 0 has no image 'source', only edited"),
    ],
)
def test_what_the_host_swallows_is_in_the_log(label: str, why: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert asyncio.run(asked(openrlhf.EditReward(**settings()), label))["reward"] is None
    assert re.search(f"no reward, and OpenRLHF will not say why: {why}", caplog.text)


def test_a_label_may_be_an_object_and_the_prompt_the_instruction() -> None:
    verifier = ShadeVerifier()
    label = {"source": b64(edit().source), "edited": b64(edit().edited)}
    asyncio.run(raw(openrlhf.EditReward(**{**settings(), "verifier": verifier}), label, prompt="make it red"))
    assert verifier.seen == [((20, 16), (20, 16), "make it red")]


def test_an_editor_follows_what_the_policy_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("painting")
    module.paint = lambda source, text: Image.new("RGB", source.size, text)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "painting", module)
    policy_rows._editor.cache_clear()
    function = openrlhf.EditReward(**settings(), editor="painting.paint")
    label = json.dumps({"source": b64(edit().source), "instruction": "make it red"})
    answers = [asyncio.run(raw(function, label, text))["rewards"].item() for text in ("red<|im_end|>\n", "blue")]
    assert answers == [8.0, 0.0]


def test_the_answer_in_a_query() -> None:
    assert openrlhf.answer_in(PROMPT + "red<|im_end|>\n<|endoftext|>", PROMPT) == "red"
    assert openrlhf.answer_in(PROMPT + "a <b> c</s>", PROMPT) == "a <b> c"
    grown = PROMPT.replace("Rewrite", "<|image_pad|>" * 9 + "Rewrite")
    assert openrlhf.answer_in(grown + "red", PROMPT.replace("Rewrite", "<|image_pad|>Rewrite")) == "red"
    with pytest.raises(DataError, match="max_len"):
        openrlhf.answer_in("something else", PROMPT)


def test_a_policy_that_judges() -> None:
    function = runpy.run_path(str(FOLDER / "judge.py"))["reward_func"]
    found = asyncio.run(raw(function, '{"score": 6.0, "questions": ["Is it red?"]}', REPLY + "<|im_end|>"))
    assert (found["rewards"].item(), found["scores"].item()) == (0.75, 0.75)
    assert {name: value.item() for name, value in found["extra_logs"].items()} == {
        "editr1_error": 2.5,
        "editr1_unread": 0.0,
    }
    assert asyncio.run(asked(function, "good"))["reward"] is None


def test_wrong_settings_are_raised_while_the_file_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCORER_VARIABLE, '{"verifier": "measure", "guards": [], "source_key": "before"}')
    function = runpy.run_path(str(FOLDER / "editr1.py"))["reward_func"]
    label = {"before": b64(edit().source), "edited": b64(edit().edited), "instruction": "make the image darker"}
    assert asyncio.run(asked(function, label))["reward"] is not None
    monkeypatch.setenv(SCORER_VARIABLE, '{"verifier": "measure", "nonsense": 1}')
    with pytest.raises(ConfigError, match="nonsense"):
        runpy.run_path(str(FOLDER / "editr1.py"))
    monkeypatch.delenv(SCORER_VARIABLE)
    with pytest.raises(UnscoredError):
        asyncio.run(raw(openrlhf.EditReward(**settings(), missing="error"), label_of(edit(1, "refuse"))))
