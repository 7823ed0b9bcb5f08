"""ImgEdit-Bench, basic part (arXiv 2505.20275): 737 edits of nine types, three whole numbers in 1..5 each.

Official arithmetic: per edit the mean of its numbers, per type the mean of the edits, each rounded to two digits; the
scripts give no overall number. They read a reply line by line and drop what is not "NAME: DIGITS" ("4/5", "5."), and
take a sentence like "Brief reasoning: 3" for a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.editors.items import EditorItem, JudgedEdit, Sources
from editr1_plugins.evaluation.editors.parts import five_point
from editr1_plugins.evaluation.sources import Row, fetched, load_json, require_place

__all__ = ["ImgEditBenchmark"]

_FILES: Final = ("basic_edit.json", "singleturn.json")
_COLUMNS: Final = ("id", "prompt", "edit_type")
#: In the order in which the benchmark asks for them.
_ASPECTS: Final = ("compliance", "seamlessness", "fidelity")
_OFFICIAL: Final = "official_average"
_NUMBER: Final = re.compile(r":\s*([1-5])(?:\s*/\s*5|\.0?)?\s*\**$")


class ImgEditBenchmark:
    """See the module's text."""

    name = "imgedit"
    source = "a folder with basic_edit.json and the original images"
    overall = "average"
    limits = (1.0, 5.0)

    def edits(self, place: str | None) -> Iterator[EditorItem]:
        folder = fetched(require_place(place, self.source))
        file, rows = _rows(folder)
        for key, row in rows.items():
            yield EditorItem(
                key=key,
                instruction=row["prompt"],
                category=row["edit_type"],
                group=row["id"],
                names=(key,),
                read=_Reader(Row({"id": row["id"]}, f"{file.name}, key {key!r}", file.parent)),
            )

    def aspects(self, row: JudgedEdit) -> dict[str, float]:
        if all(name in row.numbers for name in _ASPECTS):
            found = {name: row.numbers[name] for name in _ASPECTS}
        else:
            parts = zip(_ASPECTS, ("follow", "quality", "keep"), strict=True)
            found = {name: five_point(row.numbers[part]) for name, part in parts if part in row.numbers}
        if len(found) == len(_ASPECTS):
            found["average"] = sum(found.values()) / len(_ASPECTS)
        return found

    def official(self, rows: Sequence[JudgedEdit]) -> dict[str, Any]:
        by_type: dict[str, list[float]] = {}
        for row in rows:
            average = row.numbers.get(_OFFICIAL, self.aspects(row).get("average"))
            if average is not None:
                by_type.setdefault(row.category, []).append(round(average, 2))
        table = {
            kind: {"items": len(some), "average": round(sum(some) / len(some), 2)}
            for kind, some in sorted(by_type.items())
        }
        return {"average": None, "note": "the scripts give no overall number", "by_category": table}

    def recorded(self, path: Path, place: str | None) -> list[JudgedEdit]:
        """The script's `result.json`, `{key: reply}`; `place` is the benchmark, for the types."""
        said = load_json(path)
        if not isinstance(said, dict):
            raise DataError(f"{path.name} must hold {{key: reply}}")
        _, rows = _rows(fetched(require_place(place, self.source)))
        return [_judged(key, row, said.get(key)) for key, row in rows.items()]


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sources:
        image = self._row.image("id")
        return Sources([image], image)


def _rows(place: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    files = [place] if place.is_file() else [found for name in _FILES for found in sorted(place.rglob(name))]
    if not files:
        raise DataError(f"{place} holds none of: {', '.join(_FILES)}")
    rows = load_json(files[0])
    if not isinstance(rows, dict):
        raise DataError(f"{files[0].name} must hold {{key: {{id, prompt, edit_type}}}}, not a {type(rows).__name__}")
    for key, row in rows.items():
        for column in _COLUMNS:
            if not isinstance(row, dict) or not isinstance(row.get(column), str):
                raise DataError(f"{files[0].name}, key {key!r}: column {column!r} must be text")
    return files[0], rows


def _judged(key: str, row: dict[str, str], reply: Any) -> JudgedEdit:
    numbers: dict[str, float] = {}
    failure = "no_reply: the file holds none for this key"
    if isinstance(reply, str):
        read = [float(found[1]) for line in reply.splitlines() if (found := _NUMBER.search(line.strip()))]
        # The three numbers stand last; a sentence of the reasoning may end in one, too.
        numbers = dict(zip(_ASPECTS, read[-3:], strict=True)) if len(read) >= 3 else {}
        taken = _as_official(reply)
        numbers |= {} if taken is None else {_OFFICIAL: taken}
        failure = "no_score: fewer than three numbers in the reply"
    elif isinstance(reply, dict):
        failure = f"judge_error: {str(reply.get('error'))[:200]}"
    return JudgedEdit(
        key=key,
        instruction=row["prompt"],
        category=row["edit_type"],
        group=row["id"],
        numbers=numbers,
        failure=None if len(numbers) >= 3 else failure,
    )


def _as_official(reply: str) -> float | None:
    """What the script's `extract_scores_and_average` makes of a reply."""
    halves = (line.strip().split(": ") for line in reply.splitlines())
    numbers = [int(half[1]) for half in halves if len(half) == 2 and half[1].isascii() and half[1].isdigit()]
    return round(sum(numbers) / len(numbers), 2) if numbers else None
