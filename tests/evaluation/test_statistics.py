"""Correlations against known values, intervals against coverage, McNemar's test against enumeration."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from editr1_plugins.evaluation.statistics import (
    average_ranks,
    bootstrap_means,
    fisher_mean,
    macro_interval,
    mcnemar,
    mean_interval,
    paired_bootstrap,
    spearman,
    tanh_of_mean,
)


class TestSpearman:
    def test_equal_values_share_their_ranks(self) -> None:
        np.testing.assert_array_equal(average_ranks([10, 20, 20, 5]), [2, 3.5, 3.5, 1])

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ([1, 2, 3, 4], [10, 20, 30, 400], 1.0),
            ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
            # 1 - 6 * sum(d^2) / (n (n^2 - 1)) with d = 1, 1, 1, 1, 0
            ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 1 - 6 * 4 / 120),
            # Pearson of the ranks (1.5, 1.5, 3) and (1, 2, 3)
            ([0, 0, 1], [1, 2, 3], math.sqrt(3) / 2),
        ],
    )
    def test_known_values(self, first: list[float], second: list[float], expected: float) -> None:
        assert spearman(first, second) == pytest.approx(expected)

    def test_a_constant_or_too_few_have_none(self) -> None:
        assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
        assert math.isnan(spearman([1], [2]))
        with pytest.raises(ValueError, match="2 and 1 values"):
            spearman([1, 2], [1])


def test_averages_of_correlations_differ_as_they_should() -> None:
    some = [0.1, 0.9]
    assert fisher_mean(some) == pytest.approx(math.tanh((math.atanh(0.1) + math.atanh(0.9)) / 2))
    assert tanh_of_mean(some) == pytest.approx(math.tanh(0.5))
    assert tanh_of_mean(some) < 0.5 < fisher_mean(some)
    assert fisher_mean([0.5, math.nan]) == pytest.approx(0.5)
    assert 0.99 < fisher_mean([1.0, 1.0]) <= 1.0
    assert math.isnan(fisher_mean([]))


class TestBootstrap:
    def test_the_interval_covers_the_truth_about_as_often_as_it_says(self) -> None:
        generator = np.random.default_rng(0)
        covered = 0
        for seed in range(100):
            low, high = mean_interval((generator.random(150) < 0.7).astype(float), seed=seed) or (1, 0)
            covered += low <= 0.7 <= high
        assert 88 <= covered <= 100

    def test_rows_of_one_source_are_drawn_together(self) -> None:
        values = np.repeat(np.random.default_rng(1).integers(0, 2, 40), 10).astype(float)
        alone, together = bootstrap_means(values), bootstrap_means(values, np.repeat(np.arange(40), 10).tolist())
        assert alone is not None
        assert together is not None
        assert together.std() > 2.5 * alone.std()

    def test_the_same_seed_gives_the_same_interval_and_one_cluster_gives_none(self) -> None:
        values = np.array([0.0, 1.0, 1.0, math.nan])
        assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
        assert mean_interval(values, ["a", "a", "a", "b"]) is None
        assert mean_interval(np.array([])) is None

    def test_the_macro_interval_weighs_categories_alike(self) -> None:
        values = np.array([1.0] * 90 + [0.0, 1.0] * 5)
        names = ["many"] * 90 + ["few"] * 10
        low, high = macro_interval(values, names) or (0, 0)
        assert low < 0.75 < high
        assert high - low > 0.2  # the few decide, as they do in the macro mean


class TestMcNemar:
    @pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (3, 0), (7, 2), (5, 5), (1, 6)])
    def test_against_enumeration(self, only_first: int, only_second: int) -> None:
        total = only_first + only_second
        extreme = abs(only_first - only_second)
        as_far = sum(abs(2 * sum(coins) - total) >= extreme for coins in product((0, 1), repeat=total))
        first = np.array([1.0] * only_first + [0.0] * only_second + [1.0, 0.0, math.nan])
        second = np.array([0.0] * only_first + [1.0] * only_second + [1.0, 0.0, 1.0])
        test = mcnemar(first, second)
        assert (test.only_first, test.only_second) == (only_first, only_second)
        assert test.p_value == pytest.approx(as_far / 2**total)

    def test_many_items(self) -> None:
        first = np.array([1.0] * 900 + [0.0] * 800)
        p_value = mcnemar(first, 1 - first).p_value
        # The normal approximation with continuity correction: z = 99 / sqrt(1700).
        assert p_value == pytest.approx(math.erfc(99 / math.sqrt(1700) / math.sqrt(2)), rel=0.01)
        assert mcnemar(np.ones(3000), np.zeros(3000)).p_value < 1e-300


def test_the_paired_difference_is_sharper_than_two_intervals() -> None:
    shared = np.random.default_rng(2).random(500) < 0.5
    first, second = shared.astype(float), shared.astype(float)
    first[:20] = 1.0
    second[:20] = 0.0
    paired = paired_bootstrap(first, second)
    assert paired.difference == pytest.approx((first - second).mean())
    assert paired.interval is not None
    assert 0.02 < paired.interval[0] < 0.04 < paired.interval[1] < 0.06
