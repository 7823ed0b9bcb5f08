"""Judged edits as training data of a judge: what the cold start writes, and supervised fine-tuning reads.

A row is one edit with a chosen trace: `source` and `edited` (images), `instruction`, `principles` (list of `question`
and `category`), `gold` and `verdicts` (lists of 0, 1 or null, one per principle: of the verify stage, and of the
trace), `reasons`, `reasoning`, `average`, `score` (tau, 0..10), `judge` and `category` (of the edit). Edit-R1, 3.2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..errors import DataError
from ..types import MAX_SCORE, Principle
from .image_rows import load_image_rows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TRACE_COLUMNS", "load_traces", "read_principles"]

#: Every column of `load_traces`; the first six must be in the data, others are null where they are not.
TRACE_COLUMNS: Final = (
    *("source", "edited", "instruction", "principles", "verdicts", "score"),
    *("reasoning", "average", "gold", "reasons", "judge", "category"),
)
_NEEDED: Final = 6
_IMAGES: Final = ("source", "edited")
_SHOWN: Final = 10
_BATCH: Final = 1000


def load_traces(name: str | os.PathLike[str], split: str = "train") -> Dataset:
    """Traces from the folder that a cold start wrote, a `.jsonl` or `.parquet` file, or a data set of the hub.

    Texts and numbers of all rows are checked at once; images are decoded, and checked, when a row is taken.

    Returns:
        The columns `TRACE_COLUMNS`, `source` and `edited` as RGB PIL images.

    Raises:
        ConfigError: no such file, folder or data set.
        DataError: no such split or column, or a row is wrong: the message names the row and the column.
    """
    loaded = load_image_rows(name, images=_IMAGES, split=split)
    missing = [column for column in TRACE_COLUMNS[:_NEEDED] if column not in loaded.column_names]
    if missing:
        raise DataError(
            f"{os.fspath(name)} has no column {' and no '.join(missing)}; it has {', '.join(loaded.column_names)}"
        )
    for column in TRACE_COLUMNS[_NEEDED:]:
        if column not in loaded.column_names:
            loaded = loaded.add_column(column, [None] * len(loaded))
    traces = loaded.select_columns([*TRACE_COLUMNS, "row"])
    _check(traces.remove_columns([*_IMAGES, "row"]).with_format(None), os.fspath(name))
    return traces


def read_principles(cell: Any) -> list[Principle]:
    """The principles of a row.

    Raises:
        DataError: it holds none, or something else.
    """
    if not isinstance(cell, list) or not cell:
        raise DataError("'principles' must be a list of question and category that is not empty")
    try:
        return [Principle(question=each["question"], category=each["category"]) for each in cell]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"'principles': {type(error).__name__}: {error}") from None


def _check(texts: Dataset, name: str) -> None:
    problems, wrong = [], 0
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        for place, values in enumerate(zip(*batch.values(), strict=True)):
            problem = _problem(dict(zip(batch, values, strict=True)))
            if problem:
                wrong += 1
                problems += [f"row {start + place}: {problem}"] if wrong <= _SHOWN else []
    if wrong:
        raise DataError(f"{name}: {wrong} of {len(texts)} rows are wrong: {'; '.join(problems)}")


def _problem(row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row, beginning with the column."""
    if not isinstance(row["instruction"], str) or not row["instruction"].strip():
        return "'instruction' must be a text that is not blank"
    try:
        count = len(read_principles(row["principles"]))
    except DataError as error:
        return str(error)
    for column in ("verdicts", "gold"):
        cell = row[column]
        if cell is None and column == "gold":
            continue
        if not isinstance(cell, list) or len(cell) != count or any(each not in (0, 1, None) for each in cell):
            return f"{column!r} must be a list of {count} numbers 0, 1 or null, one per principle, not {cell!r}"[:200]
    for column, top in (("score", MAX_SCORE), ("average", 1.0)):
        value = row[column]
        if value is None and column == "average":
            continue
        if not isinstance(value, (int, float)) or not (math.isfinite(value) and 0 <= value <= top):
            return f"{column!r} must be a number in 0..{top:g}, not {value!r}"[:200]
    if not isinstance(row["reasoning"], (str, type(None))):
        return f"'reasoning' must be text, not {type(row['reasoning']).__name__}"
    return None
