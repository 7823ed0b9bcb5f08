"""Ask a pairwise judge about the pairs of a benchmark, in both orders: resumable, a failed comparison is data.

The journal is `comparisons-*.jsonl` in the directory, one line per comparison, written at once when it is known.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair
from editr1_plugins.evaluation.pairwise import Comparer, Comparison
from editr1_plugins.evaluation.running import taken_of
from editr1_plugins.reward.bulk_rows import BulkSummary, Outcome, Tally, problem_of, writing_alone
from editr1_plugins.reward.edit_rows import numbered_lines
from editr1_plugins.reward.record import failure_kind
from editr1_plugins.types import Edit

__all__ = ["compare_pairs", "take_comparisons"]

_FIRST, _LAST = "first edit first", "first edit last"
_MAX_REASON: Final = 300
#: A batch is also full when its decoded images hold about so many bytes.
_BATCH_BYTES: Final = 256 * 2**20


@dataclass(frozen=True)
class _Asked:
    """One comparison to make: of which row, in which order, and what is shown as A and B."""

    key: str
    order: str
    shown: tuple[Edit, Edit]

    @property
    def bytes(self) -> int:
        """Of the decoded images; the other order's are the same."""
        first, second = self.shown
        return sum(3 * image.width * image.height for image in (first.source, first.edited, second.edited)) // 2


def compare_pairs(
    items: Iterable[Item],
    directory: Path,
    judge: Comparer,
    *,
    benchmark: str,
    both_orders: bool = True,
    batch_size: int = 32,
    retry_failed: bool = False,
    progress: Callable[[BulkSummary], None] | None = None,
) -> list[Judged]:
    """Have every pair compared that `directory` holds no answer for; the rows with `votes`.

    Args: as for `running.judge_edits`.

    Raises:
        ConfigError: a wrong argument, or a directory of other records, of another judge, or being written.
        DataError: an item is no pair, or a record cannot be read.
        OSError: the disk is full or gone; what was recorded stays.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error}") from None
    orders = (_FIRST, _LAST) if both_orders else (_FIRST,)
    with writing_alone(directory, {"benchmark": benchmark, "comparer": judge.identity}):
        log = _Log(directory, retry_failed)
        blanks: list[JudgedPair] = []
        batch: list[_Asked] = []
        for item in items:
            if not isinstance(item.blank, JudgedPair):
                raise DataError(f"{benchmark} is no benchmark of pairs; a pairwise judge cannot rate single edits")
            blanks.append(item.blank)
            batch += _asked(item, log, orders)
            if len(batch) >= batch_size or sum(asked.bytes for asked in batch) >= _BATCH_BYTES:
                _compare(judge, log, batch)
                batch = []
                if progress is not None:
                    progress(log.tally.summary())
        _compare(judge, log, batch)
    if progress is not None:
        progress(log.tally.summary())
    return [_answered(blank, [log.answers[blank.key, order] for order in orders]) for blank in blanks]


def _asked(item: Item, log: _Log, orders: Sequence[str]) -> list[_Asked]:
    key = item.blank.key
    missing = [order for order in orders if not log.knows(key, order)]
    if not missing:
        return []
    try:
        source, *edited = item.read()
        if len(edited) != 2:
            raise DataError(f"{len(edited)} edits in a pair")
    except DataError as error:
        for order in missing:
            log.add(key, order, None, problem_of(error))
        return []
    first, second = (Edit(source=source, edited=each, instruction=item.instruction) for each in edited)
    shown = {_FIRST: (first, second), _LAST: (second, first)}
    return [_Asked(key, order, shown[order]) for order in missing]


def _compare(judge: Comparer, log: _Log, batch: Sequence[_Asked]) -> None:
    if not batch:
        return
    started = time.perf_counter()
    answers = _answers(judge, [asked.shown for asked in batch])
    seconds = (time.perf_counter() - started) / len(batch)
    for asked, said in zip(batch, answers, strict=True):
        turned = said.better if asked.order == _FIRST or said.better is None else -said.better
        log.add(asked.key, asked.order, turned, said.failure, said, seconds)


def _answers(judge: Comparer, pairs: Sequence[tuple[Edit, Edit]]) -> list[Comparison]:
    """Whatever the judge does, one comparison per pair."""
    try:
        found = judge.compare(pairs)
        if len(found) == len(pairs) and all(isinstance(each, Comparison) for each in found):
            return found
        reason = f"judge_error: {len(found)} answers for {len(pairs)} pairs"
    except Exception as error:
        reason = f"judge_error: {type(error).__name__}: {error}"
    return [Comparison(better=None, failure=reason[:_MAX_REASON])] * len(pairs)


def _answered(blank: JudgedPair, answers: Sequence[tuple[int | None, str | None]]) -> Judged:
    votes = tuple(vote for vote, _ in answers)
    failure = next((kind for vote, kind in answers if vote is None), None)
    return replace(blank, votes=votes, failure=failure)


class _Log:
    """The answers of earlier runs and of this one, by (key of the row, order)."""

    def __init__(self, directory: Path, retry_failed: bool) -> None:
        self.tally = Tally()
        self.answers: dict[tuple[str, str], tuple[int | None, str | None]] = {}
        for line in _lines(directory):
            vote, kind = line["vote"], line["failure"]
            self.answers[line["key"], line["order"]] = (vote, None if kind is None else failure_kind(kind))
        if retry_failed:
            self.answers = {key: answer for key, answer in self.answers.items() if answer[0] is not None}
        self._counted: set[tuple[str, str]] = set()
        self._path = directory / f"comparisons-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"

    def knows(self, key: str, order: str) -> bool:
        known = self.answers.get((key, order))
        if known is not None and (key, order) not in self._counted:
            self._counted.add((key, order))
            self._tell(*known, resumed=True)
        return known is not None

    def add(
        self,
        key: str,
        order: str,
        vote: int | None,
        failure: str | None,
        said: Comparison | None = None,
        seconds: float | None = None,
    ) -> None:
        """Write one line, whole or (after a kill) cut, which readers skip.

        Raises:
            OSError: it cannot be written.
        """
        usage = asdict(said.usage) if said is not None and said.usage is not None else None
        trace = said.trace if said is not None else ""
        row: dict[str, Any] = {"key": key, "order": order, "vote": vote, "failure": failure}
        row |= {"trace": trace, "usage": usage}
        row["seconds"] = None if seconds is None else round(seconds, 6)
        with self._path.open("ab", buffering=0) as file:
            data = json.dumps(row).encode("ascii") + b"\n"
            while data:
                data = data[file.write(data) or 0 :]
        self.answers[key, order] = (vote, None if failure is None else failure_kind(failure))
        self._counted.add((key, order))
        self._tell(*self.answers[key, order])

    def _tell(self, vote: int | None, kind: str | None, *, resumed: bool = False) -> None:
        # A tally counts answers; the score of one that is there means nothing here.
        self.tally.add([Outcome(1, None if vote is None else 0.0, kind)], resumed=resumed)


def _lines(directory: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(directory.glob("comparisons-*.jsonl"), key=lambda each: each.stat().st_mtime_ns):
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(size - 1, 0))
            whole = file.read(1) == b"\n"
        for number, last, line in _with_last(path):
            if last and not whole:
                break  # cut by a kill
            yield _line(line, f"{path.name}, line {number}")


def _with_last(path: Path) -> Iterator[tuple[int, bool, bytes | None]]:
    lines = numbered_lines(path)
    current = next(lines, None)
    while current is not None:
        following = next(lines, None)
        yield current[0], following is None, current[1]
        current = following


def _line(line: bytes | None, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line or b"")
        good = row["vote"] in (1, -1, 0, None) and row["order"] in (_FIRST, _LAST) and isinstance(row["key"], str)
        good = good and (row["failure"] is None) == (row["vote"] is not None)
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise DataError(f"{where}: not a comparison")
    found: dict[str, Any] = row
    return found


def take_comparisons(directory: Path) -> dict[str, Any]:
    """What comparing took, as `running.take_records` tells it; a call is one comparison, in one order."""
    values: dict[str, list[float]] = {"prompt_tokens": [], "cached_tokens": [], "completion_tokens": [], "latency": []}
    wall, calls = 0.0, 0
    for line in _lines(directory):
        seconds = line.get("seconds")
        if isinstance(seconds, (int, float)):
            wall, calls = wall + seconds, calls + 1
        for name, some in values.items():
            value = (line.get("usage") or {}).get(name)
            if isinstance(value, (int, float)):
                some.append(value)
    return taken_of(values, wall, calls)
