"""What many entries say together: how scores are spread, what failed and why, which principles are met."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from editr1_plugins.report.entries import Entry
from editr1_plugins.types import CATEGORIES, MAX_SCORE

__all__ = ["BINS", "CategoryRate", "Summary"]

#: Bars of the distribution of scores; the last one holds the full score as well.
BINS: Final = 20


@dataclass
class CategoryRate:
    """How many principles of a category were met, not met, and not judged."""

    met: int = 0
    unmet: int = 0
    unjudged: int = 0

    @property
    def total(self) -> int:
        """All principles of the category."""
        return self.met + self.unmet + self.unjudged

    @property
    def rate(self) -> float | None:
        """Share met of those that were judged, 0..1; None where none was."""
        judged = self.met + self.unmet
        return self.met / judged if judged else None


@dataclass
class Summary:
    """Counts over entries, added one by one; memory grows by eight bytes per score and latency."""

    count: int = 0
    bins: list[int] = field(default_factory=lambda: [0] * BINS)
    failures: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    categories: dict[str, CategoryRate] = field(default_factory=lambda: {name: CategoryRate() for name in CATEGORIES})
    judges: Counter[tuple[tuple[str, str], ...]] = field(default_factory=Counter)
    tokens: int = 0
    scores: array[float] = field(default_factory=lambda: array("d"))
    latencies: array[float] = field(default_factory=lambda: array("d"))

    def add(self, entry: Entry) -> None:
        """Count one more entry."""
        self.count += 1
        self.judges[entry.judge] += 1
        self.flags.update(entry.flags)
        self.tokens += entry.tokens or 0
        if entry.latency is not None:
            self.latencies.append(entry.latency)
        if entry.score is not None:
            self.scores.append(entry.score)
            self.bins[min(int(entry.score / MAX_SCORE * BINS), BINS - 1)] += 1
        elif entry.kind is not None:
            self.failures[entry.kind] += 1
        for verdict in entry.verdicts:
            rate = self.categories.setdefault(verdict.category, CategoryRate())
            if verdict.passed is None:
                rate.unjudged += 1
            elif verdict.passed:
                rate.met += 1
            else:
                rate.unmet += 1

    @property
    def mean(self) -> float | None:
        """Mean score, 0..10."""
        return sum(self.scores) / len(self.scores) if self.scores else None

    @property
    def median(self) -> float | None:
        """Median score, 0..10."""
        return _median(self.scores)

    @property
    def median_latency(self) -> float | None:
        """Median seconds per edit, where the judge says them."""
        return _median(self.latencies)


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
