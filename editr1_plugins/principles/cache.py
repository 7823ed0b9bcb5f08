"""What a decomposer said once, kept: in memory, or in one file shared by many processes.

Keys are digests of content (source image, instruction, decomposer identity), so a cache can never serve principles
that were made for something else. Values are JSON text and nothing but JSON text. A cache is an aid: whatever goes
wrong with it during a run is a miss or a skipped write, logged and counted, never an exception. Only opening a file
that is not a cache of ours raises, because overwriting somebody's file would be worse.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.principles import sqlite_file
from editr1_plugins.types import Principle

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MAX_ENTRY_BYTES",
    "CacheStats",
    "MemoryCache",
    "PrincipleCache",
    "SqliteCache",
    "content_key",
    "principle_key",
]

#: Longest JSON text one entry may have; longer ones are neither written nor believed.
MAX_ENTRY_BYTES: Final = 1 << 20

_PRINCIPLES_SCHEMA: Final = "principles/1"
_USES_KEPT: Final = 256
_PAUSE_AFTER_FAILED_WRITE: Final = 30.0  # seconds
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def content_key(kind: str, *parts: str | bytes | Image) -> str:
    """A hex digest of `kind` and `parts`; two different lists of parts never share one.

    An image counts by its mode, size and pixels, encoded bytes by the bytes: the two give different keys.
    """
    digest = hashlib.sha256()
    for part in (kind, *parts):
        for chunk in _chunks(part):
            # The length prefix keeps ("ab", "c") apart from ("a", "bc").
            digest.update(len(chunk).to_bytes(8, "big"))
            digest.update(chunk)
    return digest.hexdigest()


def principle_key(source: bytes | Image, instruction: str, decomposer: str) -> str:
    """The key of the principles that `decomposer` (its `identity`) makes for one (source, instruction)."""
    return content_key(_PRINCIPLES_SCHEMA, source, instruction, decomposer)


def _chunks(part: str | bytes | Image) -> tuple[bytes, ...]:
    if isinstance(part, str):
        return b"text", part.encode("utf-8", "surrogatepass")
    if isinstance(part, bytes):
        return b"bytes", part
    # Palette indices mean nothing without their palette.
    image = part.convert("RGBA") if part.mode in ("P", "PA") else part
    return b"image", f"{image.mode} {image.width}x{image.height}".encode(), image.tobytes()


@dataclass(frozen=True, kw_only=True)
class CacheStats:
    """Counters of one cache object (not of the file): look-ups, writes, and what went wrong."""

    hits: int = 0
    misses: int = 0
    writes: int = 0
    errors: int = 0


class PrincipleCache(ABC):
    """A bounded store of JSON values with a typed view for principles. Thread-safe; nothing here raises on bad data."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(("hits", "misses", "writes", "errors"), 0)
        self._count_lock = threading.Lock()

    def get(self, key: str) -> tuple[Principle, ...] | None:
        """The principles under `key`, or None; an entry that is not a list of principles is a miss."""
        principles = _read_principles(self._load(key))
        self._count("misses" if principles is None else "hits")
        return principles

    def put(self, key: str, principles: Iterable[Principle]) -> None:
        """Keep principles. A failure (`NoPrinciples`, or nothing at all) is not kept, so that it is tried again."""
        rows = [{"question": each.question, "category": each.category} for each in principles]
        if rows:
            self._store(key, rows)

    def get_json(self, key: str) -> Any:
        """Any other JSON value under `key`, or None where there is none."""
        value = self._load(key)
        self._count("misses" if value is None else "hits")
        return value

    def put_json(self, key: str, value: Any) -> None:
        """Keep any JSON value but None (which means "not there").

        Raises:
            DataError: the value is not JSON (another type, or NaN).
        """
        self._store(key, value)

    @property
    def stats(self) -> CacheStats:
        """Counters since this object was made."""
        return CacheStats(**self._counts)

    @abstractmethod
    def __len__(self) -> int:
        """How many entries there are."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files; the cache may be used again afterwards."""

    @abstractmethod
    def _read(self, key: str) -> str | None: ...

    @abstractmethod
    def _write(self, key: str, text: str) -> bool: ...

    def _load(self, key: str) -> Any:
        text = self._read(key)
        try:
            return None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            self._complain(f"the entry {key[:12]}... is not JSON; taken as a miss")
            return None

    def _store(self, key: str, value: Any) -> None:
        try:
            if value is None:
                raise TypeError("None stands for a missing entry")
            text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"cannot keep this value in a cache of JSON: {error}") from None
        if len(text) > MAX_ENTRY_BYTES:
            self._complain(f"an entry of {len(text)} bytes is above the limit of {MAX_ENTRY_BYTES}; not kept")
        elif self._write(key, text):
            self._count("writes")

    def _count(self, what: str) -> None:
        with self._count_lock:
            self._counts[what] += 1

    def _complain(self, message: str) -> None:
        # The first trouble is worth a person's attention, a flood of the same is not.
        level = logging.DEBUG if self._counts["errors"] else logging.WARNING
        self._count("errors")
        _log.log(level, "principle cache: %s", message)


def _read_principles(value: Any) -> tuple[Principle, ...] | None:
    if not isinstance(value, list) or not value:
        return None
    try:
        return tuple(Principle(question=row["question"], category=row["category"]) for row in value)
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


class MemoryCache(PrincipleCache):
    """The `max_entries` entries used last, in this process; pickled without its contents."""

    def __init__(self, max_entries: int = 10_000) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries must be at least 1, got {max_entries}")
        super().__init__()
        self.max_entries = max_entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> tuple[type[MemoryCache], tuple[int]]:
        return MemoryCache, (self.max_entries,)

    def close(self) -> None:
        """Nothing to let go of."""

    def _read(self, key: str) -> str | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def _write(self, key: str, text: str) -> bool:
        with self._lock:
            self._entries[key] = text
            self._entries.move_to_end(key)
            if len(self._entries) > self.max_entries:
                self._entries.popitem(last=False)
        return True


class SqliteCache(PrincipleCache):
    """One sqlite file that many processes and threads share; the entries used longest ago leave when it is full.

    A process that is killed leaves the file sound. A damaged file is renamed to `PATH.damaged-...` and begun anew; what
    cannot be read or written in time is a miss or a skipped write. Survives fork and pickle: each process opens the
    file for itself.

    Args:
        path: the file, on a local disk; made when missing, with its directories.
        max_bytes: bound of the file in bytes (its WAL may take some MB more while it is open).
        timeout: longest wait for another process's write, in seconds.

    Raises:
        ConfigError: the path cannot be used, or holds a file that is not a cache of ours.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 256 << 20, timeout: float = 10.0) -> None:
        if max_bytes < sqlite_file.SMALLEST_FILE:
            raise ConfigError(f"max_bytes must be at least {sqlite_file.SMALLEST_FILE}, got {max_bytes}")
        super().__init__()
        self.path = Path(path).absolute()
        self.max_bytes = max_bytes
        self.timeout = timeout
        self._begin()
        with self._lock:
            self._open_first()

    def __len__(self) -> int:
        return self._run(sqlite_file.count, 0)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "max_bytes": self.max_bytes, "timeout": self.timeout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Opened at first use, contained: a worker that unpickles a trainer must not die of its cache.
        super().__init__()
        self.__dict__.update(state)
        self._begin()

    def close(self) -> None:
        """Write down what was used and close the file; the next use opens it again."""
        self._flush()
        with self._lock:
            self._disconnect()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._used: dict[str, None] = {}
        self._no_writes_until = 0.0
        with _fork_lock:
            _caches.add(self)

    def _open_first(self) -> None:
        try:
            try:
                self._connect()
            except sqlite3.Error as error:
                if not sqlite_file.is_damage(error):
                    raise
                self._recover(error)
        except sqlite3.Error as error:
            if "locked" not in str(error):
                raise ConfigError(f"cannot open the cache {self.path}: {error}") from None
            self._complain(f"{self.path}: {error}")
        except OSError as error:
            raise ConfigError(f"cannot replace the damaged cache {self.path}: {error}") from None

    def _read(self, key: str) -> str | None:
        text = self._run(lambda connection: sqlite_file.read(connection, key, MAX_ENTRY_BYTES), None)
        if text is not None:
            # Noted now and written with the next entry, so that a look-up stays a pure read.
            with self._lock:
                self._used.pop(key, None)
                self._used[key] = None
            if len(self._used) >= _USES_KEPT:
                self._flush()
        return text

    def _write(self, key: str, text: str) -> bool:
        if len(text) > self.max_bytes // 4:
            self._complain(f"an entry of {len(text)} bytes is too large for a cache of {self.max_bytes}; not kept")
            return False
        return self._change(lambda connection, used: sqlite_file.write(connection, key, text, used, self.max_bytes))

    def _flush(self) -> None:
        if self._used:
            self._change(sqlite_file.touch)

    def _change(self, work: Callable[[sqlite3.Connection, list[str]], None]) -> bool:
        if time.monotonic() < self._no_writes_until:
            return False

        def change(connection: sqlite3.Connection) -> bool:
            work(connection, list(self._used))
            return True

        done = self._run(change, False)
        with self._lock:
            self._used.clear()
        if not done:  # a stopped process that holds the lock must not cost every write its whole timeout
            self._no_writes_until = time.monotonic() + _PAUSE_AFTER_FAILED_WRITE
        return done

    def _run(self, work: Callable[[sqlite3.Connection], _T], default: _T) -> _T:
        with self._lock:
            try:
                try:
                    return work(self._connect())
                except sqlite3.Error as error:
                    if not sqlite_file.is_damage(error):
                        raise
                    self._recover(error)
                    return work(self._connect())
            except (sqlite3.Error, ValueError, OSError) as error:
                self._disconnect()
                self._complain(f"{self.path}: {error}")
                return default

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite_file.open_file(self.path, self.timeout)
            with suppress(sqlite3.OperationalError):  # busy or read-only: the next process or write will do it
                sqlite_file.bound(self._connection, self.max_bytes)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _recover(self, error: sqlite3.Error) -> None:
        self._disconnect()
        aside = sqlite_file.set_aside_if_damaged(self.path, self.timeout)
        if aside is not None:
            self._complain(f"{self.path} was damaged ({error}); moved to {aside.name} and begun anew")


# sqlite loses its locks on a file across a fork, and two processes that both believe in them destroy it. So every
# cache is idle and closed at the moment of a fork, and opened again by whoever uses it next.
_caches: weakref.WeakSet[SqliteCache] = weakref.WeakSet()
_fork_lock = threading.Lock()
_stopped: list[SqliteCache] = []


def _stop_for_fork() -> None:
    _fork_lock.acquire()
    for cache in _caches:
        cache._lock.acquire()
        cache._disconnect()
        _stopped.append(cache)


def _go_on_after_fork() -> None:
    while _stopped:
        _stopped.pop()._lock.release()
    _fork_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_stop_for_fork, after_in_parent=_go_on_after_fork, after_in_child=_go_on_after_fork)
