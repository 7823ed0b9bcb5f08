"""Advantages against plain numpy, against TRL's own lines, and the rules for rewards that are missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1_plugins.errors import ConfigError
from editr1_plugins.training.advantage import group_advantages

NAN = math.nan


def table(rows: int, functions: int, missing: float = 0.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(rows, functions, generator=generator) * 3 + 5
    return rewards.masked_fill(torch.rand(rows, functions, generator=generator) < missing, NAN)


def trl_advantages(rewards_per_func, num_generations, weights, scale_rewards, aggregation):
    """The lines of TRL 1.16's GRPOTrainer._generate_and_score_completions, with its own nanstd."""
    from trl.trainer.utils import nanstd

    unscorable = torch.isnan(rewards_per_func).all(dim=1)
    if aggregation == "sum_then_normalize":
        rewards = (rewards_per_func * weights).nansum(dim=1)
        rewards[unscorable] = torch.nan
        grouped = rewards.view(-1, num_generations)
        mean = torch.nanmean(grouped, dim=1).repeat_interleave(num_generations)
        if scale_rewards == "batch":
            std = nanstd(rewards).expand_as(rewards)
        else:
            std = nanstd(grouped, dim=1).repeat_interleave(num_generations)
        advantages = rewards - mean
        if scale_rewards != "none":
            advantages = advantages / (std + 1e-4)
    else:
        grouped = rewards_per_func.view(-1, num_generations, rewards_per_func.shape[1])
        each = (grouped - torch.nanmean(grouped, dim=1, keepdim=True)) / (nanstd(grouped, dim=1, keepdim=True) + 1e-4)
        rewards = (each.view(-1, rewards_per_func.shape[1]) * weights).nansum(dim=1)
        rewards[unscorable] = torch.nan
        advantages = (rewards - torch.nanmean(rewards)) / (nanstd(rewards).expand_as(rewards) + 1e-4)
    return torch.nan_to_num(advantages, nan=0.0)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_the_arithmetic_is_trls(aggregation, scale, missing):
    rewards, weights = table(24, 2, missing), [1.0, 0.5]
    ours = group_advantages(rewards, 6, weights=weights, scale_rewards=scale, aggregation=aggregation, clip=None)
    theirs = trl_advantages(rewards, 6, torch.tensor(weights), scale, aggregation)
    assert torch.allclose(ours.values, theirs, atol=1e-4)
    assert missing == 0 or ours.frac_unscored > 0


def test_a_group_by_hand():
    rewards = np.array([1.0, 2.0, 3.0, 6.0])
    expected = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
    found = group_advantages([[r] for r in rewards], 4)
    assert np.allclose(found.values.numpy(), expected, atol=1e-6)
    assert found.values.dtype == torch.float32
    assert found.rewards.tolist() == rewards.tolist()
    assert (found.frac_unscored, found.frac_reward_zero_std, found.groups_skipped) == (0.0, 0.0, 0)


@pytest.mark.parametrize("gap", [None, NAN, math.inf, -math.inf])
def test_an_unscored_row_is_left_out_of_its_group(gap):
    found = group_advantages([[1.0], [gap], [3.0], [5.0]], 4)
    alone = group_advantages([[1.0], [3.0], [5.0]], 3)
    assert found.values[1] == 0
    assert torch.equal(found.values[[0, 2, 3]], alone.values)
    assert math.isnan(found.rewards[1])
    assert found.frac_unscored == 0.25


def test_a_row_is_unscored_only_when_every_reward_is_missing():
    found = group_advantages([[1.0, None], [None, None], [2.0, 3.0]], 3, scale_rewards="none")
    assert found.frac_unscored == pytest.approx(1 / 3)
    assert found.rewards[[0, 2]].tolist() == [1.0, 5.0]
    assert found.values.tolist() == [-2.0, 0.0, 2.0]


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_group_with_fewer_than_two_scored_rows_trains_nothing(scale, aggregation):
    options = {"scale_rewards": scale, "aggregation": aggregation}
    good = [[1.0], [4.0], [2.0]]
    found = group_advantages([[None], [9.0], [None], [None], [None], [None], *good], 3, **options)
    assert found.values[:6].tolist() == [0.0] * 6
    assert found.skipped.tolist() == [True, True, False]
    assert found.groups_skipped == 2
    assert torch.equal(found.values[6:], group_advantages(good, 3, **options).values)
    assert found.frac_reward_zero_std == 0


def test_equal_rewards_give_exactly_zero():
    # 0.1 added three times and divided by three is not 0.1: rounding must not become an advantage.
    found = group_advantages([[0.1], [0.1], [0.1], [0.1], [None], [0.2]], 3, scale_rewards="group")
    assert found.values[:3].tolist() == [0.0, 0.0, 0.0]
    assert found.frac_reward_zero_std == 0.5


def test_scaling_by_the_batch_keeps_the_groups_proportions():
    rewards = [[0.0], [2.0], [0.0], [20.0]]
    by_group = group_advantages(rewards, 2, scale_rewards="group").values
    by_batch = group_advantages(rewards, 2, scale_rewards="batch").values
    assert by_group[1].item() == pytest.approx(by_group[3].item(), rel=1e-3)
    assert by_batch[3].item() == pytest.approx(10 * by_batch[1].item(), rel=1e-5)


def test_booleans_mean_what_they_mean_in_trl():
    rewards = table(8, 1)
    assert torch.equal(group_advantages(rewards, 4, scale_rewards=True).values, group_advantages(rewards, 4).values)
    none = group_advantages(rewards, 4, scale_rewards="none").values
    assert torch.equal(group_advantages(rewards, 4, scale_rewards=False).values, none)


def test_advantages_are_clamped():
    rewards = [[0.0]] * 63 + [[100.0]]
    assert group_advantages(rewards, 64).values.max() == 5
    assert group_advantages(rewards, 64, clip=None).values.max() > 7
    assert group_advantages(rewards, 64, clip=2.0).values.max() == 2


@settings(max_examples=100, deadline=None)
@given(
    rewards=st.lists(st.one_of(st.none(), st.floats(-1e3, 1e3)), min_size=4, max_size=4).map(lambda row: row * 3),
    scale=st.sampled_from(["group", "batch", "none"]),
    shift=st.floats(-100, 100),
)
def test_advantages_are_finite_centred_and_shift_free(rewards, scale, shift):
    options = {"scale_rewards": scale, "clip": None}
    found = group_advantages([[r] for r in rewards], 4, **options).values
    moved = group_advantages([[None if r is None else r + shift] for r in rewards], 4, **options).values
    assert found.isfinite().all()
    assert found.view(3, 4).sum(1).abs().max() <= 1e-3 * max(1.0, found.abs().max().item())
    assert torch.allclose(found, moved, atol=1e-3, rtol=1e-3)
    assert all(value == 0 for value, reward in zip(found.tolist(), rewards, strict=True) if reward is None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0]] * 5, 2), "5 rows do not make groups of 2"),
        (([], 2), "table"),
        (([[1.0], [1.0, 2.0]], 2), "as many rewards"),
        ((torch.zeros(4), 2), "table"),
    ],
)
def test_tables_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        group_advantages(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1.0, 2.0]}, "2 reward weights for 1"),
        ({"scale_rewards": "rank"}, "scale_rewards='rank'"),
        ({"aggregation": "max"}, "multi_objective_aggregation='max'"),
        ({"clip": 0.0}, "clamped"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        group_advantages([[1.0], [2.0]], 2, **options)
