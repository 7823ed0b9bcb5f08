"""inspect_ai's call of a scorer, written down anew: states and messages in, scores out, NaN where there is none."""

from __future__ import annotations

import asyncio
import importlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from editr1_plugins.backends.image_uri import ImageURIs
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import ShadeVerifier, _edit, _refused, _settings
from editr1_plugins.types import FOLLOW, Edit

NAME = "editr1_plugins.adapters.inspect_ai"
uri_of = ImageURIs()


class Score(SimpleNamespace):
    """The fields of inspect_ai's own; `unscored` makes one whose value is NaN."""

    def __init__(self, value: Any, **fields: Any) -> None:
        super().__init__(value=value, **{"reason": None, "explanation": None, "metadata": None, **fields})

    @classmethod
    def unscored(cls, **fields: Any) -> Score:
        return cls(math.nan, **fields)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Our module, imported with the little of inspect_ai that it uses; decorators note what they are given."""
    root, scorer, solver = ModuleType("inspect_ai"), ModuleType("inspect_ai.scorer"), ModuleType("inspect_ai.solver")
    model, dataset = ModuleType("inspect_ai.model"), ModuleType("inspect_ai.dataset")

    def marking(metrics: Sequence[Any]) -> Callable[[Any], Any]:
        def mark(function: Any) -> Any:
            function.metrics = list(metrics)
            return function

        return mark

    def plain(function: Any) -> Any:
        return function

    root.task = solver.solver = scorer.metric = plain  # type: ignore[attr-defined]
    scorer.__dict__.update(Score=Score, scorer=marking, mean=lambda: "mean", stderr=lambda: "stderr")
    root.Task = dataset.Sample = SimpleNamespace  # type: ignore[attr-defined]
    solver.generate = lambda: "generate"  # type: ignore[attr-defined]
    dataset.MemoryDataset = lambda samples, name: SimpleNamespace(samples=samples, name=name)  # type: ignore[attr-defined]
    model.ContentImage = lambda image: SimpleNamespace(type="image", image=image)  # type: ignore[attr-defined]
    model.ContentText = lambda text: SimpleNamespace(type="text", text=text)  # type: ignore[attr-defined]
    model.ChatMessageUser = lambda content: message("user", content)  # type: ignore[attr-defined]
    for module in (root, scorer, solver, model, dataset):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)


def message(role: str, content: Any, source: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(role=role, content=content, source=source)


def picture(image: Image.Image | str) -> SimpleNamespace:
    return SimpleNamespace(type="image", image=image if isinstance(image, str) else uri_of(image))


def words(text: str) -> SimpleNamespace:
    return SimpleNamespace(type="text", text=text)


def state_of(source: Any, instruction: str, edited: Any, **fields: Any) -> SimpleNamespace:
    """A sample after its model has answered with an image."""
    content = [*([] if source is None else [picture(source)]), words(instruction)]
    asked = [message("user", content, "input")]
    answer = message("assistant", "I cannot" if edited is None else [words("Done."), picture(edited)], "generate")
    state = SimpleNamespace(
        sample_id="a1", epoch=1, input=asked, messages=[*asked, answer], metadata={}, store={}, scores={}
    )
    state.output = SimpleNamespace(choices=[answer], message=answer)
    return SimpleNamespace(**{**vars(state), **fields})


class TestContract(AdapterContract):
    picklable = False

    @pytest.fixture(autouse=True)
    def _with_host(self, host: ModuleType) -> None:
        self.host = host

    def build(self, **settings: Any) -> Any:
        return self.host.edit_rrm(**settings)

    async def ask_in_loop(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        states = [state_of(each.source, each.instruction, each.edited) for each in edits]
        return [score.value for score in await asyncio.gather(*(adapter(state, None) for state in states))]

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        return asyncio.run(self.ask_in_loop(adapter, edits))

    # In this host NaN is right: what cannot be judged is left out and counted, so nothing stands in for it.
    def test_a_missing_score_gets_the_mean_of_its_group(self, adapter: Any) -> None:
        values = self.ask(adapter, [_edit(100, "refuse"), _edit(200, "refuse"), _refused()])
        assert [math.isnan(value) for value in values] == [False, False, True]

    def test_too_many_missing_scores_end_the_call(self, adapter: Any) -> None:
        assert all(math.isnan(value) for value in self.ask(adapter, [_refused()] * 3))

    def test_the_policy_error(self, verifier: ShadeVerifier) -> None:
        pytest.skip("NaN is the only policy that inspect_ai needs")

    def test_a_judge_that_raises_costs_its_own_rows(self, adapter: Any) -> None:
        values = self.ask(adapter, [_edit(100), _edit(200), _edit(9, "raise")])
        assert values[:2] == self.ask(adapter, [_edit(100), _edit(200)])
        assert math.isnan(values[2])


class TestContractFromZeroToOne(TestContract):
    top = 1.0

    def build(self, **settings: Any) -> Any:
        return super().build(top=1.0, **settings)


def judge(host: ModuleType, state: Any, **settings: Any) -> Score:
    return asyncio.run(host.edit_rrm(**_settings(ShadeVerifier()), **settings)(state, None))


def test_the_reasons_for_no_score(host: ModuleType) -> None:
    edit = _edit(255)
    seen = {
        "no answer": judge(host, state_of(edit.source, "make it red", None)),
        "a URL": judge(host, state_of(edit.source, "make it red", "https://example.org/a.png")),
        "broken": judge(host, state_of(edit.source, "make it red", uri_of(edit.edited)[:90])),
        "no source": judge(host, state_of(uri_of(edit.source)[:90], "make it red", edit.edited)),
        "judge": judge(host, state_of(_refused().source, "refuse", _refused().edited)),
    }
    assert {name: score.reason for name, score in seen.items()} == {
        "no answer": "no_response",
        "a URL": "invalid_response_format",
        "broken": "invalid_response_format",
        "no source": "scoring_failed",
        "judge": "grader_failed",
    }
    assert all(math.isnan(score.value) and score.explanation for score in seen.values())
    assert "URL" in seen["a URL"].explanation
    assert seen["judge"].explanation == "refused: told to"


def test_a_score_says_which_principles_are_met(host: ModuleType) -> None:
    edit = _edit(255, side=(16, 16))
    score = judge(host, state_of(edit.source, edit.instruction, edit.edited))
    assert (score.value, score.explanation) == (10.0, "- yes: Was it done?")
    assert score.metadata["verdicts"] == [{"question": "Was it done?", "category": FOLLOW, "passed": True}]


def test_where_the_edited_image_is_found(host: ModuleType) -> None:
    red, dark = _edit(255, side=(16, 16)), _edit(0, side=(16, 16))
    tool = message("tool", [picture(red.edited)])
    said = message("assistant", "There it is.", "generate")
    shot = message("assistant", [picture(red.edited)], "input")  # an example in the sample's own messages
    asked = state_of(red.source, "make it red", None)
    last = SimpleNamespace(choices=[said], message=said)
    by_tool = SimpleNamespace(**{**vars(asked), "messages": [*asked.input, tool, said], "output": last})
    example = SimpleNamespace(**{**vars(asked), "messages": [*asked.input, shot, said], "output": last})
    assert judge(host, by_tool).value == 10.0
    assert judge(host, example).reason == "no_response"
    assert judge(host, state_of(red.source, "make it red", dark.edited)).value == 0.0
    assert judge(host, state_of(red.source, "make it red", dark.edited, store={"edited": red.edited})).value == 10.0
    assert judge(host, state_of(red.source, "make it red", None, metadata={"edited": uri_of(red.edited)})).value == 10.0


def test_source_and_instruction_of_the_metadata_come_first(host: ModuleType) -> None:
    seen = ShadeVerifier()
    wide = Image.new("RGB", (32, 16))
    state = state_of(_edit(1).source, "chat", _edit(9).edited, metadata={"source": wide, "instruction": "make it red"})
    asyncio.run(host.edit_rrm(**_settings(seen))(state, None))
    assert [(source, text) for source, _, text in seen.seen] == [((32, 16), "make it red")]


def test_a_sample_without_a_source_or_an_instruction_is_an_error(host: ModuleType) -> None:
    with pytest.raises(DataError, match="row a1: source image"):
        judge(host, state_of(None, "make it red", _edit(9).edited))
    with pytest.raises(DataError, match="row a1: the instruction"):
        judge(host, state_of(_edit(9).source, " ", _edit(9).edited))


def test_paths_are_opened_only_below_a_named_folder(host: ModuleType, tmp_path: Any) -> None:
    edit = _edit(255, side=(16, 16))
    edit.source.save(tmp_path / "source.png")
    edit.edited.save(tmp_path / "edited.png")
    state = state_of("source.png", "make it red", "edited.png")
    assert judge(host, state, image_folder=str(tmp_path)).value == 10.0
    assert judge(host, state).reason == "invalid_response_format"
    outside = state_of("source.png", "make it red", "../edited.png")
    assert judge(host, outside, image_folder=str(tmp_path / "sub")).reason == "invalid_response_format"


def test_the_share_without_a_score(host: ModuleType) -> None:
    scorer = host.unscored()
    states = [SimpleNamespace(scores={"edit_rrm": score}) for score in (Score(3.0), Score.unscored(explanation="why"))]
    scores = [asyncio.run(scorer(state, None)) for state in states]
    assert [(score.value, score.explanation) for score in scores] == [(0.0, None), (1.0, "why")]
    (share,) = host.unscored.metrics
    assert share([SimpleNamespace(score=score) for score in [*scores, *scores, scores[0]]]) == pytest.approx(2 / 5)
    assert share([]) == 0.0
    with pytest.raises(ConfigError, match="list `unscored` after it"):
        asyncio.run(host.unscored(of="mine")(states[0], None))


def test_the_task(host: ModuleType) -> None:
    task = host.image_edits("miniedit:9", first=3, verifier="measure")
    sample = task.dataset.samples[0]
    image, text = sample.input[0].content
    assert (len(task.dataset.samples), task.dataset.name, task.solver) == (3, "miniedit:9", "generate")
    assert image.image.startswith("data:image/png;base64,")
    assert text.text == sample.metadata["instruction"]
    assert "source" not in sample.metadata
    assert len(task.scorer) == 2
    with pytest.raises(ConfigError, match="first must be"):
        host.image_edits("miniedit:9", first=0)


def test_without_the_host_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    with pytest.raises(MissingExtraError, match="pip install inspect-ai"):
        importlib.import_module(NAME)
