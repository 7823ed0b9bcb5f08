"""Krippendorff's alpha: agreement between raters, with answers missing.

K. Krippendorff, Content Analysis, 4th ed., chapter 12; "Computing Krippendorff's Alpha-Reliability" (2011).

alpha = 1 - observed / expected disagreement: 1 is perfect agreement, 0 what chance gives, below 0 is systematic
disagreement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from editr1_plugins.evaluation.metrics import Floats
from editr1_plugins.evaluation.statistics import interval, resampled

__all__ = ["Level", "alpha_interval", "krippendorff_alpha"]

Level = Literal["nominal", "ordinal"]

_FEW: Final = 1e-12


def krippendorff_alpha(units: Sequence[Sequence[float]], level: Level) -> float | None:
    """Alpha of the values that raters gave to each unit, missing ones left out.

    Args:
        units: values per unit; a unit with fewer than two takes no part.
        level: "nominal", or "ordinal", where values count by their order.

    Returns:
        At most 1; None where no unit has two values, or all values are the same.
    """
    pairs = _coincidences(units)
    return None if math.isnan(found := _alpha(pairs.sum(axis=0), level)) else found


def alpha_interval(units: Sequence[Sequence[float]], level: Level, *, seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval over units of `krippendorff_alpha`; None for fewer than two paired units."""
    pairs = _coincidences([unit for unit in units if len(unit) > 1])
    if len(pairs) < 2:
        return None

    def statistic(drawn: Floats) -> float:
        times = np.bincount(drawn.astype(np.intp), minlength=len(pairs)).astype(np.float64)
        return _alpha(np.tensordot(times, pairs, axes=1), level)

    return interval(resampled(statistic, len(pairs), seed=seed))


def _coincidences(units: Sequence[Sequence[float]]) -> Floats:
    """Per unit, how often two of its values meet, each pair weighted by 1 / (values - 1): shape (units, k, k)."""
    values = sorted({value for unit in units if len(unit) > 1 for value in unit})
    place = {value: at for at, value in enumerate(values)}
    found = np.zeros((len(units), len(values), len(values)))
    for at, unit in enumerate(units):
        if len(unit) > 1:
            counts = np.bincount([place[value] for value in unit], minlength=len(values)).astype(np.float64)
            found[at] = (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    return found


def _alpha(coincidences: Floats, level: Level) -> float:
    counts = coincidences.sum(axis=0)
    total = counts.sum()
    distances = _distances(counts, level)
    expected = float((np.outer(counts, counts) * distances).sum())
    if expected < _FEW:
        return math.nan
    return 1 - float((total - 1) * (coincidences * distances).sum()) / expected


def _distances(counts: Floats, level: Level) -> Floats:
    """Squared distances of values that occur `counts` times, in their order: shape (k, k)."""
    if level == "nominal":
        return 1 - np.eye(len(counts))
    # Those between the two values, and half of those at either end.
    middles = np.cumsum(counts) - counts / 2
    distances: Floats = np.subtract.outer(middles, middles) ** 2
    return distances
