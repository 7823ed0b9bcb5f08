"""The rows that a cold start chooses from: a source image, an instruction, perhaps images that were made of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...errors import ConfigError, DataError, ImageError
from ...images import content_hash, read_image, read_image_cell
from ...reward.edit_rows import file_below
from .config import DataConfig

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..edit_data import EditRows

__all__ = ["InputRow", "InputRows", "files_of"]

_CHUNK: Final = 1000
_MAX_ID: Final = 200
_RENAMED: Final = {"image": "other_image", "prompt": "other_prompt"}  # as load_edit_data does
_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm")


@dataclass(frozen=True, kw_only=True)
class InputRow:
    """One row, without its pixels.

    Attributes:
        index: its place in the data.
        key: names it by what it says, wherever it stands: its source and images as they are stored (names or bytes),
            and its instruction.
        instruction, identifier: as given; "" where there is none.
        problem: why it cannot be used, or None.
    """

    index: int
    key: str
    instruction: str
    identifier: str
    problem: str | None


class InputRows:
    """Rows from `DataConfig`, or rows that the caller has: mappings with the columns that it names.

    Images of the caller's rows are PIL images or encoded bytes; a name or path in them is never opened.

    Args:
        config: where the rows are and what their columns are called.
        made: columns that hold candidates.
        given: the caller's rows.

    Raises:
        ConfigError, DataError: as `load_edit_data`; a column is missing.
    """

    def __init__(self, config: DataConfig, made: Sequence[str] = (), given: Sequence[Mapping[str, Any]] | None = None):
        self._made, self._given, self._id = tuple(made), given, config.id_column
        self._rows: EditRows | None = None
        self._folder: Path | None = None
        if given is not None:
            self._source, self._text = config.source_column, config.instruction_column
            self._columns = {name: name for name in self._made}
            return
        if not config.name:
            raise ConfigError("data.name is missing: a file, a folder, or the id of a data set; or give rows=...")
        from ..edit_data import load_edit_data

        self._rows = load_edit_data(
            config.name,
            config=config.config,
            split=config.split,
            image_column=config.source_column,
            prompt_column=config.instruction_column,
        )
        self._source, self._text = "image", "prompt"
        own = {config.source_column, config.instruction_column}
        self._columns = {name: name if name in own else _RENAMED.get(name, name) for name in self._made}
        there = self._rows.stored.column_names
        if missing := [name for name, column in self._columns.items() if column not in there]:
            raise DataError(f"{self._rows.name} has no column {missing[0]!r} of candidates; it has {', '.join(there)}")
        path = Path(config.name)
        if config.images is not None:
            self._folder = Path(config.images)
        elif path.exists():
            self._folder = path if path.is_dir() else path.parent

    def __len__(self) -> int:
        return len(self._given if self._rows is None else self._rows)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[InputRow]:
        """All rows in order, read piece by piece; no image is decoded."""
        if self._rows is None:
            assert self._given is not None
            for index, cells in enumerate(self._given):
                yield self._row(index, cells)
            return
        wanted = [self._source, self._text, *self._columns.values()]
        stored = self._rows.stored
        wanted += [self._id] if self._id in stored.column_names and self._id not in wanted else []
        stored = stored.select_columns(list(dict.fromkeys(wanted)))
        for first in range(0, len(stored), _CHUNK):
            piece = stored[first : first + _CHUNK]
            for place in range(len(piece[self._text])):
                yield self._row(first + place, {name: cells[place] for name, cells in piece.items()})

    def _row(self, index: int, cells: Mapping[str, Any]) -> InputRow:
        instruction = cells.get(self._text)
        problem = self._rows.problems.get(index) if self._rows is not None else None
        if problem is None and (not isinstance(instruction, str) or not instruction.strip()):
            problem = "no instruction"
        text = instruction if isinstance(instruction, str) else ""
        digest = hashlib.sha256()
        for cell in (text, cells.get(self._source), *(cells.get(column) for column in self._columns.values())):
            _add(digest, cell)
        found = cells.get(self._id)
        identifier = str(found)[:_MAX_ID] if isinstance(found, (str, int)) and found != "" else ""
        return InputRow(
            index=index, key=digest.hexdigest()[:32], instruction=text, identifier=identifier, problem=problem
        )

    def source(self, index: int) -> Image:
        """The source image of a row.

        Raises:
            DataError: there is none that can be read.
        """
        cell = self._cells(index).get(self._source)
        if self._rows is None:
            return read_image_cell(cell, self._source)
        image: Image = self._rows.reader.decoded(cell)[0]
        return image

    def candidates(self, row: InputRow, column: str) -> list[Image]:
        """The images in a column of a row, which must still say what it said when it was selected.

        Raises:
            DataError: the data changed, or the cell names no images that can be read.
        """
        cells = self._cells(row.index)
        if self._row(row.index, cells).key != row.key:
            raise DataError(f"row {row.index} is not the one that was selected: the data changed")
        cell = cells.get(self._columns[column])
        parts = cell if isinstance(cell, (list, tuple)) else [cell]
        return [self._image(part, column) for part in parts if part is not None]

    def _image(self, part: Any, column: str) -> Image:
        if self._rows is None:
            return read_image_cell(part, column)
        if not isinstance(part, str):
            image: Image = self._rows.reader.decoded(part)[0]
            return image
        if self._folder is None:
            raise ImageError(f"{column!r} holds file names; data.images must name their folder")
        return read_image(file_below(self._folder, part))

    def _cells(self, index: int) -> Mapping[str, Any]:
        if self._rows is not None:
            cells: Mapping[str, Any] = self._rows.stored[index]
            return cells
        assert self._given is not None
        if not 0 <= index < len(self._given):
            raise DataError(f"row {index} is gone: the data changed")
        return self._given[index]


def files_of(folder: str | os.PathLike[str], identifier: str) -> list[Path]:
    """The images in a folder named ID.png (or another ending), ID-1.png, ID-2.png, ...

    Raises:
        ImageError: the row has no id, its id is no plain file name, or there is no such file.
    """
    if not identifier or identifier in (".", "..") or any(mark in identifier for mark in '/\\\0"'):
        raise ImageError(f"a row's id names its files, and {identifier!r} cannot")
    found: list[Path] = []
    for number in range(10_000):
        stem = f"{identifier}-{number}" if number else identifier
        path = next((p for ending in _ENDINGS if (p := file_below(folder, stem + ending)).is_file()), None)
        if path is not None:
            found.append(path)
        elif number > 0:
            break
    if not found:
        raise ImageError(f"no image {identifier}.png, or with another ending, in {os.fspath(folder)}")
    return found


def _add(digest: Any, cell: Any) -> None:
    """Add what a stored cell says; where a data set lies is no part of it."""
    if isinstance(cell, (list, tuple)):
        digest.update(f"list {len(cell)}\n".encode())
        for part in cell:
            _add(digest, part)
        return
    if isinstance(cell, Mapping):
        if cell.get("bytes") is not None:
            cell = cell["bytes"]
        else:  # a member of an archive, a file below a folder, a file in the hub's cache
            place = cell.get("offset", -1)
            name = str(cell.get("file") or cell.get("path") or "")
            cell = name if place is None or place < 0 else f"{Path(name).name} {place}"
    if isinstance(cell, str):
        data = cell.encode("utf-8", "surrogatepass")
    elif isinstance(cell, (bytes, bytearray)):
        data = bytes(cell)
    elif cell is None:
        data = b""
    else:
        try:
            data = content_hash(cell).encode()
        except DataError:
            data = type(cell).__name__.encode()
    digest.update(f"{type(cell).__name__} {len(data)}\n".encode())
    digest.update(data)
