"""Many edits from a file, judged and recorded: resumable after any end, in bounded memory, a bad row being a row.

The output is a directory of records (see `journal`), one per row, each with `row`: the line it came from, its names,
its `id`, its key, and which attempt at it this was. The records are the journal: a row is done when its record is
there, so a run that was killed goes on where it was when it is started again. What was asked of a judge and not yet
recorded at the kill is asked again. Rows are known by what they say, not by their place: a file may grow, or change its
order. New pixels under an old name are not noticed; give them a new directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from editr1_plugins.errors import DataError
from editr1_plugins.reward.bulk_rows import (
    BulkSummary,
    Outcome,
    RowBook,
    RowJudge,
    Tally,
    checked_input,
    latest_records,
    problem_of,
    read_edit,
    writing_alone,
)
from editr1_plugins.reward.edit_rows import EditRow, read_edit_rows
from editr1_plugins.reward.journal import RecordWriter
from editr1_plugins.types import Edit

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BulkSummary", "latest_records", "score_file"]

#: A batch is also full when its decoded images hold so many bytes; two batches are in memory at a time.
_BATCH_BYTES: Final = 256 * 2**20
#: A batch also ends after so many rows that are done already.
_BATCH_KNOWN: Final = 1000
_T = TypeVar("_T")


@dataclass
class _Batch:
    """Rows that were read: done before, no edit, or to be judged."""

    known: list[Outcome] = field(default_factory=list)
    broken: list[tuple[dict[str, Any], EditRow, str]] = field(default_factory=list)
    edits: list[tuple[dict[str, Any], Edit]] = field(default_factory=list)
    sources: dict[str, Image] = field(default_factory=dict)
    bytes: int = 0

    def full(self, size: int) -> bool:
        asked = len(self.edits) + len(self.broken)
        return asked >= size or self.bytes >= _BATCH_BYTES or len(self.known) >= _BATCH_KNOWN


def score_file(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    retry_failed: bool = False,
    progress: Callable[[BulkSummary], None] | None = None,
    **reward: Any,
) -> BulkSummary:
    """Judge every row of a JSON-lines file that `directory` holds no record of, and record it there.

    Args:
        path: lines of `{"source": ..., "edited": ..., "instruction": ...}`; an `id` is kept, other fields are ignored.
        directory: where records and images go; one run at a time may write to it.
        folder: of the images, which the rows name relative to it; default: that of `path`.
        batch_size: edits per call of the judge.
        retry_failed: also judge rows again whose record has no score, for a server that was down or a lost file.
        progress: called after each batch with the summary so far.
        reward: arguments of `EditRRMReward`, but not `record`.

    Raises:
        ConfigError: a wrong argument, a directory of other records or of another judge, or one that is being written.
        DataError: the input cannot be read, or a record cannot.
        MissingExtraError, ComponentError: a part of the reward cannot be built.
        OSError: the disk is full or gone; what was recorded stays.
    """
    images = checked_input(path, folder, batch_size=batch_size)
    judge = RowJudge(Path(directory), reward)
    tally = Tally()
    with writing_alone(Path(directory), judge.settings):
        book = RowBook(Path(directory), retry_failed=retry_failed)
        reader = _Reader(images, judge.writer, book)
        for batch in _one_ahead(reader.batches(path, batch_size)):
            tally.add(batch.known, resumed=True)
            tally.add([judge.write_broken(told, row.instruction, problem) for told, row, problem in batch.broken])
            tally.add(judge.judge(batch.edits))
            if progress is not None:
                progress(tally.summary())
    return tally.summary()


class _Reader:
    """Turns rows into batches; runs ahead of the judge in a thread of its own."""

    def __init__(self, folder: Path, writer: RecordWriter, book: RowBook) -> None:
        self._folder, self._writer, self._book = folder, writer, book

    def batches(self, path: str | os.PathLike[str], size: int) -> Iterator[_Batch]:
        batch = _Batch()
        for row in read_edit_rows(path):
            self._add(row, batch)
            if batch.full(size):
                yield batch
                batch = _Batch()
        if batch.known or batch.broken or batch.edits:
            yield batch

    def _add(self, row: EditRow, batch: _Batch) -> None:
        told = self._book.claim(row)
        if isinstance(told, Outcome):
            batch.known.append(told)
            return
        known = len(batch.sources)
        try:
            edit = read_edit(row, self._folder, batch.sources)
        except DataError as error:
            batch.broken.append((told, row, problem_of(error)))
            return
        finally:
            if len(batch.sources) > known:
                batch.bytes += _bytes(batch.sources[row.source])
        batch.bytes += _bytes(edit.edited)
        # Now, while the judge is busy, so that little time lies between its answer and the record.
        self._writer.keep_images(edit)
        batch.edits.append((told, edit))


def _bytes(image: Image) -> int:
    return 3 * image.width * image.height


def _one_ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The same items, each made in a thread while its predecessor is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
