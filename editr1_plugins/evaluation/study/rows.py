"""What a study compares: rows with both systems' images, two folders of images and their edits, or two evaluations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from editr1_plugins.errors import ConfigError, DataError, ImageError
from editr1_plugins.evaluation.catalogue import JUDGED
from editr1_plugins.evaluation.editors.items import JudgedEdit, read_judged_edits
from editr1_plugins.evaluation.sources import Row, read_rows
from editr1_plugins.images import read_image
from editr1_plugins.reward.edit_rows import file_below

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Comparison", "from_folders", "from_rows", "from_runs"]

_ROW: Final = {"source": "image", "instruction": "text", "image_a": "image", "image_b": "image"}
_EDIT: Final = {"source": "image", "instruction": "text", "id": "any"}
_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp")
_SHOWN: Final = 10


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row with its images decoded; `systems` are the names that the row itself gives to a and b, if it does."""

    name: str
    instruction: str
    category: str
    source: Image
    a: Image
    b: Image
    systems: tuple[str, str] | None = None


def from_rows(place: str) -> Iterator[Comparison]:
    """Rows with `source`, `instruction`, `image_a`, `image_b`; optional `id`, `category`, `system_a` and `system_b`.

    Args:
        place: a JSONL, JSON or Parquet file, a folder of them, or a hub id.

    Raises:
        DataError: a column is missing or wrong, or an image cannot be read; names the row and the column.
    """
    for number, row in enumerate(read_rows(place, _ROW)):
        named = [row.text(column, "") for column in ("system_a", "system_b")]
        if bool(named[0]) != bool(named[1]):
            raise DataError(f"{row.where}: system_a and system_b go together")
        yield Comparison(
            name=_name(row, str(number)),
            instruction=_instruction(row),
            category=row.text("category", ""),
            source=row.image("source"),
            a=row.image("image_a"),
            b=row.image("image_b"),
            systems=(named[0], named[1]) if named[0] else None,
        )


def from_folders(edits: str, a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Iterator[Comparison]:
    """Rows with `id`, `source`, `instruction` and optional `category`; each system's image is `<id>.png` in its folder.

    JPEG and WebP files are found, too. An edit that one of the systems lacks is an error, never left out: who fails on
    the hard edits would look better.

    Raises:
        ConfigError: a folder does not exist.
        DataError: a column is missing or wrong, or images are missing or cannot be read.
    """
    folders = [Path(a), Path(b)]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"no folder {folder}")
    _check_complete(edits, folders)
    for row in read_rows(edits, _EDIT):
        name = _name(row, None)
        images = [_opened(row, found) for folder in folders if (found := _image_file(folder, name)) is not None]
        yield Comparison(
            name=name,
            instruction=_instruction(row),
            category=row.text("category", ""),
            source=row.image("source"),
            a=images[0],
            b=images[1],
        )


def from_runs(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Iterator[Comparison]:
    """The edits of two folders that `editr1 eval editor` wrote on the same benchmark, by key.

    As in `from_folders`, an edit that one of them lacks or failed at is an error.

    Raises:
        ConfigError: a folder is none of an evaluation.
        DataError: the two have other keys or instructions, or images are missing or cannot be read.
    """
    folders = [Path(a), Path(b)]
    for folder in folders:
        if not (folder / JUDGED).is_file():
            raise ConfigError(
                f"{folder} holds no {JUDGED}: name two folders that `editr1 eval editor` wrote, or --edits"
            )
    first, second = ({row.key: row for row in read_judged_edits(folder / JUDGED)} for folder in folders)
    for folder, rows, others in ((folders[0], first, second), (folders[1], second, first)):
        lacking = [key for key in others if key not in rows or rows[key].edited is None]
        if lacking:
            raise DataError(f"{folder} lacks the images of {_told(lacking, len(others))}"[:500])
    for key, row in first.items():
        if row.instruction != second[key].instruction:
            raise DataError(f"edit {key!r}: the two runs have different instructions")
        yield Comparison(
            name=key,
            instruction=row.instruction,
            category=row.category,
            source=_image_of(folders[0], row, row.source),
            a=_image_of(folders[0], row, row.edited),
            b=_image_of(folders[1], row, second[key].edited),
        )


def _image_of(folder: Path, row: JudgedEdit, name: str | None) -> Image:
    if name is None:
        raise DataError(f"edit {row.key!r}: {folder} has no picture of its source")
    try:
        return read_image(file_below(folder, name))
    except ImageError as error:
        raise ImageError(f"edit {row.key!r}: {error}") from None


def _told(missing: list[str], count: int) -> str:
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return f"{len(missing)} of {count} edits: {', '.join(missing[:_SHOWN])}{more}"


def _check_complete(edits: str, folders: list[Path]) -> None:
    names = [_name(row, None) for row in read_rows(edits, _EDIT)]
    for folder in folders:
        missing = [name for name in names if _image_file(folder, name) is None]
        if missing:
            raise DataError(f"{folder} lacks the images of {_told(missing, len(names))}"[:500])


def _image_file(folder: Path, name: str) -> Path | None:
    return next((path for ending in _ENDINGS if (path := file_below(folder, name + ending)).is_file()), None)


def _opened(row: Row, path: Path) -> Image:
    try:
        return read_image(path)
    except ImageError as error:
        raise ImageError(f"{row.where}: {error}") from None


def _instruction(row: Row) -> str:
    text = row.text("instruction")
    if not text.strip():
        raise DataError(f"{row.where}: 'instruction' is blank")
    return text


def _name(row: Row, default: str | None) -> str:
    value = row.cells.get("id")
    if value is None and default is not None:
        return default
    if type(value) not in (str, int) or not str(value).strip():
        raise DataError(f"{row.where}: 'id' must be a text or a whole number, not {value!r}"[:300])
    return str(value)
