"""The folder of a cold start: one file of JSON lines per stage, and images once each, named by their content.

A stage's file begins with a line that says what it was made with; every other line is the outcome of one item, found by
its key. Lines are appended and synced to the disk before the items count as done. What a kill can leave behind is a cut
last line, which is removed when the file is opened again, by the one run that may write.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from ...errors import ConfigError, DataError, ImageError
from ...images import keep_image, read_image

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Line", "StageFile", "StageFolder"]

#: The outcome of one item: `key`, and `failure` (a reason) or what the stage found.
Line = dict[str, Any]
_FORMAT: Final = 1
_SHOWN: Final = 120
_NAME: Final = re.compile(r"images/[0-9a-f]{2}/[0-9a-f]{64}\.png")
_DECODED_PIXELS: Final = 1 << 24  # of images kept in memory: several judges ask for the same ones


class StageFile:
    """The outcomes of one stage; an item's last line counts.

    Args:
        path: the file; made when missing.
        stage: its name.
        settings: what outcomes depend on, as JSON-able data; the file must have been made with the same.
        before: digest of the stages that this one builds on; the same holds.
        read_only: the file is there, and is only read; another run may be writing it.

    Raises:
        ConfigError: the file was made with other settings; the message names them and says what to do.
        DataError: it is damaged.
    """

    def __init__(
        self, path: Path, stage: str, settings: Mapping[str, Any], before: str = "", *, read_only: bool = False
    ) -> None:
        self.path, self.stage = path, stage
        header = json.loads(json.dumps({"format": _FORMAT, "settings": settings, "before": before}))
        #: Of these settings and of all stages before.
        self.digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:16]
        self._places: dict[str, int] = {}
        self._failed: set[str] = set()
        self._file: BinaryIO = open(path, "rb" if read_only else "a+b")  # noqa: SIM115  # see close()
        self._reader: BinaryIO = open(path, "rb")  # noqa: SIM115
        self._lock = threading.Lock()
        try:
            self._end = self._load(header)
            if not read_only:
                self._file.truncate(self._end)
                self._end = self._end or self._write([header], 0)
        except BaseException:
            self.close()
            raise

    def _load(self, header: dict[str, Any]) -> int:
        end = 0
        self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break  # cut by a kill
            data = self._parsed(line, number)
            if number == 1:
                self._check_header(data, header)
            else:
                self._note(data, end)
            end += len(line)
        return end

    def _parsed(self, line: bytes, number: int) -> Line:
        try:
            data = json.loads(line)
            if isinstance(data, dict) and (number == 1 or isinstance(data.get("key"), str)):
                return data
        except (ValueError, RecursionError):
            pass
        raise DataError(f"{self.path}, line {number}: not what this stage writes; the file is damaged")

    def _check_header(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        if found == wanted:
            return
        advice = "put it back, give another output folder, or delete this file and those of later stages"
        old, new = found.get("settings"), wanted["settings"]
        if found.get("format") != _FORMAT or not isinstance(old, dict):
            raise ConfigError(f"{self.path} was written by another version; give another output folder")
        changes = list(_changes(old, new, ""))
        if changes:
            more = f" (and {len(changes) - 3} more)" if len(changes) > 3 else ""
            told = "; ".join(changes[:3]) + more
            raise ConfigError(f"{self.path}: stage '{self.stage}' was made with other settings ({told}): {advice}")
        raise ConfigError(
            f"{self.path}: stage '{self.stage}' was made from other outcomes of the stages before it; delete this file"
            " and those of later stages, or give another output folder"
        )

    def _note(self, data: Line, place: int) -> None:
        key = data["key"]
        self._places[key] = place
        if data.get("failure") is None:
            self._failed.discard(key)
        else:
            self._failed.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def failed(self, key: str) -> bool:
        """Whether the item has a reason instead of an outcome."""
        return key in self._failed

    def __iter__(self) -> Iterator[str]:
        """The keys of all items, in the order of their first lines."""
        return iter(list(self._places))

    def get(self, key: str) -> Line:
        """The last line of an item. Thread-safe.

        Raises:
            KeyError: it has none.
        """
        with self._lock:
            self._reader.seek(self._places[key])
            line: Line = json.loads(self._reader.readline())
        return line

    def lines(self) -> Iterator[Line]:
        """Every line of an item, also those of earlier attempts, in the file's order."""
        with open(self.path, "rb") as file:
            next(file, None)
            for line in file:
                yield json.loads(line)

    def append(self, rows: Sequence[Line]) -> None:
        """Write outcomes; when this returns they are on the disk.

        Raises:
            OSError: the disk is full or gone.
        """
        if not rows:
            return
        self._end = self._write(rows, self._end)

    def _write(self, rows: Sequence[Mapping[str, Any]], end: int) -> int:
        places, encoded = [], bytearray()
        for row in rows:
            places.append(end + len(encoded))
            encoded += (
                json.dumps(row, allow_nan=False, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
            )
        rest = memoryview(encoded)
        while rest:
            rest = rest[os.write(self._file.fileno(), rest) :]
        os.fsync(self._file.fileno())
        for row, place in zip(rows, places, strict=True):
            if "key" in row:
                self._note(dict(row), place)
        return end + len(encoded)

    def close(self) -> None:
        self._file.close()
        self._reader.close()


def _changes(old: Any, new: Any, name: str) -> Iterator[str]:
    """What differs, in words: "judges.a.temperature was 0.7, is 1.0"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            if key not in new or key not in old:
                yield f"{name}.{key} is {'new' if key in new else 'gone'}".lstrip(".")
                continue
            yield from _changes(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
    elif old != new:
        yield f"{name} was {_shown(old)}, is {_shown(new)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


class StageFolder:
    """Where stages and images are: `stages/NAME.jsonl` and `images/xx/HASH.png` below `path`.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.path, self.read_only = Path(path), read_only
        self._lock = threading.Lock()
        self._decoded: OrderedDict[str, Image] = OrderedDict()
        self._pixels = 0
        try:
            for name in () if read_only else ("stages", "images"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write to {self.path}: {error.strerror or error}") from None

    def stage(self, name: str) -> Path:
        """The file of a stage."""
        return self.path / "stages" / f"{name}.jsonl"

    def keep(self, image: Image) -> str:
        """Write an image, unless it is there; its name below the folder. Thread-safe.

        Raises:
            ImageError: it is no image that can be kept.
            OSError: the disk is full or gone.
        """
        rgb = read_image(image)
        name = keep_image(rgb, self.path)
        self._remember(name, rgb.copy())  # what the caller does with its image is no business of ours
        return name

    def image(self, name: str) -> Image:
        """An image that was kept; not to be changed, since others may get the same object.

        Raises:
            ImageError: it is gone or broken, or no name that `keep` gave.
        """
        with self._lock:
            if name in self._decoded:
                self._decoded.move_to_end(name)
                return self._decoded[name]
        if not _NAME.fullmatch(name):
            raise ImageError(f"image {name[:100]!r} is no name of this folder")
        image = read_image(os.path.join(self.path, name))
        self._remember(name, image)
        return image

    def _remember(self, name: str, image: Image) -> None:
        with self._lock:
            if name not in self._decoded:
                self._pixels += image.width * image.height
            self._decoded[name] = image
            while self._pixels > _DECODED_PIXELS and len(self._decoded) > 1:
                _, old = self._decoded.popitem(last=False)
                self._pixels -= old.width * old.height
