"""Verdicts to questions: by the question's text; by place only where the texts cannot tell.

In this order: the same text; the same text but for numbering, case, punctuation; a small drift in wording (never one
that swaps a content word or a negation: "is it red" is not "is it blue"); the item's own number, if the array is
numbered 1..n; its place, if there are as many items as questions and its text is missing, is in another script or
drifted from the question at that place. What none of these tells stays None.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Final

from editr1_plugins.verifiers._verdicts import Item

__all__ = ["Aligned", "align"]


def _words_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SAME_WORDING: Final = 0.8  # Dice overlap of content words from which a wording counts as drifted, not as another one
_SAME_PLACE: Final = 0.3  # ... when the item stands at the question's place among as many items
_MAX_FUZZY: Final = 40  # items and questions compared pairwise; a judge has about ten
_MAX_COMPARISONS: Final = 8000  # ... in all arrays of one reply
_MAX_TEXT: Final = 2000
_MAX_CHANGED: Final = 6  # content words that a small drift may touch

_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NUMBERING = re.compile(
    r"^[\s\"'*_#\ue000-]{0,8}(?:[\[(][^\])\n]{1,40}[\])]\s{0,4})?(?:(?:question|principle|criterion|no|q|p|问题|原则|第)"
    r"\s{0,2}[.#]?\s{0,2})?[\[(]?(?P<number>\d{1,3})\s{0,2}(?:[.):\]\u3001,-]|题|条)\s{0,4}[.:]?",
    re.IGNORECASE,
)
_CATEGORY = re.compile(r"^[\s\"'*_]{0,8}[\[(][^\])\n]{1,40}[\])]\s{0,4}:?")
_ANSWER_FORM = re.compile(r"[\s(\[]{0,4}(?:yes\s?/\s?no|0\s?/\s?1|是\s?/\s?否)[)\]\s.?]{0,4}$", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_EMPTY_WORDS: Final = _words_of("""
    a an the is are was were be been being has have had do does did in of on at to for with by and that this it its as
    there still now edited image edit result correctly properly fully completely clearly well
""")
_NEGATIONS: Final = _words_of("not no never without none nothing neither nor isn aren wasn doesn didn don t cannot")
_CHINESE_NEGATIONS: Final = frozenset("不没未无非")


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
            self.first.append(self.exact.setdefault(_key(question) or f"\n{index}", index))
            self.stripped.setdefault(_key(_stripped(question)), self.first[index])
        self.comparisons_left = _MAX_COMPARISONS

    def find(self, text: str) -> int | None:
        key = _key(text)
        return self.exact.get(key, self.stripped.get(_key(_stripped(text)))) if key else None


class _Board:
    """Answers collected per question; two that differ leave it None."""

    def __init__(self, items: Sequence[Item], asked: Asked) -> None:
        self.items = items
        self.texts = [_unescaped(item.text) for item in items]
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
        ranked = sorted(((_drift(board.texts[place], questions[index]), index) for index in unanswered), reverse=True)
        if ranked and ranked[0][0] >= _SAME_WORDING and (len(ranked) == 1 or ranked[1][0] < ranked[0][0] - 0.05):
            taken[place] = ranked[0][1]
    board.put_found(taken)


def _by_number(board: _Board, alone: bool) -> None:
    """Ids count if all items carry one, each within 1..n and once, and no text found its question elsewhere."""
    count = len(board.questions)
    numbers = [
        item.number if item.number is not None else _number_of(text)
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
    if bool(_CJK.search(text)) != bool(_CJK.search(own)):
        return True  # translated: words cannot be compared
    if len(questions) > _MAX_FUZZY:
        return False
    overlap = _overlap(_words(text), _words(own))
    others = (_overlap(_words(text), _words(other)) for index, other in enumerate(questions) if index != place)
    return overlap >= _SAME_PLACE and overlap >= max(others, default=0.0)


def _drift(text: str, question: str) -> float:
    """How surely `text` is a small rewording of `question`: 0..1, and 0 where the sense may have changed."""
    cut = re.search(r"(?:\.{3}|\u2026)\s*$", text)
    if cut:
        start, whole = _key(_stripped(text[: cut.start()])), _key(_stripped(question))
        return 1.0 if len(start) >= 8 and whole.startswith(start) else 0.0
    mine, theirs = _words(text), _words(question)
    only_mine, only_theirs = mine - theirs, theirs - mine
    if _negations(text) != _negations(question) or _digits(text) != _digits(question):
        return 0.0
    if len(only_mine) > _MAX_CHANGED or len(only_theirs) > _MAX_CHANGED:
        return 0.0
    unpaired = [word for word in only_mine if not any(_alike(word, other) for other in only_theirs)]
    unanswered = [word for word in only_theirs if not any(_alike(word, other) for other in only_mine)]
    if unpaired and unanswered:
        return 0.0
    total = sum(mine.values()) + sum(theirs.values())
    return 1.0 - (len(unpaired) + len(unanswered)) / total if total else 0.0


def _overlap(mine: Counter[str], theirs: Counter[str]) -> float:
    total = sum(mine.values()) + sum(theirs.values())
    return 2 * sum((mine & theirs).values()) / total if total else 0.0


@lru_cache(maxsize=512)
def _words(text: str) -> Counter[str]:
    """Content words in a rough stem; pairs of characters where a script writes no spaces."""
    words: Counter[str] = Counter()
    for word in _WORD.findall(_stripped(text)[:_MAX_TEXT].casefold()):
        if _CJK.search(word):
            words.update(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif word not in _EMPTY_WORDS and word not in _NEGATIONS:
            words[_stem(word)] += 1
    return words


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s", "d", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word


def _alike(word: str, other: str) -> bool:
    """Whether two words are one in two spellings: a typo or an inflection, not "unchanged" for "changed"."""
    if min(len(word), len(other)) < 4 or word[0] != other[0]:
        return False
    return SequenceMatcher(None, word[:40], other[:40], autojunk=False).ratio() >= 0.8


def _negations(text: str) -> int:
    lowered = text[:_MAX_TEXT].casefold()
    spelt = [word for word in _WORD.findall(lowered) if word in _NEGATIONS and word != "t"]
    return len(spelt) + sum(character in _CHINESE_NEGATIONS for character in lowered)


def _digits(text: str) -> list[str]:
    return sorted(re.findall(r"[0-9]+", _stripped(text)[:_MAX_TEXT]))


def _number_of(text: str) -> int | None:
    found = _NUMBERING.match(text[:100])
    return int(found["number"]) if found else None


def _stripped(text: str) -> str:
    """Without numbering, a category in brackets and a "(yes/no)"."""
    head, rest = text[:100], text[100:]
    head = _CATEGORY.sub("", _NUMBERING.sub("", head, count=1), count=1) + rest
    return head[:-40] + _ANSWER_FORM.sub("", head[-40:])


def _key(text: str) -> str:
    """Letters and digits alone: what is left when case, space and punctuation drift."""
    return "".join(filter(str.isalnum, text.casefold()))


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    text = _UNICODE_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return re.sub(r"\\([nrtbf])", " ", text)
