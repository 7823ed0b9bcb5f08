"""Where the source, the instruction and the edited image are in TRL's keyword call (`GRPOTrainer`, 1.16).

TRL passes `prompts` and `completions`, every other dataset column as a list, the extra fields of a `rollout_func` in
the same way, and `environments` where an `environment_factory` is used. With a column `image` or `images` it also puts
the images into the prompts. A place is one of

- a column or extra field, by its name; a list of images in it counts by its first (source) or last (edited) item;
- "prompt": the first image part, or the text, of the prompt (the last user message's text);
- "completion": the completion itself when it is an image, else the last image part of its messages;
- "environments.NAME": attribute NAME of `environments[i]`.

An image is a PIL image, encoded bytes, or the `{"bytes": ...}` form of `datasets.Image(decode=False)`. A path or URL
found in data is never opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from PIL.Image import Image

from editr1_plugins.errors import ConfigError, DataError, ImageError
from editr1_plugins.images import read_image_cell
from editr1_plugins.types import Edit

__all__ = ["DEFAULT_PLACES", "EditColumns", "Role"]

Role = Literal["source", "instruction", "edited"]

#: Where each part of an edit is looked for, unless `columns=` says otherwise.
DEFAULT_PLACES: Final[Mapping[Role, tuple[str, ...]]] = {
    "source": ("image", "source_image", "images", "prompt"),
    "instruction": ("instruction", "prompt"),
    "edited": ("completion", "edited_image", "environments.image"),
}

_WHAT: Final[Mapping[Role, str]] = {
    "source": "source image",
    "instruction": "instruction",
    "edited": "edited image",
}
_ENVIRONMENTS: Final = "environments."

#: One cell per row; None where the row has nothing there.
_Cells: TypeAlias = Sequence[Any] | None


class EditColumns:
    """Finds the edits in a reward call.

    Args:
        columns: for any of "source", "instruction", "edited": a place or several, instead of `DEFAULT_PLACES`.

    A source or edited image that stands in several places must be the same one; two different ones are an error,
    because taking either would be a guess. For the instruction the first place that the call has wins, since a prompt
    often wraps the instruction in more words.

    "completion" and "environments.NAME" count as there when they were asked for by name, or have given an image in an
    earlier call of this object: a policy need not produce an image every time. Rows without one are not judged then.

    Raises:
        ConfigError: an unknown role, or a place that is not a non-empty string.
    """

    def __init__(self, columns: Mapping[str, str | Sequence[str]] | None = None) -> None:
        asked = {role: _as_places(role, places) for role, places in (columns or {}).items()}
        self.places: dict[Role, tuple[str, ...]] = {
            role: asked.get(role, DEFAULT_PLACES[role]) for role in DEFAULT_PLACES
        }
        # Places that may be empty in a whole batch without being a mistake in the set-up.
        self._expected: dict[Role, set[str]] = {role: set(asked.get(role, ())) for role in DEFAULT_PLACES}

    def find(self, prompts: Sequence[Any], completions: Sequence[Any], extra: Mapping[str, Any]) -> list[Edit | str]:
        """One `Edit` (RGB images) per completion, or the reason why that row cannot be judged.

        Raises:
            DataError: a part is nowhere to be found, stands in two places that differ, or is of a wrong type; the
                message says which names were looked for. One broken or absent image only costs its own row.
        """
        if len(prompts) != len(completions):
            raise DataError(f"{len(prompts)} prompts for {len(completions)} completions")
        if not completions:
            return []
        call = _Call(prompts, completions, extra)
        sources = self._images("source", call)
        instructions = self._instructions(call)
        edited = self._images("edited", call)
        return [_row(*parts) for parts in zip(sources, instructions, edited, strict=True)]

    def sources(self, prompts: Sequence[Any], extra: Mapping[str, Any]) -> list[Image | str]:
        """The source image of each row (RGB), or the reason why that row has none: for who makes the edits.

        Raises:
            DataError: as `find`.
        """
        return self._images("source", _Call(prompts, [None] * len(prompts), extra)) if prompts else []

    def _images(self, role: Role, call: _Call) -> list[Image | str]:
        pick = _last if role == "edited" else _first
        columns = {place: cells for place in self.places[role] if (cells := self._cells(role, place, call)) is not None}
        if not columns:
            raise self._missing(role, call)
        rows: list[Image | str] = []
        for i in range(call.size):
            held = {place: pick(cells[i]) for place, cells in columns.items()}
            rows.append(_one_image(role, i, {place: cell for place, cell in held.items() if cell is not None}))
        return rows

    def _instructions(self, call: _Call) -> list[str]:
        """Instructions as given; a blank one is left to `_row`."""
        for place in self.places["instruction"]:
            cells = call.texts() if place == "prompt" else call.column(place)
            if cells is None:
                continue
            for i, cell in enumerate(cells):
                if cell is not None and not isinstance(cell, str):
                    raise DataError(f"row {i}: the instruction in {place!r} is a {type(cell).__name__}, not text")
            return [cell or "" for cell in cells]
        raise self._missing("instruction", call)

    def _cells(self, role: Role, place: str, call: _Call) -> _Cells:
        if place == "prompt":
            cells = call.prompt_images()
        elif place == "completion":
            cells = call.completion_images()
        elif place.startswith(_ENVIRONMENTS):
            return call.attribute(place.removeprefix(_ENVIRONMENTS))
        else:
            return call.column(place)
        if any(cell is not None for cell in cells):
            self._expected[role].add(place)
        return cells if place in self._expected[role] else None

    def _missing(self, role: Role, call: _Call) -> DataError:
        looked = ", ".join(repr(place) for place in self.places[role])
        there = ", ".join(sorted(name for name, cells in call.extra.items() if isinstance(cells, list))) or "none"
        hint = (
            f"Name the place with columns={{{role!r}: ...}}; columns={{'edited': 'completion'}} if completions only "
            "sometimes hold an image."
            if role == "edited"
            else f"Name the place with columns={{{role!r}: ...}}."
        )
        return DataError(f"found no {_WHAT[role]}: looked for {looked}; the call has the columns: {there}. {hint}")


class _Call:
    """One reward call, read place by place."""

    def __init__(self, prompts: Sequence[Any], completions: Sequence[Any], extra: Mapping[str, Any]) -> None:
        self.prompts, self.completions, self.extra = prompts, completions, extra
        self.size = len(completions)

    def column(self, name: str) -> _Cells:
        cells = self.extra.get(name)
        if cells is None:
            return None
        if isinstance(cells, str) or not isinstance(cells, Sequence):
            raise DataError(f"column {name!r} must be a list with one item per row, got a {type(cells).__name__}")
        if len(cells) != self.size:
            raise DataError(f"column {name!r} has {len(cells)} items for {self.size} completions")
        return cells

    def attribute(self, name: str) -> _Cells:
        environments = self.column("environments")
        if environments is None or not any(hasattr(environment, name) for environment in environments):
            return None
        return [getattr(environment, name, None) for environment in environments]

    def prompt_images(self) -> list[Any]:
        return [_first(_image_parts(prompt)) for prompt in self.prompts]

    def completion_images(self) -> list[Any]:
        return [
            _last(_image_parts(completion)) if isinstance(completion, (str, list, tuple)) else completion
            for completion in self.completions
        ]

    def texts(self) -> list[str]:
        return [_prompt_text(prompt) for prompt in self.prompts]


def _as_places(role: str, places: str | Sequence[str]) -> tuple[str, ...]:
    if role not in DEFAULT_PLACES:
        raise ConfigError(f"columns: unknown key {role!r}; keys are: {', '.join(DEFAULT_PLACES)}")
    listed = (places,) if isinstance(places, str) else tuple(places)
    if not listed or not all(isinstance(place, str) and place for place in listed):
        raise ConfigError(f"columns[{role!r}] must be a place or a list of places, got {places!r}")
    return listed


def _first(cell: Any) -> Any:
    return (cell[0] if cell else None) if isinstance(cell, (list, tuple)) else cell


def _last(cell: Any) -> Any:
    return (cell[-1] if cell else None) if isinstance(cell, (list, tuple)) else cell


def _content_parts(message: Any) -> list[Any]:
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, list) else []


def _image_parts(messages: Any) -> list[Any]:
    """The images in a list of chat messages, in order; parts without a payload (bare placeholders) are skipped."""
    if not isinstance(messages, (list, tuple)):
        return []
    parts = [part for message in messages for part in _content_parts(message)]
    found = [part.get("image") for part in parts if isinstance(part, Mapping) and part.get("type") == "image"]
    return [image for image in found if image is not None]


def _prompt_text(prompt: Any) -> str:
    """A plain prompt itself; of a conversation, the text of its last user message."""
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, (list, tuple)):
        return ""
    asked = [message for message in prompt if isinstance(message, Mapping) and message.get("role") == "user"]
    if not asked:
        return ""
    if isinstance(asked[-1].get("content"), str):
        return str(asked[-1]["content"])
    texts = [part.get("text") for part in _content_parts(asked[-1]) if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _one_image(role: Role, row: int, held: Mapping[str, Any]) -> Image | str:
    """The row's image, or why it has none."""
    if not held:
        return f"no {_WHAT[role]} in this row"
    try:
        images = {place: read_image_cell(cell, place, f"row {row}: ") for place, cell in held.items()}
    except ImageError as error:
        return f"{_WHAT[role]}: {error}"
    places = list(images)
    for other in places[1:]:
        if not _same(images[places[0]], images[other]):
            raise DataError(
                f"row {row}: the {_WHAT[role]} in {places[0]!r} is not the one in {other!r}; "
                f"say which to use, for example columns={{{role!r}: {places[0]!r}}}"
            )
    return images[places[0]]


def _same(one: Image, other: Image) -> bool:
    return one is other or (one.size == other.size and one.tobytes() == other.tobytes())


def _row(source: Image | str, instruction: str, edited: Image | str) -> Edit | str:
    if isinstance(source, str):
        return source
    if isinstance(edited, str):
        return edited
    if not instruction.strip():
        return "no instruction in this row"
    return Edit(source=source, edited=edited, instruction=instruction)
