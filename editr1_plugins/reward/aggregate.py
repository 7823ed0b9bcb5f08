"""How verdicts and scores become one number. Pure: no model, no clock, no disk.

The order is fixed: samples are merged, the aggregate picks the number, abstention and guards can only take away.

- "score" (default): tau as the judge reasoned it (Edit-R1, section 3.2: the final score is not the mean).
- "average": 10 x the share of principles met, gated by Follow, for judges whose tau is not worth much. It needs no tau,
  so it also exists where tau could not be read but the verdicts could.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Literal, get_args

from editr1_plugins.types import FOLLOW, MAX_SCORE, Alarm, Usage, Verdict, Verification

__all__ = [
    "AGGREGATES",
    "Aggregate",
    "abstain",
    "aggregate",
    "apply_alarms",
    "as_reward",
    "merge_samples",
    "settle_early",
]

Aggregate = Literal["score", "average"]
AGGREGATES: Final[tuple[Aggregate, ...]] = get_args(Aggregate)


def aggregate(verification: Verification, how: Aggregate = "score") -> Verification:
    """The verification whose `score` (0..10 or None) is computed by `how`; everything else stays as judged.

    "average" is None when there are no verdicts, no Follow principle, or a Follow principle was not judged; it is 0
    when no Follow principle is met (an unedited copy keeps everything, and must not earn for it). Keep and Quality
    principles that were not judged are left out of the mean.

    Raises:
        ValueError: `how` is not one of `AGGREGATES`.
    """
    if how == "score":
        return verification
    if how != "average":
        raise ValueError(f"unknown aggregate {how!r}; one of: {', '.join(AGGREGATES)}")
    missing = _why_no_average(verification)
    if missing:
        return replace(verification, score=None, failure=missing)
    return replace(verification, score=_gated_mean(verification.verdicts), failure=None)


def _why_no_average(verification: Verification) -> str | None:
    follow = [verdict.passed for verdict in verification.verdicts if verdict.principle.category == FOLLOW]
    if not verification.verdicts:
        return verification.failure or "no_verdicts"
    if not follow:
        return "no Follow principle to gate the average"
    if None in follow:
        return "a Follow principle was not judged"
    return None


def _gated_mean(verdicts: Sequence[Verdict]) -> float:
    judged = [verdict for verdict in verdicts if verdict.passed is not None]
    if not any(verdict.passed for verdict in judged if verdict.principle.category == FOLLOW):
        return 0.0
    return MAX_SCORE * sum(bool(verdict.passed) for verdict in judged) / len(judged)


def merge_samples(samples: Sequence[Verification]) -> Verification:
    """Several judgements of the same edit as one.

    The score is the mean of the samples that have one, `spread` their standard deviation (of the population), `samples`
    their count. A verdict is the majority's; a tie counts as not met (uncertain is 0, the paper's rule), and None where
    no sample judged it. The trace comes from the sample nearest to the mean, and so do the reasons that agree with the
    majority. With no score at all, the failure is the most frequent one. Tokens are summed over all samples, since each
    was a request; the latency is the longest.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("merge_samples needs at least one sample")
    if len(samples) == 1:
        return samples[0]
    flags = tuple(dict.fromkeys(flag for sample in samples for flag in sample.flags))
    usage = _total([sample.usage for sample in samples if sample.usage is not None])
    scored = [(sample.score, sample) for sample in samples if sample.score is not None]
    if not scored:
        failure = Counter(sample.failure for sample in samples).most_common(1)[0][0]
        shown = next(sample for sample in samples if sample.failure == failure)
        verdicts = _majority([sample.verdicts for sample in samples], shown.verdicts)
        return replace(shown, verdicts=verdicts, flags=flags, spread=None, samples=0, usage=usage)
    score, spread, count = _pooled([sample for _, sample in scored])
    shown = min(scored, key=lambda pair: abs(pair[0] - score))[1]
    averages = [sample.average for _, sample in scored if sample.average is not None]
    return replace(
        shown,
        score=score,
        verdicts=_majority([sample.verdicts for _, sample in scored], shown.verdicts),
        average=math.fsum(averages) / len(averages) if averages else None,
        flags=flags,
        spread=spread if count > 1 else None,
        samples=count,
        usage=usage,
    )


def _total(usages: Sequence[Usage]) -> Usage | None:
    if not usages:
        return None

    def tokens(numbers: Iterable[int | None]) -> int | None:
        known = [number for number in numbers if number is not None]
        return sum(known) if known else None

    return Usage(
        prompt_tokens=tokens(usage.prompt_tokens for usage in usages),
        cached_tokens=tokens(usage.cached_tokens for usage in usages),
        completion_tokens=tokens(usage.completion_tokens for usage in usages),
        latency=max((usage.latency for usage in usages if usage.latency is not None), default=None),
    )


def _pooled(scored: Sequence[Verification]) -> tuple[float, float, int]:
    """Mean, population standard deviation and count over samples that may be means of several samples themselves."""
    weights = [max(sample.samples, 1) for sample in scored]
    scores = [sample.score or 0.0 for sample in scored]
    count = sum(weights)
    mean = math.fsum(weight * score for weight, score in zip(weights, scores, strict=True)) / count
    within = [weight * (sample.spread or 0.0) ** 2 for weight, sample in zip(weights, scored, strict=True)]
    between = [weight * (score - mean) ** 2 for weight, score in zip(weights, scores, strict=True)]
    # Rounding must not push a mean of tens above ten.
    return min(max(mean, 0.0), MAX_SCORE), math.sqrt(math.fsum([*within, *between]) / count), count


def _majority(answers: Sequence[Sequence[Verdict]], shown: Sequence[Verdict]) -> tuple[Verdict, ...]:
    complete = [verdicts for verdicts in answers if verdicts]
    template = shown or (complete[0] if complete else ())
    return tuple(
        _winner(verdict, [verdicts[i] for verdicts in complete if i < len(verdicts)])
        for i, verdict in enumerate(template)
    )


def _winner(shown: Verdict, answers: Sequence[Verdict]) -> Verdict:
    """The majority's verdict with a reason somebody gave for it; the shown sample's where it agrees."""
    passed = _vote([answer.passed for answer in answers])
    return next(answer for answer in (shown, *answers) if answer.passed == passed)


def _vote(votes: Iterable[bool | None]) -> bool | None:
    cast = [vote for vote in votes if vote is not None]
    return 2 * sum(cast) > len(cast) if cast else None


def abstain(verification: Verification, *, min_samples: int = 1, max_spread: float | None = None) -> Verification:
    """No score where the judge itself is not sure: fewer than `min_samples` parsed, or `spread` above `max_spread`."""
    if verification.score is None:
        return verification
    if verification.samples < min_samples:
        return replace(verification, score=None, failure=f"too_few_samples: {verification.samples} of {min_samples}")
    if max_spread is not None and verification.spread is not None and verification.spread > max_spread:
        return replace(verification, score=None, failure=f"spread {verification.spread:.2f} above {max_spread:g}")
    return verification


def settle_early(alarms: Sequence[Alarm]) -> Verification | None:
    """The outcome when early alarms alone decide it (a cap of 0, or void), else None: the judge must be asked.

    Nothing a judge could say changes min(score, 0) or a voided score, so the call is saved.
    """
    if any(alarm.cap is None for alarm in alarms):
        return apply_alarms(Verification(score=0.0, samples=0), alarms)
    if any(alarm.cap == 0.0 for alarm in alarms):
        return Verification(score=0.0, flags=_flags((), alarms), samples=0)
    return None


def apply_alarms(verification: Verification, alarms: Sequence[Alarm]) -> Verification:
    """The verification after guards objected: min(score, cap), or no score where an alarm voids; flags are added.

    A void outweighs every cap. What had no score before keeps having none.
    """
    if not alarms:
        return verification
    flags = _flags(verification.flags, alarms)
    if verification.score is None:
        return replace(verification, flags=flags)
    void = next((alarm for alarm in alarms if alarm.cap is None), None)
    if void is not None:
        return replace(verification, score=None, failure=f"voided ({void.flag}): {void.reason}", flags=flags)
    caps = [alarm.cap for alarm in alarms if alarm.cap is not None]
    return replace(verification, score=min(verification.score, *caps), flags=flags)


def _flags(flags: Sequence[str], alarms: Sequence[Alarm]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*flags, *(alarm.flag for alarm in alarms)]))


def as_reward(verification: Verification) -> float | None:
    """What a trainer gets: a plain float in 0..10, or None for an edit that was not judged."""
    return None if verification.score is None else float(verification.score)
