"""Many edits from a file, judged and recorded: resumable after any end, in bounded memory, a bad row being a row.

The output is a directory of records (see `journal`), one per row, each with `row`: the line it came from, its names,
its `id`, its key, and which attempt at it this was. The records are the journal: a row is done when its record is
there, so a run that was killed goes on where it was when it is started again. What was asked of a judge and not yet
recorded at the kill is asked again. Rows are known by what they say, not by their place: a file may grow, or change its
order. New pixels under an old name are not noticed; give them a new directory.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from editr1_plugins.errors import ConfigError, DataError, ImageError
from editr1_plugins.images import read_image
from editr1_plugins.reward.edit_rows import EditRow, file_below, read_edit_rows
from editr1_plugins.reward.journal import RecordWriter, read_records
from editr1_plugins.reward.record import EditRecord, failure_kind
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import Edit, Verification

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BulkSummary", "latest_records", "score_file"]

#: A batch is also full when its decoded images hold so many bytes; two batches are in memory at a time.
_BATCH_BYTES: Final = 256 * 2**20
#: A batch also ends after so many rows that are done already.
_BATCH_KNOWN: Final = 1000
_MAX_KINDS: Final = 50
_SETTINGS: Final = "run.json"
#: Where a model is served is no part of who judges.
_ADDRESS: Final = re.compile(r"@https?://\S+")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class BulkSummary:
    """What became of the rows so far.

    Attributes:
        rows: seen; `scored` + `failed` of them.
        resumed: rows whose record was there before this run.
        failures: how many failed, by kind (`record.failure_kind`), most frequent first.
        mean: mean score, 0..10, of the scored rows; None when there is none.
    """

    rows: int = 0
    resumed: int = 0
    scored: int = 0
    failed: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    mean: float | None = None


class _Outcome(NamedTuple):
    attempt: int
    score: float | None
    kind: str | None


@dataclass
class _Batch:
    """Rows that were read: done before, no edit, or to be judged."""

    known: list[_Outcome] = field(default_factory=list)
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
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    if not Path(path).is_file():
        raise DataError(f"no file {os.fspath(path)}")
    writer = RecordWriter(directory)
    sink = _Sink(writer)
    judge = EditRRMReward(**reward, record=sink)
    tally = _Tally()
    with _alone(writer.directory):
        sink.settings = settings = judge.settings
        _check_same_run(writer.directory, settings)
        done = _outcomes(writer.directory)
        reader = _Reader(Path(folder) if folder is not None else Path(path).parent, writer, done, retry_failed)
        for batch in _one_ahead(reader.batches(path, batch_size)):
            tally.add(batch.known, resumed=True)
            tally.add([sink.write_broken(*row) for row in batch.broken])
            tally.add(sink.judge(judge, batch.edits))
            if progress is not None:
                progress(tally.summary())
    return tally.summary()


class _Reader:
    """Turns rows into batches; runs ahead of the judge in a thread of its own."""

    def __init__(self, folder: Path, writer: RecordWriter, done: dict[str, _Outcome], retry_failed: bool) -> None:
        self._folder, self._writer, self._done, self._retry = folder, writer, done, retry_failed
        self._seen: Counter[str] = Counter()

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
        # Rows that say the same are told apart by their order.
        key = f"{row.digest}-{self._seen[row.digest]}"
        self._seen[row.digest] += 1
        known = self._done.pop(key, None)
        if known is not None and not (self._retry and known.score is None):
            batch.known.append(known)
            return
        told = {
            "key": key,
            "attempt": known.attempt + 1 if known else 1,
            "line": row.number,
            "id": row.identifier,
            "source": row.source,
            "edited": row.edited,
        }
        try:
            if row.problem is not None:
                raise DataError(row.problem)
            edit = self._edit(row, batch)
        except DataError as error:
            batch.broken.append((told, row, f"{'bad_image' if isinstance(error, ImageError) else 'bad_row'}: {error}"))
            return
        # Now, while the judge is busy, so that little time lies between its answer and the record.
        self._writer.keep_images(edit)
        batch.edits.append((told, edit))

    def _edit(self, row: EditRow, batch: _Batch) -> Edit:
        source = batch.sources.get(row.source)
        if source is None:
            source = batch.sources[row.source] = read_image(file_below(self._folder, row.source))
            batch.bytes += 3 * source.width * source.height
        edited = read_image(file_below(self._folder, row.edited))
        batch.bytes += 3 * edited.width * edited.height
        return Edit(source=source, edited=edited, instruction=row.instruction)


class _Sink:
    """Records the reward's outcomes with the rows they belong to; what cannot be written ends the run."""

    def __init__(self, writer: RecordWriter) -> None:
        self.settings: dict[str, Any] = {}
        self._writer = writer
        self._told: dict[int, dict[str, Any]] = {}
        self._outcomes: dict[int, _Outcome] = {}
        self._error: OSError | None = None

    def judge(self, judge: EditRRMReward, edits: list[tuple[dict[str, Any], Edit]]) -> list[_Outcome]:
        self._told = {id(edit): told for told, edit in edits}
        self._outcomes = {}
        judge.score([edit for _, edit in edits])
        if self._error is not None:
            raise self._error
        return [self._outcomes[id(edit)] for _, edit in edits]

    def write(self, edit: Edit, record: EditRecord) -> None:
        """Called by the reward, which only logs an OSError."""
        told = self._told[id(edit)]
        try:
            try:
                self._writer.write(edit, record, told)
            except (TypeError, ValueError) as error:
                failure = f"unwritable: a part answered with what is no JSON ({error})"
                record = replace(record, verification=_unjudged(failure), principles=(), alarms=())
                self._writer.write(edit, record, told)
        except OSError as error:
            self._error = error
            raise
        self._outcomes[id(edit)] = _outcome(told["attempt"], record.verification.score, record.verification.failure)

    def write_broken(self, told: dict[str, Any], row: EditRow, problem: str) -> _Outcome:
        record = EditRecord(
            instruction=row.instruction,
            principles=(),
            verification=_unjudged(problem),
            judged_score=None,
            alarms=(),
            verifier=self.settings["verifier"],
            decomposer=self.settings["decomposer"],
            aggregate=self.settings["aggregate"],
            seconds=None,
            batch=0,
        )
        self._writer.write(None, record, told)
        return _outcome(told["attempt"], None, problem)


class _Tally:
    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._resumed = self._scored = self._failed = 0
        self._sum = 0.0

    def add(self, outcomes: list[_Outcome], *, resumed: bool = False) -> None:
        self._resumed += len(outcomes) if resumed else 0
        for outcome in outcomes:
            if outcome.score is not None:
                self._scored += 1
                self._sum += outcome.score
            else:
                self._failed += 1
                kind = outcome.kind or "no reason given"
                self._kinds[kind if kind in self._kinds or len(self._kinds) < _MAX_KINDS else "other"] += 1

    def summary(self) -> BulkSummary:
        return BulkSummary(
            rows=self._scored + self._failed,
            resumed=self._resumed,
            scored=self._scored,
            failed=self._failed,
            failures=dict(self._kinds.most_common()),
            mean=self._sum / self._scored if self._scored else None,
        )


def _unjudged(failure: str) -> Verification:
    return Verification(score=None, failure=failure, samples=0)


def _outcome(attempt: int, score: float | None, failure: str | None) -> _Outcome:
    return _Outcome(attempt, score, None if failure is None else failure_kind(failure))


def latest_records(directory: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """`read_records`, without the earlier attempts at rows that were tried again.

    Raises:
        DataError: as `read_records`.
    """
    # Two passes, so that only rows that were tried again take memory.
    last: dict[str, int] = {}
    for record in read_records(directory):
        key, attempt = _key(record)
        if key is not None and attempt > 1:
            last[key] = max(attempt, last.get(key, 0))
    for record in read_records(directory):
        key, attempt = _key(record)
        if key is None or attempt >= last.get(key, 0):
            yield record


def _key(record: dict[str, Any]) -> tuple[str | None, int]:
    row = record.get("row")
    if not isinstance(row, dict) or not isinstance(row.get("key"), str) or type(row.get("attempt")) is not int:
        return None, 1
    return row["key"], row["attempt"]


def _outcomes(directory: Path) -> dict[str, _Outcome]:
    """What is done: the last attempt at each row."""
    done: dict[str, _Outcome] = {}
    for record in read_records(directory):
        key, attempt = _key(record)
        if key is None or (key in done and done[key].attempt > attempt):
            continue
        score, failure = record.get("score"), record.get("failure")
        if type(score) not in (int, float, type(None)) or type(failure) not in (str, type(None)):
            raise DataError(f"{directory}: the record of row {key} has score {score!r} and failure {failure!r}")
        done[key] = _outcome(attempt, score, failure)
    return done


def _check_same_run(directory: Path, settings: dict[str, Any]) -> None:
    """One directory, one judge: a mean over two judges would mean nothing."""
    path = directory / _SETTINGS
    now = {name: _without_address(value) for name, value in settings.items()}
    try:
        before = json.loads(path.read_bytes())
    except FileNotFoundError:
        if next(read_records(directory), None) is not None:
            raise ConfigError(f"{directory} holds records of something else; give another directory") from None
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(now, indent=2) + "\n")
        temporary.replace(path)
        return
    except ValueError:
        raise ConfigError(f"{path} is not JSON; give another directory") from None
    if before != now:
        changed = [name for name in now if not isinstance(before, dict) or before.get(name) != now[name]]
        told = ", ".join(f"{name} was {_before(before, name)}, is {now[name]!r}" for name in changed) or "a new version"
        raise ConfigError(f"{directory} holds records of another judge ({told}); give another directory")


def _without_address(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_address(each) for each in value]
    return _ADDRESS.sub("", value) if isinstance(value, str) else value


def _before(settings: object, name: str) -> str:
    return repr(settings.get(name)) if isinstance(settings, dict) else "not told"


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Refuse a second run on the directory; a killed one holds nothing. Only where the system has such locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(directory / ".lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another run is writing to {directory}") from None
        yield


def _one_ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The same items, each made in a thread while its predecessor is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
