"""The edit behind a row of a host whose policy writes text, and the label of a policy that judges."""

from __future__ import annotations

import io
import json
import math
from collections import UserDict, UserList
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1_plugins.adapters import policy_rows
from editr1_plugins.adapters.judge_policy import judge_label, judge_reward
from editr1_plugins.adapters.policy_rows import PolicyRows, plain_settings
from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.types import Edit

RED, BLUE = Image.new("RGB", (8, 6), (200, 0, 0)), Image.new("RGB", (8, 6), (0, 0, 200))


def paint(source: Image.Image, text: str) -> Image.Image:
    """An editor that knows two colours."""
    if text == "raise":
        raise RuntimeError("out of paint")
    return Image.new("RGB", source.size, text)


class Painter:
    def edit(self, source: Image.Image, prompt: str) -> Image.Image:
        return paint(source, prompt)


painter = Painter()
number = 3


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """The dotted path of this module."""
    import sys

    module = type(sys)("painting")
    module.__dict__.update(paint=paint, painter=painter, number=number)
    monkeypatch.setitem(sys.modules, "painting", module)
    policy_rows._editor.cache_clear()
    return "painting"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _edit(found: Edit | str) -> Edit:
    assert isinstance(found, Edit), found
    return found


def _colour(image: Image.Image) -> Any:
    return image.getpixel((0, 0))


def test_the_first_source_the_last_edit_and_the_rows_own_instruction() -> None:
    row = {"source": np.array([{"bytes": _png(RED)}, None], dtype=object), "edited": [RED, BLUE], "instruction": "blue"}
    edit = _edit(PolicyRows().edit(row, "", instruction="of the host"))
    assert (_colour(edit.source), _colour(edit.edited), edit.instruction) == ((200, 0, 0), (0, 0, 200), "blue")
    del row["instruction"]
    assert _edit(PolicyRows().edit(row, "", instruction="of the host")).instruction == "of the host"


def test_other_names_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(_png(RED))
    rows, others = PolicyRows.split(
        {"source_key": "image", "edited_key": "made", "image_folder": str(tmp_path), "verifier": "measure"}
    )
    assert others == {"verifier": "measure"}
    assert _colour(_edit(rows.edit({"image": "one.png", "made": BLUE}, "", instruction="blue")).source) == (200, 0, 0)
    outside = rows.edit({"image": "../one.png", "made": BLUE}, "", instruction="blue")
    assert isinstance(outside, str)
    assert "'..'" in outside
    with pytest.raises(DataError, match="image_folder"):
        PolicyRows().edit({"source": "one.png", "edited": BLUE}, "", instruction="blue")


def test_a_picture_that_is_broken_costs_its_row() -> None:
    assert PolicyRows().edit({"source": RED, "edited": b"GIF89a"}, "", instruction="blue") != ""
    found = PolicyRows().edit({"source": RED, "edited": b"no image"}, "", instruction="blue")
    assert isinstance(found, str)
    assert found.startswith("edited image: ")


def test_rows_that_the_set_up_is_to_blame_for() -> None:
    with pytest.raises(DataError, match=r"row 4 has no image 'source', only edited, index; .* source_key"):
        PolicyRows().edit({"edited": BLUE, "index": 1}, "", number=4)
    with pytest.raises(DataError, match=r"no edited image 'edited'; .* no_edit to 'source'"):
        PolicyRows().edit({"source": RED}, "", instruction="blue")
    with pytest.raises(DataError, match="instruction must be text"):
        PolicyRows().edit({"source": RED, "edited": BLUE}, "")
    with pytest.raises(ConfigError, match="no_edit must be one of error, source, got 'zero'"):
        PolicyRows(no_edit="zero")  # type: ignore[arg-type]


def test_a_policy_that_edited_nothing_is_judged_by_the_source() -> None:
    edit = _edit(PolicyRows(no_edit="source").edit({"source": RED}, "", instruction="blue"))
    assert _colour(edit.edited) == (200, 0, 0)


@pytest.mark.parametrize("name", ["paint", "painter"])
def test_an_editor_follows_the_text(here: str, name: str) -> None:
    rows = PolicyRows(editor=f"{here}.{name}")
    edit = _edit(rows.edit({"source": RED}, "<think>hm</think><edit>blue</edit>", instruction="paint it blue"))
    assert (_colour(edit.edited), edit.instruction) == ((0, 0, 255), "paint it blue")
    assert _colour(_edit(rows.edit({"source": RED}, "<edit> </edit>", instruction="x")).edited) == (200, 0, 0)
    assert rows.edit({"source": RED}, "raise", instruction="x") == "no edit was made: RuntimeError: out of paint"
    assert str(rows.edit({"source": b"?"}, "blue", instruction="x")).startswith("source image: ")


@pytest.mark.parametrize("path", ["nowhere.paint", "painting.nothing", "paint", "painting.number"])
def test_an_editor_that_is_none(here: str, path: str) -> None:
    with pytest.raises(ConfigError, match="editor="):
        PolicyRows(editor=path).edit({"source": RED}, "blue", instruction="x")


def test_the_editor_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_rows, "editor_from_environment", Painter)
    policy_rows._environment_editor.cache_clear()
    assert _colour(policy_rows.environment_editor(RED, "blue")) == (0, 0, 255)
    policy_rows._environment_editor.cache_clear()


def test_containers_of_a_configuration() -> None:
    given = UserDict({"guards": UserList(["a", "b"]), "verifier": "measure", "deep": UserDict({"x": UserList([1])})})
    assert plain_settings(given) == {"guards": ("a", "b"), "verifier": "measure", "deep": {"x": (1,)}}


REPLY = """The cup is red now.
[{"question": "Is the cup red?", "score": 1}]
{"average_score": 1.0}
<score>8.5</score>"""


def test_the_nearer_to_the_label_the_better() -> None:
    assert judge_reward(REPLY, 8.5) == {"score": 1.0, "editr1/error": 0.0, "editr1/unread": 0.0}
    assert judge_reward(REPLY, 6.0, ["Is the cup red?"])["score"] == 0.75
    assert judge_reward("It looks fine.", 6.0) == {"score": 0.0, "editr1/error": 10.0, "editr1/unread": 1.0}


def test_an_example_is_nobodys_answer() -> None:
    reply = f'For example: {REPLY}\nMine: [{{"question": "Did the dog leave?", "score": 0}}]'
    assert judge_reward(reply, 8.5, ["Did the dog leave?"])["editr1/unread"] == 1.0
    assert judge_reward(reply, 8.5, ["Is the cup red?"])["score"] == 1.0


def test_labels() -> None:
    assert judge_label(7) == judge_label("7") == judge_label('{"score": 7.0}') == (7.0, ())
    assert judge_label({"score": 7, "questions": ["Is it red?"]}) == (7.0, ("Is it red?",))
    bad = ["good", "11", -1, math.nan, True, None, "[7]", json.dumps({"score": 7, "questions": "Is it?"}), {}]
    for value in [*bad, {"score": 1, "questions": [1]}]:
        with pytest.raises(DataError, match="label"):
            judge_label(value)
