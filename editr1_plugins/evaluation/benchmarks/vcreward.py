"""VCReward-Bench (hub: GEditBench-v2/VCReward-Bench): visual consistency, 3,506 pairs of 21 tasks.

Files: metadata.jsonl, and the images that it names.

Official code: ZhangqiJiang07/GEditBench_v2, src/cli/autopipeline.py: accuracy of the recorded winners.

Trap: answers that failed, and ties, are not recorded at all, so a judge that is silent on what is hard gains. Whether
the published average is over rows or over tasks is not said: the headline is over rows, `macro` over tasks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair, as_pairs
from editr1_plugins.evaluation.sources import Row, fetched, read_rows, require_place
from editr1_plugins.reward.edit_rows import numbered_lines

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["VCRewardBenchmark"]

_COLUMNS: Final = {
    "key": "text",
    "instruction": "text",
    "source_image": "image",
    "edited_images": "images",
    "winner": "text",
    "task": "text",
}


class VCRewardBenchmark:
    """See the module's text."""

    name = "vcreward"
    source = "GEditBench-v2/VCReward-Bench"
    headline = ""
    ranked = False

    def items(self, place: str | None) -> Iterator[Item]:
        for row in self._rows(place or self.source):
            key = row.text("key")
            yield Item(
                blank=_blank(row),
                instruction=row.text("instruction"),
                edits=(f"{key}/A", f"{key}/B"),
                read=_Reader(row),
            )

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        tasks: dict[str, list[bool]] = defaultdict(list)
        for pair in as_pairs(judged, self.name):
            outcome = pair.outcome(tolerance=0.0)
            if outcome:  # neither failed nor a tie: these are not recorded
                tasks[pair.category].append(outcome == pair.preference)
        every = [each for answers in tasks.values() for each in answers]
        shares = {task: 100 * sum(some) / len(some) for task, some in sorted(tasks.items())}
        return {
            "accuracy": 100 * sum(every) / len(every) if every else None,
            "macro": sum(shares.values()) / len(shares) if shares else None,
            "recorded": len(every),
            "by_task": shares,
        }

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        """The official result file, lines of {"key", "results": {"winner"}}; `place` holds the labels."""
        said: dict[str, Any] = {}
        for number, line in numbered_lines(path):
            try:
                row = json.loads(line or b"")
                said[str(row["key"])] = row["results"]["winner"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise DataError(f"{path.name}, line {number}: 'key' and 'results' with 'winner' are needed") from None
        found: list[Judged] = []
        for row in self._rows(require_place(place, "the benchmark's folder, which holds the labels")):
            blank = _blank(row)
            winner = said.get(blank.key)
            vote = None if winner is None else _winner(str(winner), f"{path.name}, {blank.key!r}")
            failure = "not recorded (failed, or a tie)" if vote is None else None
            found.append(replace(blank, votes=(vote,), failure=failure))
        return found

    def _rows(self, place: str) -> Iterator[Row]:
        return read_rows(str(fetched(place)), _COLUMNS)


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sequence[Image]:
        return [self._row.image("source_image"), *self._row.image_list("edited_images", 2)]


def _blank(row: Row) -> JudgedPair:
    winner = row.text("winner")
    return JudgedPair(
        key=row.text("key"),
        preference=_winner(winner, f"{row.where}, column 'winner'"),
        category=row.text("task"),
        group=row.text("key"),
        label=winner,
    )


def _winner(text: str, where: str) -> int:
    letter = text.strip().removeprefix("Image").strip().upper()
    if letter not in ("A", "B", "TIE"):
        raise DataError(f"{where}: the winner must be Image A or Image B, not {text!r}")
    return {"A": 1, "B": -1, "TIE": 0}[letter]
