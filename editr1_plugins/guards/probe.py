"""Probe of a judge: shown the source as if it were the edit, it must score about 0.

A judge that pays for an unchanged picture teaches the editor to do nothing. Source: Edit-R1 (arXiv 2604.27505),
judging rule "no edit happened means 0".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL.Image import Image

from editr1_plugins.errors import ComponentError, ConfigError, boundary
from editr1_plugins.types import Edit, Principle, Verification, Verifier

__all__ = ["ProbeReport", "Scorer", "probe"]


@runtime_checkable
class Scorer(Protocol):
    """What makes its own principles, as `EditRRMReward` does."""

    def score(self, edits: Sequence[Edit]) -> list[Verification]: ...


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """What a judge gave to unchanged pictures.

    Attributes:
        verifications: one per source, in order.
        limit: the score, 0..10, up to which the judge passes.
    """

    verifications: tuple[Verification, ...]
    limit: float

    @property
    def scores(self) -> tuple[float, ...]:
        """The scores (0..10) of those that were judged."""
        return tuple(one.score for one in self.verifications if one.score is not None)

    @property
    def mean(self) -> float | None:
        """Mean score; None when nothing was judged."""
        return sum(self.scores) / len(self.scores) if self.scores else None

    @property
    def worst(self) -> float | None:
        """Highest score; None when nothing was judged."""
        return max(self.scores, default=None)

    @property
    def above(self) -> tuple[int, ...]:
        """Positions of the sources that were paid more than `limit` for no edit."""
        return tuple(
            row for row, one in enumerate(self.verifications) if one.score is not None and one.score > self.limit
        )

    @property
    def unjudged(self) -> int:
        """How many got no score."""
        return len(self.verifications) - len(self.scores)

    @property
    def guarded(self) -> int:
        """How many got their score from a guard without a call of the judge (`samples` is 0): they do not test it."""
        return sum(one.score is not None and one.samples == 0 for one in self.verifications)

    @property
    def passed(self) -> bool:
        """The judge itself scored at least one source, and none above `limit`."""
        return bool(self.scores) and self.guarded < len(self.scores) and not self.above

    def __str__(self) -> str:
        count = len(self.verifications)
        if self.mean is None or self.worst is None:
            return f"probe: none of {count} unchanged pictures was judged"
        text = (
            f"probe: {len(self.scores)} of {count} unchanged pictures judged, mean {self.mean:.2f}, highest "
            f"{self.worst:.2f} of 10; {len(self.above)} above {self.limit:g}"
        )
        if self.guarded:
            text += f"; {self.guarded} were scored by a guard and do not test the judge (probe it with guards=())"
        return f"{text}: {'passed' if self.passed else 'not passed'}"


def probe(
    judge: Scorer | Verifier,
    sources: Sequence[Image],
    instructions: Sequence[str],
    principles: Sequence[Sequence[Principle]] | None = None,
    *,
    limit: float = 1.0,
) -> ProbeReport:
    """Ask `judge` to score every source against itself.

    A reward with the guard `no-edit` answers 0 without asking its judge; give one without guards, or the verifier.

    Args:
        judge: a reward (`score(edits)`), or a verifier, which needs `principles`.
        sources: RGB images.
        instructions: one per source; each must ask for a change that the source does not already show.
        principles: one sequence per source; only for a verifier.
        limit: score, 0..10, that an unchanged picture may get at most.

    Raises:
        ConfigError: lengths differ, nothing to probe, a verifier without principles, or an object that is neither.
        ComponentError: the judge raised or returned another number of verifications.
    """
    if not sources or len(sources) != len(instructions) or (principles is not None and len(principles) != len(sources)):
        lengths = f"{len(sources)} sources, {len(instructions)} instructions"
        more = "" if principles is None else f", {len(principles)} lists of principles"
        raise ConfigError(f"probe needs one instruction (and list of principles) per source, got {lengths}{more}")
    edits = [
        Edit(source=source, edited=source.copy(), instruction=ask)
        for source, ask in zip(sources, instructions, strict=True)
    ]
    who = type(judge).__name__
    with boundary(who):
        if principles is None and isinstance(judge, Scorer):
            answers = judge.score(edits)
        elif principles is not None and isinstance(judge, Verifier):
            answers = judge.verify(edits, principles)
        elif isinstance(judge, Verifier):
            raise ConfigError(f"{who} is a verifier: give probe the principles to verify")
        else:
            raise ConfigError(f"{who} has no score(edits), and no verify(edits, principles) to use the principles with")
    if len(answers) != len(edits):
        raise ComponentError(f"{who} returned {len(answers)} verifications for {len(edits)} edits")
    return ProbeReport(verifications=tuple(answers), limit=limit)
