"""One's own edits to be made (JSONL or Parquet), and MiniEdit, whose truth is known. Neither has an official count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.editors.items import EditorItem, JudgedEdit, Sources
from editr1_plugins.evaluation.editors.parts import semantic_numbers
from editr1_plugins.evaluation.sources import Row, read_rows, require_place
from editr1_plugins.types import MAX_SCORE

if TYPE_CHECKING:
    from PIL.Image import Image

    from editr1_plugins.miniedit.world import Task

__all__ = ["MiniEditBenchmark", "OwnEdits"]

_COLUMNS: Final = {"source": "image", "instruction": "text"}
_SAID: Final = ("score", "follow", "keep", "quality")
_SEED: Final = 7


class OwnEdits:
    """`source`, `instruction`; optional `category`, `group`, `id` (unique; default: the row's number)."""

    name = "edits"
    source = "a JSONL or Parquet file, or a folder of them"
    overall = "score"
    limits = (0.0, MAX_SCORE)

    def edits(self, place: str | None) -> Iterator[EditorItem]:
        for number, row in enumerate(read_rows(require_place(place, self.source), _COLUMNS)):
            identifier = row.cells.get("id")
            if type(identifier) not in (str, int, type(None)):
                raise DataError(f"{row.where}: column 'id' must be text or a whole number, not {identifier!r}"[:300])
            key = str(number) if identifier is None else str(identifier)
            source = row.cells["source"]
            yield EditorItem(
                key=key,
                instruction=row.text("instruction"),
                category=row.text("category", ""),
                group=row.text("group", source if isinstance(source, str) else ""),
                names=(key,),
                read=_Reader(row),
            )

    def aspects(self, row: JudgedEdit) -> dict[str, float]:
        return _aspects(row)

    def official(self, rows: Sequence[JudgedEdit]) -> dict[str, Any]:
        return {"score": None, "note": "one's own edits have no official arithmetic"}

    def recorded(self, path: Path, place: str | None) -> list[JudgedEdit]:
        raise DataError("one's own edits have no raw format; give a folder that `editr1 eval editor` wrote")


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sources:
        image = self._row.image("source")
        return Sources([image], image)


class MiniEditBenchmark:
    """Drawings of 32x32 pixels and instructions kept from RL; the gold measure knows the goal, judges never see it.

    Args:
        count: how many, e.g. "100".

    Raises:
        ConfigError: no whole number of at least 1.
    """

    source = "MiniEdit (drawn here, nothing is loaded)"
    overall = "gold"
    limits = (0.0, MAX_SCORE)

    def __init__(self, count: str = "100") -> None:
        if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= 100_000:
            raise ConfigError(f"miniedit:{count}: how many drawings, a whole number of at least 1"[:200])
        self.name, self._count = f"miniedit:{int(count)}", int(count)

    def edits(self, place: str | None) -> Iterator[EditorItem]:
        from editr1_plugins.miniedit.pairs import split_tasks

        if place is not None:
            raise ConfigError("MiniEdit draws its pictures; leave --data out")
        for number, task in enumerate(split_tasks(self._count, seed=_SEED, held_out=True)):
            key = f"{number:05}"
            yield EditorItem(
                key=key,
                instruction=task.instruction,
                category=task.operation,
                names=(key,),
                read=partial(_drawn, task),
                gold=partial(_gold, task),
            )

    def aspects(self, row: JudgedEdit) -> dict[str, float]:
        return _aspects(row)

    def official(self, rows: Sequence[JudgedEdit]) -> dict[str, Any]:
        return {"gold": None, "note": "MiniEdit is ours; its gold score is the truth of its world, 10 x follow x keep"}

    def recorded(self, path: Path, place: str | None) -> list[JudgedEdit]:
        raise DataError("MiniEdit has no raw format; give a folder that `editr1 eval editor` wrote")


def _aspects(row: JudgedEdit) -> dict[str, float]:
    """What the judge said; where it was the gold measure alone, its parts."""
    said = {**semantic_numbers(row.numbers), **{name: row.numbers[name] for name in _SAID if name in row.numbers}}
    return said or dict(row.numbers)


def _drawn(task: Task) -> Sources:
    from editr1_plugins.miniedit.world import draw

    image = draw(task.scene)
    return Sources([image], image)


def _gold(task: Task, edited: Image) -> Mapping[str, float]:
    from editr1_plugins.miniedit.gold import gold_score

    try:
        measured = gold_score(task, edited)
    except ValueError as error:  # another size
        raise DataError(str(error)) from None
    return {"gold": measured.score, "gold_follow": 10 * measured.follow, "gold_keep": 10 * measured.keep}
