"""Calls of code that is not ours, one answer or one reason per row: a bad row never harms its neighbours or the run."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

__all__ = ["GIVE_UP_AFTER", "PATIENCE", "Failure", "contained"]

#: A component counts as down for the rest of a call when this many rows were tried alone, all in vain, and that took
#: longer than `PATIENCE` seconds: a server that only times out must not be asked once per row.
GIVE_UP_AFTER: Final = 4
PATIENCE: Final = 10.0

_MAX_REASON: Final = 500
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Failure:
    """Why a row has no answer."""

    reason: str


def contained(
    who: str,
    call: Callable[[list[int]], object],
    check: Callable[[int, object], _T],
    groups: Sequence[Hashable],
) -> list[_T | Failure]:
    """`call(rows)` for all rows at once; per row its answer, or a `Failure`. Never raises an `Exception` of `call`'s.

    When the call raises, or returns no list of the right length, nobody can tell which row is to blame, so each row is
    called alone, rows of different groups in turns. Where that is slow and fails each time, the rest is not tried (see
    `GIVE_UP_AFTER`); those rows get the reason of the first failure.

    Args:
        who: named in reasons and in the log.
        call: takes row numbers, returns a list with one answer per row.
        check: the answer of a row, typed; raises ValueError or TypeError for what is no answer.
        groups: one per row; rows that share their source and instruction share a group.
    """
    rows = list(range(len(groups)))
    if not rows:
        return []
    answers = _attempt(who, call, rows)
    if isinstance(answers, Failure):
        answers = _one_by_one(who, call, groups, answers)
    results = [answer if isinstance(answer, Failure) else _checked(who, check, i, answer) for i, answer in answers]
    _report(who, results)
    return results


def _attempt(who: str, call: Callable[[list[int]], object], rows: list[int]) -> list[tuple[int, object]] | Failure:
    try:
        answers = call(rows)
    except Exception as error:
        _log.debug("%s raised", who, exc_info=True)
        return Failure(_shortened(f"{who} raised {type(error).__name__}: {error}"))
    if isinstance(answers, (str, bytes)) or not isinstance(answers, Sequence):
        return Failure(f"{who} returned a {type(answers).__name__}, not a list")
    if len(answers) != len(rows):
        return Failure(f"{who} returned {len(answers)} answers for {len(rows)} edits")
    return list(zip(rows, answers, strict=True))


def _one_by_one(
    who: str, call: Callable[[list[int]], object], groups: Sequence[Hashable], first: Failure
) -> list[tuple[int, object]]:
    answers: dict[int, object] = dict.fromkeys(range(len(groups)), first)
    if len(groups) == 1:
        return list(answers.items())
    started, succeeded = time.monotonic(), False
    for tried, row in enumerate(_taking_turns(groups)):
        if tried >= GIVE_UP_AFTER and not succeeded and time.monotonic() - started > PATIENCE:
            break
        answer = _attempt(who, call, [row])
        if isinstance(answer, Failure):
            answers[row] = answer
        else:
            answers[row], succeeded = answer[0][1], True
    return list(answers.items())


def _taking_turns(groups: Sequence[Hashable]) -> list[int]:
    """All rows: first one of every group, then a second one of each, and so on."""
    seen: Counter[Hashable] = Counter()
    turns = []
    for row, group in enumerate(groups):
        turns.append((seen[group], row))
        seen[group] += 1
    return [row for _, row in sorted(turns)]


def _checked(who: str, check: Callable[[int, object], _T], row: int, answer: object) -> _T | Failure:
    try:
        return check(row, answer)
    except (TypeError, ValueError) as error:
        return Failure(_shortened(f"{who}: {error}"))


def _report(who: str, results: Sequence[object]) -> None:
    failures = [result.reason for result in results if isinstance(result, Failure)]
    if failures:
        _log.warning("%s: no answer for %d of %d: %s", who, len(failures), len(results), failures[0])


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 3] + "..."
