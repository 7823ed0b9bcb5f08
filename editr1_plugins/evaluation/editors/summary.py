"""The honest numbers beside the official ones: means with intervals, failures told apart, two editors compared.

An edit that failed has no number: it is neither 0 nor a draw, it is counted, and "range" says what the mean would be if
all failed edits were the worst or the best. Intervals are 95 % bootstrap intervals; items of one source are drawn
together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.editors.items import EditorBenchmark, JudgedEdit
from editr1_plugins.evaluation.metrics import Floats, macro, mean
from editr1_plugins.evaluation.statistics import macro_interval, mean_interval, paired_bootstrap
from editr1_plugins.reward.record import failure_kind
from editr1_plugins.types import MAX_SCORE

__all__ = ["compare_edits", "evaluate_edits", "limits_of", "moved_most", "numbers_of", "overall_name"]

_SHOWN_FAILURES: Final = 20
_DIGITS: Final = 4


def numbers_of(benchmark: EditorBenchmark, row: JudgedEdit) -> dict[str, float]:
    """All numbers of an edit: the benchmark's own, and the judge's score and gold where there are any."""
    if not row.numbers:
        return {}
    also = {name: row.numbers[name] for name in ("score", "gold") if name in row.numbers}
    return {**benchmark.aspects(row), **also}


def overall_name(benchmark: EditorBenchmark, rows: Sequence[JudgedEdit]) -> str:
    """The number that edits are ranked by: the benchmark's overall one, else the judge's score."""
    named = any(benchmark.overall in numbers_of(benchmark, row) for row in rows)
    return benchmark.overall if named else "score"


def limits_of(benchmark: EditorBenchmark, overall: str) -> tuple[float, float]:
    """Lowest and highest value of the number that edits are ranked by."""
    return benchmark.limits if overall == benchmark.overall else (0.0, MAX_SCORE)


def evaluate_edits(benchmark: EditorBenchmark, rows: Sequence[JudgedEdit]) -> dict[str, Any]:
    """Both modes: {"kind": "editor", "benchmark", "overall", "items", "official": {...}, "sane": {...}}.

    Raises:
        DataError: no rows.
    """
    if not rows:
        raise DataError(f"{benchmark.name}: no rows")
    overall = overall_name(benchmark, rows)
    return {
        "kind": "editor",
        "benchmark": benchmark.name,
        "overall": overall,
        "limits": list(limits_of(benchmark, overall)),
        "items": len(rows),
        "official": _rounded(benchmark.official(rows)),
        "sane": _sane(benchmark, rows, overall),
    }


def _sane(benchmark: EditorBenchmark, rows: Sequence[JudgedEdit], overall: str) -> dict[str, Any]:
    table = _Table(benchmark, rows)
    failed = [row for row in rows if row.failure is not None]
    found: dict[str, Any] = {
        "items": len(rows),
        "failure_rate": round(100 * len(failed) / len(rows), _DIGITS),
        "failures": dict(Counter(failure_kind(str(row.failure)) for row in failed).most_common(_SHOWN_FAILURES)),
        "mean": {name: _number(mean(values)) for name, values in table.columns.items()},
        "interval": {name: _limits(mean_interval(values, table.groups)) for name, values in table.columns.items()},
    }
    if overall in table.columns:
        found["range"] = _range(table.columns[overall], benchmark, overall)
    if len(set(table.categories)) > 1:
        found["macro"] = {name: _number(macro(values, table.categories)) for name, values in table.columns.items()}
        found["macro_interval"] = {
            name: _limits(macro_interval(values, table.categories, table.groups))
            for name, values in table.columns.items()
        }
        found["by_category"] = {name: table.of_category(name, overall) for name in sorted(set(table.categories))}
    return found


class _Table:
    """Numbers of edits as columns, NaN where an edit has none."""

    def __init__(self, benchmark: EditorBenchmark, rows: Sequence[JudgedEdit]) -> None:
        each = [numbers_of(benchmark, row) for row in rows]
        names = list(dict.fromkeys(name for numbers in each for name in numbers))
        self.columns: dict[str, Floats] = {
            name: np.array([numbers.get(name, math.nan) for numbers in each], dtype=np.float64) for name in names
        }
        self.categories = [row.category for row in rows]
        self.groups = [row.group or row.key for row in rows]
        self._failed = np.array([row.failure is not None for row in rows])

    def of_category(self, name: str, overall: str) -> dict[str, Any]:
        chosen = np.array([category == name for category in self.categories])
        groups = [group for group, taken in zip(self.groups, chosen, strict=True) if taken]
        found: dict[str, Any] = {
            "items": int(chosen.sum()),
            "failure_rate": round(100 * float(self._failed[chosen].mean()), _DIGITS),
        }
        found |= {column: _number(mean(values[chosen])) for column, values in self.columns.items()}
        if overall in self.columns:
            found["interval"] = _limits(mean_interval(self.columns[overall][chosen], groups))
        return found


def compare_edits(
    benchmark: EditorBenchmark, before: Sequence[JudgedEdit], after: Sequence[JudgedEdit]
) -> dict[str, Any]:
    """Two editors on the edits that both were judged on: means, difference (after less before), its interval.

    Edits that failed on one side only are counted, not compared.

    Raises:
        DataError: they have no key in common, or disagree about an instruction.
    """
    old = {row.key: row for row in before}
    pairs = [(old[row.key], row) for row in after if row.key in old]
    if not pairs:
        raise DataError("the two editors have no edit in common")
    for one, two in pairs:
        if one.instruction and two.instruction and one.instruction != two.instruction:
            raise DataError(f"edit {one.key!r}: the two runs have different instructions")
    first, second = (_Table(benchmark, [pair[side] for pair in pairs]) for side in (0, 1))
    names = [name for name in second.columns if name in first.columns]
    found: dict[str, Any] = {
        "items": len(pairs),
        "only_before_failed": sum(one.failure is not None and two.failure is None for one, two in pairs),
        "only_after_failed": sum(one.failure is None and two.failure is not None for one, two in pairs),
        "numbers": {name: _difference(first, second, name, np.ones(len(pairs), dtype=bool)) for name in names},
    }
    categories = sorted(set(second.categories))
    if len(categories) > 1:
        found["by_category"] = {
            category: {name: _difference(first, second, name, _is(second.categories, category)) for name in names}
            for category in categories
        }
    return found


def moved_most(
    benchmark: EditorBenchmark, before: Sequence[JudgedEdit], after: Sequence[JudgedEdit], count: int
) -> dict[str, list[tuple[float, JudgedEdit, JudgedEdit]]]:
    """{"up", "down"}: (difference of the overall number, before, after), the largest first; none that did not move."""
    old, overall = {row.key: row for row in before}, overall_name(benchmark, after)
    moves = []
    for row in after:
        values = [numbers_of(benchmark, each).get(overall) for each in (old.get(row.key), row) if each is not None]
        if len(values) == 2 and values[0] is not None and values[1] is not None and values[0] != values[1]:
            moves.append((values[1] - values[0], old[row.key], row))
    moves.sort(key=lambda move: (-move[0], move[2].key))
    return {
        "up": [move for move in moves if move[0] > 0][:count],
        "down": [move for move in reversed(moves) if move[0] < 0][:count],
    }


def _is(categories: Sequence[str], name: str) -> Any:
    return np.array([category == name for category in categories])


def _difference(first: _Table, second: _Table, name: str, chosen: Any) -> dict[str, Any]:
    old, new = first.columns[name][chosen], second.columns[name][chosen]
    groups = [group for group, taken in zip(second.groups, chosen, strict=True) if taken]
    both = ~np.isnan(old) & ~np.isnan(new)
    paired = paired_bootstrap(new, old, groups)
    return {
        "items": paired.items,
        "before": _number(mean(old[both])),
        "after": _number(mean(new[both])),
        "difference": _number(paired.difference),
        "interval": _limits(paired.interval),
    }


def _range(values: Floats, benchmark: EditorBenchmark, overall: str) -> list[float]:
    lowest, highest = limits_of(benchmark, overall)
    return [round(float(np.where(np.isnan(values), end, values).mean()), _DIGITS) for end in (lowest, highest)]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, _DIGITS)


def _limits(limits: tuple[float, float] | None) -> list[float] | None:
    return None if limits is None else [round(each, _DIGITS) for each in limits]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return round(value, _DIGITS) if isinstance(value, float) else value
