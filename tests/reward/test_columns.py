from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from PIL import Image

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.reward.columns import EditColumns
from editr1_plugins.types import Edit


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (8, 6), colour)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


RED, GREEN, BLUE = picture("red"), picture("green"), picture("blue")


def chat(text: str, *images: Image.Image) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def said(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": list(content)}]


def only(rows: list[Edit | str]) -> Edit:
    (row,) = rows
    assert isinstance(row, Edit), row
    return row


def colours(edit: Edit) -> tuple[Any, Any]:
    return edit.source.getpixel((0, 0)), edit.edited.getpixel((0, 0))


AS_RED_TO_BLUE = ((255, 0, 0), (0, 0, 255))


@pytest.mark.parametrize(
    "extra",
    [
        {"image": [RED]},
        {"source_image": [RED]},
        {"images": [[RED]]},
        {"images": [[RED, GREEN]]},
        {"image": [RED], "images": [[RED]], "source_image": [picture("red")]},
        {"image": [encoded(RED)]},
        {"image": [{"bytes": encoded(RED), "path": "nowhere.png"}]},
    ],
)
def test_source_from_a_column(extra: dict[str, Any]) -> None:
    edit = only(EditColumns().find(["make it blue"], [BLUE], extra))
    assert colours(edit) == AS_RED_TO_BLUE
    assert edit.instruction == "make it blue"


def test_source_and_instruction_from_a_conversation() -> None:
    prompt = [
        {"role": "system", "content": "You edit images."},
        *chat("an example", RED, GREEN),
        {"role": "assistant", "content": "done"},
        *chat("make it blue"),
    ]
    edit = only(EditColumns().find([prompt], [BLUE], {}))
    assert colours(edit) == AS_RED_TO_BLUE
    assert edit.instruction == "make it blue"


def test_the_image_that_trl_puts_into_the_prompt_is_the_columns_own() -> None:
    # TRL inserts the column's image into the prompt; with the same pixels both are one source.
    edit = only(EditColumns().find([chat("make it blue", RED)], [BLUE], {"image": [picture("red")]}))
    assert colours(edit) == AS_RED_TO_BLUE


def test_an_instruction_column_beats_the_prompt() -> None:
    extra = {"image": [RED], "instruction": ["make it blue"]}
    assert (
        only(EditColumns().find([chat("Please edit this image: ...", RED)], [BLUE], extra)).instruction
        == "make it blue"
    )


@pytest.mark.parametrize(
    ("completion", "extra"),
    [
        (BLUE, {}),
        (encoded(BLUE), {}),
        (said({"type": "text", "text": "here"}, {"type": "image", "image": BLUE}), {}),
        (said({"type": "image", "image": GREEN}, {"type": "image", "image": BLUE}), {}),
        (
            [*said({"type": "image", "image": GREEN}), {"role": "tool", "content": [{"type": "image", "image": BLUE}]}],
            {},
        ),
        ("text", {"edited_image": [BLUE]}),
        (said({"type": "text", "text": "done"}), {"edited_image": [{"bytes": encoded(BLUE), "path": None}]}),
        ("text", {"environments": [SimpleNamespace(image=BLUE)]}),
        # A tool shows the image and the environment holds it: the same image in two places.
        (said({"type": "image", "image": BLUE}), {"environments": [SimpleNamespace(image=picture("blue"))]}),
    ],
)
def test_edited_image_wherever_it_arrives(completion: Any, extra: dict[str, Any]) -> None:
    edit = only(EditColumns().find(["make it blue"], [completion], {"image": [RED], **extra}))
    assert colours(edit) == AS_RED_TO_BLUE


def test_names_can_be_chosen() -> None:
    columns = EditColumns({"source": "before", "instruction": ["ask", "prompt"], "edited": "environments.canvas"})
    extra = {"before": [RED], "ask": ["blue!"], "image": [GREEN], "environments": [SimpleNamespace(canvas=BLUE)]}
    edit = only(columns.find(["ignored"], [GREEN], extra))
    assert colours(edit) == AS_RED_TO_BLUE
    assert edit.instruction == "blue!"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"target": "x"}, "unknown key 'target'"),
        ({"source": ""}, "must be a place"),
        ({"source": []}, "must be a place"),
        ({"source": [3]}, "must be a place"),
    ],
)
def test_a_wrong_choice_of_names_is_refused(columns: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EditColumns(columns)


@pytest.mark.parametrize(
    ("prompt", "completion", "extra", "words"),
    [
        (
            "p",
            BLUE,
            {"picture": [RED]},
            "no source image: looked for 'image', 'source_image', 'images', 'prompt'.*picture",
        ),
        (
            "p",
            "text",
            {"image": [RED]},
            "no edited image: looked for 'completion', 'edited_image', 'environments.image'",
        ),
        ("p", "text", {"image": [RED], "environments": [object()]}, "no edited image"),
        (
            "p",
            BLUE,
            {"image": [RED], "source_image": [GREEN]},
            "row 0: the source image in 'image' is not the one in 'sou",
        ),
        (chat("p", GREEN), BLUE, {"image": [RED]}, "source image in 'image' is not the one in 'prompt'"),
        (
            "p",
            BLUE,
            {"image": [RED], "edited_image": [GREEN]},
            "edited image in 'completion' is not the one in 'edited_",
        ),
        ("p", BLUE, {"image": [RED, RED]}, "column 'image' has 2 items for 1 completions"),
        ("p", BLUE, {"image": RED}, "column 'image' must be a list"),
        ("p", BLUE, {"image": [RED], "instruction": [3]}, "instruction in 'instruction' is a int, not text"),
        ("p", BLUE, {"image": [3]}, "'image' holds a int"),
        ("p", BLUE, {"image": ["https://example.com/a.png"]}, "never opened"),
        ("p", BLUE, {"image": ["/etc/hostname"]}, "never opened"),
        ("p", BLUE, {"image": [{"bytes": None, "path": "/etc/hostname"}]}, "never opened"),
        (chat("p", "https://example.com/a.png"), BLUE, {}, "never opened"),  # type: ignore[arg-type]
    ],
)
def test_missing_ambiguous_or_wrong_is_an_error_that_says_where(
    prompt: Any, completion: Any, extra: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        EditColumns().find([prompt], [completion], extra)


def test_a_column_asked_for_by_name_must_be_there() -> None:
    with pytest.raises(
        DataError, match=r"no edited image: looked for 'edit_img'; the call has the columns: edited_image"
    ):
        EditColumns({"edited": "edit_img"}).find(["p"], ["c"], {"edited_image": [BLUE], "source_image": [RED]})


def test_an_absent_or_broken_image_costs_its_own_row_only() -> None:
    sources = [RED, None, RED, {"bytes": b"no image"}, RED, RED]
    completions = [BLUE, BLUE, said({"type": "text", "text": "I cannot"}), BLUE, encoded(BLUE)[:45], BLUE]
    prompts = ["p", "p", "p", "p", "p", "  "]
    rows = EditColumns().find(prompts, completions, {"image": sources})
    assert isinstance(rows[0], Edit)
    assert rows[1] == "no source image in this row"
    assert rows[2] == "no edited image in this row"
    assert "source image: the image is not an image" in str(rows[3])
    assert str(rows[4]).startswith("edited image: ")
    assert rows[5] == "no instruction in this row"


def test_a_policy_that_sometimes_makes_no_image_does_not_end_the_run() -> None:
    nothing = said({"type": "text", "text": "I cannot"})
    asked = EditColumns({"edited": "completion"})
    assert asked.find(["p"], [nothing], {"image": [RED]}) == ["no edited image in this row"]
    learnt = EditColumns()
    only(learnt.find(["p"], [said({"type": "image", "image": BLUE})], {"image": [RED]}))
    assert learnt.find(["p"], [nothing], {"image": [RED]}) == ["no edited image in this row"]
    environments = {"image": [RED], "environments": [SimpleNamespace(image=None)]}
    assert EditColumns().find(["p"], ["text"], environments) == ["no edited image in this row"]


def test_images_arrive_as_upright_rgb() -> None:
    sideways = Image.new("RGB", (8, 6), "red")
    exif = sideways.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    sideways.save(buffer, "JPEG", exif=exif)
    edit = only(EditColumns().find(["p"], [BLUE.convert("P")], {"image": [buffer.getvalue()]}))
    assert edit.source.size == (6, 8)
    assert edit.edited.mode == "RGB"


@pytest.mark.parametrize("decode", [True, False])
def test_columns_of_a_hugging_face_dataset(decode: bool) -> None:
    feature = datasets.Image(decode=decode)
    features = datasets.Features(image=feature, images=datasets.List(feature), edited_image=feature)
    rows = {"image": [RED] * 2, "images": [[RED]] * 2, "edited_image": [BLUE, None]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    extra = {name: list(dataset[name]) for name in rows}
    first, second = EditColumns().find(["p", "p"], ["c", "c"], extra)
    assert colours(only([first])) == AS_RED_TO_BLUE
    assert second == "no edited image in this row"


@pytest.mark.parametrize("prompt", [None, [], [{"role": "system", "content": "be kind"}], [{"role": "user"}], ["?"]])
def test_a_prompt_without_a_request_has_no_instruction(prompt: Any) -> None:
    assert EditColumns().find([prompt], [BLUE], {"image": [RED]}) == ["no instruction in this row"]


def test_an_empty_batch_has_no_edits() -> None:
    assert EditColumns().find([], [], {}) == []


def test_prompts_and_completions_must_match() -> None:
    with pytest.raises(DataError, match="1 prompts for 2 completions"):
        EditColumns().find(["p"], [RED, RED], {"image": [RED, RED]})
