"""Noisy judges of MiniEdit: the pool whose traces a cold start chooses from.

A teacher sees what the verifier `measure` sees, and is wrong about some of it. It tells what became of each part that
the instruction names, in their order, and nothing else; its verdicts cover every principle. Its score weighs what was
kept and how clean the image is too lightly, which is what human preferences can put right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import Ask, parse_question, subject_of
from editr1_plugins.types import FOLLOW, KEEP, MAX_SCORE, QUALITY, Category, Edit, Principle, Verdict, Verification
from editr1_plugins.verifiers.measuring.bench import Bench, SourceImage

__all__ = ["NoisyTeacher"]

#: Degrees from which the teacher calls a principle met, as `measure` does.
_MET: Final[dict[Category, float]] = {FOLLOW: 0.65, KEEP: 0.6, QUALITY: 0.6}
_PARTLY: Final = 0.2
#: What a verdict that was turned round does to the degree behind it.
_MISSED, _IMAGINED = 0.15, 0.95
_STATES: Final = (0.0, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class NoisyTeacher:
    """A verifier whose noise is drawn from `seed` and the edit, so equal edits get equal verifications.

    Attributes:
        name: part of its identity.
        flip: share of the verdicts that are turned round, and of the parts that are told wrongly.
        spread: standard deviation of the noise on the score (0..10).
        blindness: weight of what was not kept, or not clean, in the score: 1 takes it off in full, 0 ignores it.
        seed: of its noise.
    """

    name: str
    flip: float = 0.08
    spread: float = 1.5
    blindness: float = 0.25
    seed: int = 0

    @property
    def identity(self) -> str:
        return f"miniedit-teacher/1 {self.name} {self.flip:g} {self.spread:g} {self.blindness:g} {self.seed}"

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        """One verification per edit; the trace holds the observations alone."""
        return [self._judge(edit, asked) for edit, asked in zip(edits, principles, strict=True)]

    def _judge(self, edit: Edit, principles: Sequence[Principle]) -> Verification:
        asks = [parse_question(principle.question) for principle in principles]
        known = [ask for ask in asks if ask is not None]
        if len(known) < len(asks) or not any(principle.category == FOLLOW for principle in principles):
            return Verification(score=None, failure="this teacher knows the questions of the rules decomposer only")
        bench = Bench(SourceImage(edit.source.convert("RGB")), edit.edited.convert("RGB"), known)
        degrees = [1.0 if (degree := bench.measure(ask).degree) is None else degree for ask in known]
        rng = np.random.default_rng(self._seed(edit))
        seen = [
            ((_MISSED if degree >= _MET[principle.category] else _IMAGINED) if rng.random() < self.flip else degree)
            for principle, degree in zip(principles, degrees, strict=True)
        ]
        states = self._states(rng, known, principles, degrees)
        verdicts = tuple(
            Verdict(principle=principle, passed=degree >= _MET[principle.category])
            for principle, degree in zip(principles, seen, strict=True)
        )
        score = self._score(rng, list(states.values()), principles, seen)
        return Verification(
            score=score,
            verdicts=verdicts,
            average=round(sum(bool(verdict.passed) for verdict in verdicts) / len(verdicts), 2),
            trace="\n".join(f"{subject}: {_told(state)}" for subject, state in states.items()),
            samples=1,
        )

    def _seed(self, edit: Edit) -> int:
        key = hashlib.blake2b(f"{self.identity}\0{edit.instruction}".encode(), digest_size=8)
        for image in (edit.source, edit.edited):
            key.update(image.convert("RGB").tobytes())
        return int.from_bytes(key.digest(), "big")

    def _states(
        self,
        rng: np.random.Generator,
        asks: Sequence[Ask],
        principles: Sequence[Principle],
        degrees: Sequence[float],
    ) -> dict[str, float]:
        """How far each requested change was made, by its subject."""
        states: dict[str, float] = {}
        for ask, principle, degree in zip(asks, principles, degrees, strict=True):
            if principle.category == FOLLOW:
                subject = subject_of(ask)[1]
                subject = subject if subject.startswith("the ") else f"the {subject}"
                states[subject] = min(degree, states.get(subject, 1.0))
        return {
            subject: float(rng.choice(_STATES)) if rng.random() < self.flip else state
            for subject, state in states.items()
        }

    def _score(
        self, rng: np.random.Generator, states: list[float], principles: Sequence[Principle], seen: list[float]
    ) -> float:
        """In steps of 0.5."""
        value = float(np.mean(states))
        for category in (KEEP, QUALITY):
            own = [degree for principle, degree in zip(principles, seen, strict=True) if principle.category == category]
            value *= 1 - self.blindness * (1 - float(np.mean(own))) if own else 1.0
        return round(2 * float(np.clip(MAX_SCORE * value + rng.normal(0, self.spread), 0, MAX_SCORE))) / 2


def _told(state: float) -> str:
    return "done" if state >= _MET[FOLLOW] else "partly done" if state > _PARTLY else "not done"
