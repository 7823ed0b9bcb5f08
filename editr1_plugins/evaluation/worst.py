"""Where a judge was most wrong, with the pictures, for a report: `worst.json` beside the records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair, JudgedRating
from editr1_plugins.evaluation.running import Run
from editr1_plugins.evaluation.statistics import average_ranks
from editr1_plugins.reward.bulk_rows import latest_records
from editr1_plugins.reward.journal import RecordWriter
from editr1_plugins.types import Edit

__all__ = ["WORST", "write_worst", "write_worst_votes"]

WORST: Final = "worst.json"
_COUNT: Final = 16


def write_worst(directory: Path, run: Run, judged: Sequence[Judged]) -> None:
    """Write the rows on which judge and people differ most, the worst first; rows without an answer are left out.

    A pair counts by how far the scores lie on the wrong side (a tie: apart), a rating by how far its rank among the
    judge's scores is from its rank among people's.
    """
    chosen = _most_wrong(judged)[:_COUNT]
    wanted = {digest for at, _ in chosen for digest in run.blanks[at][1]}
    pictures: dict[str, dict[str, Any]] = {}
    for record in latest_records(directory):
        row = record.get("row")
        if isinstance(row, dict) and row.get("id") in wanted:
            pictures.setdefault(str(row["id"]), record)
    found = [_told(judged[at], wrong, [pictures.get(each) for each in run.blanks[at][1]]) for at, wrong in chosen]
    _write(directory, found)


def write_worst_votes(directory: Path, items: Iterable[Item], judged: Sequence[Judged]) -> None:
    """The same of a judge that compares: pairs of which it prefers the worse edit in every order, the first of them.

    Its records hold no pictures: those of these pairs are read again from the items, and kept in the directory.
    """
    pairs = [row for row in judged if isinstance(row, JudgedPair)]
    wanted = {row.key: row for row in pairs if row.preference and row.outcome() == -row.preference}
    wanted = dict(list(wanted.items())[:_COUNT])
    writer, found = RecordWriter(directory), list[dict[str, Any]]()
    for item in items if wanted else ():
        row = wanted.pop(item.blank.key, None)
        if isinstance(row, JudgedPair):
            found.append(_told(row, None, [{**kept, "instruction": item.instruction} for kept in _kept(item, writer)]))
        if not wanted:
            break
    _write(directory, found)


def _kept(item: Item, writer: RecordWriter) -> list[dict[str, Any]]:
    """Names of the pictures of an item, one table per edit; empty where they cannot be read any more."""
    try:
        source, *edited = item.read()
    except DataError:
        return []
    edits = (Edit(source=source, edited=each, instruction=item.instruction) for each in edited)
    return [dict(zip(("source_image", "edited_image"), writer.keep_images(edit), strict=True)) for edit in edits]


def _write(directory: Path, found: Sequence[dict[str, Any]]) -> None:
    path = directory / WORST
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    temporary.replace(path)


def _most_wrong(judged: Sequence[Judged]) -> list[tuple[int, float]]:
    pairs = [(at, row) for at, row in enumerate(judged) if isinstance(row, JudgedPair)]
    found = [(at, wrong) for at, row in pairs if (wrong := _wrong_side(row)) > 0]
    ratings = [(at, row) for at, row in enumerate(judged) if isinstance(row, JudgedRating) and row.scores.get("O")]
    if len(ratings) > 1:
        said = average_ranks([min(row.scores["O"]) for _, row in ratings])
        meant = average_ranks([float(np.mean([np.mean(one) for one in row.ratings])) for _, row in ratings])
        apart = np.abs(said - meant) / len(ratings)
        found += [(at, float(wrong)) for (at, _), wrong in zip(ratings, apart, strict=True) if wrong > 0]
    return sorted(found, key=lambda each: (-each[1], each[0]))


def _wrong_side(row: JudgedPair) -> float:
    difference = row.difference
    if difference is None:
        return 0.0
    return abs(difference) if row.preference == 0 else -row.preference * difference


def _told(row: Judged, wrong: float | None, records: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    known = [record for record in records if record is not None]
    names = row.names if isinstance(row, JudgedPair) else ("",)
    people = (
        {1: f"{names[0]} is better", -1: f"{names[-1]} is better", 0: "a tie"}[row.preference]
        if isinstance(row, JudgedPair)
        else ", ".join("/".join(f"{number:g}" for number in one) for one in row.ratings)
    )
    return {
        "key": row.key,
        "category": row.category,
        "wrong": None if wrong is None else round(wrong, 4),
        "people": people,
        "instruction": known[0].get("instruction") if known else "",
        "source": known[0].get("source_image") if known else None,
        "edits": [
            {
                "name": name,
                "edited": None if record is None else record.get("edited_image"),
                "score": None if record is None else record.get("score"),
            }
            for name, record in zip(names, records, strict=False)
        ],
    }
