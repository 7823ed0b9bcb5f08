"""What is said to and by MiniEdit's judge, cut into pieces of which its tokenizer makes one token each.

Cut at what varies: the names of shapes, colours and places, the numbers. What stands between is the wording of prompts
and answers, and there is little of it. It is found by writing prompts and answers of many tasks, so it follows the
wording of the day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from editr1_plugins.miniedit.compounds import Compound, sample_compound
from editr1_plugins.miniedit.world import BACKGROUNDS, COLOURS, KINDS, QUARTERS, Scene, draw
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.types import Edit, Principle
from editr1_plugins.verifiers.prompting import MODES, judge_request

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CAPTION_REQUEST", "answer_pieces", "caption", "judge_pieces", "prompt_pieces", "some_principles"]

#: What the untrained model is first taught to answer with `caption`.
CAPTION_REQUEST: Final = "Describe both images.\n"

_WORD: Final = re.compile(
    rf"(\b(?:(?:{'|'.join(COLOURS)}) (?:{'|'.join(KINDS)})"
    rf"|{'|'.join((*QUARTERS, *COLOURS, *BACKGROUNDS, *KINDS))}|background|edited image|every object)\b)"
)
_NUMBER: Final = re.compile(r'((?<="average_score": )[0-9.]+|(?<=<score>)[0-9.]+)')
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
        for part in _cut(_WORD, str(task)):
            yield from filter(None, re.split(r'(?="\}\n)', part))


def answer_pieces(answer: str) -> Iterator[str]:
    """The pieces of one answer, its numbers among them."""
    for part in _cut(_NUMBER, answer):
        yield from _cut(_WORD, part)


def caption(scene: Scene) -> str:
    """What is in an image: background, then what each quarter holds."""
    held = {shape.quarter: shape.name for shape in scene.shapes}
    places = ", ".join(f"{quarter} {held.get(quarter, 'none')}" for quarter in QUARTERS)
    return f"{scene.background} background, {places}"


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
    yield [principles[place] for place in some_principles(rng, principles)], edit


def _cut(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    return filter(None, pattern.split(text))
