"""What judged pairs come to: credits, rates, rankings, position bias, stability. Pure arithmetic on arrays.

A preference is 1 (the first edit is better), -1 (the second) or 0 (a tie), as people said; an outcome is the same as
the judge said, or NaN where it failed. A failure never leaves a denominator: a judge must not gain by staying silent.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

__all__ = [
    "TIES",
    "Floats",
    "PositionBias",
    "Ties",
    "by_category",
    "credits",
    "group_credits",
    "macro",
    "mean",
    "outcomes_of_scores",
    "position_bias",
    "rates",
    "sample_counts",
    "stability",
]

Floats = npt.NDArray[np.float64]

#: How ties count. "strict": right only where judge and people say the same. "half": 0.5 where just one of them says
#: tie. "excluded": pairs that either calls a tie are left out.
Ties = Literal["strict", "half", "excluded"]
TIES: Final[tuple[Ties, ...]] = get_args(Ties)


def outcomes_of_scores(
    first: Sequence[float | None], second: Sequence[float | None], *, tolerance: float = 1e-9
) -> Floats:
    """Which edit of each pair has the higher score: 1, -1, 0 where they differ by no more than `tolerance`, or NaN."""
    difference = _floats(first) - _floats(second)
    outcomes: Floats = np.sign(difference)
    outcomes[np.abs(difference) <= tolerance] = 0.0
    return outcomes


def credits(preferences: Sequence[float] | Floats, outcomes: Sequence[float | None] | Floats, ties: Ties) -> Floats:
    """Credit of each pair in 0..1, NaN where `ties` leaves it out; a failed pair has 0.

    Raises:
        ValueError: unknown `ties`, or arrays of different lengths.
    """
    said, meant = _floats(outcomes), _floats(preferences)
    if ties not in TIES:
        raise ValueError(f"ties must be one of {', '.join(TIES)}, got {ties!r}")
    if said.shape != meant.shape:
        raise ValueError(f"{len(meant)} preferences but {len(said)} outcomes")
    credit: Floats = (said == meant).astype(np.float64)
    one_tie = ((said == 0) != (meant == 0)) & ~np.isnan(said)
    if ties == "half":
        credit[one_tie] = 0.5
    elif ties == "excluded":
        credit[(said == 0) | (meant == 0)] = np.nan
    return credit


def rates(outcomes: Sequence[float | None] | Floats) -> tuple[float, float]:
    """(share of ties, share of failures) of all pairs; NaN without pairs."""
    said = _floats(outcomes)
    return mean((said == 0).astype(np.float64)), mean(np.isnan(said).astype(np.float64))


def mean(values: Floats) -> float:
    """Mean of the values that are not NaN; NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def by_category(values: Floats, categories: Sequence[str]) -> dict[str, tuple[int, float]]:
    """(how many values are not NaN, their mean) per category, by name."""
    found: dict[str, tuple[int, float]] = {}
    names = np.asarray(categories, dtype=object)
    for name in sorted(set(categories)):
        chosen = values[names == name]
        found[name] = int((~np.isnan(chosen)).sum()), mean(chosen)
    return found


def macro(values: Floats, categories: Sequence[str]) -> float:
    """Unweighted mean of the categories' means; categories without a value are left out."""
    return mean(np.array([each for _, each in by_category(values, categories).values()]))


def group_credits(credit: Floats, groups: Sequence[Hashable]) -> tuple[list[Hashable], Floats]:
    """K-way ranking: the groups in order of appearance, each 1 where all its pairs are right, else 0.

    All K(K-1)/2 pairs of a group right is the same as its ranking right. Pairs that are NaN are left out, and so is a
    group with no others.
    """
    lowest: dict[Hashable, float] = {}
    for group, value in zip(groups, credit, strict=True):
        if not np.isnan(value):
            lowest[group] = min(lowest.get(group, 1.0), float(value))
    return list(lowest), np.array([float(value == 1.0) for value in lowest.values()])


@dataclass(frozen=True, kw_only=True)
class PositionBias:
    """What the order in which two edits are shown does to a pairwise judge; all shares in 0..1.

    Attributes:
        pairs: judged in both orders.
        consistent: same edit, or a tie, in both orders.
        first: of the decided judgements, those for the edit that was shown first; 0.5 is no bias.
        flips: pairs decided both times, for the same place and hence for different edits.
    """

    pairs: int
    consistent: float
    first: float
    flips: float


def position_bias(forward: Sequence[float | None] | Floats, reverse: Sequence[float | None] | Floats) -> PositionBias:
    """Compare outcomes of the same pairs in both orders; each outcome speaks of the edits, not of their places."""
    one, two = _floats(forward), _floats(reverse)
    both = ~np.isnan(one) & ~np.isnan(two)
    one, two = one[both], two[both]
    decided = np.concatenate([one[one != 0] == 1, two[two != 0] == -1]).astype(np.float64)
    return PositionBias(
        pairs=int(both.sum()),
        consistent=mean((one == two).astype(np.float64)),
        first=mean(decided),
        flips=mean(((one != 0) & (one == -two)).astype(np.float64)),
    )


def sample_counts(samples: int) -> list[int]:
    """1, 2, 4, 8, ... up to `samples`, and `samples` itself."""
    return sorted({2**power for power in range(samples.bit_length())} | {samples})


def stability(
    first: Sequence[Sequence[float | None]], second: Sequence[Sequence[float | None]], preferences: Sequence[float]
) -> dict[int, Mapping[str, float]]:
    """How much more samples help: for K = 1, 2, 4, 8, ... and all, strict accuracy and ties of the mean of K samples.

    `first[sample][pair]` and `second[sample][pair]` are scores; a mean is over the samples that have one. For K = 1 the
    accuracy is that of the first sample; "agreement" is the share of pairs whose outcome all K single samples share.
    """
    ones, twos = np.array([_floats(row) for row in first]), np.array([_floats(row) for row in second])
    meant = _floats(preferences)
    found: dict[int, Mapping[str, float]] = {}
    for size in sample_counts(len(ones)):
        outcomes = outcomes_of_scores(_column_means(ones[:size]), _column_means(twos[:size]))  # type: ignore[arg-type]
        single = np.array([outcomes_of_scores(a, b) for a, b in zip(ones[:size], twos[:size], strict=True)])
        same = np.all((single == single[0]) | (np.isnan(single) & np.isnan(single[0])), axis=0)
        ties, failures = rates(outcomes)
        found[size] = {
            "accuracy": mean(credits(meant, outcomes, "strict")),
            "ties": ties,
            "failures": failures,
            "agreement": mean(same.astype(np.float64)),
        }
    return found


def _column_means(scores: Floats) -> Floats:
    known = ~np.isnan(scores)
    counts = known.sum(axis=0)
    sums = np.where(known, scores, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _floats(values: Sequence[float | None] | Floats) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
