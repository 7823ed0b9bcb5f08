"""Have the edits of a run judged: each once, by the resumable client of `editr1 score`, in bounded memory.

The records lie beside the edits (see `reward.journal`). An edit is known by its key and its pixels: one that was made
anew is judged anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.editors.generating import Made
from editr1_plugins.evaluation.editors.items import EditorItem, JudgedEdit
from editr1_plugins.evaluation.editors.parts import parts_of_record
from editr1_plugins.images import read_image
from editr1_plugins.reward.bulk_rows import (
    BulkSummary,
    Outcome,
    RowBook,
    RowJudge,
    Tally,
    latest_records,
    problem_of,
    writing_alone,
)
from editr1_plugins.reward.edit_rows import EditRow, file_below
from editr1_plugins.types import Edit

__all__ = ["judge_made", "measured"]

#: A batch is also full when its decoded images hold so many bytes.
_BATCH_BYTES: Final = 256 * 2**20


def judge_made(
    items: Sequence[EditorItem],
    made: Mapping[str, Made],
    directory: Path,
    *,
    benchmark: str,
    reward: Mapping[str, Any],
    batch_size: int = 32,
    retry_failed: bool = False,
    progress: Callable[[BulkSummary], None] | None = None,
) -> list[JudgedEdit]:
    """One row per item, in order: what the judge said, or why there is nothing.

    Args:
        items: of the benchmark.
        made: the edits by key; an item without one is a failed row.
        directory: where the images lie, and records go; one judge at a time.
        benchmark: its name, kept with the judge's settings.
        reward: arguments of `EditRRMReward`, but not `record`.
        batch_size: edits per call of the judge.
        retry_failed: also judge again what has no score so far.
        progress: called after each batch.

    Raises:
        ConfigError: a wrong argument, or a directory of another judge, or one that is being written.
        DataError: a record cannot be read as one.
        MissingExtraError, ComponentError: a part of the reward cannot be built.
        OSError: the disk is full or gone; what was recorded stays.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    judge = RowJudge(directory, reward)
    digests = {key: _digest(benchmark, each) for key, each in made.items() if each.edited is not None}
    with writing_alone(directory, {"benchmark": benchmark, **judge.settings}):
        asking = _Asking(judge, directory, RowBook(directory, retry_failed=retry_failed), batch_size, progress)
        for number, item in enumerate(items, start=1):
            if item.key in digests:
                asking.add(number, item, made[item.key], digests[item.key])
        asking.flush()
    said = _said(directory, set(digests.values()))
    return [_row(item, made.get(item.key), said.get(digests.get(item.key, ""))) for item in items]


def measured(items: Iterable[EditorItem], made: Mapping[str, Made], directory: Path) -> dict[str, dict[str, float]]:
    """Gold numbers by key, of items that can measure an edit themselves; nothing for those that cannot."""
    found: dict[str, dict[str, float]] = {}
    for item in items:
        name = made[item.key].edited if item.key in made else None
        if item.gold is not None and name is not None:
            try:
                found[item.key] = dict(item.gold(read_image(file_below(directory, name))))
            except DataError:
                continue
    return found


class _Asking:
    """Collects edits into batches and has them judged."""

    def __init__(
        self,
        judge: RowJudge,
        directory: Path,
        book: RowBook,
        batch_size: int,
        progress: Callable[[BulkSummary], None] | None,
    ) -> None:
        self._judge, self._directory, self._book = judge, directory, book
        self._size, self._progress, self._tally = batch_size, progress, Tally()
        self._batch: list[tuple[dict[str, Any], Edit]] = []
        self._bytes = 0

    def add(self, number: int, item: EditorItem, made: Made, digest: str) -> None:
        row = EditRow(
            number=number,
            digest=digest,
            source=made.source or "",
            edited=made.edited or "",
            instruction=item.instruction,
            identifier=item.key[:300],
        )
        claimed = self._book.claim(row)
        if isinstance(claimed, Outcome):
            self._tally.add([claimed], resumed=True)
            return
        told = {**claimed, "digest": digest}
        try:
            source, edited = (read_image(file_below(self._directory, name)) for name in (row.source, row.edited))
        except DataError as error:
            self._tally.add([self._judge.write_broken(told, item.instruction, problem_of(error))])
            return
        self._batch.append((told, Edit(source=source, edited=edited, instruction=item.instruction)))
        self._bytes += 3 * (source.width * source.height + edited.width * edited.height)
        if len(self._batch) >= self._size or self._bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Have the batch judged."""
        if self._batch:
            self._tally.add(self._judge.judge(self._batch))
        self._batch, self._bytes = [], 0
        if self._progress is not None:
            self._progress(self._tally.summary())


def _digest(benchmark: str, made: Made) -> str:
    told = [benchmark, made.key, made.source, made.edited]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _said(directory: Path, digests: set[str]) -> dict[str, tuple[dict[str, float], str | None]]:
    """(numbers, failure) by digest, from the last attempt at each edit."""
    found: dict[str, tuple[dict[str, float], str | None]] = {}
    for record in latest_records(directory):
        row = record.get("row")
        digest = row.get("digest") if isinstance(row, dict) else None
        if digest not in digests:
            continue
        score = record.get("score")
        if score is None:
            found[digest] = ({}, str(record.get("failure")))
        else:
            found[digest] = ({"score": float(score), **parts_of_record(record)}, None)
    return found


def _row(item: EditorItem, made: Made | None, said: tuple[dict[str, float], str | None] | None) -> JudgedEdit:
    numbers, failure = ({}, None) if said is None else said
    if made is None:
        failure = "not_made: no process has made this edit"
    elif made.failure is not None:
        failure = made.failure
    elif said is None:
        failure = "no_record: the judge was not asked"
    return JudgedEdit(
        key=item.key,
        instruction=item.instruction,
        category=item.category,
        group=item.group,
        tags=item.tags,
        numbers=numbers,
        failure=failure,
        source=None if made is None else made.source,
        edited=None if made is None else made.edited,
    )
