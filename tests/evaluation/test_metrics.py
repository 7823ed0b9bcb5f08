"""Credits, rates, rankings, position bias and stability of judged pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1_plugins.evaluation.metrics import (
    TIES,
    by_category,
    credits,
    group_credits,
    macro,
    mean,
    outcomes_of_scores,
    position_bias,
    rates,
    stability,
)

NAN = math.nan
PREFERENCES = [1, 1, 1, 1, 0, 0, 0, -1]
OUTCOMES = [1, -1, 0, None, 0, 1, None, -1]

pairs = st.lists(st.tuples(st.sampled_from([1, -1, 0]), st.sampled_from([1, -1, 0, None])), min_size=1, max_size=40)


class TestCredits:
    @pytest.mark.parametrize(
        ("ties", "expected"),
        [
            ("strict", [1, 0, 0, 0, 1, 0, 0, 1]),
            ("half", [1, 0, 0.5, 0, 1, 0.5, 0, 1]),
            ("excluded", [1, 0, NAN, 0, NAN, NAN, NAN, 1]),
        ],
    )
    def test_each_way_to_count_ties(self, ties: str, expected: list[float]) -> None:
        np.testing.assert_array_equal(credits(PREFERENCES, OUTCOMES, ties), expected)

    @given(pairs)
    def test_a_failure_never_pays(self, rows: list[tuple[int, int | None]]) -> None:
        meant, said = [row[0] for row in rows], [row[1] for row in rows]
        for ties in TIES:
            credit = credits(meant, said, ties)
            failed = [place for place, each in enumerate(said) if each is None]
            assert all(credit[place] in (0.0,) or math.isnan(credit[place]) for place in failed)
            silent = credits(meant, [None] * len(meant), ties)
            assert np.nansum(silent) == 0

    @given(pairs)
    def test_the_order_of_the_edits_does_not_matter(self, rows: list[tuple[int, int | None]]) -> None:
        meant, said = [row[0] for row in rows], [row[1] for row in rows]
        turned = credits([-each for each in meant], [None if each is None else -each for each in said], "half")
        np.testing.assert_array_equal(credits(meant, said, "half"), turned)

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="ties must be one of"):
            credits([1], [1], "some")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="2 preferences but 1"):
            credits([1, 1], [1], "strict")

    def test_rates(self) -> None:
        assert rates(OUTCOMES) == (0.25, 0.25)
        assert all(math.isnan(each) for each in rates([]))


def test_scores_give_outcomes_and_rounding_gives_ties() -> None:
    outcomes = outcomes_of_scores([7.0, 3.0, 0.1 + 0.2, None, 5.0], [6.5, 4.0, 0.3, 1.0, None])
    np.testing.assert_array_equal(outcomes, [1, -1, 0, NAN, NAN])


def test_categories_count_alike_in_the_macro_mean() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0, NAN])
    names = ["many", "many", "many", "few", "none"]
    assert by_category(values, names)["many"] == (3, 1.0)
    assert by_category(values, names)["none"][0] == 0
    assert macro(values, names) == 0.5
    assert mean(values) == 0.75


def test_a_ranking_is_right_where_all_its_pairs_are() -> None:
    names, right = group_credits(np.array([1, 1, 1, 1, 0, 1, NAN]), ["a", "a", "a", "b", "b", "b", "c"])
    assert names == ["a", "b"]
    np.testing.assert_array_equal(right, [1, 0])


class TestPositionBias:
    def test_a_judge_that_always_takes_the_first_place(self) -> None:
        bias = position_bias([1, 1, 1], [-1, -1, -1])
        assert (bias.first, bias.flips, bias.consistent, bias.pairs) == (1.0, 1.0, 0.0, 3)

    def test_a_judge_without_bias(self) -> None:
        bias = position_bias([1, -1, 0], [1, -1, 0])
        assert (bias.first, bias.flips, bias.consistent) == (0.5, 0.0, 1.0)

    def test_a_tie_in_one_order_is_inconsistent_but_no_flip_and_failures_are_left_out(self) -> None:
        bias = position_bias([0, None, 1], [1, 1, 1])
        assert (bias.pairs, bias.consistent, bias.flips) == (2, 0.5, 0.0)


class TestStability:
    def test_the_mean_of_samples_beats_a_noisy_sample(self) -> None:
        noise = np.random.default_rng(0).normal(size=(8, 300))
        table = stability((6 + 2 * noise[:, ::-1]).tolist(), (5 + 2 * noise).tolist(), [1] * 300)
        assert list(table) == [1, 2, 4, 8]
        assert table[8]["accuracy"] > table[4]["accuracy"] > table[1]["accuracy"] + 0.02
        assert table[1]["agreement"] == 1.0
        assert table[8]["agreement"] < table[4]["agreement"] < 1.0

    def test_samples_that_failed_are_left_out_of_the_mean(self) -> None:
        table = stability([[None, None], [8.0, None], [6.0, None]], [[5.0, 5.0]] * 3, [1, 1])
        assert list(table) == [1, 2, 3]
        assert (table[1]["accuracy"], table[1]["failures"]) == (0.0, 1.0)
        assert (table[3]["accuracy"], table[3]["failures"]) == (0.5, 0.5)
