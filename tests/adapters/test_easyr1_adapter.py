"""The adapter of EasyR1 keeps the contract, called as its `AutoRewardManager` calls it, and loaded from its file."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from editr1_plugins.adapters import easyr1, policy_rows
from editr1_plugins.errors import DataError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

FOLDER = Path(__file__).parents[2] / "integrations" / "easyr1"


def base64_png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def batch(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    return [
        {
            "response": "Done.",
            "response_length": 2,
            "ground_truth": json.dumps(
                {
                    "source": base64_png(edit.source),
                    "edited": base64_png(edit.edited),
                    "instruction": edit.instruction,
                }
            ),
        }
        for edit in edits
    ]


def collected(scores: Sequence[dict[str, float]]) -> tuple[torch.Tensor, dict[str, list[float]]]:
    """How EasyR1 collects a batch: a None fails in the tensor."""
    rewards, metrics = torch.zeros(len(scores), dtype=torch.float64), defaultdict(list)
    for row, score in enumerate(scores):
        rewards[row] = score["overall"]
        for key, value in score.items():
            metrics[key].append(value)
    return rewards, dict(metrics)


class TestEasyR1(AdapterContract):
    def build(self, **settings: Any) -> Any:
        return partial(easyr1.compute_score, **settings)

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        return [float(value) for value in collected(adapter(batch(edits)))[0]]


def _grey(red: int, instruction: str = "make it red") -> Edit:
    side = (16, 16)
    return Edit(source=Image.new("RGB", side), edited=Image.new("RGB", side, (red, 1, 1)), instruction=instruction)


def _settings() -> dict[str, Any]:
    return {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}


def test_what_stands_in_is_counted() -> None:
    scores = easyr1.compute_score(batch([_grey(255, "refuse"), _grey(1, "refuse"), _grey(0)]), **_settings())
    assert collected(scores)[1] == {"overall": [10.0, 10.0, 0.0], "editr1/missing": [0.0, 1.0, 0.0]}


def paint(source: Image.Image, text: str) -> Image.Image:
    return Image.new("RGB", source.size, text)


def test_an_editor_follows_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "painting", sys.modules[__name__])
    policy_rows._editor.cache_clear()
    truth = json.dumps({"source": base64_png(Image.new("RGB", (8, 8))), "instruction": "make it red"})
    given = [
        {"response": response, "response_length": 1, "ground_truth": truth}
        for response in ("<edit>red</edit>", "<edit>black</edit>", "<edit>no colour</edit>", "")
    ]
    found = easyr1.compute_score(given, editor="painting.paint", **_settings())
    # The third could not be made and gets the mean; the fourth says nothing, so the source is judged.
    assert [each["overall"] for each in found] == [10.0, 0.0, pytest.approx(10 / 3), 0.0]
    assert [each["editr1/missing"] for each in found] == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("truth", ["make it red", "[1]", "", 7])
def test_a_ground_truth_that_is_no_row(truth: Any) -> None:
    with pytest.raises(DataError, match="row 0: ground_truth must be a JSON object"):
        easyr1.compute_score([{"response": "", "ground_truth": truth}], verifier="measure")


def test_a_policy_that_judges() -> None:
    reply = '[{"question": "Is it red?", "score": 1}]\n{"average_score": 1.0}\n<score>6</score>'
    given = [{"response": text, "ground_truth": "7"} for text in (reply, "Fine.")]
    assert easyr1.compute_judge_score(given) == [
        {"overall": 0.9, "editr1/error": 1.0, "editr1/unread": 0.0},
        {"overall": 0.0, "editr1/error": 10.0, "editr1/unread": 1.0},
    ]


def test_the_file_that_the_host_loads() -> None:
    spec = importlib.util.spec_from_file_location("custom_reward_fn", FOLDER / "editr1.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.REWARD_NAME, module.REWARD_TYPE) == ("editr1", "batch")
    assert module.compute_score is easyr1.compute_score
    assert module.compute_judge_score is easyr1.compute_judge_score


@pytest.mark.parametrize("name", ["config.yaml", "judge.yaml"])
def test_the_configurations_name_what_exists(name: str) -> None:
    reward = yaml.safe_load((FOLDER / name).read_text())["worker"]["reward"]
    path, _, function = reward["reward_function"].rpartition(":")
    assert Path(path).name == "editr1.py"
    assert callable(getattr(easyr1, function))
    _, others = policy_rows.PolicyRows.split(reward.get("reward_function_kwargs", {}))
    assert set(others) <= {"verifier", "cache", "top", "record"}
