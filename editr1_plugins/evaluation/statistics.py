"""Correlations, intervals and paired tests, in numpy alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from editr1_plugins.evaluation.metrics import Floats

__all__ = [
    "RESAMPLES",
    "Codes",
    "McNemar",
    "PairedDifference",
    "average_ranks",
    "bootstrap_means",
    "coded_spearman",
    "fisher_mean",
    "interval",
    "macro_interval",
    "mcnemar",
    "mean_interval",
    "ordered_codes",
    "paired_bootstrap",
    "resampled",
    "spearman",
    "tanh_of_mean",
]

Codes = npt.NDArray[np.intp]

RESAMPLES: Final = 2000
#: Index arrays are made in pieces of about so many numbers.
_PIECE: Final = 2_000_000


def average_ranks(values: Sequence[float] | Floats) -> Floats:
    """Ranks from 1; equal values share the mean of their ranks."""
    return _ranks(ordered_codes(values))


def ordered_codes(values: Sequence[float] | Floats) -> Codes:
    """Whole numbers from 0 in the order of the values, equal for equal values."""
    _, codes = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True)
    return codes


def spearman(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float:
    """Spearman's rank correlation in -1..1; NaN for fewer than two values or a constant.

    Raises:
        ValueError: different lengths.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values")
    return coded_spearman(ordered_codes(first), ordered_codes(second))


def coded_spearman(first: Codes, second: Codes) -> float:
    """`spearman` of values that are `ordered_codes` already (of a larger set, too), without sorting."""
    if len(first) < 2:
        return math.nan
    one, two = _ranks(first), _ranks(second)
    middle = (len(first) + 1) / 2
    one, two = one - middle, two - middle
    scale = math.sqrt(float(one @ one) * float(two @ two))
    return float(one @ two) / scale if scale > 0 else math.nan


def _ranks(codes: Codes) -> Floats:
    counts = np.bincount(codes)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2.0)[codes]
    return ranks


def fisher_mean(correlations: Sequence[float]) -> float:
    """Mean of correlations by Fisher's z: tanh(mean(arctanh(r))); NaN ones are left out, +-1 is bounded."""
    known = np.array([each for each in correlations if not math.isnan(each)])
    if not known.size:
        return math.nan
    return float(np.tanh(np.arctanh(np.clip(known, -1 + 1e-9, 1 - 1e-9)).mean()))


def tanh_of_mean(correlations: Sequence[float]) -> float:
    """What VIEScore's script reports as Fisher's average: tanh(mean(r)), without the arctanh; always nearer to 0."""
    return math.tanh(sum(correlations) / len(correlations)) if len(correlations) else math.nan


def mean_interval(
    values: Floats, clusters: Sequence[Hashable] | None = None, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean of the values that are not NaN; None for fewer than two clusters.

    Values of one cluster (pairs of one source, say) are drawn together, since they are not independent.
    """
    return interval(bootstrap_means(values, clusters, seed=seed), level)


def macro_interval(
    values: Floats,
    categories: Sequence[str],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """As `mean_interval`, of the unweighted mean of the categories' means; drawn within each category.

    A category with one cluster only does not vary; None where none does."""
    names = np.asarray(categories, dtype=object)
    draws, varied = [], False
    for place, name in enumerate(sorted(set(categories))):
        chosen = np.flatnonzero((names == name) & ~np.isnan(values))
        if chosen.size:
            some = None if clusters is None else [clusters[int(at)] for at in chosen]
            drawn = bootstrap_means(values[chosen], some, seed=seed + place)
            varied = varied or drawn is not None
            draws.append(np.full(RESAMPLES, values[chosen].mean()) if drawn is None else drawn)
    return interval(np.mean(draws, axis=0), level) if varied else None


def bootstrap_means(
    values: Floats, clusters: Sequence[Hashable] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Floats | None:
    """Means of resampled values (whole clusters at a time); None for fewer than two clusters."""
    known = ~np.isnan(values)
    names: Sequence[Hashable] = range(len(values)) if clusters is None else clusters
    numbers: dict[Hashable, int] = {}
    place = np.array([numbers.setdefault(name, len(numbers)) for name, kept in zip(names, known, strict=True) if kept])
    if len(numbers) < 2:
        return None
    sums = np.bincount(place, weights=values[known])
    counts = np.bincount(place).astype(np.float64)
    drawn = [sums[rows].sum(axis=1) / counts[rows].sum(axis=1) for rows in _draws(len(numbers), resamples, seed)]
    return np.concatenate(drawn)


def resampled(statistic: Callable[[Floats], float], count: int, *, resamples: int = 1000, seed: int = 0) -> Floats:
    """`statistic(indices)` for bootstrap draws of `count` indices; NaN draws are left out."""
    found = [statistic(row) for rows in _draws(count, resamples, seed) for row in rows]
    drawn = np.array(found, dtype=np.float64)
    return drawn[~np.isnan(drawn)]


def interval(draws: Floats | None, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of bootstrap draws; None without draws."""
    if draws is None or not draws.size:
        return None
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _draws(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Index arrays of shape (some, count), `resamples` rows in all."""
    generator = np.random.default_rng(seed)
    rows = max(1, _PIECE // max(1, count))
    for start in range(0, resamples, rows):
        yield generator.integers(count, size=(min(rows, resamples - start), count))  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Two judges on the same items: how many only one of them got right, and the exact two-sided p-value."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Floats, second: Floats) -> McNemar:
    """Exact McNemar test on strict credits (1 right, else wrong); items that are NaN for either are left out."""
    both = ~np.isnan(first) & ~np.isnan(second)
    one, two = first[both] == 1.0, second[both] == 1.0
    only_first, only_second = int((one & ~two).sum()), int((~one & two).sum())
    total, smaller = only_first + only_second, min(only_first, only_second)
    ways, term = 0, 1
    for taken in range(smaller + 1):
        ways += term
        term = term * (total - taken) // (taken + 1)
    # Whole numbers until the last division: no rounding, and no overflow, since 2 * ways <= 2**(total + 1).
    p_value = (
        min(1.0, 2 * ways / 2**total) if total < 1000 else min(1.0, math.exp(_log(2 * ways) - total * math.log(2)))
    )
    return McNemar(only_first=only_first, only_second=only_second, p_value=p_value)


def _log(number: int) -> float:
    """Natural logarithm of a whole number too large for a float."""
    shift = max(0, number.bit_length() - 900)
    return math.log(number >> shift) + shift * math.log(2)


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Mean credit of the first judge less that of the second on the same items, with its 95 % interval."""

    items: int
    difference: float
    interval: tuple[float, float] | None


def paired_bootstrap(
    first: Floats, second: Floats, clusters: Sequence[Hashable] | None = None, *, seed: int = 0
) -> PairedDifference:
    """Bootstrap of the difference item by item; items that are NaN for either are left out."""
    difference = first - second
    known = difference[~np.isnan(difference)]
    return PairedDifference(
        items=int(known.size),
        difference=float(known.mean()) if known.size else math.nan,
        interval=mean_interval(difference, clusters, seed=seed),
    )
