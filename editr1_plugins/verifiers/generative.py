"""A VLM as the verifier: asked with the principles, sampled, read by Phi, pooled, and believed only where it agrees.

What a judge or its server does wrong ends as `Verification(score=None, failure=...)` of that edit alone.
Source: Edit-R1 (arXiv 2604.27505), section 3.1.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from editr1_plugins.backends.chat import ChatBackend, ChatReply, ChatRequest, Sampling
from editr1_plugins.errors import ConfigError, Editr1Error
from editr1_plugins.principles.asking import ask
from editr1_plugins.types import FOLLOW, MAX_SCORE, Edit, Principle, Usage, Verdict, Verification
from editr1_plugins.verifiers.expected import expected_score
from editr1_plugins.verifiers.parsing import parse_trace
from editr1_plugins.verifiers.prompting import Mode, asks_for_verdicts, judge_request, prompt_version

__all__ = ["AGGREGATES", "MAX_TRACE", "Aggregate", "GenerativeVerifier", "Judgement", "Usage"]

#: What one sample's score is: tau as the judge wrote it; 10 x the share of principles met; tau by its probabilities.
Aggregate = Literal["score", "average", "expected"]
AGGREGATES: Final[tuple[Aggregate, ...]] = get_args(Aggregate)

#: Longest trace kept, in characters; of a longer one the middle is left out.
MAX_TRACE: Final = 20_000

#: Temperature where several samples are drawn and none is given; equal samples would say nothing about doubt.
_WARM: Final = 0.7
#: Flags of Phi that speak of verdicts; they mean nothing where none were asked for.
_OF_VERDICTS: Final = ("no_verdicts", "extra_principles", "inconsistent", "average_mismatch")
_MAX_REASON: Final = 300
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verification and what it took, which the verification carries as well."""

    verification: Verification
    usage: Usage


class GenerativeVerifier:
    """Any VLM behind a `ChatBackend` as a verifier.

    The score of an edit is the mean of its samples' scores, `spread` their population standard deviation, `samples` how
    many there were. A principle's verdict is the majority of the samples with a score; a tie is "not met" (uncertain is
    0, the paper's rule). The trace is that of the sample nearest to the mean, a server's separate reasoning included.

    `identity` names prompt version, mode, sampling and model: part of records and cache keys. `prompt_version` and
    `model_version` are the two of these that records also name by themselves.

    Args:
        backend: the VLM.
        mode: "think" (reasoning and score), "verify" (verdicts and score) or "think+verify".
        samples: replies drawn per edit.
        aggregate: "score"; "average" (10 x share of judged principles met, 0 where no Follow principle is met); or
            "expected" (the log-probabilities' mean, for backends that give them).
        min_samples: fewer usable samples than this give no score.
        max_spread: a larger spread gives no score; None: any is fine.
        temperature: None means 0 for one sample, 0.7 for several.
        max_tokens: of one reply, reasoning included.
        seed: passed on where the backend supports one.

    Raises:
        ConfigError: a setting out of range, or settings that exclude each other.
    """

    thread_safe: Final = True  # as every backend is

    def __init__(
        self,
        backend: ChatBackend,
        *,
        mode: Mode = "think+verify",
        samples: int = 1,
        aggregate: Aggregate = "score",
        min_samples: int = 1,
        max_spread: float | None = None,
        temperature: float | None = None,
        max_tokens: int = 2048,
        seed: int | None = None,
    ) -> None:
        _check_settings(mode, samples, aggregate, min_samples, max_spread, temperature)
        if temperature is None:
            temperature = _WARM if samples > 1 else 0.0
        try:
            self.sampling = Sampling(
                temperature=temperature,
                max_tokens=max_tokens,
                samples=samples,
                seed=seed,
                logprobs=aggregate == "expected",
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.backend = backend
        self.mode: Mode = mode
        self.aggregate: Aggregate = aggregate
        self.min_samples, self.max_spread = min_samples, max_spread
        self.prompt_version, self.model_version = prompt_version(mode), backend.identity
        drawn = f"{aggregate} of {samples} at {temperature:g}, {max_tokens} tokens"
        limits = f"min_samples={min_samples} max_spread={max_spread}"
        self.identity = f"{self.prompt_version} {drawn} {limits} by {self.model_version}"

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        """One verification per edit, in order.

        Raises:
            ValueError: not as many lists of principles as edits.
        """
        return [judgement.verification for judgement in self.judge(edits, principles)]

    def judge(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Judgement]:
        """As `verify`, with the tokens and seconds that each edit took."""
        if len(edits) != len(principles):
            raise ValueError(f"{len(edits)} edits but {len(principles)} lists of principles")
        judgements: dict[int, Judgement] = {}
        requests: dict[int, ChatRequest] = {}
        for row, (edit, asked) in enumerate(zip(edits, principles, strict=True)):
            try:
                requests[row] = judge_request(edit, asked, self.mode)
            except Exception as error:  # a broken image, or data that is no instruction
                judgements[row] = Judgement(verification=_unjudged(_reason("bad_request", error)), usage=Usage())
        for row, replies in zip(requests, ask(self.backend, list(requests.values()), self.sampling), strict=True):
            usage = _usage(replies)
            judged = replace(self._pool(principles[row], replies), usage=usage)
            judgements[row] = Judgement(verification=judged, usage=usage)
        return [judgements[row] for row in range(len(edits))]

    def _pool(self, principles: Sequence[Principle], replies: Sequence[ChatReply]) -> Verification:
        try:
            samples = [self._read(reply, principles) for reply in replies]
        except Exception as error:
            _log.exception("a reply could not be read")
            return _unjudged(_reason("unreadable", error))
        return _abstained(_pooled(samples, principles), self.min_samples, self.max_spread)

    def _read(self, reply: ChatReply, principles: Sequence[Principle]) -> _Sample:
        trace = _trace(reply)
        if reply.failure is not None:
            return _Sample(score=None, failure=reply.failure or "no reason given", trace=trace)
        read = parse_trace(reply.text, [principle.question for principle in principles], reply.finish_reason)
        if not asks_for_verdicts(self.mode):
            read = replace(read, verdicts=(), average=None, flags=tuple(f for f in read.flags if f not in _OF_VERDICTS))
        score, failure = read.score, read.failure
        if self.aggregate == "average":
            score, failure = _split(_gated_average(principles, read.verdicts, read.failure))
        elif self.aggregate == "expected" and score is not None:
            score, failure = _split(expected_score(reply.logprobs, score))
        return _Sample(
            score=score,
            failure=failure,
            trace=trace,
            verdicts=read.verdicts,
            average=read.average,
            flags=read.flags,
        )


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """One reply as read: a score, or why there is none."""

    score: float | None
    failure: str | None
    trace: str
    verdicts: tuple[bool | None, ...] = ()
    average: float | None = None
    flags: tuple[str, ...] = ()


def _check_settings(
    mode: Mode,
    samples: int,
    aggregate: Aggregate,
    min_samples: int,
    max_spread: float | None,
    temperature: float | None,
) -> None:
    if aggregate not in AGGREGATES:
        raise ConfigError(f"unknown aggregate {aggregate!r}; one of: {', '.join(AGGREGATES)}")
    if aggregate == "average" and not asks_for_verdicts(mode):
        raise ConfigError('aggregate "average" needs verdicts, which mode "think" does not ask for')
    if not 1 <= min_samples <= samples:
        raise ConfigError(f"min_samples must lie in 1..samples ({samples}), got {min_samples}")
    if max_spread is not None and not 0.0 <= max_spread < math.inf:
        raise ConfigError(f"max_spread must be at least 0 or None, got {max_spread}")
    if samples > 1 and temperature == 0.0:
        raise ConfigError(f"{samples} samples at temperature 0 are all the same; set a temperature, or samples=1")


def _gated_average(
    principles: Sequence[Principle], verdicts: Sequence[bool | None], failure: str | None
) -> float | str:
    """10 x the share met of the principles that were judged; nothing kept counts where nothing asked for was done."""
    follow = [met for each, met in zip(principles, verdicts, strict=False) if each.category == FOLLOW]
    judged = [met for met in verdicts if met is not None]
    if not judged:
        return failure or "no_verdicts"
    if not follow or None in follow:
        return "follow_not_judged"
    return MAX_SCORE * sum(judged) / len(judged) if any(follow) else 0.0


def _split(outcome: float | str) -> tuple[float | None, str | None]:
    return (None, outcome) if isinstance(outcome, str) else (outcome, None)


def _pooled(samples: Sequence[_Sample], principles: Sequence[Principle]) -> Verification:
    scored = [(sample.score, sample) for sample in samples if sample.score is not None]
    counted = [sample for _, sample in scored] or list(samples)
    flags = dict.fromkeys(flag for sample in counted for flag in sample.flags)
    if not scored:
        failure = Counter(sample.failure or "no_score" for sample in samples).most_common(1)[0][0]
        shown = next((sample for sample in samples if sample.trace), samples[0])
        verdicts = _majority(samples, principles)
        return Verification(
            score=None, failure=failure, verdicts=verdicts, flags=tuple(flags), trace=shown.trace, samples=0
        )
    if len(scored) < len(samples):
        flags["samples_failed"] = None
    scores = [score for score, _ in scored]
    # Rounding must not push a mean of tens above ten.
    mean = min(math.fsum(scores) / len(scores), MAX_SCORE)
    averages = [sample.average for sample in counted if sample.average is not None]
    return Verification(
        score=mean,
        verdicts=_majority(counted, principles),
        average=min(math.fsum(averages) / len(averages), 1.0) if averages else None,
        trace=min(scored, key=lambda pair: abs(pair[0] - mean))[1].trace,
        flags=tuple(flags),
        spread=math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores)) if len(scores) > 1 else None,
        samples=len(scored),
    )


def _majority(samples: Sequence[_Sample], principles: Sequence[Principle]) -> tuple[Verdict, ...]:
    verdicts = []
    for place, principle in enumerate(principles):
        votes = [sample.verdicts[place] for sample in samples if place < len(sample.verdicts)]
        cast = [vote for vote in votes if vote is not None]
        met = 2 * sum(cast) > len(cast) if cast else None
        reason = f"{sum(cast)} of {len(cast)} samples say yes" if len(cast) > 1 else ""
        verdicts.append(Verdict(principle=principle, passed=met, reason=reason if cast else "no verdict was read"))
    return tuple(verdicts)


def _abstained(verification: Verification, min_samples: int, max_spread: float | None) -> Verification:
    if verification.score is None:
        return verification
    if verification.samples < min_samples:
        return _without_score(verification, f"too_few_samples: {verification.samples} of at least {min_samples}")
    if max_spread is not None and (verification.spread or 0.0) > max_spread:
        return _without_score(verification, f"spread: {verification.spread:.2f} is above {max_spread:g}")
    return verification


def _without_score(verification: Verification, failure: str) -> Verification:
    return replace(verification, score=None, failure=failure)


def _unjudged(failure: str) -> Verification:
    return Verification(score=None, failure=failure, samples=0)


def _reason(word: str, error: Exception) -> str:
    text = str(error) if isinstance(error, Editr1Error) else f"{type(error).__name__}: {error}"
    return f"{word}: {text}"[:_MAX_REASON]


def _trace(reply: ChatReply) -> str:
    trace = "\n\n".join(part for part in (reply.reasoning, reply.text) if part)
    if len(trace) <= MAX_TRACE:
        return trace
    # The end holds the verdicts and the score, the beginning what the judge saw.
    note = f"\n[... {len(trace) - MAX_TRACE} characters left out ...]\n"
    return trace[: MAX_TRACE // 2] + note + trace[len(trace) - MAX_TRACE // 2 :]


def _usage(replies: Sequence[ChatReply]) -> Usage:
    def known(name: str) -> list[float]:
        return [value for reply in replies if (value := getattr(reply, name)) is not None]

    prompts, cached, completions = known("prompt_tokens"), known("cached_tokens"), known("completion_tokens")
    return Usage(
        prompt_tokens=int(max(prompts)) if prompts else None,
        cached_tokens=int(max(cached)) if cached else None,
        completion_tokens=int(sum(completions)) if completions else None,
        latency=max(known("latency"), default=None),
    )
