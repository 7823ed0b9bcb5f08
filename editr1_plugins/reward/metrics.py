"""What a trainer's log shows of a judged batch: rates by `log_metric`, texts per row by `log_extra`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from editr1_plugins.types import CATEGORIES, Verdict, Verification

__all__ = ["MAX_FLAGS", "UNREACHED", "BatchLogger", "outcome_text", "verdict_text", "was_reached"]

#: Most different flags that get a metric of their own; judges of third parties may invent any number.
MAX_FLAGS: Final = 50

#: First words of failures (see `backends`) that say that the server gave no answer to what was asked.
UNREACHED: Final = frozenset(
    {
        *("connection", "timeout", "server_error", "rate_limited", "unauthorized", "forbidden", "not_found"),
        *("redirect", "html", "bad_json", "no_choices", "empty_choices"),
    }
)

_NO_PRINCIPLES: Final = "no_principles: "
_RAISED: Final = re.compile(r"(?:verifier|decomposer) '[^']*' raised ")
_UNSAFE: Final = re.compile(r"[^0-9A-Za-z_.-]+")


class BatchLogger:
    """Logs batches under `name/...` through TRL's callbacks.

    - `name/failure_rate`: share of rows without a score.
    - `name/unavailable_rate`: of the rows that a judge was asked for, the share for which nobody could be reached; once
      there was one. 1.0 tells a trainer that nobody judges (see `was_reached`).
    - `name/pass_rate/CATEGORY`: share of judged principles that are met, where any was judged.
    - `name/flag/FLAG`: share of rows with the flag. Once seen, a flag is logged for every batch, since TRL averages the
      values it was given, and a rate that leaves out its zeros would be too high.
    - columns `name_outcome` and `name_verdicts`: per row the score or failure, and the verdicts in words.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._flags: set[str] = set()
        self._was_away = False

    def log(self, verifications: Sequence[Verification], callbacks: dict[str, Any]) -> None:
        """Report a batch to those of `log_extra` and `log_metric` that `callbacks` has; an empty batch says nothing."""
        log_extra: Callable[[str, list[str]], None] | None = callbacks.get("log_extra")
        log_metric: Callable[[str, float], None] | None = callbacks.get("log_metric")
        if log_metric is not None:
            for name, value in self._rates(verifications).items():
                log_metric(f"{self._name}/{name}", value)
        if log_extra is not None and verifications:
            log_extra(f"{self._name}_outcome", [outcome_text(each) for each in verifications])
            log_extra(f"{self._name}_verdicts", [verdict_text(each) for each in verifications])

    def _rates(self, verifications: Sequence[Verification]) -> dict[str, float]:
        if not verifications:
            return {}
        rates = {"failure_rate": _mean([each.score is None for each in verifications])}
        reached = [answer for answer in map(was_reached, verifications) if answer is not None]
        self._was_away = self._was_away or not all(reached)
        if self._was_away and reached:
            rates["unavailable_rate"] = _mean([not answer for answer in reached])
        for category in CATEGORIES:
            judged = [
                verdict.passed
                for each in verifications
                for verdict in each.verdicts
                if verdict.principle.category == category and verdict.passed is not None
            ]
            if judged:
                rates[f"pass_rate/{_UNSAFE.sub('_', category).lower()}"] = _mean(judged)
        flags = [{_UNSAFE.sub("_", flag)[:64] for flag in each.flags} for each in verifications]
        for flag in sorted(set().union(*flags) - self._flags)[: MAX_FLAGS - len(self._flags)]:
            self._flags.add(flag)
        rates.update({f"flag/{flag}": _mean([flag in row for row in flags]) for flag in sorted(self._flags.copy())})
        return rates


def was_reached(verification: Verification) -> bool | None:
    """Whether a judge answered for this edit, be it with nonsense; None: none was asked, e.g. since a guard settled it.

    False is what lies between us and a judge (or decomposer): no connection, no reply in time, a server's error, a
    refused key, a component that raised.
    """
    failure = (verification.failure or "").removeprefix(_NO_PRINCIPLES)
    if _RAISED.match(failure) or failure.partition(":")[0] in UNREACHED:
        return False
    settled = verification.samples == 0 and (verification.score is not None or failure.startswith("voided"))
    return None if settled or failure != (verification.failure or "") else True


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def outcome_text(verification: Verification) -> str:
    """One row's result: "7.5", "7.5 [flag]" or "not judged: reason"."""
    score, failure = verification.score, verification.failure
    text = f"not judged: {failure}" if score is None else f"{score:.4g}"
    return f"{text} [{', '.join(verification.flags)}]" if verification.flags else text


def verdict_text(verification: Verification) -> str:
    """One line per principle: yes, no or not judged, the question, and the reason where there is one."""
    return "\n".join(_line(verdict) for verdict in verification.verdicts)


def _line(verdict: Verdict) -> str:
    answer = {True: "yes", False: "no", None: "not judged"}[verdict.passed]
    reason = f" ({verdict.reason})" if verdict.reason else ""
    return f"{answer}: {verdict.principle.question}{reason}"
