"""What bulk judging keeps of its rows: which are done, what became of them, and their records.

Used by one process (`bulk`) and by the workers of many machines (`ray_bulk`); each has its own file of records.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from editr1_plugins.errors import ConfigError, DataError, ImageError
from editr1_plugins.images import read_image
from editr1_plugins.reward.edit_rows import EditRow, file_below
from editr1_plugins.reward.journal import RecordWriter, read_records
from editr1_plugins.reward.record import EditRecord, failure_kind
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import Edit, Verification

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "BulkSummary",
    "Outcome",
    "RowBook",
    "RowJudge",
    "Tally",
    "checked_input",
    "latest_records",
    "problem_of",
    "read_edit",
    "recorded_keys",
    "writing_alone",
]

_MAX_KINDS: Final = 50
_SETTINGS: Final = "run.json"
#: Where a model is served is no part of who judges.
_ADDRESS: Final = re.compile(r"@https?://\S+")


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


class Outcome(NamedTuple):
    """Of the last attempt at a row: its score 0..10, or None and the kind of failure."""

    attempt: int
    score: float | None
    kind: str | None


class RowBook:
    """Which rows of an input are done, by the records of earlier runs in `directory`.

    Raises:
        DataError: a record there cannot be read.
    """

    def __init__(self, directory: Path, *, retry_failed: bool = False) -> None:
        self._done, self._retry = _outcomes(directory), retry_failed
        self._seen: Counter[str] = Counter()

    def claim(self, row: EditRow) -> Outcome | dict[str, Any]:
        """What became of a row, or, where it is still to be judged, what its record tells of it."""
        # Rows that say the same are told apart by their order.
        key = f"{row.digest}-{self._seen[row.digest]}"
        self._seen[row.digest] += 1
        known = self._done.pop(key, None)
        if known is not None and not (self._retry and known.score is None):
            return known
        return {
            "key": key,
            "attempt": known.attempt + 1 if known else 1,
            "line": row.number,
            "id": row.identifier,
            "source": row.source,
            "edited": row.edited,
        }


class RowJudge:
    """An `EditRRMReward` whose outcomes are recorded in `directory` with the rows they belong to.

    Args:
        directory: where records and images go; several judges, also of several machines, may write to it.
        reward: arguments of `EditRRMReward`, but not `record`.

    Raises:
        ConfigError, MissingExtraError, ComponentError: as `EditRRMReward`, or the directory cannot be written.
    """

    def __init__(self, directory: Path, reward: Mapping[str, Any]) -> None:
        self.writer = RecordWriter(directory)
        self._reward = EditRRMReward(**reward, record=self)
        self._told: dict[int, dict[str, Any]] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._error: OSError | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Who judges and how, as data (see `EditRRMReward.settings`)."""
        return self._reward.settings

    def judge(self, edits: Sequence[tuple[dict[str, Any], Edit]]) -> list[Outcome]:
        """Judge and record edits, each with what its record tells of the row.

        Raises:
            OSError: a record cannot be written.
        """
        self._told = {id(edit): told for told, edit in edits}
        self._outcomes = {}
        self._reward.score([edit for _, edit in edits])
        if self._error is not None:
            raise self._error
        return [self._outcomes[id(edit)] for _, edit in edits]

    def outcome(self, edit: Edit) -> Outcome | None:
        """What an edit of the last `judge` came to; None if that call ended before its record was written."""
        return self._outcomes.get(id(edit))

    def write(self, edit: Edit, record: EditRecord) -> None:
        """Called by the reward, which only logs an OSError."""
        told = self._told[id(edit)]
        try:
            try:
                self.writer.write(edit, record, told)
            except (TypeError, ValueError) as error:
                failure = f"unwritable: a part answered with what is no JSON ({error})"
                record = replace(record, verification=_unjudged(failure), principles=(), alarms=())
                self.writer.write(edit, record, told)
        except OSError as error:
            self._error = error
            raise
        self._outcomes[id(edit)] = _outcome(told["attempt"], record.verification.score, record.verification.failure)

    def write_broken(self, told: dict[str, Any], instruction: str, problem: str) -> Outcome:
        """Record a row that names no edit, or could not be judged at all, with the reason.

        Raises:
            OSError: the record cannot be written.
        """
        record = EditRecord(
            instruction=instruction,
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
        self.writer.write(None, record, told)
        return _outcome(told["attempt"], None, problem)


def read_edit(row: EditRow, folder: Path, sources: dict[str, Image]) -> Edit:
    """The edit that a row names; `sources` keeps decoded sources by name, so that a group shares one.

    Raises:
        DataError: the row names no edit, or an image cannot be read. `problem_of` puts it into words.
    """
    if row.problem is not None:
        raise DataError(row.problem)
    source = sources.get(row.source)
    if source is None:
        source = sources[row.source] = read_image(file_below(folder, row.source))
    edited = read_image(file_below(folder, row.edited))
    return Edit(source=source, edited=edited, instruction=row.instruction)


def problem_of(error: DataError) -> str:
    """The failure of a row that could not be read: its kind, then the reason."""
    return f"{'bad_image' if isinstance(error, ImageError) else 'bad_row'}: {error}"


class Tally:
    """Counts outcomes."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._resumed = self._scored = self._failed = 0
        self._sum = 0.0

    def add(self, outcomes: Sequence[Outcome], *, resumed: bool = False) -> None:
        """Count outcomes; `resumed` ones were there before this run."""
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
        """What became of the rows so far."""
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


def _outcome(attempt: int, score: float | None, failure: str | None) -> Outcome:
    return Outcome(attempt, score, None if failure is None else failure_kind(failure))


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


def _outcomes(directory: Path) -> dict[str, Outcome]:
    """What is done: the last attempt at each row."""
    done: dict[str, Outcome] = {}
    for (key, attempt), outcome in recorded_keys(directory).items():
        if key not in done or done[key].attempt < attempt:
            done[key] = outcome
    return done


def recorded_keys(directory: Path) -> dict[tuple[str, int], Outcome]:
    """What every attempt that has a record came to, by (key of the row, attempt).

    Raises:
        DataError: a record cannot be read.
    """
    done: dict[tuple[str, int], Outcome] = {}
    for record in read_records(directory):
        key, attempt = _key(record)
        if key is None:
            continue
        score, failure = record.get("score"), record.get("failure")
        if type(score) not in (int, float, type(None)) or type(failure) not in (str, type(None)):
            raise DataError(f"{directory}: the record of row {key} has score {score!r} and failure {failure!r}")
        done[key, attempt] = _outcome(attempt, score, failure)
    return done


def _check_same_run(directory: Path, settings: Mapping[str, Any]) -> None:
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


def checked_input(path: str | os.PathLike[str], folder: str | os.PathLike[str] | None, **sizes: int) -> Path:
    """The folder that the rows' images are in: `folder`, else that of the file `path`.

    Raises:
        ConfigError: one of `sizes` (`batch_size=...`) is less than 1.
        DataError: there is no such file.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} must be at least 1, got {size}")
    if not Path(path).is_file():
        raise DataError(f"no file {os.fspath(path)}")
    return Path(path).parent if folder is None else Path(folder)


@contextmanager
def writing_alone(directory: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """For one run of one judge: its `settings` are kept in the directory and must be those of earlier runs.

    A second run at a time is refused where the system has file locks; a killed one holds nothing.

    Raises:
        ConfigError: another run is writing, or the directory holds records of another judge or of something else.
    """
    with open(directory / ".lock", "ab") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except BlockingIOError:
            raise ConfigError(f"another run is writing to {directory}") from None
        _check_same_run(directory, settings)
        yield
