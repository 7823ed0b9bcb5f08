"""verifiers' call of a plugged reward, written down anew: by parameter name, a frozen task and a trace to record on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from editr1_plugins.adapters import verifiers
from editr1_plugins.adapters.scorer import SCORER_VARIABLE
from editr1_plugins.adapters.verifiers import EditReward
from editr1_plugins.backends.image_uri import ImageURIs
from editr1_plugins.errors import DataError, UnscoredError
from editr1_plugins.miniedit.pairs import split_tasks
from editr1_plugins.miniedit.world import draw
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import ShadeVerifier, _edit, _refused, _settings
from editr1_plugins.types import Edit

uri_of = ImageURIs()


class Trace:
    """The parts of a trace that a reward may use."""

    def __init__(self, tool_messages: Sequence[Any] = (), state: Any = None) -> None:
        self.tool_messages, self.state = list(tool_messages), state or SimpleNamespace()
        self.info: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}

    def record_metric(self, name: str, value: float) -> None:
        self.metrics[name] = float(value)


def message(role: str, *parts: Any) -> SimpleNamespace:
    return SimpleNamespace(role=role, content=list(parts))


def picture(image: Any) -> SimpleNamespace:
    url = image if isinstance(image, str) else uri_of(image)
    return SimpleNamespace(type="image_url", image_url=SimpleNamespace(url=url))


def words(text: str) -> SimpleNamespace:
    return SimpleNamespace(type="text", text=text)


def task_of(edit: Edit, **fields: Any) -> SimpleNamespace:
    """A task whose prompt holds the image; `image` is the container that verifiers means by it."""
    prompt = [message("user", picture(edit.source), words(edit.instruction))]
    return SimpleNamespace(**{"idx": 3, "name": None, "image": "python:3.11", "prompt": prompt, **fields})


def trace_of(edited: Any) -> Trace:
    return Trace([message("tool", words("painted"), picture(edited))])


def called(reward: Any, task: Any, trace: Trace) -> float:
    """As verifiers calls it: what the signature names, and nothing else; always awaited."""
    available = {"task": task, "trace": trace, "runtime": object()}
    names = [name for name in inspect.signature(reward).parameters if name in available]
    value: float = asyncio.run(_awaited(reward(**{name: available[name] for name in names})))
    return value


async def _awaited(call: Any) -> Any:
    return await call


class TestContract(AdapterContract):
    one_by_one = True

    def build(self, **settings: Any) -> EditReward:
        # verifiers' own policy is the error, which needs no other number.
        return EditReward(**{"missing": "mean", **settings})

    def ask(self, adapter: EditReward, edits: Sequence[Edit]) -> list[float]:
        return [called(adapter, task_of(edit), trace_of(edit.edited)) for edit in edits]

    async def ask_in_loop(self, adapter: EditReward, edits: Sequence[Edit]) -> list[float]:
        return [await adapter(task=task_of(edit), trace=trace_of(edit.edited)) for edit in edits]


def reward(**settings: Any) -> EditReward:
    return EditReward(**_settings(ShadeVerifier()), **settings)


def test_a_missing_score_is_an_error_that_is_counted_and_told() -> None:
    trace = trace_of(_refused().edited)
    with pytest.raises(UnscoredError, match="refused: told to"):
        called(reward(), task_of(_refused()), trace)
    assert trace.metrics == {"editr1_missing": 1.0}
    assert "refused: told to" in trace.info["editr1"]["failure"]


def test_a_score_is_told_with_its_verdicts() -> None:
    trace = trace_of(_edit(255, side=(16, 16)).edited)
    assert called(reward(), task_of(_edit(255, side=(16, 16))), trace) == 10.0
    assert trace.metrics == {"editr1_missing": 0.0}
    assert trace.info["editr1"] == {
        "score": 10.0,
        "failure": None,
        "flags": [],
        "verdicts": {"Was it done?": True},
    }


@pytest.mark.parametrize(
    ("edited", "reason"), [(None, "no edited image"), ("https://example.org/a.png", "URL"), ("x.png", "path")]
)
def test_what_an_agent_gives_is_never_the_set_ups_fault(edited: Any, reason: str) -> None:
    trace = Trace() if edited is None else trace_of(edited)
    with pytest.raises(UnscoredError, match=reason):
        called(reward(), task_of(_edit(1)), trace)


def test_where_the_edited_image_is_found() -> None:
    red, dark = _edit(255, side=(16, 16)), _edit(0, side=(16, 16))
    several = Trace([message("tool", picture(dark.edited)), message("tool", picture(red.edited)), message("tool")])
    assert called(reward(), task_of(red), several) == 10.0
    told = trace_of(dark.edited)
    told.info["edited"] = uri_of(red.edited)
    assert called(reward(), task_of(red), told) == 10.0
    assert called(reward(), task_of(red), Trace(state=SimpleNamespace(edited=red.edited))) == 10.0


def test_fields_of_the_task_come_first() -> None:
    seen = ShadeVerifier()
    wide = _edit(1, side=(16, 16)).source.resize((32, 16))
    task = task_of(_edit(9), source=uri_of(wide), instruction="make it blue", prompt="Use the tool.")
    called(EditReward(**_settings(seen)), task, trace_of(_edit(9).edited))
    assert [(source, text) for source, _, text in seen.seen] == [((32, 16), "make it blue")]


def test_a_task_without_a_source_says_which() -> None:
    with pytest.raises(DataError, match="row 3: source image"):
        called(reward(), task_of(_edit(9), prompt="make it red"), trace_of(_edit(9).edited))


def test_the_named_function_takes_its_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = split_tasks(1, seed=1, held_out=False)
    edit = Edit(source=draw(task.scene), edited=draw(task.goal), instruction=task.instruction)
    monkeypatch.setenv(SCORER_VARIABLE, '{"verifier": "measure", "top": 1.0}')
    assert list(inspect.signature(verifiers.edit_rrm).parameters) == ["task", "trace"]
    assert inspect.iscoroutinefunction(verifiers.edit_rrm)
    value = called(verifiers.edit_rrm, task_of(edit), trace_of(edit.edited))
    assert 0.5 < value <= 1
