"""Records as a page needs them. A record is data from outside: what is not as it should be is left out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.reward.record import RECORD_VERSION, failure_kind
from editr1_plugins.types import CATEGORIES, MAX_SCORE

__all__ = ["Alarm", "Entry", "Verdict", "read_entry"]

#: Longest texts on a page, in characters; of a longer one the middle is left out.
_MAX_TRACE: Final = 8000
_MAX_TEXT: Final = 2000
_MAX_WORD: Final = 120
_MAX_ROWS: Final = 100
_IMAGE: Final = re.compile(r"images/[0-9a-f]{32}\.png")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One principle and its answer; `passed` is None where it was not judged."""

    question: str
    category: str
    passed: bool | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A guard's objection; `cap` (0..10) is None where it voids."""

    guard: str
    flag: str
    reason: str
    cap: float | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One judged edit; `None` stands for what the record does not tell. Scores and spread lie in 0..10.

    Attributes:
        kind: of the failure, for counting.
        source, edited: paths of images relative to the directory of the records.
        label: the row's `id`, or else its line, where the record comes from a file.
        tokens: prompt and completion together.
        latency: seconds of the judge for this edit.
        judge: (what, value) pairs that tell who judged and how.
    """

    instruction: str
    score: float | None
    failure: str | None
    kind: str | None
    flags: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    alarms: tuple[Alarm, ...]
    trace: str
    judged_score: float | None
    spread: float | None
    samples: int | None
    source: str | None
    edited: str | None
    label: str | None
    tokens: int | None
    latency: float | None
    judge: tuple[tuple[str, str], ...]


def read_entry(record: Mapping[str, Any]) -> Entry:
    """The entry of a record as `reward.journal.read_records` yields it.

    Raises:
        DataError: the record is of a later version than this package knows.
    """
    version = record.get("version")
    if type(version) is int and version > RECORD_VERSION:
        raise DataError(f"a record of version {version}, this package reads up to {RECORD_VERSION}; update it")
    score = _number(record.get("score"), MAX_SCORE)
    failure = None if score is not None else _text(record.get("failure")) or "no reason given"
    usage = record.get("usage")
    return Entry(
        instruction=_text(record.get("instruction")),
        score=score,
        failure=failure,
        kind=None if failure is None else failure_kind(failure),
        flags=tuple(dict.fromkeys(_text(flag, _MAX_WORD) for flag in _rows(record.get("flags"), str))),
        verdicts=_verdicts(record),
        alarms=tuple(_alarm(alarm) for alarm in _rows(record.get("alarms"), dict)),
        trace=_text(record.get("trace"), _MAX_TRACE),
        judged_score=_number(record.get("judged_score"), MAX_SCORE),
        spread=_number(record.get("spread"), MAX_SCORE),
        samples=_whole(record.get("samples")),
        source=_image(record.get("source_image")),
        edited=_image(record.get("edited_image")),
        label=_label(record.get("row")),
        tokens=_tokens(usage),
        latency=_number(usage.get("latency")) if isinstance(usage, dict) else None,
        judge=_judge(record),
    )


def _verdicts(record: Mapping[str, Any]) -> tuple[Verdict, ...]:
    # Where judging failed before any verdict, the questions are still worth seeing.
    rows = _rows(record.get("verdicts"), dict) or _rows(record.get("principles"), dict)
    return tuple(
        Verdict(
            question=_text(row.get("question")),
            category=_known_category(row.get("category")),
            passed=row.get("passed") if isinstance(row.get("passed"), bool) else None,
            reason=_text(row.get("reason")),
        )
        for row in rows
    )


def _known_category(category: object) -> str:
    return next((known for known in CATEGORIES if known == category), "Other")


def _alarm(row: Mapping[str, Any]) -> Alarm:
    return Alarm(
        guard=_text(row.get("guard"), _MAX_WORD),
        flag=_text(row.get("flag"), _MAX_WORD),
        reason=_text(row.get("reason")),
        cap=_number(row.get("cap"), MAX_SCORE),
    )


def _judge(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    names = {
        "Verifier": "verifier",
        "Model": "model_version",
        "Prompt": "prompt_version",
        "Decomposer": "decomposer",
        "Aggregate": "aggregate",
    }
    told = ((shown, _text(record.get(name))) for shown, name in names.items())
    return tuple((shown, text) for shown, text in told if text)


def _label(row: object) -> str | None:
    if not isinstance(row, dict):
        return None
    identifier, line = row.get("id"), row.get("line")
    if type(identifier) in (str, int):
        return _text(str(identifier), _MAX_WORD)
    return f"line {line}" if type(line) is int else None


def _tokens(usage: object) -> int | None:
    if not isinstance(usage, dict):
        return None
    known = [_whole(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    return sum(each or 0 for each in known) if known != [None, None] else None


def _rows(value: object, kind: type) -> list[Any]:
    return [each for each in value[:_MAX_ROWS] if isinstance(each, kind)] if isinstance(value, list) else []


def _number(value: object, top: float = math.inf) -> float | None:
    # A whole number may be too large for a float, hence no `float(value)` before the comparison.
    if type(value) not in (int, float) or not 0 <= value <= top or value > 1e15:  # type: ignore[operator]
        return None
    return float(value)  # type: ignore[arg-type]


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= 10**15 else None


def _image(value: object) -> str | None:
    return value if isinstance(value, str) and _IMAGE.fullmatch(value) else None


def _text(value: object, limit: int = _MAX_TEXT) -> str:
    if not isinstance(value, str):
        return ""
    if len(value) <= limit:
        return value
    return f"{value[: limit // 2]} [...] {value[-limit // 2 :]}"
