"""Rows of (image, prompt) from files of this machine: JSON lines that name images, and WebDataset archives.

What a file says is data. A name leads to a regular file below the folder of its JSONL file, or nowhere; an archive is
never unpacked, its members are read where they lie. `datasets` has readers for both; they open whatever path a row
names, and stop at the first odd row without its number. Here a row that cannot be read is a row with a problem.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from ..errors import DataError
from ..reward.edit_rows import MAX_LINE, numbered_lines

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["FileRows", "read_archives", "read_json_lines"]

#: Of a member of an archive that is an image; one with only such an ending is the row's "image".
_IMAGE_ENDINGS: Final = ("png", "jpg", "jpeg", "webp", "avif", "gif", "bmp", "tif", "tiff", "ppm")
_TEXT_ENDINGS: Final = ("txt", "text")
_HF_IMAGE_NAME: Final = "file_name"  # of `datasets`' image folders


@dataclass
class FileRows:
    """Rows as columns, in the files' order.

    Attributes:
        columns: one list per column; image columns hold None or a list of references, see `_reference`.
        images: names of the image columns.
        problems: why rows of these numbers (from 0) cannot be used.
        count: of rows.
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    problems: dict[int, str] = field(default_factory=dict)
    count: int = 0

    def add(self, row: Mapping[str, Any], problem: str | None = None) -> None:
        for name in row:
            self.columns.setdefault(name, [None] * self.count)
        for name, cells in self.columns.items():
            cells.append(row.get(name))
        if problem is not None:
            self.problems[self.count] = problem
        self.count += 1

    def dataset(self, name: str) -> Dataset:
        """The rows as a dataset in memory; pixels stay in their files.

        Raises:
            DataError: a column other than image and prompt mixes types.
        """
        from datasets import Dataset

        for column, cells in self.columns.items():
            try:
                Dataset.from_dict({column: cells})
            except (TypeError, ValueError, OverflowError) as error:  # what Arrow's errors are
                raise DataError(f"{name}: column {column!r} mixes values that do not fit one type: {error}") from None
        return Dataset.from_dict(self.columns)


def _reference(file: Path | str, offset: int = -1, size: int = -1, folder: Path | str = "") -> dict[str, Any]:
    """Where an image's bytes are: a name below `folder`, or `size` bytes from `offset` of an archive."""
    return {"file": str(file), "offset": offset, "size": size, "folder": str(folder)}


def read_json_lines(paths: Sequence[Path], image_columns: Sequence[str], prompt_column: str) -> FileRows:
    """One JSON object a line. An image column holds a file name relative to the folder of the JSONL file, or a list.

    Where rows have no column "image", the "file_name" of `datasets`' image folders is taken for it. Blank lines are no
    rows.

    Raises:
        DataError: a file cannot be read.
    """
    rows = FileRows(images=set(image_columns))
    for path in paths:
        for number, line in numbered_lines(path):
            _add_line(rows, line, path, f"{path.name}, line {number}", prompt_column)
    return rows


def _add_line(rows: FileRows, line: bytes | None, path: Path, where: str, prompt_column: str) -> None:
    if line is None:
        return rows.add({}, f"{where}: longer than {MAX_LINE} bytes")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return rows.add({}, f"{where}: not JSON ({error})"[:200])
    if not isinstance(row, dict):
        return rows.add({}, f"{where}: a JSON object is needed, not {type(row).__name__}")
    if "image" in rows.images and "image" not in row and _HF_IMAGE_NAME in row:
        row["image"] = row.pop(_HF_IMAGE_NAME)
    problem = None
    for column in rows.images & row.keys():
        names = row[column] if isinstance(row[column], list) else [row[column]]
        if all(isinstance(name, str) for name in names):
            row[column] = [_reference(name, folder=path.parent) for name in names]
        else:
            shown = next(type(name).__name__ for name in names if not isinstance(name, str))
            row[column], problem = None, f"{where}: {column!r} must be a file name or a list of them, not {shown}"
    if not isinstance(row.get(prompt_column), (str, type(None))):
        problem = f"{where}: {prompt_column!r} must be text, not {type(row[prompt_column]).__name__}"
        row[prompt_column] = None
    return rows.add(row, problem)


def read_archives(paths: Sequence[Path]) -> FileRows:
    """WebDataset: members of a tar file that share a name up to the first dot are one row.

    "7.png" (or another image ending) is the row's `image`, "7.mask.png" its `mask`; "7.txt" is its `prompt`,
    "7.style.txt" its `style`; the keys of "7.json" are columns. Other members are left out.

    Raises:
        DataError: a file is no tar file, or a compressed one, in which nothing can be read without unpacking the rest.
    """
    rows = FileRows()
    for path in paths:
        try:
            with tarfile.open(path, "r:") as archive:
                _add_members(rows, archive, path)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise DataError(f"{path} is no uncompressed tar file that can be read: {error}") from None
    return rows


def _add_members(rows: FileRows, archive: tarfile.TarFile, path: Path) -> None:
    key, row, problem = "", dict[str, Any](), None
    for member in archive:
        if not member.isreg():
            continue
        name = PurePosixPath(member.name)
        stem, _, ending = name.name.partition(".")
        if stem.startswith("._") or not stem or not ending:  # what macOS adds, and hidden files
            continue
        if str(name.parent / stem) != key:
            if row or problem:
                rows.add(row, problem)
            key, row, problem = str(name.parent / stem), {}, None
        try:
            row.update(_member(archive, member, ending.lower(), path, rows.images))
        except DataError as error:
            problem = f"{path.name}, {member.name}: {error}"
    if row or problem:
        rows.add(row, problem)


def _member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str, path: Path, images: set[str]
) -> dict[str, Any]:
    """What a member adds to its row."""
    column, _, kind = ending.rpartition(".")
    if kind in _IMAGE_ENDINGS:
        images.add(column or "image")
        return {column or "image": [_reference(path, member.offset_data, member.size)]}
    if kind != "json" and kind not in _TEXT_ENDINGS:
        return {}
    if member.size > MAX_LINE:
        raise DataError(f"longer than {MAX_LINE} bytes")
    file = archive.extractfile(member)
    data = b"" if file is None else file.read()
    if kind in _TEXT_ENDINGS:
        return {column or "prompt": data.decode("utf-8", errors="replace").strip()}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})"[:200]) from None
    if not isinstance(found, dict):
        raise DataError(f"a JSON object is needed, not {type(found).__name__}")
    return found
