"""One's own pairs or ratings, as JSON lines or Parquet; image names are relative to the folder.

Pairs: `source`, `winner`, `loser`, `instruction`; optional `label` ("preference" or "tie"), `category`, `dimension`,
`group`, `id`: what preference training reads too. Ratings: `source`, `edited`, `instruction`, `rating` (any scale);
optional `category`, `group`, `id`. There is no official arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair, JudgedRating
from editr1_plugins.evaluation.sources import Row, read_rows, require_place

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["OwnPairs", "OwnRatings"]

_PAIR: Final = {"source": "image", "winner": "image", "loser": "image", "instruction": "text"}
_RATING: Final = {"source": "image", "edited": "image", "instruction": "text", "rating": "any"}
_LABELS: Final = {"preference": 1, "tie": 0}


class OwnPairs:
    """See the module's text."""

    name = "pairs"
    source = "a JSONL or Parquet file, or a folder of them"
    headline = ""
    ranked = False

    def items(self, place: str | None) -> Iterator[Item]:
        for number, row in enumerate(read_rows(require_place(place, self.source), _PAIR)):
            label = row.text("label", "preference")
            if label not in _LABELS:
                raise DataError(f"{row.where}: column 'label' must be preference or tie, not {label!r}")
            key = _identifier(row, number)
            yield Item(
                blank=JudgedPair(
                    key=key,
                    preference=_LABELS[label],
                    category=row.text("category", ""),
                    dimension=row.text("dimension", ""),
                    group=_group(row, key),
                    label=label,
                    names=("winner", "loser"),
                ),
                instruction=row.text("instruction"),
                edits=_edits(row, number, ("winner", "loser")),
                read=_Reader(row, ("source", "winner", "loser")),
            )

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        return {"accuracy": None, "note": "one's own pairs have no official arithmetic"}

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        raise DataError("one's own pairs have no raw format; give a folder that `editr1 eval` wrote")


class OwnRatings:
    """See the module's text."""

    name = "ratings"
    source = "a JSONL or Parquet file, or a folder of them"
    headline = ""
    ranked = False

    def items(self, place: str | None) -> Iterator[Item]:
        for number, row in enumerate(read_rows(require_place(place, self.source), _RATING)):
            rating = row.cells["rating"]
            if type(rating) not in (int, float):
                raise DataError(f"{row.where}: column 'rating' must be a number, not {rating!r}")
            key = _identifier(row, number)
            yield Item(
                blank=JudgedRating(
                    key=key, ratings=((float(rating),),), category=row.text("category", ""), group=_group(row, key)
                ),
                instruction=row.text("instruction"),
                edits=_edits(row, number, ("edited",)),
                read=_Reader(row, ("source", "edited")),
            )

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        return {"correlation": {}, "note": "one's own ratings have no official arithmetic"}

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        raise DataError("one's own ratings have no raw format; give a folder that `editr1 eval` wrote")


class _Reader:
    def __init__(self, row: Row, columns: Sequence[str]) -> None:
        self._row, self._columns = row, columns

    def __call__(self) -> Sequence[Image]:
        return [self._row.image(column) for column in self._columns]


def _identifier(row: Row, number: int) -> str:
    value = row.cells.get("id")
    return str(number) if value is None else f"{number}:{value}"


def _group(row: Row, key: str) -> str:
    """Rows of one source; where pictures have no names each row stands for itself."""
    source = row.cells["source"]
    return row.text("group", source if isinstance(source, str) else key)


def _edits(row: Row, number: int, columns: Sequence[str]) -> tuple[str, ...]:
    cells = [row.cells[column] for column in ("source", *columns)]
    if all(isinstance(cell, str) for cell in cells):
        return tuple("\n".join((cells[0], row.text("instruction"), cell)) for cell in cells[1:])
    return tuple(f"{number}/{column}" for column in columns)
