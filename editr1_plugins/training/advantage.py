"""Rewards into advantages: pure arithmetic on a (rows, rewards) table, groups of equal size one after the other.

The arithmetic is that of TRL's GRPOTrainer: its `scale_rewards`, `reward_weights` and `multi_objective_aggregation`,
standard deviations with Bessel's correction, eps 1e-4. One rule is our own: a group with fewer than two scored rows has
nothing to compare, so it trains nothing and enters no batch statistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ..errors import ConfigError

__all__ = ["Advantages", "group_advantages"]

_EPS: Final = 1e-4
_SCALES: Final = ("group", "batch", "none")
_AGGREGATIONS: Final = ("sum_then_normalize", "normalize_then_sum")


@dataclass(frozen=True)
class Advantages:
    """What a batch of rewards comes to.

    Attributes:
        values: (rows,) float32; 0 where a row is unscored or its group is skipped.
        rewards: (rows,) float64, the weighted sum of each row's rewards; NaN where the row is unscored.
        skipped: (groups,) bool: fewer than two scored rows, so nothing of the group is trained (not even by a KL).
        frac_unscored: share of rows for which every reward is missing.
        frac_reward_zero_std: share of groups whose scored rows (two or more) all got the same reward.
    """

    values: Tensor
    rewards: Tensor
    skipped: Tensor
    frac_unscored: float
    frac_reward_zero_std: float

    @property
    def groups_skipped(self) -> int:
        """How many groups train nothing."""
        return int(self.skipped.sum())


def group_advantages(
    rewards: Tensor | Sequence[Sequence[float | None]],
    group_size: int,
    *,
    weights: Sequence[float] | None = None,
    scale_rewards: str | bool = "group",
    aggregation: str = "sum_then_normalize",
    clip: float | None = 5.0,
) -> Advantages:
    """Advantages of a batch of groups.

    Args:
        rewards: (rows, rewards), one column per reward function; None, NaN or infinite: not scored by that function.
            Rows of one group are adjacent. Under several processes, pass the gathered batch.
        group_size: rows per group (TRL's num_generations).
        weights: one per reward function; None: all 1.
        scale_rewards: divide by the standard deviation of the "group" (or True), of the "batch", or by nothing ("none"
            or False). As in TRL it has no say in "normalize_then_sum".
        aggregation: "sum_then_normalize": the weighted rewards are summed (a missing one counts 0), then the group's
            mean is taken off. "normalize_then_sum" (GDPO, arXiv 2601.05242): each reward is normalised in its group,
            the weighted sum is normalised over the batch.
        clip: advantages are clamped to -clip..clip; None: not at all.

    Raises:
        ConfigError: sizes that do not match, or an unknown option.
    """
    table = _table(rewards)
    rows, functions = table.shape
    if group_size < 1 or not rows or rows % group_size:
        raise ConfigError(f"{rows} rows do not make groups of {group_size}")
    scale = _checked_options(scale_rewards, aggregation, clip)
    weight = _weights(weights, functions)

    unscored = table.isnan().all(1)
    total = _weighted_sum(table, weight, unscored)
    groups = total.view(-1, group_size)
    skipped = (~groups.isnan()).sum(1) < 2
    if aggregation == "sum_then_normalize":
        values = _sum_then_normalize(groups.masked_fill(skipped[:, None], math.nan), scale)
    else:
        values = _normalize_then_sum(table.view(-1, group_size, functions), weight, skipped)
    values = values.view(-1).nan_to_num(nan=0.0)
    if clip is not None:
        values = values.clamp(-clip, clip)
    zero_std = _all_equal(groups, dim=1)[:, 0] & ~skipped
    return Advantages(
        values=values.float(),
        rewards=total,
        skipped=skipped,
        frac_unscored=unscored.double().mean().item(),
        frac_reward_zero_std=zero_std.double().mean().item(),
    )


def _table(rewards: Tensor | Sequence[Sequence[float | None]]) -> Tensor:
    if isinstance(rewards, Tensor):
        table = rewards.detach().to("cpu", torch.float64)
    else:
        plain = [[math.nan if value is None else float(value) for value in row] for row in rewards]
        if len({len(row) for row in plain}) > 1:
            raise ConfigError("every row needs as many rewards as there are reward functions (None where missing)")
        table = torch.tensor(plain, dtype=torch.float64)
    if table.ndim != 2 or not table.shape[1]:
        raise ConfigError(f"rewards must be a (rows, rewards) table, got shape {tuple(table.shape)}")
    return table.masked_fill(table.isinf(), math.nan)


def _checked_options(scale_rewards: str | bool, aggregation: str, clip: float | None) -> str:
    scale = ("group" if scale_rewards else "none") if isinstance(scale_rewards, bool) else scale_rewards
    if scale not in _SCALES:
        raise ConfigError(f"scale_rewards={scale_rewards!r}: one of {', '.join(_SCALES)}")
    if aggregation not in _AGGREGATIONS:
        raise ConfigError(f"multi_objective_aggregation={aggregation!r}: one of {', '.join(_AGGREGATIONS)}")
    if clip is not None and not clip > 0:
        raise ConfigError(f"advantages are clamped to a number > 0 or not at all (None), got {clip}")
    return scale


def _weights(weights: Sequence[float] | None, functions: int) -> Tensor:
    weight = torch.ones(functions, dtype=torch.float64) if weights is None else torch.tensor(list(weights)).double()
    if weight.shape != (functions,):
        raise ConfigError(f"{len(weight)} reward weights for {functions} reward functions")
    return weight


def _weighted_sum(table: Tensor, weight: Tensor, unscored: Tensor) -> Tensor:
    return (table * weight).nansum(1).masked_fill(unscored, math.nan)


def _sum_then_normalize(total: Tensor, scale: str) -> Tensor:
    centred = _centred(total, dim=1)
    if scale == "none":
        return centred
    std = _std(total, dim=1) if scale == "group" else _std(total.flatten(), dim=0)
    return centred / (std + _EPS)


def _normalize_then_sum(table: Tensor, weight: Tensor, skipped: Tensor) -> Tensor:
    each = _centred(table, dim=1) / (_std(table, dim=1) + _EPS)
    unscored = table.isnan().all(2) | skipped[:, None]
    total = _weighted_sum(each.flatten(0, 1), weight, unscored.flatten())
    return (_centred(total, dim=0) / (_std(total, dim=0) + _EPS)).view(unscored.shape)


def _centred(values: Tensor, dim: int) -> Tensor:
    """Values minus their mean, leaving NaN out; exactly 0 where all are equal, which rounding would not give."""
    centred = values - values.nanmean(dim, keepdim=True)
    return torch.where(_all_equal(values, dim) & ~values.isnan(), 0.0, centred)


def _all_equal(values: Tensor, dim: int) -> Tensor:
    highest = values.nan_to_num(nan=-math.inf).amax(dim, keepdim=True)
    return highest == values.nan_to_num(nan=math.inf).amin(dim, keepdim=True)


def _std(values: Tensor, dim: int) -> Tensor:
    """Standard deviation with Bessel's correction, leaving NaN out; NaN of fewer than two values."""
    count = (~values.isnan()).sum(dim, keepdim=True)
    variance = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True) / (count - 1)
    return torch.where(count > 1, variance.sqrt(), math.nan)
