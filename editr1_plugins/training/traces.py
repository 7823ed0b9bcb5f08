"""The text of a judge's answer: written for training in the form that the prompt asks for, and its reasoning found.

`compose_trace` is the inverse of `verifiers.parsing.parse_trace`: what it writes is read back before it is returned, so
nothing that the parser would read otherwise is ever learned.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from ..backends.control_tokens import inert
from ..errors import ConfigError, DataError
from ..principles.prompt_text import quoted
from ..types import MAX_SCORE, Principle
from ..verifiers._objects import scan_objects, unfold_serialised
from ..verifiers._text import json_punctuation, normalise, score_tags
from ..verifiers._verdicts import is_item, verdict_arrays
from ..verifiers.parsing import parse_trace
from ..verifiers.prompting import MODES, Mode, asks_for_verdicts

__all__ = ["compose_trace", "reasoning_of"]

_DECIMALS: Final = 6  # more say nothing, and a parser need not read them
_MAX_LABEL: Final = 80  # characters of a line such as "Verdicts:"
_THOUGHT_MARK: Final = re.compile(
    r"[<\u25c1\uff1c\u2039]\s{0,8}/?\s{0,8}(?:seed:)?(?:think|thinking|thought)\s{0,8}[>\u25b7\uff1e\u203a]|\[/?THINK\]",
    re.IGNORECASE,
)
_OPENS: Final = str.maketrans("<>{}[]\u3010\u3011", "()()()()")


def compose_trace(
    reasoning: str,
    principles: Sequence[Principle],
    verdicts: Sequence[bool | int | None],
    average: float | None,
    score: float,
    mode: Mode = "think+verify",
) -> str:
    """The answer that `judge_request` asks for in this mode (Edit-R1, section 3.1).

    "think" is reasoning and score; "verify" the verdicts, their average and the score; "think+verify" all of it.
    Questions are spelled as the prompt shows them. Control tokens and marks of thoughts in the reasoning are made
    harmless; so are its brackets, where they would be read as verdicts or a score.

    Args:
        reasoning: free text; may be "" except in mode "think", where there would be nothing to learn but a number.
        principles: at least one.
        verdicts: one per principle, 1 or 0; None is written as null. Unused in mode "think".
        average: share of principles met, in 0..1; None leaves it out. Unused in mode "think".
        score: tau, 0..10. Numbers keep six decimals.
        mode: how the judge answers.

    Raises:
        ConfigError: an unknown mode.
        DataError: a number out of range, a verdict for each principle is not given, or `parse_trace` would read another
            score or other verdicts (two equal questions with different verdicts, or reasoning that reads as a refusal).
    """
    if mode not in MODES:
        raise ConfigError(f"unknown mode {mode!r} of the judge; one of: {', '.join(MODES)}")
    written = [f"<score>{_decimal('score', score, MAX_SCORE, 1)}</score>"]
    passed: tuple[bool | None, ...] = (None,) * len(principles)
    if asks_for_verdicts(mode):
        passed = _passed(principles, verdicts)
        if average is not None:
            written.insert(0, f'{{"average_score": {_decimal("average", average, 1.0, 2)}}}')
        written.insert(0, _array(principles, passed))
    free = "" if mode == "verify" else _THOUGHT_MARK.sub("", inert(reasoning)).strip()
    if mode == "think" and not free:
        raise DataError("mode 'think' needs reasoning, and there is none")
    difference = None
    for text in dict.fromkeys((free, normalise(free).translate(_OPENS))):
        trace = "\n\n".join([text, *written] if text else written)
        difference = _difference(trace, principles, passed, score)
        if difference is None:
            return trace
    raise DataError(f"the trace would not be read back: {difference}")


def reasoning_of(trace: str) -> str:
    """The free text of a judge's raw reply: what stands before its last verdict array, or before its score if there is
    none. Thoughts count as text, without their marks. "" if there is none. Linear in the reply's length.
    """
    text = _THOUGHT_MARK.sub("\n", trace)
    start = _answer_start(text)
    if start is None:  # tags spelled with escapes or full-width brackets
        text = normalise(text)
        start = _answer_start(text)
    return _without_label(text[:start])


def _passed(principles: Sequence[Principle], verdicts: Sequence[bool | int | None]) -> tuple[bool | None, ...]:
    if len(verdicts) != len(principles) or not principles:
        raise DataError(f"{len(verdicts)} verdicts for {len(principles)} principles; one for each is needed")
    for place, verdict in enumerate(verdicts):
        if verdict not in (0, 1, None):
            raise DataError(f"verdict {place} is {verdict!r}, not 1, 0 or None")
    return tuple(None if verdict is None else bool(verdict) for verdict in verdicts)


def _array(principles: Sequence[Principle], passed: Sequence[bool | None]) -> str:
    words = {True: "1", False: "0", None: "null"}
    items = (
        f'{{"question": {_spelled(principle.question)}, "score": {words[verdict]}}}'
        for principle, verdict in zip(principles, passed, strict=True)
    )
    return f"[{', '.join(items)}]"


def _spelled(question: str) -> str:
    # The parser forgives missing escapes, so it takes a backslash before the closing quote for an escape of the quote.
    return quoted(f"{question} " if question.endswith("\\") else question)


def _decimal(name: str, value: float, top: float, least: int) -> str:
    if not (math.isfinite(value) and 0.0 <= value <= top):
        raise DataError(f"{name} must lie in 0..{top:g}, got {value!r}")
    number = Decimal(repr(round(float(value), _DECIMALS)))
    decimals = -min(0, int(number.normalize().as_tuple().exponent))
    return f"{number:.{max(least, decimals)}f}"


def _difference(
    trace: str, principles: Sequence[Principle], passed: tuple[bool | None, ...], score: float
) -> str | None:
    """What the parser reads in `trace` that was not meant, in words."""
    read = parse_trace(trace, [principle.question for principle in principles])
    if read.score is None:
        return f"no score ({read.failure})"
    if read.score != round(float(score), _DECIMALS):
        return f"score {read.score:g} instead of {score:g}"
    if read.verdicts != passed:
        place = next(i for i, pair in enumerate(zip(read.verdicts, passed, strict=True)) if pair[0] != pair[1])
        return f"verdict {read.verdicts[place]} instead of {passed[place]} for {principles[place].question[:100]!r}"
    return None


def _answer_start(text: str) -> int | None:
    """Where the last verdict array begins, or the last score tag where there is no array; None without either."""
    tags = score_tags(text)
    plain = unfold_serialised(json_punctuation(text))
    objects = scan_objects(plain)
    arrays = verdict_arrays(plain, objects, [tag.start for tag in tags])
    if arrays:
        head = plain[: arrays[-1].start].rstrip()
        return len(head) - head.endswith("[")
    spans = [(read.start, read.end) for read in objects if is_item(read)]
    opening = [tag.start for tag in tags if not tag.closing and not any(a <= tag.start < b for a, b in spans)]
    return opening[-1] if opening else None


def _without_label(text: str) -> str:
    """`text` without the fences, tags and labels ("Verdicts:") that lead to what followed it."""
    while True:
        text = text.rstrip()
        line = text[text.rfind("\n") + 1 :]
        word = line.strip(" \t*_#`~").lower()
        label = len(line) <= _MAX_LABEL and word.endswith((":", "\uff1a"))
        if not text or not (label or word in ("", "json", "<answer>")):
            return text.strip()
        text = text[: len(text) - len(line)]
