"""Edits named by the lines of a JSON file: `source`, `edited` and `instruction`. A line comes from outside.

A name leads to a regular file below one folder, or nowhere: absolute paths, `..`, URLs and links that lead out are
refused. A line that is no edit is a row with a problem, never an exception, and costs no more memory than `MAX_LINE`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, Final

from editr1_plugins.errors import DataError, ImageError

__all__ = ["MAX_LINE", "EditRow", "file_below", "numbered_lines", "read_edit_rows"]

#: Longest line, in bytes.
MAX_LINE: Final = 1 << 20

_FIELDS: Final = ("source", "edited", "instruction")
_SHOWN: Final = 200


@dataclass(frozen=True, kw_only=True)
class EditRow:
    """One line of the input.

    Attributes:
        number: of the line, from 1.
        digest: hex; names the row by what it says (source, edited, instruction), wherever in the file it stands.
        source, edited: names of image files; "" where the line has none.
        instruction: as given; "" where the line has none.
        identifier: the line's "id", a text or whole number, else None.
        problem: why the line names no edit; None where it does.
    """

    number: int
    digest: str
    source: str = ""
    edited: str = ""
    instruction: str = ""
    identifier: str | int | None = None
    problem: str | None = None


def read_edit_rows(path: str | os.PathLike[str]) -> Iterator[EditRow]:
    """The rows of a file, read as they are asked for; blank lines are left out.

    Raises:
        DataError: the file cannot be read.
    """
    for number, line in numbered_lines(path):
        yield _row(number, line)


def numbered_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a file that are not blank, with their numbers from 1; None for one longer than `MAX_LINE`.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(_lines(file), start=1):
                if line is None or line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from None


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Line after line without their ends; None for one that is too long, whose rest is skipped."""
    first = True
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield None
        else:
            yield line.removeprefix(b"\xef\xbb\xbf") if first else line
        first = False


def _row(number: int, line: bytes | None) -> EditRow:
    if line is None:
        return EditRow(number=number, digest=_digest(b"too long"), problem=f"longer than {MAX_LINE} bytes")
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        return EditRow(number=number, digest=_digest(line.strip()), problem=f"not JSON ({error})"[:_SHOWN])
    if not isinstance(data, dict):
        problem = f"a JSON object with {', '.join(_FIELDS)} is needed, not {_shown(data)}"
        return EditRow(number=number, digest=_digest(line.strip()), problem=problem)
    texts = {name: data[name] for name in _FIELDS if isinstance(data.get(name), str)}
    wrong = [name for name in _FIELDS if not texts.get(name, "").strip()]
    identifier = data.get("id")
    return EditRow(
        number=number,
        digest=_digest(line.strip() if wrong else json.dumps([data[name] for name in _FIELDS]).encode()),
        identifier=identifier if type(identifier) in (str, int) else None,
        problem=f"{', '.join(repr(name) for name in wrong)} must be a text that is not blank" if wrong else None,
        **texts,
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def file_below(folder: str | os.PathLike[str], name: str) -> Path:
    """The path of the file `name` below `folder`.

    Raises:
        ImageError: the name is a URL or an absolute path, holds `..`, or is a link that leads out of the folder.
    """
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if "://" in name:
        raise ImageError(f"image {_shown(name)} is a URL; nothing is ever fetched, name a file below {folder}")
    if posix.is_absolute() or windows.drive or windows.root:
        raise ImageError(f"image {_shown(name)} is an absolute path; name it relative to {folder}")
    if ".." in (*posix.parts, *windows.parts):
        raise ImageError(f"image {_shown(name)} holds '..'; name a file below {folder}")
    try:
        root = Path(folder).resolve()
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, a loop of links
        raise ImageError(f"image {_shown(name)} is no file name: {error}") from None
    if not path.is_relative_to(root):
        raise ImageError(f"image {_shown(name)} is a link that leads out of {folder}")
    return path
