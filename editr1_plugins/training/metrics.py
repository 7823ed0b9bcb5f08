"""Metrics between two logs: means, and maxima for those where one bad value is what matters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAXIMA", "Metrics", "PassMetrics", "std_within_groups"]

#: Metrics whose largest value is logged.
MAXIMA: Final = frozenset({"ratio_error"})


class Metrics:
    """Values by name since they were last drained; NaN and None count as not measured."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: float | None) -> None:
        if value is not None and not math.isnan(value):
            self._values[name].append(float(value))

    def update(self, values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            self.add(name, value)

    def drain(self) -> dict[str, float]:
        """One value per name, and start afresh."""
        drained = {n: max(v) if n in MAXIMA else sum(v) / len(v) for n, v in self._values.items()}
        self._values.clear()
        return drained


class PassMetrics:
    """Metrics of one replay pass from those of its chunks, each with its share of the pass's rows."""

    def __init__(self) -> None:
        self.values: dict[str, float] = defaultdict(float)

    def add(self, chunk: Mapping[str, float], share: float) -> None:
        for name, value in chunk.items():
            self.values[name] = max(self.values[name], value) if name in MAXIMA else self.values[name] + share * value


def std_within_groups(rewards: Tensor, size: int) -> float:
    """Mean over groups of the standard deviation of their scored rewards; NaN where no group has two."""
    scored = [group[~group.isnan()] for group in rewards.view(-1, size)]
    stds = [group.std().item() for group in scored if len(group) > 1]
    return sum(stds) / len(stds) if stds else math.nan
