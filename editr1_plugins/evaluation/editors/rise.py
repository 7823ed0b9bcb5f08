"""RISEBench (arXiv 2504.02826): 360 edits that need temporal, causal, spatial or logical reasoning; scores of 1..5.

Official arithmetic: .3 consistency + .5 reasoning + .2 plausibility (logical: .3 consistency + .7 reasoning), halved
(not below 1) where reasoning is 1; accuracy is the share of edits with all 5. Two faults of the script are kept in it:
as soon as one row of the data is marked `consistency_free`, consistency is ignored for all rows but the logical ones
(.8 reasoning + .2 plausibility; a NaN is true), and a row that is marked can never be right. Edits without scores leave
the mean but count as wrong in the accuracy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.editors.items import EditorItem, JudgedEdit, Sources
from editr1_plugins.evaluation.editors.parts import five_point
from editr1_plugins.evaluation.sources import Row, fetched, load_json

__all__ = ["RISEBenchmark"]

_CATEGORIES: Final = ("temporal_reasoning", "causal_reasoning", "spatial_reasoning", "logical_reasoning")
_LOGICAL: Final = "logical_reasoning"
_COLUMNS: Final = ("index", "category", "instruction", "image")
_PARTS: Final = {"consistency": "keep", "reasoning": "follow", "plausibility": "quality"}
_JUDGES: Final = {"consistency": "judge1", "reasoning": "judge2", "plausibility": "judge3"}
_FINAL: Final = re.compile(r"\*?\*?Final Scores?\*?\*?:?\s*([\d*\s,\n]*)", re.IGNORECASE)


class RISEBenchmark:
    """See the module's text."""

    name = "rise"
    source = "PhoenixZ/RISEBench"
    overall = "overall"
    limits = (1.0, 5.0)

    def edits(self, place: str | None) -> Iterator[EditorItem]:
        for file, row in _rows(fetched(place or self.source)):
            key, category = row["index"], row["category"]
            given = row["image"] if isinstance(row["image"], list) else [row["image"]]
            yield EditorItem(
                key=key,
                instruction=row["instruction"],
                category=category,
                tags=_tags(row),
                names=(key, f"{category}/{key}", f"images/{category}/{key}"),
                read=_Reader(Row({"image": given}, f"{file.name}, index {key!r}", file.parent)),
            )

    def aspects(self, row: JudgedEdit) -> dict[str, float]:
        """The three numbers in 1..5, the weighted one, and whether all are 5 (0 or 1)."""
        return _aspects(row, free=row.tags.get("consistency_free") == "yes")

    def official(self, rows: Sequence[JudgedEdit]) -> dict[str, Any]:
        marked = any(row.tags.get("consistency_free") == "yes" for row in rows)
        found: dict[str, Any] = _official(rows, marked)
        found["by_category"] = {
            name: _official([row for row in rows if row.category == name], marked)
            for name in _CATEGORIES
            if any(row.category == name for row in rows)
        }
        if marked:
            found["note"] = "a row is consistency_free, so the script ignores consistency in all but the logical ones"
        return found

    def recorded(self, path: Path, place: str | None) -> list[JudgedEdit]:
        """Replies as JSON, `{index: {judge1, judge2, judge3}}`; `place` is the benchmark, for the categories.

        The script keeps them in a pickle, which is never read here.
        """
        said = load_json(path)
        if not isinstance(said, dict):
            raise DataError(f"{path.name} must hold {{index: {{judge1, judge2, judge3}}}}")
        return [_judged(row, said.get(row["index"])) for _, row in _rows(fetched(place or self.source))]


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sources:
        images = self._row.image_list("image")
        return Sources(images, images[0])


def _rows(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    files = [place] if place.is_file() else sorted(place.rglob("data*.json"))
    if not files:
        raise DataError(f"{place} holds no data*.json")
    # The full set where several lie there.
    file = max(files, key=lambda each: (each.stat().st_size, each.name))
    rows = load_json(file)
    if not isinstance(rows, list):
        raise DataError(f"{file.name} must hold a JSON list of rows, not {type(rows).__name__}")
    for number, row in enumerate(rows):
        for column in _COLUMNS:
            value = row.get(column) if isinstance(row, dict) else None
            several = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
            if not isinstance(value, str) and not (column == "image" and several):
                raise DataError(f"{file.name}, row {number}: column {column!r} must be text")
        if row["category"] not in _CATEGORIES:
            raise DataError(f"{file.name}, row {number}: unknown category {row['category']!r}")
        yield file, row


def _tags(row: dict[str, Any]) -> dict[str, str]:
    free = row.get("consistency_free")
    marked = bool(free) and not (isinstance(free, float) and math.isnan(free))
    return {"consistency_free": "yes"} if marked else {}


def _aspects(row: JudgedEdit, *, free: bool) -> dict[str, float]:
    logical = row.category == _LOGICAL
    needed = ["reasoning"]
    needed += ["consistency"] if logical or not free else []
    needed += [] if logical else ["plausibility"]
    found = {name: row.numbers[name] for name in needed if name in row.numbers}
    if not found:
        found = {name: five_point(row.numbers[_PARTS[name]]) for name in needed if _PARTS[name] in row.numbers}
    if len(found) == len(needed):
        complete = float(all(value == 5 for value in found.values()))
        found["overall"] = _weighted(found, logical, free)
        found["complete"] = complete
    return found


def _weighted(found: dict[str, float], logical: bool, free: bool) -> float:
    if logical:
        score = 0.3 * found["consistency"] + 0.7 * found["reasoning"]
    elif free:
        score = 0.2 * found["plausibility"] + 0.8 * found["reasoning"]
    else:
        score = 0.3 * found["consistency"] + 0.5 * found["reasoning"] + 0.2 * found["plausibility"]
    return max(score * 0.5, 1.0) if found["reasoning"] == 1 else score


def _official(rows: Sequence[JudgedEdit], marked: bool) -> dict[str, Any]:
    scores = [_aspects(row, free=marked).get("overall") for row in rows]
    known = [score for score in scores if score is not None]
    right = [
        0.0 if row.tags.get("consistency_free") else _aspects(row, free=False).get("complete", 0.0) for row in rows
    ]
    mean = math.fsum(known) / len(known) if known else None
    return {
        "items": len(rows),
        "overall": mean,
        "percent": None if mean is None else 25 * (mean - 1),
        "accuracy": 100 * math.fsum(right) / len(right) if right else None,
    }


def _judged(row: dict[str, Any], said: Any) -> JudgedEdit:
    numbers: dict[str, float] = {}
    failure = "no_reply: the file holds none for this index"
    logical, tags = row["category"] == _LOGICAL, _tags(row)
    if isinstance(said, dict):
        wanted = ["reasoning"] + ([] if logical else ["plausibility"])
        wanted += [] if tags and said.get("judge1") is None else ["consistency"]
        read = {name: _final(said.get(_JUDGES[name])) for name in wanted}
        missing = [name for name, number in read.items() if number is None]
        failure = f"no_score: no final score for {', '.join(missing)}"
        if not missing:
            # The logical judge answers 0 or 1.
            numbers = {
                name: 4.0 * min(number, 1) + 1 if logical else float(number)
                for name, number in read.items()
                if number is not None
            }
    return JudgedEdit(
        key=row["index"],
        instruction=row["instruction"],
        category=row["category"],
        tags=tags,
        numbers=numbers,
        failure=None if numbers else failure,
    )


def _final(reply: Any) -> int | None:
    """The number after the first "Final Score", as the script's `extract` finds it."""
    if not isinstance(reply, str):
        return None
    for match in _FINAL.finditer(reply):
        numbers = re.findall(r"\d+", match[1])
        if numbers:
            return int(numbers[0]) if len(numbers) == 1 else None
    return None
