"""Ask a verifier about the edits of a benchmark: each edit once, resumable after any end, in bounded memory.

The directory is one of `editr1 score`'s kind (see `reward.journal`): a record per judged edit, which is also the
journal. Edits are known by their name in the benchmark, not by their pixels: new data needs a new directory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair
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
from editr1_plugins.reward.edit_rows import EditRow
from editr1_plugins.types import Edit

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COPIES", "Run", "copy_outcomes", "judge_edits", "judged_with", "take_records", "taken_of"]

#: What stands for a copy of the source in the name of an edit.
COPIES: Final = "copy of the source"
#: A batch is also full when its decoded images hold so many bytes.
_BATCH_BYTES: Final = 256 * 2**20


@dataclass(kw_only=True)
class Run:
    """What a run came to.

    Attributes:
        blanks: the rows as people judged them, each with the digests of its edits.
        outcomes: (score 0..10, or None and the kind of failure) by (digest of the edit, number of the sample).
        copies: digests of sources that were judged as if they were edits.
        summary: counts over all judged edits and samples.
    """

    blanks: list[tuple[Judged, tuple[str, ...]]] = field(default_factory=list)
    outcomes: dict[tuple[str, int], tuple[float | None, str | None]] = field(default_factory=dict)
    copies: list[str] = field(default_factory=list)
    summary: BulkSummary = field(default_factory=BulkSummary)


def judge_edits(
    items: Iterable[Item],
    directory: Path,
    *,
    benchmark: str,
    reward: Mapping[str, Any],
    samples: int = 1,
    copies: int = 0,
    batch_size: int = 32,
    retry_failed: bool = False,
    progress: Callable[[BulkSummary], None] | None = None,
) -> Run:
    """Judge every edit of the items that `directory` holds no record of.

    Args:
        items: a benchmark's.
        directory: where records and images go; one run at a time may write to it.
        benchmark: its name, kept with the judge's settings.
        reward: arguments of `EditRRMReward`, but not `record` and `samples`.
        samples: how often each edit is judged; each sample is an answer of its own.
        copies: so many sources are also judged as if they were edits: a judge must give them about 0.
        batch_size: edits per call of the judge.
        retry_failed: also judge again what has no score so far.
        progress: called after each batch with the summary so far.

    Raises:
        ConfigError: a wrong argument, or a directory of other records, of another judge, or being written.
        DataError: an item or a record cannot be read as one.
        MissingExtraError, ComponentError: a part of the reward cannot be built.
        OSError: the disk is full or gone; what was recorded stays.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("samples", samples, 1), ("copies", copies, 0)):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")
    judge = RowJudge(directory, reward)
    with writing_alone(directory, {"benchmark": benchmark, **judge.settings}):
        book = RowBook(directory, retry_failed=retry_failed)
        asking = _Asking(judge, book, benchmark, samples, batch_size, progress)
        for item in items:
            asking.add(item, copy=len(asking.run.copies) < copies)
        asking.flush()
    asking.run.summary = asking.tally.summary()
    return asking.run


class _Asking:
    """Collects edits into batches and has them judged."""

    def __init__(
        self,
        judge: RowJudge,
        book: RowBook,
        benchmark: str,
        samples: int,
        batch_size: int,
        progress: Callable[[BulkSummary], None] | None,
    ) -> None:
        self.run, self.tally = Run(), Tally()
        self._judge, self._book, self._benchmark = judge, book, benchmark
        self._samples, self._size, self._progress = samples, batch_size, progress
        self._seen: set[str] = set()
        self._batch: list[tuple[dict[str, Any], Edit]] = []
        self._keys: list[tuple[str, int]] = []
        self._bytes = self._rows = 0

    def add(self, item: Item, *, copy: bool) -> None:
        digests = tuple(self._digest(name) for name in item.edits)
        self.run.blanks.append((item.blank, digests))
        asked = [(digest, name, place) for place, (digest, name) in enumerate(zip(digests, item.edits, strict=True), 1)]
        if copy:
            name = f"{COPIES} {item.blank.group or item.blank.key}"
            asked.append((self._digest(name), name, 0))
            if asked[-1][0] not in self._seen:
                self.run.copies.append(asked[-1][0])
        told: list[tuple[dict[str, Any], tuple[str, int], int]] = []
        for digest, name, place in asked:
            if digest not in self._seen:
                self._seen.add(digest)
                told += self._claimed(digest, name, place, item.instruction)
        if told:
            self._read(item, told)

    def flush(self) -> None:
        """Have the batch judged."""
        if self._batch:
            for key, outcome in zip(self._keys, self._judge.judge(self._batch), strict=True):
                self._note(key, outcome)
        self._batch, self._keys, self._bytes = [], [], 0
        if self._progress is not None:
            self._progress(self.tally.summary())

    def _digest(self, name: str) -> str:
        return hashlib.sha256(json.dumps([self._benchmark, name]).encode()).hexdigest()[:32]

    def _claimed(
        self, digest: str, name: str, place: int, instruction: str
    ) -> list[tuple[dict[str, Any], tuple[str, int], int]]:
        """What is still to be asked about an edit; samples are rows of their own."""
        found = []
        for sample in range(self._samples):
            self._rows += 1
            row = EditRow(
                number=self._rows,
                digest=f"{digest}.{sample}",
                edited=name if len(name) <= 300 else name[:300] + "...",
                instruction=instruction,
                identifier=digest,
            )
            claimed = self._book.claim(row)
            if isinstance(claimed, Outcome):
                self._note((digest, sample), claimed, resumed=True)
            else:
                found.append((claimed, (digest, sample), place))
        return found

    def _read(self, item: Item, told: Sequence[tuple[dict[str, Any], tuple[str, int], int]]) -> None:
        try:
            images = item.read()
            if len(images) != 1 + len(item.edits):
                raise DataError(f"{len(images)} images for {len(item.edits)} edits and their source")
        except DataError as error:
            problem = problem_of(error)
            for row, key, _ in told:
                self._note(key, self._judge.write_broken(row, item.instruction, problem))
            return
        for row, key, place in told:
            edit = Edit(source=images[0], edited=images[place], instruction=item.instruction)
            self._batch.append((row, edit))
            self._keys.append(key)
        self._bytes += sum(_bytes(image) for image in images)
        if len(self._batch) >= self._size or self._bytes >= _BATCH_BYTES:
            self.flush()

    def _note(self, key: tuple[str, int], outcome: Outcome, *, resumed: bool = False) -> None:
        self.run.outcomes[key] = (outcome.score, outcome.kind)
        self.tally.add([outcome], resumed=resumed)


def _bytes(image: Image) -> int:
    return 3 * image.width * image.height


def judged_with(run: Run, samples: int) -> list[Judged]:
    """The rows with the judge's answers: the mean of the first `samples` samples that have a score."""
    return [_answered(blank, [_mean_of(run, digest, samples) for digest in digests]) for blank, digests in run.blanks]


def copy_outcomes(run: Run) -> list[float | None]:
    """Scores of the sources that were judged as edits."""
    return [run.outcomes[digest, 0][0] for digest in run.copies]


def _mean_of(run: Run, digest: str, samples: int) -> tuple[float | None, str | None]:
    found = [run.outcomes[digest, sample] for sample in range(samples)]
    scores = [score for score, _ in found if score is not None]
    if scores:
        return sum(scores) / len(scores), None
    return None, next((kind for _, kind in found if kind), "no_score")


def _answered(blank: Judged, answers: Sequence[tuple[float | None, str | None]]) -> Judged:
    failure = next((kind for score, kind in answers if score is None), None)
    scores = tuple(score for score, _ in answers)
    if isinstance(blank, JudgedPair):
        return replace(blank, scores=scores, failure=failure)
    known = tuple(score for score in scores if score is not None)
    return replace(blank, scores={"O": known} if known else {}, failure=failure)


def take_records(directory: Path) -> dict[str, Any]:
    """What judging took, by the records: tokens and seconds per edit that a judge was asked about.

    Returns:
        `calls` (edits with a record of seconds), means of `prompt_tokens`, `cached_tokens`, `completion_tokens` (None
        where no record tells), `seconds_per_1000` (wall time of the calls), `latency_p50` and `latency_p95` in seconds.
    """
    sums: dict[str, list[float]] = {"prompt_tokens": [], "cached_tokens": [], "completion_tokens": [], "latency": []}
    wall, calls = 0.0, 0
    for record in latest_records(directory):
        seconds, batch = record.get("seconds"), record.get("batch")
        if isinstance(seconds, (int, float)) and isinstance(batch, int) and batch > 0:
            wall, calls = wall + seconds / batch, calls + 1
        usage = record.get("usage")
        for name, values in sums.items():
            value = usage.get(name) if isinstance(usage, dict) else None
            if isinstance(value, (int, float)):
                values.append(value)
    return taken_of(sums, wall, calls)


def taken_of(sums: Mapping[str, Sequence[float]], wall: float, calls: int) -> dict[str, Any]:
    """What `take_records` returns, from lists of tokens and latencies, and the wall time of all calls."""
    latencies = sorted(sums["latency"])
    found: dict[str, Any] = {"calls": calls, "seconds_per_1000": 1000 * wall / calls if calls else None}
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
        found[name] = sum(sums[name]) / len(sums[name]) if sums[name] else None
    for name, share in (("latency_p50", 0.5), ("latency_p95", 0.95)):
        found[name] = latencies[min(int(share * len(latencies)), len(latencies) - 1)] if latencies else None
    return found
