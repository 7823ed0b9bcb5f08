"""Records on disk: one JSON line per edit, and its images once each, named by their content.

A directory holds `records-*.jsonl`, one per writer so that processes never share a file, and `images/`. An image is
written under a temporary name and moved into place before the line that mentions it; a line is one write to a file
opened for appending. What a kill can leave behind is at most a cut last line, which `read_records` skips.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.images import content_hash, read_image
from editr1_plugins.reward.record import EditRecord
from editr1_plugins.types import Edit

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["RecordWriter", "read_records"]


class RecordWriter:
    """Appends records to a directory; thread-safe. A copy in another process (fork or pickle) writes its own file.

    Raises:
        ConfigError: the directory cannot be made or written.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        try:
            (self.directory / "images").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write records to {self.directory}: {error}") from None
        if not os.access(self.directory / "images", os.W_OK):
            raise ConfigError(f"cannot write records to {self.directory}: no permission")
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._owner = 0
        # Names already on disk, so that a group's source is hashed but not encoded again.
        self._written: set[str] = set()

    def __reduce__(self) -> tuple[type[RecordWriter], tuple[Path]]:
        return RecordWriter, (self.directory,)

    def write(self, edit: Edit | None, record: EditRecord, row: Mapping[str, Any] | None = None) -> None:
        """Append one record; its dict gains `source_image` and `edited_image`, paths relative to the directory.

        Args:
            edit: the judged edit; None where its images could not be read, and both paths are None then.
            record: what happened to it.
            row: JSON-able data that tells where the edit came from; kept as "row".

        Raises:
            OSError: the disk is full or gone.
            TypeError, ValueError: the record is not JSON (a plugin's text that is no text, or NaN).
        """
        source, edited = (None, None) if edit is None else self.keep_images(edit)
        data = record.as_dict() | {"source_image": source, "edited_image": edited}
        line = json.dumps(data if row is None else data | {"row": dict(row)}, allow_nan=False, ensure_ascii=True) + "\n"
        with self._lock:
            # One write to an O_APPEND descriptor: a killed process leaves whole lines, save perhaps the last.
            descriptor = os.open(self._own_path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                _write_all(descriptor, line.encode("ascii"))
            except OSError:
                self._path = None  # a line may be cut: whatever comes next goes to a new file
                raise
            finally:
                os.close(descriptor)

    def keep_images(self, edit: Edit) -> tuple[str, str]:
        """Write both images, unless they are there, and return their paths relative to the directory.

        `write` does this as well; called ahead, while a judge is busy, it makes `write` quick.

        Raises:
            OSError: the disk is full or gone.
        """
        return self._keep(edit.source), self._keep(edit.edited)

    def _own_path(self) -> Path:
        if self._path is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._path = self.directory / f"records-{self._owner}-{uuid.uuid4().hex[:8]}.jsonl"
        return self._path

    def _keep(self, image: Image) -> str:
        name = f"images/{content_hash(image)[:32]}.png"
        path = self.directory / name
        if name not in self._written and not path.exists():
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
            _save(image, temporary)
            temporary.replace(path)
        self._written.add(name)
        return name


def _save(image: Image, path: Path) -> None:
    """The pixels alone as PNG, compressed for speed: records are written while a trainer waits."""
    rgb = read_image(image)
    bare = rgb.copy()
    bare.info = {}
    bare.save(path, "PNG", compress_level=1)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def read_records(directory: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The records of a directory as dicts, file by file; a line cut by a kill is skipped.

    Raises:
        DataError: no such directory, or a line before the last of a file is not a JSON object.
    """
    root = Path(directory)
    if not root.is_dir():
        raise DataError(f"no directory of records at {root}")
    for path in sorted(root.glob("records-*.jsonl")):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break  # only the last line of a file can lack its end
                yield _read_line(line, f"{path.name}, line {number}")


def _read_line(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object")
    return row
