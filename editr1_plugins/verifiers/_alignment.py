"""Verdicts to questions: by the question's text; by place only where the texts cannot tell.

In this order: the same text; the same text but for numbering, case, punctuation; a small drift in wording (never one
that swaps a content word or a negation: "is it red" is not "is it blue"); the item's own number, if the array is
numbered 1..n; its place, if there are as many items as questions and its text is missing, is in another script or
drifted from the question at that place. What none of these tells stays None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from editr1_plugins.verifiers._verdicts import Item
from editr1_plugins.verifiers._wording import (
    comparable,
    content_words,
    contradicts,
    drift,
    letters,
    number_of,
    overlap_of,
    stripped,
    unescaped,
)

__all__ = ["Aligned", "Asked", "align"]

_SAME_WORDING: Final = 0.8  # Dice overlap of content words from which a wording counts as drifted, not as another one
_SAME_PLACE: Final = 0.3  # ... when the item stands at the question's place among as many items
_MAX_FUZZY: Final = 40  # items and questions compared pairwise; a judge has about ten
_MAX_COMPARISONS: Final = 8000  # ... in all arrays of one reply


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """Verdicts in the questions' order, and how they were found.

    `by_text` counts questions found by their text; `extra` says that an item belongs to no question.
    """

    verdicts: tuple[bool | None, ...]
    answered: frozenset[int]
    by_text: int = 0
    extra: bool = False


class Asked:
    """The questions of one reply, with what is needed to find them; made once, whatever number of arrays there is."""

    def __init__(self, questions: Sequence[str]) -> None:
        self.questions = questions
        self.exact: dict[str, int] = {}
        self.stripped: dict[str, int] = {}
        self.first: list[int] = []  # the first question with the same text; a question asked twice has one answer
        for index, question in enumerate(questions):
            self.first.append(self.exact.setdefault(letters(question) or f"\n{index}", index))
            self.stripped.setdefault(letters(stripped(question)), self.first[index])
        self.comparisons_left = _MAX_COMPARISONS

    def find(self, text: str) -> int | None:
        key = letters(text)
        return self.exact.get(key, self.stripped.get(letters(stripped(text)))) if key else None


class _Board:
    """Answers collected per question; two that differ leave it None."""

    def __init__(self, items: Sequence[Item], asked: Asked) -> None:
        self.items = items
        self.texts = [unescaped(item.text) for item in items]
        self.asked = asked
        self.questions = asked.questions
        self.first = asked.first
        self.answers: dict[int, list[bool | None]] = {}
        self.found: dict[int, int] = {}  # item -> question, by text
        self.left = list(range(len(items)))

    def put(self, place: int, index: int) -> None:
        self.answers.setdefault(self.first[index], []).append(self.items[place].passed)

    def put_found(self, taken: dict[int, int]) -> None:
        for place, index in taken.items():
            self.found[place] = index
            self.put(place, index)
        self.left = [place for place in self.left if place not in taken]

    def verdict(self, index: int) -> bool | None:
        said = set(self.answers.get(self.first[index], ()))
        return said.pop() if len(said) == 1 else None


def align(items: Sequence[Item], asked: Asked, *, alone: bool = True) -> Aligned:
    """Find the question of each item.

    Args:
        items: one array's items, in order.
        asked: the normalised questions; they may be empty, equal or hostile.
        alone: no other array belongs to the same answer. Only then may ids name some of the questions: three arrays by
            category may each be numbered from one.
    """
    questions = asked.questions
    board = _Board(items, asked)
    _same_text(board)
    _drifted(board)
    by_text = len(set(board.found.values()))
    _by_number(board, alone)
    _by_place(board)
    extra = any(board.texts[place] for place in board.left) or len(items) > len(questions) > 0 == by_text
    return Aligned(
        verdicts=tuple(board.verdict(index) for index in range(len(questions))),
        answered=frozenset(index for index in range(len(questions)) if board.first[index] in board.answers),
        by_text=by_text,
        extra=extra or (bool(items) and not questions),
    )


def _same_text(board: _Board) -> None:
    found = {place: board.asked.find(text) for place, text in enumerate(board.texts)}
    board.put_found({place: index for place, index in found.items() if index is not None})


def _drifted(board: _Board) -> None:
    questions = board.questions
    unanswered = [
        index for index in sorted(set(board.first)) if index not in board.answers and questions[index].strip()
    ]
    texted = [place for place in board.left if board.texts[place]]
    board.asked.comparisons_left -= len(texted) * len(unanswered)
    if len(texted) > _MAX_FUZZY or len(unanswered) > _MAX_FUZZY or board.asked.comparisons_left < 0:
        return
    taken = {}
    for place in texted:
        ranked = sorted(((drift(board.texts[place], questions[index]), index) for index in unanswered), reverse=True)
        if ranked and ranked[0][0] >= _SAME_WORDING and (len(ranked) == 1 or ranked[1][0] < ranked[0][0] - 0.05):
            taken[place] = ranked[0][1]
    board.put_found(taken)


def _by_number(board: _Board, alone: bool) -> None:
    """Ids count if all items carry one, each within 1..n and once, and no text found its question elsewhere."""
    count = len(board.questions)
    numbers = [
        item.number if item.number is not None else number_of(text)
        for item, text in zip(board.items, board.texts, strict=True)
    ]
    known = [number for number in numbers if number is not None and 1 <= number <= count]
    if len(known) < len(board.items) or len(set(known)) < len(known):
        return
    if any(board.first[known[place] - 1] != index for place, index in board.found.items()):
        return
    complete = len(known) == count
    rest = []
    for place in board.left:
        index = known[place] - 1
        if board.first[index] in board.answers or not (complete or (alone and not board.texts[place])):
            rest.append(place)
        else:
            board.put(place, index)
    board.left = rest


def _by_place(board: _Board) -> None:
    items = board.items
    if len(items) != len(board.questions) or any(board.first[place] != index for place, index in board.found.items()):
        return
    numbers = [item.number for item in items]
    if any(number is not None for number in numbers) and numbers not in (
        list(range(len(items))),
        list(range(1, len(items) + 1)),
    ):
        return
    rest = []
    for place in board.left:
        if board.first[place] in board.answers or not _may_stand_for(board.texts[place], place, board.questions):
            rest.append(place)
        else:
            board.put(place, place)
    board.left = rest


def _may_stand_for(text: str, place: int, questions: Sequence[str]) -> bool:
    """Whether an item without a recognised text may be the answer to the question at its own place."""
    if not text:
        return True
    own = questions[place]
    if not comparable(text, own):
        return True  # translated: words cannot be compared
    if len(questions) > _MAX_FUZZY or contradicts(text, own):
        return False
    overlap = overlap_of(content_words(text), content_words(own))
    others = (
        overlap_of(content_words(text), content_words(other)) for index, other in enumerate(questions) if index != place
    )
    return overlap >= _SAME_PLACE and overlap >= max(others, default=0.0)
