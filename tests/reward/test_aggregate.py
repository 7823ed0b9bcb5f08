from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1_plugins.reward.aggregate import (
    abstain,
    aggregate,
    apply_alarms,
    as_reward,
    merge_samples,
    settle_early,
)
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Alarm, Category, Principle, Verdict, Verification

SCORES = st.floats(0, 10)


def judged(*answers: tuple[Category, bool | None], score: float | None = 5.0, **fields: object) -> Verification:
    verdicts = tuple(
        Verdict(principle=Principle(question=f"{category} {i}?", category=category), passed=passed)
        for i, (category, passed) in enumerate(answers)
    )
    failure = None if score is not None else "no_score"
    return Verification(**({"score": score, "failure": failure, "verdicts": verdicts} | fields))  # type: ignore[arg-type]


def test_score_is_tau_as_judged() -> None:
    verification = judged((FOLLOW, True), (KEEP, False), score=6.5)
    assert aggregate(verification, "score") is verification


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(FOLLOW, True), (KEEP, True), (KEEP, True), (QUALITY, False)], 7.5),
        ([(FOLLOW, True), (FOLLOW, False), (KEEP, True), (QUALITY, True)], 7.5),
        # An unedited copy keeps everything; it must not earn for it.
        ([(FOLLOW, False), (FOLLOW, False), (KEEP, True), (QUALITY, True)], 0.0),
        ([(FOLLOW, True), (KEEP, None), (QUALITY, True)], 10.0),
        ([(FOLLOW, True), (KEEP, None), (QUALITY, False)], 5.0),
        # Without knowing whether the change was made there is no number.
        ([(FOLLOW, None), (FOLLOW, True), (KEEP, True)], None),
        ([(KEEP, True), (QUALITY, True)], None),
        ([], None),
    ],
)
def test_average_is_the_share_met_gated_by_follow(answers: list[tuple[Category, bool]], expected: float | None) -> None:
    result = aggregate(judged(*answers, score=3.0), "average")
    assert result.score == expected
    assert (result.failure is None) == (expected is not None)


def test_average_exists_where_tau_could_not_be_read() -> None:
    verification = judged((FOLLOW, True), (KEEP, False), score=None)
    assert aggregate(verification, "average").score == 5.0
    assert aggregate(verification, "score").score is None


def test_average_without_verdicts_keeps_the_verifiers_reason() -> None:
    assert aggregate(Verification(score=None, failure="refusal"), "average").failure == "refusal"


def test_unknown_aggregate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown aggregate 'mean'; one of: score, average"):
        aggregate(judged(score=1.0), "mean")  # type: ignore[arg-type]


@given(st.lists(SCORES, min_size=2, max_size=9))
def test_merged_samples_are_mean_and_standard_deviation(scores: list[float]) -> None:
    merged = merge_samples([judged(score=score) for score in scores])
    assert merged.score == pytest.approx(statistics.fmean(scores), abs=1e-9)
    assert merged.spread == pytest.approx(statistics.pstdev(scores), abs=1e-6)
    assert merged.samples == len(scores)


@given(st.lists(SCORES, min_size=1, max_size=6), st.lists(SCORES, min_size=1, max_size=6))
def test_merging_in_parts_is_merging_at_once(one: list[float], other: list[float]) -> None:
    at_once = merge_samples([judged(score=score) for score in one + other])
    parts = merge_samples([merge_samples([judged(score=score) for score in part]) for part in (one, other)])
    assert parts.score == pytest.approx(at_once.score, abs=1e-9)
    assert parts.spread == pytest.approx(at_once.spread, abs=1e-6)
    assert parts.samples == at_once.samples


def test_samples_without_a_score_are_left_out() -> None:
    merged = merge_samples([judged(score=8.0), judged(score=None), judged(score=4.0)])
    assert (merged.score, merged.samples) == (6.0, 2)


def test_no_sample_with_a_score_gives_the_most_frequent_failure() -> None:
    failures = ["truncated", "refusal", "truncated"]
    merged = merge_samples([Verification(score=None, failure=failure) for failure in failures])
    assert (merged.score, merged.failure, merged.samples) == (None, "truncated", 0)


def test_verdicts_are_the_majoritys_and_a_tie_is_not_met() -> None:
    yes, no = judged((FOLLOW, True), (KEEP, True)), judged((FOLLOW, False), (KEEP, None))
    assert [verdict.passed for verdict in merge_samples([yes, no]).verdicts] == [False, True]
    assert [verdict.passed for verdict in merge_samples([yes, yes, no]).verdicts] == [True, True]
    assert [verdict.passed for verdict in merge_samples([no, no]).verdicts] == [False, None]


def test_the_reason_shown_agrees_with_the_majority() -> None:
    def answer(passed: bool, reason: str, score: float) -> Verification:
        principle = Principle(question="red?", category=FOLLOW)
        return Verification(score=score, verdicts=(Verdict(principle=principle, passed=passed, reason=reason),))

    # The sample nearest to the mean (5) is the one that is outvoted.
    merged = merge_samples([answer(False, "blue", 5.0), answer(True, "red", 1.0), answer(True, "crimson", 9.0)])
    assert (merged.verdicts[0].passed, merged.verdicts[0].reason) == (True, "red")


def test_flags_of_all_samples_are_kept_once() -> None:
    samples = [judged(score=1.0, flags=("a", "b")), judged(score=2.0, flags=("b", "c"))]
    assert merge_samples(samples).flags == ("a", "b", "c")


def test_no_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        merge_samples([])


def test_abstains_when_unsure() -> None:
    unsure = merge_samples([judged(score=1.0), judged(score=9.0)])
    assert abstain(unsure).score == 5.0
    assert abstain(unsure, max_spread=3.9).failure == "spread 4.00 above 3.9"
    assert abstain(unsure, max_spread=4.0).score == 5.0
    assert abstain(unsure, min_samples=3).failure == "too_few_samples: 2 of 3"


@given(SCORES, st.lists(st.none() | SCORES, max_size=4))
def test_alarms_only_lower_or_void(score: float, caps: list[float | None]) -> None:
    alarms = [Alarm(flag=f"f{i}", reason="because", cap=cap) for i, cap in enumerate(caps)]
    result = apply_alarms(judged(score=score, flags=("old",)), alarms)
    if None in caps:
        assert result.score is None
        assert result.failure is not None
        assert "because" in result.failure
    else:
        assert result.score == min([score, *[cap for cap in caps if cap is not None]])
    assert result.flags == ("old", *(alarm.flag for alarm in alarms))


def test_alarms_give_no_score_to_what_had_none() -> None:
    result = apply_alarms(judged(score=None), [Alarm(flag="copy", reason="same pixels", cap=0.0)])
    assert (result.score, result.failure, result.flags) == (None, "no_score", ("copy",))


def test_early_alarms_settle_only_what_no_judge_could_change() -> None:
    soft, hard = Alarm(flag="border", reason="r", cap=4.0), Alarm(flag="copy", reason="r", cap=0.0)
    void = Alarm(flag="odd", reason="r", cap=None)
    assert settle_early([]) is None
    assert settle_early([soft]) is None
    settled, voided = settle_early([soft, hard]), settle_early([hard, void])
    assert settled is not None
    assert (settled.score, settled.flags, settled.samples) == (0.0, ("border", "copy"), 0)
    assert voided is not None
    assert (voided.score, voided.flags) == (None, ("copy", "odd"))


@given(st.none() | SCORES)
def test_a_reward_is_a_finite_float_or_none(score: float | None) -> None:
    reward = as_reward(judged(score=score))
    assert reward is None if score is None else (type(reward) is float and math.isfinite(reward))
