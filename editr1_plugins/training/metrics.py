"""Metrics between two logs: means, and maxima for those where one bad value is what matters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAXIMA", "Metrics", "PassMetrics", "reward_means", "std_within_groups", "total_rewards"]

#: Metrics whose largest value is logged.
MAXIMA: Final = frozenset({"ratio_error"})


class Metrics:
    """Values by name since they were last drained; NaN and None count as not measured."""

    def __init__(self) -> None:
        self._values: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, name: str, value: float | None, weight: float = 1.0) -> None:
        """One value; `weight` is its part in the mean, e.g. the share of a batch's rows that it was measured on."""
        if value is not None and not math.isnan(value):
            self._values[name].append((float(value), weight))

    def update(self, values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            self.add(name, value)

    def drain(self, gather: Callable[[list[Any]], list[Any]] = list) -> dict[str, float]:
        """One value per name over all processes, and start afresh.

        Args:
            gather: makes of a list of one item per process the list of all processes' (accelerate's `gather_object`).
        """
        own = {name: (max(v for v, _ in pairs), *_sums(pairs)) for name, pairs in self._values.items()}
        self._values.clear()
        everyone: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for process in gather([own]):
            for name, summary in process.items():
                everyone[name].append(summary)
        return {name: _combined(name, summaries) for name, summaries in everyone.items()}


class PassMetrics:
    """Metrics of one replay pass from those of its chunks, each with its share of the pass's rows."""

    def __init__(self) -> None:
        self._values: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, chunk: Mapping[str, float], share: float) -> None:
        for name, value in chunk.items():
            self._values[name].append((value, share))

    @property
    def loss(self) -> float:
        """The pass's part of the loss; rows that were not visited count as 0."""
        return _sums(self._values.get("loss", []))[0]

    def means(self) -> dict[str, tuple[float, float]]:
        """By name: the mean over the rows that were visited (or the maximum), and the share that they are."""
        sums = {name: _sums(pairs) for name, pairs in self._values.items()}
        return {
            name: (max(v for v, _ in self._values[name]) if name in MAXIMA else total / weight, weight)
            for name, (total, weight) in sums.items()
        }


def _sums(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(value * weight for value, weight in pairs), sum(weight for _, weight in pairs)


def _combined(name: str, summaries: Sequence[tuple[float, float, float]]) -> float:
    if name in MAXIMA:
        return max(top for top, _, _ in summaries)
    return sum(total for _, total, _ in summaries) / sum(weight for _, _, weight in summaries)


def total_rewards(rewards: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum, (rows,), of (rows, functions) rewards; NaN where every reward is missing."""
    return (rewards * weights).nansum(1).masked_fill(rewards.isnan().all(1), math.nan)


def reward_means(rewards: Tensor, weights: Tensor, names: Sequence[str]) -> dict[str, float]:
    """`reward`, `frac_unscored` and `rewards/NAME/mean` of (rows, functions) rewards, NaN where missing."""
    totals = total_rewards(rewards, weights)
    means = {"reward": totals.nanmean().item(), "frac_unscored": totals.isnan().float().mean().item()}
    for name, column in zip(names, rewards.T, strict=True):
        means[f"rewards/{name}/mean"] = column.nanmean().item()
    return means


def std_within_groups(rewards: Tensor, size: int) -> float:
    """Mean over groups of the standard deviation of their scored rewards; NaN where no group has two."""
    scored = [group[~group.isnan()] for group in rewards.view(-1, size)]
    stds = [group.std().item() for group in scored if len(group) > 1]
    return sum(stds) / len(stds) if stds else math.nan
