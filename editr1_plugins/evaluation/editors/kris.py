"""KRIS-Bench (arXiv 2505.16707): 1,267 edits in 20 categories that need knowledge; scores of 1..5 for VC, VQ, IF (KP).

Official arithmetic, as it is published in BAGEL's copy of the scripts: (s - 1) x 25 for each number, then the mean of
all numbers (not of edits) of a type, of a kind of knowledge, and overall; missing numbers are left out. Knowledge
plausibility (KP) needs the benchmark's explanations, which our judges are not shown: it is missing from their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.editors.items import EditorItem, JudgedEdit, Sources
from editr1_plugins.evaluation.editors.parts import five_point
from editr1_plugins.evaluation.sources import Row, fetched, load_json

__all__ = ["KRISBenchmark"]

_NATURAL: Final = ("biology", "chemistry", "geography", "medicine", "mathematics", "physics")
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "Attribute Perception": (
        "count_change",
        "color_change",
        "size_adjustment",
        "part_completion",
        "anomaly_correction",
    ),
    "Spatial Perception": ("viewpoint_change", "position_movement"),
    "Temporal Prediction": ("temporal_prediction",),
    "Social Science": ("humanities", "practical_knowledge"),
    "Natural Science": _NATURAL,
    "Logical Reasoning": ("abstract_reasoning", "rule-based_reasoning"),
    "Instruction Decomposition": ("multi-element_composition", "multi-instruction_execution"),
}
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "Factual Knowledge": ("Attribute Perception", "Spatial Perception", "Temporal Prediction"),
    "Conceptual Knowledge": ("Social Science", "Natural Science"),
    "Procedural Knowledge": ("Logical Reasoning", "Instruction Decomposition"),
}
_CATEGORIES: Final = tuple(category for some in _TYPES.values() for category in some)
#: Types whose edits are also asked about by their explanation.
_EXPLAINED: Final = ("Social Science", "Natural Science", "Logical Reasoning")
_PARTS: Final = {"VC": "keep", "VQ": "quality", "IF": "follow"}
_RAW: Final = {
    "VC": "consistency_score",
    "VQ": "quality_score",
    "IF": "instruction_score",
    "KP": "knowledge_score",
}


class KRISBenchmark:
    """See the module's text."""

    name = "kris"
    source = "Liang0223/KRIS_Bench"
    overall = "average"
    limits = (0.0, 100.0)

    def edits(self, place: str | None) -> Iterator[EditorItem]:
        for file, category, identifier, row in _rows(fetched(place or self.source)):
            given = row["ori_img"] if isinstance(row["ori_img"], list) else [row["ori_img"]]
            yield EditorItem(
                key=f"{category}/{identifier}",
                instruction=row["ins_en"],
                category=category,
                names=(f"{category}/{identifier}",),
                read=_Reader(Row({"ori_img": given}, f"{category}/{file.name}, key {identifier!r}", file.parent)),
            )

    def aspects(self, row: JudgedEdit) -> dict[str, float]:
        """VC, VQ, IF and KP in percent, and their mean."""
        given = {name: row.numbers[name] for name in _RAW if name in row.numbers}
        if not given:
            given = {name: five_point(row.numbers[part]) for name, part in _PARTS.items() if part in row.numbers}
        if _type_of(row.category) not in _EXPLAINED:
            given.pop("KP", None)
        found = {name: (value - 1) * 25 for name, value in given.items()}
        if found:
            found["average"] = math.fsum(found.values()) / len(found)
        return found

    def official(self, rows: Sequence[JudgedEdit]) -> dict[str, Any]:
        numbers: dict[str, dict[str, list[float]]] = {kind: {} for kind in _TYPES}
        for row in rows:
            for name, value in self.aspects(row).items():
                if name in _RAW and (kind := _type_of(row.category)) is not None:
                    numbers[kind].setdefault(name, []).append(value)
        flat = {kind: [value for some in table.values() for value in some] for kind, table in numbers.items()}
        found: dict[str, Any] = {"average": _mean([value for some in flat.values() for value in some])}
        found["by_knowledge"] = {
            kind: {"average": _mean([value for each in types for value in flat[each]])}
            for kind, types in _KINDS.items()
        }
        found["by_category"] = {
            kind: {"average": _mean(flat[kind]), **{name: _mean(some) for name, some in table.items()}}
            for kind, table in numbers.items()
            if flat[kind]
        }
        return found

    def recorded(self, path: Path, place: str | None) -> list[JudgedEdit]:
        """The scripts' results: a folder with `CATEGORY/metrics.json` (`{id: {consistency_score, ...}}`)."""
        files = [path / category / "metrics.json" for category in _CATEGORIES]
        found = [_judged(file.parent.name, key, row) for file in files if file.is_file() for key, row in _metrics(file)]
        if not found:
            raise DataError(f"{path} holds no CATEGORY/metrics.json; categories: {', '.join(_CATEGORIES)}")
        return found


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sources:
        images = self._row.image_list("ori_img")
        return Sources(images, images[0])


def _rows(place: Path) -> Iterator[tuple[Path, str, str, dict[str, Any]]]:
    files = {file.parent.name: file for file in sorted(place.rglob("annotation.json"))}
    chosen = [category for category in _CATEGORIES if category in files]
    if not chosen:
        raise DataError(f"{place} holds no CATEGORY/annotation.json; categories: {', '.join(_CATEGORIES)}")
    for category in chosen:
        table = load_json(files[category])
        if not isinstance(table, dict):
            raise DataError(f"{category}/annotation.json must hold {{id: row}}, not a {type(table).__name__}")
        for identifier, row in table.items():
            where = f"{category}/annotation.json, key {identifier!r}"
            if not isinstance(row, dict) or not isinstance(row.get("ins_en"), str):
                raise DataError(f"{where}: column 'ins_en' must be text")
            given = row.get("ori_img")
            several = isinstance(given, list) and given and all(isinstance(name, str) for name in given)
            if not several and not isinstance(given, str):
                raise DataError(f"{where}: column 'ori_img' must be the name of a file or a list of them")
            yield files[category], category, identifier, row


def _metrics(file: Path) -> Iterator[tuple[str, Any]]:
    table = load_json(file)
    if not isinstance(table, dict):
        raise DataError(f"{file} must hold {{id: scores}}, not a {type(table).__name__}")
    yield from table.items()


def _judged(category: str, key: str, row: Any) -> JudgedEdit:
    if not isinstance(row, dict):
        raise DataError(f"{category}/metrics.json, key {key!r}: scores must be an object")
    numbers = {}
    for name, column in _RAW.items():
        value = row.get(column)
        if value is not None:
            if type(value) not in (int, float) or not 1 <= value <= 5:
                raise DataError(f"{category}/metrics.json, key {key!r}: {column!r} must be 1..5 or null, not {value!r}")
            numbers[name] = float(value)
    return JudgedEdit(
        key=f"{category}/{key}",
        instruction=str(row.get("instruction") or ""),
        category=category,
        numbers=numbers,
        failure=None if numbers else "no_score: none of the numbers was read",
    )


def _type_of(category: str) -> str | None:
    return next((kind for kind, categories in _TYPES.items() if category in categories), None)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
