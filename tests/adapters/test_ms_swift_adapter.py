"""The adapter of ms-swift keeps the contract, called as ms-swift 4.6 calls its rewards; and what is special there."""

from __future__ import annotations

import asyncio
import inspect
import io
import runpy
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from editr1_plugins.adapters import ms_swift, policy_rows
from editr1_plugins.adapters.scorer import SCORER_VARIABLE
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError, UnscoredError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

PLUGIN = Path(__file__).parents[2] / "integrations" / "ms_swift" / "editr1.py"
REPLY = 'It is red.\n[{"question": "Is it red?", "score": 1}]\n{"average_score": 1.0}\n<score>8.5</score>'


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def row_of(edit: Edit, **more: Any) -> dict[str, Any]:
    """A row as ms-swift's sample gives it to rewards: its own columns, and those of the data set beside them."""
    return {
        "messages": [
            {"role": "user", "content": f"<image>{edit.instruction}"},
            {"role": "assistant", "content": "done"},
        ],
        "prompt_id": "p",
        "finish_reason": "stop",
        "is_truncated": False,
        "rollout_infos": {},
        "response_token_ids": [[5, 6]],
        "images": [{"bytes": png(edit.source), "path": None}],
        "edited": {"bytes": png(edit.edited), "path": None},
        "instruction": edit.instruction,
        **more,
    }


def batched(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    names = {name for row in rows for name in row}
    return {name: [row.get(name) for row in rows] for name in names}


def rewards_of(functions: Sequence[Any], rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """How ms-swift asks: the completions by position, all columns by keyword; coroutines in a loop of their own."""
    completions = [row["messages"][-1]["content"] for row in rows]
    columns = {"trainer_state": types.SimpleNamespace(global_step=1), **batched(rows)}
    said: list[Any] = [None] * len(functions)
    waiting = [i for i, each in enumerate(functions) if inspect.iscoroutinefunction(each.__call__)]
    for i, function in enumerate(functions):
        if i not in waiting:
            said[i] = function(completions, **columns)

    async def together() -> list[Any]:
        return await asyncio.gather(*(functions[i](completions, **columns) for i in waiting))

    for i, answer in zip(waiting, asyncio.run(together()) if waiting else [], strict=True):
        said[i] = answer
    for answer in said:
        torch.tensor([torch.nan if reward is None else reward for reward in answer])
    return said


class TestMsSwift(AdapterContract):
    reward: Any = ms_swift.EditReward

    def build(self, **settings: Any) -> Any:
        return self.reward(args=object(), **settings)

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        [said] = rewards_of([adapter], [row_of(edit) for edit in edits])
        return said

    async def ask_in_loop(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        rows = [row_of(edit) for edit in edits]
        answer = adapter(["done"] * len(rows), **batched(rows))
        return await answer if inspect.isawaitable(answer) else answer


class TestMsSwiftAsync(TestMsSwift):
    reward = ms_swift.EditRewardAsync


class TestMsSwiftFromZeroToOne(TestMsSwift):
    top = 1.0

    def build(self, **settings: Any) -> Any:
        return super().build(top=1.0, **settings)


@pytest.fixture
def orms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """ms-swift's table of rewards."""
    rewards = types.ModuleType("swift.rewards")
    rewards.orms = {"accuracy": object()}  # type: ignore[attr-defined]
    package = types.ModuleType("swift")
    package.__path__ = []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swift", package)
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
    return rewards.orms  # type: ignore[no-any-return]


def edit(red: int = 255, instruction: str = "make it red") -> Edit:
    side = (16, 16)
    return Edit(source=Image.new("RGB", side), edited=Image.new("RGB", side, (red, 1, 1)), instruction=instruction)


def settings() -> dict[str, Any]:
    return {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}


def test_the_plug_in_file_adds_our_rewards_to_the_others(orms: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCORER_VARIABLE, '{"verifier": "measure", "guards": [], "edited_key": "made"}')
    runpy.run_path(str(PLUGIN))
    assert sorted(orms) == ["accuracy", "editr1", "editr1_async", "editr1_judge", "editr1_missing"]
    function = orms["editr1"](args=object())
    assert type(function).__name__ == "EditReward"  # the name in ms-swift's log
    dark = Edit(
        source=Image.new("RGB", (16, 16), (120,) * 3), edited=Image.new("RGB", (16, 16), (60,) * 3), instruction="-"
    )
    row = row_of(dark, instruction="make the image darker", made={"bytes": png(dark.edited), "path": None})
    del row["edited"]
    [said] = rewards_of([function], [row])
    assert said[0] > 5


def test_what_only_stands_in_is_counted_in_the_hosts_log(orms: dict[str, Any]) -> None:
    ms_swift.register(**settings())
    functions = [orms[name](args=object()) for name in ("editr1", "editr1_missing")]
    rows = [row_of(edit(255, "refuse")), row_of(edit(1, "refuse"))]
    assert rewards_of(functions, rows) == [[10.0, 10.0], [0.0, 1.0]]
    with pytest.raises(ConfigError, match="editr1 first"):
        rewards_of(functions[::-1], rows)


def test_a_batch_that_cannot_be_judged_is_an_error_and_no_zero() -> None:
    with pytest.raises(UnscoredError, match="refused"):
        rewards_of([ms_swift.EditReward(**settings())], [row_of(edit(1, "refuse"))])


def test_an_edit_of_the_rollout_counts_before_the_rows_and_the_last_message_instructs() -> None:
    verifier = ShadeVerifier()
    function = ms_swift.EditReward(**{**settings(), "verifier": verifier})
    made = row_of(edit(0), rollout_infos={"edited": [edit(9).edited, edit(255).edited], "num_turns": 2})
    del made["instruction"]
    assert rewards_of([function], [made]) == [[10.0]]
    assert verifier.seen[0][2] == "make it red"


def test_an_editor_follows_what_the_policy_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("painting")
    module.paint = lambda source, text: Image.new("RGB", source.size, text)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "painting", module)
    policy_rows._editor.cache_clear()
    rows = [row_of(edit()), row_of(edit())]
    rows[0]["messages"][-1]["content"] = "<think>Hm.</think><edit>red</edit>"
    rows[1]["messages"][-1]["content"] = "blue"
    assert rewards_of([ms_swift.EditReward(**settings(), editor="painting.paint")], rows) == [[10.0, 0.0]]


def test_a_policy_that_judges(orms: dict[str, Any]) -> None:
    ms_swift.register(label_key="solution")
    rows = [row_of(edit(), solution="8.5"), row_of(edit(), solution={"score": 6.0, "questions": ["Is it red?"]})]
    for row in rows:
        row["messages"][-1]["content"] = REPLY
    function = orms["editr1_judge"](args=object())
    assert rewards_of([function], rows) == [[1.0, 0.75]]
    with pytest.raises(DataError, match="no column 'label'"):
        rewards_of([ms_swift.JudgeReward()], rows)


def test_a_job_that_is_wrongly_set_up_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        ms_swift.EditReward(args=object(), verifier="measure", nonsense=1)
    row = row_of(edit())
    del row["edited"]
    with pytest.raises(DataError, match="no edited image 'edited'"):
        rewards_of([ms_swift.EditReward(**settings())], [row])
    row = row_of(edit(), images=[{"bytes": None, "path": "a.png"}])
    with pytest.raises(DataError, match="image_folder"):
        rewards_of([ms_swift.EditReward(**settings())], [row])
    monkeypatch.setitem(sys.modules, "swift", None)
    with pytest.raises(MissingExtraError, match="pip install 'ms-swift"):
        ms_swift.register()


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, editr1_plugins.adapters.ms_swift, editr1_plugins.adapters.openrlhf, editr1_plugins.adapters.unirl;"
        "print([m for m in ('torch', 'swift', 'openrlhf', 'unirl', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
