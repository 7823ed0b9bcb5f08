"""What happened to one edit, as plain data: enough to show a person why it got this reward, and to judge it again."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from editr1_plugins.types import Principle, Verdict, Verification

__all__ = ["RECORD_VERSION", "EditRecord", "RaisedAlarm", "failure_kind", "identity_of", "versions_of"]

#: Raised when a field changes its meaning; readers check it.
RECORD_VERSION: Final = 1

_CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
_NUMBERS: Final = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class RaisedAlarm:
    """A guard's objection: which guard, its flag and reason, and its cap (None: it voids the score)."""

    guard: str
    flag: str
    reason: str
    cap: float | None


@dataclass(frozen=True, kw_only=True)
class EditRecord:
    """One judged edit, or one that could not be judged.

    Attributes:
        instruction: as given.
        principles: the questions asked; empty when there were none.
        verification: the outcome after aggregate and guards; its score is the reward.
        judged_score: tau (0..10) as the verifier gave it, before aggregate and guards; None without one.
        alarms: what guards said.
        verifier, decomposer: who judged, with versions where they tell one.
        aggregate: how the score was computed.
        seconds: wall time of the verifier call that held this edit; None when the verifier was not called.
        batch: how many edits that call held; 0 when the verifier was not called.
        prompt_version, model_version: of the judge's wording and model, see `versions_of`; None where it has none.
    """

    instruction: str
    principles: tuple[Principle, ...]
    verification: Verification
    judged_score: float | None
    alarms: tuple[RaisedAlarm, ...]
    verifier: str
    decomposer: str
    aggregate: str
    seconds: float | None
    batch: int
    prompt_version: str | None = None
    model_version: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON-able data; verdicts in the principles' order, each with its question."""
        outcome = self.verification
        return {
            "version": RECORD_VERSION,
            "instruction": self.instruction,
            "score": outcome.score,
            "failure": outcome.failure,
            "flags": list(outcome.flags),
            "average": outcome.average,
            "spread": outcome.spread,
            "samples": outcome.samples,
            "judged_score": self.judged_score,
            "principles": [asdict(principle) for principle in self.principles],
            "verdicts": [_verdict_row(verdict) for verdict in outcome.verdicts],
            "trace": outcome.trace,
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "verifier": self.verifier,
            "prompt_version": self.prompt_version,
            "model_version": self.model_version,
            "decomposer": self.decomposer,
            "aggregate": self.aggregate,
            "seconds": self.seconds,
            "batch": self.batch,
            "usage": asdict(outcome.usage) if outcome.usage else None,
        }


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    return {**asdict(verdict.principle), "passed": verdict.passed, "reason": verdict.reason}


def identity_of(component: object, spec: str | None = None) -> str:
    """Who a verifier or decomposer is: its own `identity`, else the spec it came from, else its class.

    Credentials inside a URL are left out. The identity is part of every cache key, so two components that answer
    differently need two identities.
    """
    named = getattr(component, "identity", None)
    kind = type(component)
    text = named if isinstance(named, str) and named else spec or f"{kind.__module__}.{kind.__qualname__}"
    return _CREDENTIALS.sub("//", text)


def versions_of(verifier: object) -> tuple[str | None, str | None]:
    """(prompt version, model version) of a verifier that says them in attributes of these names, else None each."""
    named = (getattr(verifier, name, None) for name in ("prompt_version", "model_version"))
    prompt, model = (_CREDENTIALS.sub("//", text) if isinstance(text, str) and text else None for text in named)
    return prompt, model


def failure_kind(failure: str) -> str:
    """The kind of a failure, for counting: what stands before the first colon, without its numbers."""
    kind = _NUMBERS.sub("#", failure.partition(":")[0].strip())
    return kind if len(kind) <= 80 else kind[:79] + "…"
