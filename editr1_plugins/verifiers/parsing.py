"""Phi: the rule-based parser that reads tau and the verdicts from a judge's raw text (Edit-R1, section 3.1).

A score is read or it is not; it is never invented, and a wrong one is far worse than none. The parts: `_text` (spelling
and thoughts), `_score` (a tag's content), `_marks` (tags paired, and how they stand), `_objects`, `_verdicts` and
`_alignment` (the JSON array and its questions), `_refusals`. Here they are put together: which block counts.

A *block* is a verdict array and the score mark after it; the last one wins. Decisions where replies are unclear:

- A mark in prose after a block does not override it; another number alone on its line, or in a sentence that
  corrects, makes the reply `ambiguous`.
- An array without a mark after the last block is a repetition, unless its verdicts differ (`ambiguous`; `truncated` if
  the text was cut) or only it is about our questions: then the block was an example and is nobody's answer.
- Marks without any array are accepted if they all say the same (flag `no_verdicts`); in a text that was cut only at its
  very end. A mark before the array counts only where it opens the reply.
- A refusal is a refusal even if a score tag follows, unless there are verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from editr1_plugins.types import MAX_SCORE
from editr1_plugins.verifiers._alignment import Aligned, Asked, align
from editr1_plugins.verifiers._marks import Mark, find_marks, only_tail
from editr1_plugins.verifiers._objects import MAX_OBJECTS, scan_objects, unfold_serialised
from editr1_plugins.verifiers._refusals import is_refusal
from editr1_plugins.verifiers._text import (
    Tag,
    answer_of,
    hide_quoted_questions,
    json_punctuation,
    normalise,
    score_tags,
)
from editr1_plugins.verifiers._verdicts import VerdictArray, is_item, read_average, verdict_arrays

__all__ = ["FAILURES", "FLAGS", "Trace", "parse_trace"]

#: Every word that `Trace.failure` can be.
FAILURES: Final = (
    *("ambiguous", "empty", "format_echo", "no_score", "not_a_number", "out_of_range", "out_of_scale", "refusal"),
    "truncated",
)
#: Every word that can be in `Trace.flags`.
FLAGS: Final = ("average_mismatch", "extra_principles", "inconsistent", "no_verdicts")

_MAX_TAGS: Final = 4000  # more is a loop or an attack, and no answer
_MAX_ARRAYS: Final = 500
_SHORT: Final = 40  # characters that may stand between a reply's first mark and its array
_ROUNDING: Final = {0: 0.001, 1: 0.05}  # how far an average may lie off, by its decimals; 0.01 from two on


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What was read from one reply of a judge.

    Attributes:
        score: tau in 0..10, or None.
        verdicts: one per question, in the questions' order: met, not met, or None (not answered, or not clearly).
        average: the share of principles met as the judge reports it, in 0..1; advisory.
        failure: why there is no score, one of `FAILURES`; None when there is one.
        flags: oddities, some of `FLAGS`.
    """

    score: float | None
    verdicts: tuple[bool | None, ...] = ()
    average: float | None = None
    failure: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """Which outcome counts, with the arrays that go with it (the last one is the block's own)."""

    outcome: float | str
    arrays: tuple[int, ...] = ()
    mark: Mark | None = None


class _Reply:
    """A visible answer, its arrays and its marks; alignments are computed when asked for, once."""

    def __init__(self, text: str, questions: Sequence[str], stopped: bool) -> None:
        self.text = text
        self.questions = questions
        self.asked = Asked(questions)
        self.stopped = stopped
        self.plain = unfold_serialised(json_punctuation(text))
        objects = scan_objects(self.plain)
        spans = [(read.start, read.end) for read in objects if is_item(read)]
        tags = _outside(score_tags(text), spans)
        arrays = verdict_arrays(self.plain, objects, [tag.start for tag in tags])
        self.crowded = len(tags) > _MAX_TAGS or len(objects) >= MAX_OBJECTS or len(arrays) > _MAX_ARRAYS
        self.marks = [] if self.crowded else find_marks(text, tags, stopped)
        self.arrays = [] if self.crowded else arrays
        self.by_array = self._marks_by_array()
        self._aligned: dict[int, Aligned] = {}

    def _marks_by_array(self) -> list[list[Mark]]:
        """Unquoted marks before the first array, then those after each array and before the next."""
        parts: list[list[Mark]] = [[] for _ in range(len(self.arrays) + 1)]
        part = 0
        for mark in self.marks:
            while part < len(self.arrays) and self.arrays[part].end <= mark.start:
                part += 1
            if mark.standing != "quoted":
                parts[part].append(mark)
        return parts

    def after(self, index: int) -> list[Mark]:
        """The marks that may be the score of array `index`; of no array for -1.

        They stand on their own; where none does, the one that ends the reply. What corrects them goes with them.
        """
        marks = self.by_array[index + 1]
        own = [mark for mark in marks if mark.standing == "own"]
        if own:
            return [mark for mark in marks if mark.standing != "inline"]
        return marks if marks and only_tail(self.text, marks[-1].end) else []

    def aligned(self, index: int) -> Aligned:
        if index not in self._aligned:
            self._aligned[index] = align(self.arrays[index].items, self.asked, alone=self._is_alone(index))
        return self._aligned[index]

    def _is_alone(self, index: int) -> bool:
        return bool(index == 0 or self.by_array[index]) and bool(
            index == len(self.arrays) - 1 or self.by_array[index + 1]
        )

    def nothing_read(self) -> str:
        """Why there is no score where no mark says so."""
        if any(mark.outcome == "format_echo" for mark in self.marks):
            return "format_echo"
        return "no_score" if self.stopped else "truncated"


def parse_trace(text: str, questions: Sequence[str], finish_reason: str = "stop") -> Trace:
    """Read one reply of a judge.

    Args:
        text: the raw reply; anything, also hostile. Time is linear in its length.
        questions: the questions that were asked, in order.
        finish_reason: "stop" if the model ended the reply by itself; anything else means that the text was cut.

    Returns:
        A `Trace` with a score or a failure, never both, never neither. Nothing is raised for any text.
    """
    asked = [normalise(question) for question in questions]
    plain = hide_quoted_questions(normalise(text), asked)
    none = (None,) * len(asked)
    if only_tail(plain, 0):
        return Trace(score=None, verdicts=none, failure="empty")
    answer = answer_of(plain)
    reply = _Reply(answer.text, asked, finish_reason == "stop")
    choice = _choose(reply)
    if answer.must_end_in_block and not _ends_in_block(reply, choice):
        return Trace(score=None, verdicts=none, failure="no_score" if reply.stopped else "truncated")
    verdicts, extra, own_share = _verdicts(reply, choice)
    answered = any(verdict is not None for verdict in verdicts)
    if not answered and not reply.arrays and is_refusal(answer.text):
        choice = _Choice(outcome="refusal")
    score = choice.outcome if isinstance(choice.outcome, float) else None
    average, mismatch = _average(reply, choice, verdicts, own_share)
    flags = {
        "average_mismatch": mismatch,
        "extra_principles": extra,
        "inconsistent": score is not None and _inconsistent(score, verdicts),
        "no_verdicts": score is not None and not answered and (bool(asked) or not reply.arrays),
    }
    return Trace(
        score=score,
        verdicts=verdicts,
        average=average,
        failure=None if isinstance(choice.outcome, float) else choice.outcome,
        flags=tuple(flag for flag, raised in flags.items() if raised),
    )


def _choose(reply: _Reply) -> _Choice:
    if reply.crowded:
        return _Choice(outcome="ambiguous")
    if not reply.arrays:
        return _lone(reply)
    blocks = [index for index in range(len(reply.arrays)) if reply.after(index)]
    if blocks:
        return _last_block(reply, blocks[-1])
    arrays = _with_parts(reply, len(reply.arrays) - 1)
    if _opens_reply(reply):
        return _Choice(outcome=_one_of(reply.after(-1)), arrays=arrays)
    return _Choice(outcome=reply.nothing_read(), arrays=arrays)


def _last_block(reply: _Reply, index: int) -> _Choice:
    marks = reply.after(index)
    outcome = _one_of(marks)
    last = len(reply.arrays) - 1
    mine = reply.aligned(index)
    ended = "no_score" if reply.stopped else "truncated"
    for later in range(index + 1, len(reply.arrays)):
        theirs = reply.aligned(later)
        if not theirs.answered:
            continue
        if not mine.answered:
            return _Choice(outcome=ended, arrays=_with_parts(reply, last))
        if any(mine.verdicts[place] != theirs.verdicts[place] for place in theirs.answered & mine.answered):
            return _Choice(outcome="ambiguous" if reply.stopped else "truncated", arrays=_with_parts(reply, last))
    arrays = _with_parts(reply, index)
    strange = reply.questions and reply.arrays[index].items and not any(reply.aligned(part).answered for part in arrays)
    if strange and not only_tail(reply.text, marks[-1].end):
        outcome = ended  # somebody else's principles, and the reply goes on: most likely an example
    return _Choice(outcome=outcome, arrays=arrays, mark=marks[-1])


def _with_parts(reply: _Reply, index: int) -> tuple[int, ...]:
    """`index`, and before it the arrays of the same answer that hold other questions (one array per category)."""
    if index < 0:
        return ()
    arrays, answered = [index], set(reply.aligned(index).answered)
    for earlier in range(index - 1, -1, -1):
        if reply.by_array[earlier + 1]:
            break
        more = reply.aligned(earlier)
        if not more.by_text or more.answered & answered:
            break
        arrays.insert(0, earlier)
        answered |= more.answered
    return tuple(arrays)


def _lone(reply: _Reply) -> _Choice:
    marks = reply.by_array[0]  # own and inline alike: no array tells a draft from the answer
    if not reply.after(-1):
        return _Choice(outcome=reply.nothing_read())
    outcome = _one_of(marks)
    if isinstance(outcome, float) and not reply.stopped and not only_tail(reply.text, marks[-1].end):
        outcome = "truncated"  # the mark may have been a draft or an example
    return _Choice(outcome=outcome, mark=marks[-1])


def _one_of(marks: Sequence[Mark]) -> float | str:
    """The last mark's outcome; marks with other numbers before it make it ambiguous."""
    last = marks[-1].outcome
    if not isinstance(last, float):
        return last
    return last if len({mark.outcome for mark in marks if isinstance(mark.outcome, float)}) == 1 else "ambiguous"


def _opens_reply(reply: _Reply) -> bool:
    """Whether the reply begins with its mark and goes on at once with its array: the format upside down."""
    marks = reply.after(-1)
    if not marks or not reply.stopped or len(reply.by_array[0]) != 1 or marks[0].standing != "own":
        return False
    mark, array = marks[0], reply.arrays[0]
    return (
        mark.closed
        and len(reply.text[: mark.start].strip()) <= _SHORT
        and len(reply.text[mark.end : array.start].strip()) <= _SHORT
        and bool(reply.aligned(0).answered)
    )


def _ends_in_block(reply: _Reply, choice: _Choice) -> bool:
    mark = choice.mark
    has_verdicts = bool(choice.arrays) or not reply.questions
    return bool(reply.stopped and mark and mark.closed and has_verdicts and only_tail(reply.text, mark.end))


def _verdicts(reply: _Reply, choice: _Choice) -> tuple[tuple[bool | None, ...], bool, float | None]:
    """The verdicts, whether some belong to no question, and the share of ones in what the judge wrote."""
    verdicts: list[bool | None] = [None] * len(reply.questions)
    extra = False
    said: list[bool] = []
    for index in choice.arrays:
        aligned = reply.aligned(index)
        extra = extra or aligned.extra
        said += [item.passed for item in reply.arrays[index].items if item.passed is not None]
        for place in aligned.answered:
            verdicts[place] = aligned.verdicts[place]
    return tuple(verdicts), extra, sum(said) / len(said) if said else None


def _average(
    reply: _Reply, choice: _Choice, verdicts: Sequence[bool | None], own_share: float | None
) -> tuple[float | None, bool]:
    """The reported average, and whether it disagrees both with the verdicts and with the judge's own array."""
    if choice.arrays:
        array: VerdictArray = reply.arrays[choice.arrays[-1]]
        after = choice.arrays[-1] + 1
        end = reply.arrays[after].start if after < len(reply.arrays) else len(reply.plain)
        average, written, decimals = read_average(reply.plain[array.end : end])
    elif choice.mark:
        average, written, decimals = read_average(reply.plain[max(0, choice.mark.start - 200) : choice.mark.end + 200])
    else:
        return None, False
    judged = [verdict for verdict in verdicts if verdict is not None]
    shares = [sum(judged) / len(judged)] if judged else []
    shares += [own_share] if own_share is not None else []
    if not written or not shares:
        return average, False
    allowed = _ROUNDING.get(decimals, 0.01) + 1e-9
    return average, average is None or all(abs(average - share) > allowed for share in shares)


def _inconsistent(score: float, verdicts: Sequence[bool | None]) -> bool:
    """All verdicts 0 with a score in the upper half, or all 1 with one in the lower half."""
    judged = {verdict for verdict in verdicts if verdict is not None}
    return (judged == {False} and score > MAX_SCORE / 2) or (judged == {True} and score < MAX_SCORE / 2)


def _outside(tags: list[Tag], spans: Sequence[tuple[int, int]]) -> list[Tag]:
    """The tags outside of `spans`; both in order."""
    kept, place = [], 0
    for tag in tags:
        while place < len(spans) and spans[place][1] <= tag.start:
            place += 1
        if place == len(spans) or tag.start < spans[place][0]:
            kept.append(tag)
    return kept
