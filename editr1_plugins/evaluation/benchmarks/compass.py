"""EditReward-Compass (hub: DogNeverSleep/EditReward-Compass; 2,251 pairs): dimensions IA, VC and VQ.

They stand for following the instruction, visual consistency and visual quality.

Official code: bxhsort/Edit-Compass-and-EditReward-Compass, EditReward-Compass/eval.py: right where the winner's score
is greater, for a tie where the scores differ by less than 1e-5; per dimension.

Traps: the script as published indexes the model's text as if it were a record, and cannot run without a change; a judge
that writes integers meets a tie by chance; no overall number is printed: the headline here is micro over the rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair, as_pairs
from editr1_plugins.evaluation.sources import Row, fetched, read_rows

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CompassBenchmark"]

_COLUMNS: Final = {
    "dimension": "text",
    "label": "text",
    "winner": "image",
    "loser": "image",
    "source_image": "image",
    "prompt": "text",
}
_LABELS: Final = {"preference": 1, "tie": 0}
_TOLERANCE: Final = 1e-5


class CompassBenchmark:
    """See the module's text."""

    name = "editreward-compass"
    source = "DogNeverSleep/EditReward-Compass"
    headline = ""
    ranked = False

    def items(self, place: str | None) -> Iterator[Item]:
        for number, row in enumerate(read_rows(str(fetched(place or self.source)), _COLUMNS)):
            label = row.text("label")
            if label not in _LABELS:
                raise DataError(f"{row.where}: column 'label' must be preference or tie, not {label!r}")
            names = [row.cells[column] for column in ("winner", "loser")]
            named = all(isinstance(name, str) for name in names)
            yield Item(
                blank=JudgedPair(
                    key=str(number),
                    preference=_LABELS[label],
                    dimension=row.text("dimension"),
                    category=row.text("dimension"),
                    group=str(row.cells["source_image"]) if named else str(number),
                    label=label,
                    names=("winner", "loser"),
                ),
                instruction=row.text("prompt"),
                # The same picture may be judged in several rows, perhaps under another prompt.
                edits=tuple(
                    f"{row.text('prompt')}\n{name}" if named else f"{number}/{at}" for at, name in enumerate(names)
                ),
                read=_Reader(row),
            )

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        right: dict[str, list[bool]] = defaultdict(list)
        missing = 0
        for pair in as_pairs(judged, self.name):
            difference = pair.difference
            missing += pair.outcome() is None
            if difference is None:
                right[pair.dimension].append(pair.outcome() == pair.preference)
            else:
                right[pair.dimension].append(difference > 0 if pair.preference == 1 else abs(difference) < _TOLERANCE)
        every = [each for answers in right.values() for each in answers]
        found: dict[str, Any] = {
            "accuracy": 100 * sum(every) / len(every) if every else None,
            "by_dimension": {name: 100 * sum(some) / len(some) for name, some in sorted(right.items())},
        }
        if missing:
            found["note"] = f"{missing} failed pairs count as wrong; the official script has no such case"
        return found

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        raise DataError(
            "EditReward-Compass records no answers, only accuracies; give a folder that `editr1 eval` wrote"
        )


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sequence[Image]:
        return [self._row.image(column) for column in ("source_image", "winner", "loser")]
