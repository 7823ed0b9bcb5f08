"""The file behind `SqliteCache`: one table of (key, value, used), opened with suspicion.

Who else may have the file open, what a process killed half-way leaves behind, and how much disk the file may take is
settled by sqlite itself (WAL, immediate transactions, page counts). The file belongs on a local disk: WAL needs shared
memory, which network file systems do not offer.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from editr1_plugins.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows; there an open file cannot be renamed under its readers anyway
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "SMALLEST_FILE",
    "bound",
    "count",
    "is_damage",
    "open_file",
    "read",
    "set_aside_if_damaged",
    "touch",
    "write",
]

#: Smallest bound that leaves room for some entries beside the tables' own pages.
SMALLEST_FILE: Final = 64 * 1024

_MAGIC: Final = b"SQLite format 3\x00"
_HEADER_BYTES: Final = 100
_APPLICATION_ID: Final = 0x45645231  # "EdR1": tells our files from everybody else's
_APPLICATION_ID_AT: Final = slice(68, 72)
_VERSION: Final = 1
_SCHEMA: Final = {
    "entries": "CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL, "
    "crc INTEGER NOT NULL, used INTEGER NOT NULL)",
    "entries_used": "CREATE INDEX entries_used ON entries (used)",
}
_ROOM_TO_SPLIT: Final = 4  # pages that one write may add beside its own text
_EVICT_TO: Final = 0.9  # of the bound, so that not every write has to evict


class _DamagedSchemaError(sqlite3.DatabaseError):
    """A file of ours whose tables are not ours any more."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether sqlite says that the file's content is broken (not that it is busy, full or read-only)."""
    # SQLITE_CORRUPT and SQLITE_NOTADB are the two that arrive as plain DatabaseError.
    return type(error) in (sqlite3.DatabaseError, _DamagedSchemaError)


def open_file(path: Path, timeout: float) -> sqlite3.Connection:
    """Open or create the cache at `path`, waiting up to `timeout` seconds for other processes.

    Raises:
        ConfigError: the file is not a cache of ours, is a newer one, or its place cannot be used.
        sqlite3.DatabaseError: the file is ours and damaged (see `is_damage`), or stayed locked, or cannot be opened.
    """
    _refuse_foreign(path)
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # damaged names must not raise
    try:
        _while_locked(timeout, lambda: _prepare(connection, path))
    except UnicodeDecodeError as error:  # sqlite quotes the damaged bytes in its message
        connection.close()
        raise _DamagedSchemaError("unreadable tables") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_foreign(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"the cache path {path} is a directory; give a file, e.g. {path / 'principles.sqlite'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        header = _header(path)
    except OSError as error:
        raise ConfigError(f"cannot use {path} as a cache: {error}") from None
    if header and not header.startswith(_MAGIC):
        raise ConfigError(f"{path} is not a principle cache (no sqlite file); choose another path or delete it")


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return b""


def _while_locked(timeout: float, action: Callable[[], None]) -> None:
    # sqlite's own waiting does not cover the change to WAL, which every process tries when a file is new.
    deadline = time.monotonic() + timeout
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA trusted_schema = OFF")
    if _is_new(connection, path):
        with _transaction(connection):
            if _is_new(connection, path):  # asked again under the lock: another process may have been faster
                for statement in _SCHEMA.values():
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
    if _pragma(connection, "journal_mode") != "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    # A killed process loses nothing with NORMAL; a power cut may lose the last writes, never the file.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_size_limit = 4194304")


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    schema = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    if not schema and application == 0:
        return True
    if application != _APPLICATION_ID:
        raise ConfigError(f"{path} is another program's sqlite file; choose another path for the cache")
    if version != _VERSION:
        raise ConfigError(f"{path} is a cache of format {version}, this release reads {_VERSION}; choose another path")
    if schema != _SCHEMA:  # a trigger or view in a file from elsewhere would run with our statements
        raise _DamagedSchemaError(f"unexpected tables: {', '.join(map(str, schema))}")
    return False


def _pragma(connection: sqlite3.Connection, name: str) -> int | str:
    value: int | str = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def count(connection: sqlite3.Connection) -> int:
    """How many entries there are."""
    return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])


def read(connection: sqlite3.Connection, key: str, longest: int) -> str | None:
    """The ASCII text under `key`; None where there is none, or one that is damaged or longer than `longest`."""
    query = "SELECT value, crc FROM entries WHERE key = ? AND typeof(value) = 'blob' AND length(value) <= ?"
    row = connection.execute(query, (key, longest)).fetchone()
    # sqlite notices damage to its pages, not to the text in them.
    return row[0].decode("ascii", "replace") if row is not None and zlib.crc32(row[0]) == row[1] else None


def touch(connection: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Mark entries as used now, in this order."""
    with _transaction(connection):
        _mark(connection, keys)


def write(connection: sqlite3.Connection, key: str, text: str, used: Iterable[str], max_bytes: int) -> None:
    """Mark `used` as used, then write an entry of ASCII text and evict those used longest ago beyond `max_bytes`."""
    with _transaction(connection):
        _mark(connection, used)
        value = text.encode("ascii")
        _evict(connection, max_bytes - len(value) - _ROOM_TO_SPLIT * int(_pragma(connection, "page_size")))
        row = (key, value, zlib.crc32(value), _tick(connection))
        connection.execute("INSERT OR REPLACE INTO entries (key, value, crc, used) VALUES (?, ?, ?, ?)", row)


def bound(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Bring a file that is larger than `max_bytes` down to it, on disk as well."""
    if int(_pragma(connection, "page_count")) * int(_pragma(connection, "page_size")) > max_bytes:
        with _transaction(connection):
            _evict(connection, max_bytes)
        connection.execute("VACUUM")


def _mark(connection: sqlite3.Connection, keys: Iterable[str]) -> None:
    tick = _tick(connection)
    rows = [(tick + step, key) for step, key in enumerate(keys)]
    connection.executemany("UPDATE entries SET used = ? WHERE key = ?", rows)


def _tick(connection: sqlite3.Connection) -> int:
    # A counter in the file, not a clock: clocks tie, and differ between machines.
    return int(connection.execute("SELECT coalesce(max(used), 0) + 1 FROM entries").fetchone()[0])


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    pages = int(_pragma(connection, "page_count")) - int(_pragma(connection, "freelist_count"))
    return pages * int(_pragma(connection, "page_size"))


def _evict(connection: sqlite3.Connection, max_bytes: int) -> None:
    in_use = _bytes_in_use(connection)
    if in_use <= max_bytes:
        return
    target, entries = _EVICT_TO * max_bytes, count(connection)
    while in_use > target and entries:
        # Half of what should do, then look again: rows differ in size, and a page is free only when all of it is.
        doomed = math.ceil(entries * (1 - target / in_use) / 2)
        oldest = "SELECT id FROM entries ORDER BY used LIMIT ?"
        connection.execute(f"DELETE FROM entries WHERE id IN ({oldest})", (doomed,))
        in_use, entries = _bytes_in_use(connection), entries - doomed


def set_aside_if_damaged(path: Path, timeout: float) -> Path | None:
    """Rename a damaged file of ours, with its WAL, out of the way; returns where it went, None if it is sound.

    Raises:
        OSError: it cannot be renamed.
        ConfigError: it is not ours.
    """
    with _one_at_a_time(path):
        # Another process may have set it aside already, so that the path holds a new file by now.
        if _is_sound(path, timeout):
            return None
        if _header(path)[_APPLICATION_ID_AT] != _APPLICATION_ID.to_bytes(4, "big"):
            raise ConfigError(
                f"{path} is damaged and cannot be told to be a cache of ours; delete it or choose another"
            )
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        # The WAL first: a new file must never meet the old file's WAL.
        for suffix in ("-wal", "-shm", ""):
            if os.path.exists(f"{path}{suffix}"):
                os.replace(f"{path}{suffix}", f"{aside}{suffix}")
        return aside


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with open(f"{path}.lock", "ab") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_sound(path: Path, timeout: float) -> bool:
    try:
        connection = open_file(path, timeout)
        try:
            return bool(_pragma(connection, "integrity_check(1)") == "ok")
        finally:
            connection.close()
    except sqlite3.Error as error:
        if is_damage(error):
            return False
        raise
