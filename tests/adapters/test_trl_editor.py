"""The text that a reply tells an editor, and the editor: one for a process, the same noise for every prompt."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from editr1_plugins.adapters import trl as paths
from editr1_plugins.adapters.trl_editor import (
    EDITOR_VARIABLE,
    TextEditor,
    edit_or_reason,
    editor_from_environment,
    planned_text,
)
from editr1_plugins.errors import ComponentError, ConfigError, MissingExtraError
from editr1_plugins.images import content_hash
from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import draw
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import Edit

WHITE = Image.new("RGB", (32, 32), "white")


class Pipe:
    """What `TextEditor` loads, as far as it goes: it fails for prompts that say so."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def edit(self, item: Any, sources: Any) -> Image.Image:
        self.calls.append(item.instruction)
        if "fail" in item.instruction:
            raise ComponentError("pipeline Pipe raised OutOfMemoryError: no memory")
        return Image.new("RGB", sources.shown.size, item.instruction)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    made = Pipe()
    monkeypatch.setattr(TextEditor, "_loaded", lambda _: made)
    return made


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("make it red ", "make it red"),
        ([{"role": "assistant", "content": "make it red"}], "make it red"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "make it red"}]}], "make it red"),
        ("<think>or <edit>blue</edit>?</think>make it red", "make it red"),
        ("a <edit>blue</edit> or rather <EDIT>\nred</EDIT>.", "red"),
        ("<edit>red", "<edit>red"),
        ("<edit> </edit>", ""),
        ("thinking</think>", ""),
        ("", ""),
        ([], ""),
        (None, ""),
        ([{"role": "assistant"}], ""),
        ("x" * 3000, "x" * 2000),
    ],
)
def test_what_a_reply_tells_the_editor(completion: Any, text: str) -> None:
    assert planned_text(completion) == text


def test_the_tiny_kontext_does_what_it_is_told() -> None:
    editor, reward = TextEditor("miniedit:clean"), EditRRMReward("measure")
    task = next(task for task in sample_tasks(200, seed=3) if task.instruction == "make the background white")
    source = draw(task.scene)
    edits = [editor.edit(source, text) for text in (task.instruction, "make the background black")]
    scores = [
        verification.score
        for verification in reward.score(
            [Edit(source=source, edited=edited, instruction=task.instruction) for edited in edits]
        )
    ]
    assert scores[0] > 9
    assert scores[1] < 1
    again = pickle.loads(pickle.dumps(editor))
    assert again._pipeline is None
    assert content_hash(again.edit(source, task.instruction)) == content_hash(edits[0])


def test_one_plan_written_twice_is_edited_once(pipe: Pipe) -> None:
    editor = TextEditor()
    with ThreadPoolExecutor(8) as threads:
        edits = list(threads.map(lambda text: editor.edit(WHITE, text), ["red", "blue"] * 8))
    assert sorted(pipe.calls) == ["blue", "red"]
    edits[0].putpixel((0, 0), (1, 2, 3))  # what one caller does to its edit is not seen by the others
    assert editor.edit(WHITE, "red").getpixel((0, 0)) == (255, 0, 0)


def test_a_failure_costs_one_edit(pipe: Pipe) -> None:
    editor = TextEditor()
    editor.edit(WHITE, "red")
    for _ in range(5):
        assert edit_or_reason(editor, WHITE, "fail") == (
            "ComponentError: pipeline Pipe raised OutOfMemoryError: no memory"
        )
    assert isinstance(edit_or_reason(editor, WHITE, "blue"), Image.Image)


def test_an_editor_that_never_made_an_edit_is_wrongly_set_up(pipe: Pipe) -> None:
    editor = TextEditor()
    assert isinstance(edit_or_reason(editor, WHITE, "fail"), str)
    assert isinstance(edit_or_reason(editor, WHITE, "fail"), str)
    with pytest.raises(ConfigError, match="none of the first 3 edits could be made: pipeline Pipe raised"):
        edit_or_reason(editor, WHITE, "fail")


def test_what_is_missing_ends_the_run() -> None:
    class Missing:
        def edit(self, source: Image.Image, prompt: str) -> Image.Image:
            raise MissingExtraError("pip install something")

    with pytest.raises(MissingExtraError):
        edit_or_reason(Missing(), WHITE, "red")


def test_a_model_that_is_not_there(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        TextEditor(str(tmp_path)).edit(WHITE, "red")


def test_the_editor_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EDITOR_VARIABLE, raising=False)
    assert repr(editor_from_environment()) == "TextEditor('miniedit')"
    monkeypatch.setenv(EDITOR_VARIABLE, "black-forest-labs/FLUX.1-Kontext-dev")
    assert repr(editor_from_environment()) == "TextEditor('black-forest-labs/FLUX.1-Kontext-dev')"
    monkeypatch.setenv(EDITOR_VARIABLE, '{"model": "a/b", "call": {"num_inference_steps": 3}, "seed": 5}')
    assert editor_from_environment().__getstate__()["_call"] == {"num_inference_steps": 3}
    for wrong in ('{"model": ', '{"modell": "a/b"}'):
        monkeypatch.setenv(EDITOR_VARIABLE, wrong)
        with pytest.raises(ConfigError, match=r"\$EDITR1_EDITOR"):
            editor_from_environment()


def test_the_paths_a_job_names_travel_by_name() -> None:
    for name in ("planned_edit", "editing_rollout", "editing_environment", "judged_environment"):
        path = getattr(paths, name)
        assert pickle.loads(pickle.dumps(path)) is path
    assert paths.editing_environment()._editor is paths.editing_environment()._editor
