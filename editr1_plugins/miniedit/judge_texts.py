"""What is said to and by MiniEdit's judge, cut into pieces of which its tokenizer makes one token each.

Cut at what varies: the names of shapes, colours and places, the numbers. What stands between is the wording of prompts
and answers, and there is little of it. It is found by writing prompts and answers of many tasks, so it follows the
wording of the day.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from editr1_plugins.miniedit.compounds import Compound, sample_compound
from editr1_plugins.miniedit.world import BACKGROUNDS, COLOURS, KINDS, QUARTERS, draw
from editr1_plugins.principles.phrases import parse_question, subject_of
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.types import FOLLOW, Edit, Principle
from editr1_plugins.verifiers.prompting import MODES, judge_request

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["answer_pieces", "judge_pieces", "main_principles", "prompt_pieces", "some_principles"]

_WORD: Final = re.compile(
    rf"(\b(?:(?:{'|'.join(COLOURS)}) (?:{'|'.join(KINDS)})|{'|'.join((*QUARTERS, *COLOURS, *BACKGROUNDS, *KINDS))})\b)"
)
#: A question is the same pieces in the prompt and in the answer, and a verdict is a piece of its own: a verdict that is
#: one token with the words around it is learned anew for each wording, and not at all from so little data.
_SEAM: Final = re.compile(
    r'(?<="question": ")|(?="\}\n)|(?=", "score": )|(?<="score": )|(?=\}, \{"question")|(?=\}\])'
    r"|(?=: (?:done|not done|partly done))|(?<=done)"
)
_NUMBER: Final = re.compile(r'((?<="average_score": )[0-9.]+|(?<=<score>)[0-9.]+|(?<="score": )[01])')
_MOST_OF_A_CATEGORY: Final = 2
_MOST_PRINCIPLES: Final = 17
_NUMBERS: Final = (
    *(f"{half / 2:.1f}" for half in range(21)),
    *(f"{round(met / count, 2):.2f}" for count in range(1, _MOST_PRINCIPLES) for met in range(count + 1)),
)


def prompt_pieces(edit: Edit, principles: Sequence[Principle]) -> Iterator[str]:
    """The pieces of the judge's prompts in all modes."""
    for mode in MODES:
        request = judge_request(edit, principles, mode)
        task, _, between, _ = request.parts
        yield from (request.system, str(between))
        yield from _cut(str(task))


def answer_pieces(answer: str) -> Iterator[str]:
    """The pieces of one answer, its numbers among them."""
    for part in filter(None, _NUMBER.split(answer)):
        yield from _cut(part)


def main_principles(principles: Sequence[Principle]) -> list[Principle]:
    """Of each requested change the first question, and the first two of what is to be kept and of quality, in order."""
    kept, asked = [], set()
    counts: Counter[str] = Counter()
    for principle in principles:
        if principle.category == FOLLOW:
            ask = parse_question(principle.question)
            subject = principle.question if ask is None else subject_of(ask)
            if subject not in asked:
                kept.append(principle)
            asked.add(subject)
        elif counts[principle.category] < _MOST_OF_A_CATEGORY:
            kept.append(principle)
            counts[principle.category] += 1
    return kept


def some_principles(rng: np.random.Generator, principles: Sequence[Principle]) -> range:
    """Places of a run of principles that follow each other; mostly few."""
    count = min(len(principles), int(rng.choice([1, 2, 3, 4, 6, 9, 16], p=[0.2, 0.2, 0.2, 0.15, 0.12, 0.08, 0.05])))
    first = int(rng.integers(len(principles) - count + 1))
    return range(first, first + count)


def judge_pieces(answers: Iterable[str], *, tasks: int = 3000, seed: int = 1) -> list[str]:
    """Every piece of the prompts of many tasks, of `answers`, and all numbers an answer may hold; sorted."""
    rng = np.random.default_rng(seed)
    pieces: set[str] = set(_NUMBERS)
    for _ in range(tasks):
        compound = sample_compound(rng)
        for principles, edit in _asked(rng, compound):
            pieces.update(prompt_pieces(edit, principles))
    for answer in answers:
        pieces.update(answer_pieces(answer))
    return sorted(pieces)


def _asked(rng: np.random.Generator, compound: Compound) -> Iterator[tuple[Sequence[Principle], Edit]]:
    image: Image = draw(compound.task.scene)
    edit = Edit(source=image, edited=image, instruction=compound.task.instruction)
    principles = decompose_instruction(compound.task.instruction)
    yield principles, edit
    yield main_principles(principles), edit
    yield [principles[place] for place in some_principles(rng, principles)], edit


def _cut(text: str) -> Iterator[str]:
    for part in _WORD.split(text):
        yield from filter(None, _SEAM.split(part))
