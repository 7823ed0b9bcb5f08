"""Make the edits of a benchmark, each once: resumable after any end, by any number of processes, failures as data.

A directory holds `edits-*.jsonl`, one per process, a line per edit, and `images/`, named by content. An image is moved
into place before the line that names it; what a kill leaves behind is at most a cut last line, which readers skip.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import ComponentError, ConfigError, DataError, ImageError
from editr1_plugins.evaluation.editors.items import IMAGE_NAME, EditorItem
from editr1_plugins.evaluation.editors.sampling import Editor
from editr1_plugins.reward.edit_rows import numbered_lines
from editr1_plugins.reward.journal import RecordWriter
from editr1_plugins.types import Edit

__all__ = ["SETTINGS", "Made", "Progress", "made_edits", "make_edits", "settled"]

#: The file with what the edits of a directory depend on.
SETTINGS: Final = "editor.json"
_MAX_REASON: Final = 300
#: An editor that fails so often before it made one edit is wrongly set up.
_HOPELESS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Made:
    """One edit that was made, or why there is none; images are relative to the directory.

    Attributes:
        key: of the item.
        instruction: with which it was made.
        source, edited: what a judge is shown.
        failure: why there is no edit; None where there is.
        seconds: that it took.
        stamp: of the file that it was read from, where it was.
        at: when the line was written, in seconds; of two lines of one key the later counts.
    """

    key: str
    instruction: str
    source: str | None = None
    edited: str | None = None
    failure: str | None = None
    seconds: float = 0.0
    stamp: list[int] | None = None
    at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the edits are: `made` and `failed` in all, `resumed` of them before this run."""

    made: int = 0
    failed: int = 0
    resumed: int = 0


def settled(directory: Path, settings: Mapping[str, Any]) -> None:
    """Keep `settings` in a new directory; in one that has some, they must be the same.

    Raises:
        ConfigError: they differ, or the directory cannot be written.
    """
    path = directory / SETTINGS
    now = json.loads(json.dumps(dict(settings)))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(json.dumps(now, indent=2) + "\n")
            temporary.replace(path)
        before = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error.strerror or error}") from None
    except ValueError:
        raise ConfigError(f"{path} is not JSON; give another directory") from None
    if before != now:
        old = before if isinstance(before, dict) else {}
        changed = [name for name in {**old, **now} if old.get(name) != now.get(name)]
        told = "; ".join(f"{name} was {old.get(name)!r}, is {now.get(name)!r}" for name in changed)
        raise ConfigError(f"{directory} holds edits of another editor ({told}); give another directory"[:1000])


def make_edits(
    items: Iterable[EditorItem],
    directory: Path,
    editor: Editor,
    *,
    shard: tuple[int, int] = (0, 1),
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Made]:
    """Make the edits that `directory` does not hold, and return all of this shard's by key.

    Args:
        items: of the benchmark.
        directory: several processes may write to it at a time, each with its own shard.
        editor: makes them.
        shard: (i, n): every n-th item from the i-th, from 0.
        retry_failed: also try again where there is none so far.
        progress: called after each edit.

    Raises:
        ConfigError: a wrong shard, or the directory cannot be written.
        DataError: a line there cannot be read, or is of other data.
        ComponentError: the editor failed on each of the first items.
        OSError: the disk is full or gone; what was made stays.
    """
    index, count = shard
    if not 0 <= index < count:
        raise ConfigError(f"shard {index}/{count}: the first number must lie in 0..{count - 1}")
    writer, log = RecordWriter(directory), _Log(directory)
    known, told = made_edits(directory), Progress()
    found: dict[str, Made] = {}
    for number, item in enumerate(items):
        if number % count != index:
            continue
        before = known.get(item.key)
        if before is not None and before.instruction != item.instruction:
            raise DataError(f"{directory} holds an edit of {item.key!r} by another instruction; give another directory")
        if before is not None and _done(before, editor.stamp(item), retry_failed):
            found[item.key] = before
            told = replace(told, resumed=told.resumed + 1)
        else:
            found[item.key] = made = _make(item, editor, writer)
            log.add(made)
        failed = found[item.key].failure is not None
        told = replace(told, made=told.made + (not failed), failed=told.failed + failed)
        if told.made == 0 and told.failed >= _HOPELESS and _is_editors(found[item.key].failure):
            raise ComponentError(f"none of the first {told.failed} edits could be made: {found[item.key].failure}")
        if progress is not None:
            progress(told)
    return found


def _done(before: Made, stamp: list[int] | None, retry_failed: bool) -> bool:
    if stamp is not None and stamp != before.stamp:
        return False
    return before.failure is None or not retry_failed


def _is_editors(failure: str | None) -> bool:
    return failure is not None and failure.startswith("edit_failed")


def _make(item: EditorItem, editor: Editor, writer: RecordWriter) -> Made:
    started, stamp = time.perf_counter(), editor.stamp(item)
    made = Made(key=item.key, instruction=item.instruction, stamp=stamp)
    try:
        sources = item.read()
    except DataError as error:
        return replace(made, failure=_reason("bad_source", error), at=time.time())
    try:
        edited = editor.edit(item, sources)
    except ComponentError as error:
        return _without_edit(made, _reason("edit_failed", error), sources.shown, writer)
    except ImageError as error:
        return _without_edit(made, _reason("bad_image", error), sources.shown, writer)
    except DataError as error:
        return _without_edit(made, str(error)[:_MAX_REASON], sources.shown, writer)
    seconds = time.perf_counter() - started
    source, name = writer.keep_images(Edit(source=sources.shown, edited=edited, instruction=item.instruction))
    return replace(made, source=source, edited=name, seconds=round(seconds, 4), at=time.time())


def _without_edit(made: Made, failure: str, shown: Any, writer: RecordWriter) -> Made:
    source, _ = writer.keep_images(Edit(source=shown, edited=shown, instruction=made.instruction))
    return replace(made, source=source, failure=failure, at=time.time())


def _reason(kind: str, error: Exception) -> str:
    return f"{kind}: {' '.join(str(error).split())}"[:_MAX_REASON]


class _Log:
    """Appends lines to a file of this process; each is one write, whole or (after a kill) cut."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"edits-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"

    def add(self, made: Made) -> None:
        with self._path.open("ab", buffering=0) as file:
            data = json.dumps(asdict(made)).encode("ascii") + b"\n"
            while data:
                data = data[file.write(data) or 0 :]


def made_edits(directory: Path) -> dict[str, Made]:
    """The edits that a directory holds, by key; of several of one key the latest.

    Raises:
        DataError: a line cannot be read.
    """
    found: dict[str, Made] = {}
    for path in sorted(directory.glob("edits-*.jsonl")):
        for made in _lines(path):
            if made.key not in found or found[made.key].at <= made.at:
                found[made.key] = made
    return found


def _lines(path: Path) -> Iterator[Made]:
    whole = path.read_bytes().count(b"\n")
    for place, (number, line) in enumerate(numbered_lines(path)):
        if place >= whole:
            return  # cut by a kill
        try:
            made = Made(**json.loads(line or b""))
            if not isinstance(made.key, str) or (made.edited is None) == (made.failure is None):
                raise ValueError("no edit")
            if not all(name is None or IMAGE_NAME.fullmatch(name) for name in (made.source, made.edited)):
                raise ValueError("images of another name")
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path.name}, line {number}: not an edit ({error})"[:300]) from None
        yield made
