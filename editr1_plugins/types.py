"""The nouns of the project, and the three protocols a plugin can fulfil.

Data flows one way: edit + principles -> verdicts -> score -> advantage -> update. Everything here is a frozen,
keyword-only record; nothing here imports torch, and nothing here knows any other module of the package.
Source of the words: Edit-R1 (arXiv 2604.27505), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol, get_args, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "CATEGORIES",
    "FOLLOW",
    "KEEP",
    "MAX_SCORE",
    "QUALITY",
    "Alarm",
    "Category",
    "Decomposer",
    "Edit",
    "Guard",
    "NoPrinciples",
    "Principle",
    "Usage",
    "Verdict",
    "Verification",
    "Verifier",
]

Category = Literal["Instruction Following", "Feature Preservation", "Image Quality"]
CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)
FOLLOW, KEEP, QUALITY = CATEGORIES

#: Upper end of every score (tau); the lower end is 0.
MAX_SCORE: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One edited image, the image it was made from, and what was asked for.

    `source` and `edited` are RGB PIL images; their sizes may differ (a verifier or guard decides what that means).
    """

    source: Image
    edited: Image
    instruction: str


@dataclass(frozen=True, kw_only=True)
class Principle:
    """One yes/no question about an edit; "yes" is what a good edit gets.

    Raises:
        ValueError: the question is blank or the category is not one of `CATEGORIES`.
    """

    question: str
    category: Category

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise ValueError("a principle needs a question, got blank text")
        if self.category not in CATEGORIES:
            raise ValueError(f"unknown category {self.category!r}; one of: {', '.join(CATEGORIES)}")


class NoPrinciples(tuple[Principle, ...]):
    """What a decomposer returns for a request it cannot serve: an empty tuple that carries the reason as `failure`."""

    failure: str

    def __new__(cls, failure: str) -> NoPrinciples:
        if not failure.strip():
            raise ValueError("NoPrinciples needs a reason")
        empty = super().__new__(cls)
        empty.failure = failure
        return empty

    def __repr__(self) -> str:
        return f"NoPrinciples({self.failure!r})"

    def __reduce__(self) -> tuple[type[NoPrinciples], tuple[str]]:
        return NoPrinciples, (self.failure,)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer to one principle: True met, False not met, None not judged (with the reason)."""

    principle: Principle
    passed: bool | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What judging one edit took; None where nobody says.

    Attributes:
        prompt_tokens, cached_tokens: of the prompt, counted once per request; `cached_tokens` came from a prefix cache.
        completion_tokens: of all samples together.
        latency: seconds until the last sample was there, retries included.

    Raises:
        ValueError: a number below 0, infinite or NaN.
    """

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    latency: float | None = None

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "latency"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, or None, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a verifier says about one edit.

    Attributes:
        score: tau in 0..10, or None when the edit could not be judged; never a guess.
        verdicts: one per principle, in the principles' order; empty when judging failed before any verdict.
        average: share of principles met as the judge reports it, in 0..1; advisory.
        failure: why `score` is None (a short word or sentence); None when there is a score.
        trace: the judge's reasoning, as text.
        flags: short words about oddities, e.g. "average_mismatch" or a guard's alarm.
        spread: standard deviation of the samples' scores, when more than one was parsed.
        samples: how many samples the score is the mean of; 0 when none was usable.
        usage: tokens and seconds it took, where the verifier knows them; two verifications that differ only here are
            equal, since it says nothing about the edit.

    Raises:
        ValueError: a score outside 0..10, an average outside 0..1, NaN, or a missing score without a failure.
    """

    score: float | None
    verdicts: tuple[Verdict, ...] = ()
    average: float | None = None
    failure: str | None = None
    trace: str = ""
    flags: tuple[str, ...] = ()
    spread: float | None = None
    samples: int = 1
    usage: Usage | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_range("score", self.score, MAX_SCORE)
        _check_range("average", self.average, 1.0)
        if self.score is None and not self.failure:
            raise ValueError("a verification without a score must say why (failure=...)")
        if self.score is not None and self.failure:
            raise ValueError(f"a verification has a score or a failure, not both: {self.score}, {self.failure!r}")


def _check_range(name: str, value: float | None, top: float) -> None:
    # NaN fails the comparison, so it is refused here as well.
    if value is not None and not (0.0 <= value <= top and math.isfinite(value)):
        raise ValueError(f"{name} must lie in 0..{top:g} or be None, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A guard's objection to one edit: the score becomes min(score, cap), or None when `cap` is None.

    An alarm can only lower or void a score. `flag` is a short word for counters, `reason` a sentence for people.
    """

    flag: str
    reason: str
    cap: float | None = 0.0

    def __post_init__(self) -> None:
        _check_range("cap", self.cap, MAX_SCORE)


@runtime_checkable
class Verifier(Protocol):
    """Judges edits against principles. Batched, synchronous, order kept.

    A verifier returns one `Verification` per edit; what it cannot judge is a `Verification` with a failure, not an
    exception. A backend that waits for a network runs its own event loop inside.
    """

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]: ...


@runtime_checkable
class Decomposer(Protocol):
    """Turns (source image, instruction) into principles; one tuple per request, `NoPrinciples` where it cannot."""

    def decompose(self, requests: Sequence[tuple[Image, str]]) -> list[tuple[Principle, ...]]: ...


@runtime_checkable
class Guard(Protocol):
    """Looks for one reward hack. `needs_judge` False: called before the verifier, with no verifications.

    Where such an early guard caps at 0 or voids, the verifier is not called for that edit at all.
    """

    needs_judge: bool

    def inspect(
        self,
        edits: Sequence[Edit],
        principles: Sequence[Sequence[Principle]],
        verifications: Sequence[Verification],
    ) -> list[Alarm | None]: ...
