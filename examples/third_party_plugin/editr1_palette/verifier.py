"""Answers questions about the palette by counting colours; abstains on every other question."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from editr1_plugins.types import FOLLOW, MAX_SCORE, Edit, Principle, Verdict, Verification

from .colours import colourfulness, main_colours, regional_change, share_of_main_colours

__all__ = ["PaletteVerifier"]

_AT_MOST = re.compile(r"at most ([0-9]{1,3}) colours")

COVERED = 0.995  # share of pixels that the palette must explain; the rest may be stray pixels
SAME_REGION = 32.0  # largest change of a region's mean colour, of 255
TELL_APART = 12.0  # smallest distance between two colours of the palette, of 441
GREY = 4.0  # largest mean channel distance of a grey image, of 255


class PaletteVerifier:
    """Measures palettes. The score is 10 x the share of measured principles that are met; 0 if a Follow one is not.

    An edit of which a Follow principle cannot be measured gets no score.
    """

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        return [self._judge(edit, asked) for edit, asked in zip(edits, principles, strict=True)]

    def _judge(self, edit: Edit, asked: Sequence[Principle]) -> Verification:
        verdicts = tuple(_answer(edit, principle) for principle in asked)
        follow = [verdict.passed for verdict in verdicts if verdict.principle.category == FOLLOW]
        if not follow or None in follow:
            reason = "palette measures colours only, and the instruction asks for something else"
            return Verification(score=None, verdicts=verdicts, failure=reason, samples=0)
        measured = [verdict.passed for verdict in verdicts if verdict.passed is not None]
        average = sum(measured) / len(measured)
        return Verification(score=MAX_SCORE * average if all(follow) else 0.0, verdicts=verdicts, average=average)


def _answer(edit: Edit, principle: Principle) -> Verdict:
    question = principle.question.lower()
    limit = _AT_MOST.search(question)
    if limit and int(limit[1]):
        share = share_of_main_colours(edit.edited, int(limit[1]))
        return _verdict(principle, share >= COVERED, f"{limit[1]} colours cover {share:.1%} of the pixels")
    if "black and white" in question:
        found = colourfulness(edit.edited)
        return _verdict(principle, found <= GREY, f"channels differ by {found:.1f} of 255 on average")
    if "close to its colour in the source" in question:
        change = regional_change(edit.source, edit.edited)
        return _verdict(
            principle, change <= SAME_REGION, f"a region's mean colour changed by up to {change:.1f} of 255"
        )
    if "easy to tell apart" in question:
        nearest = _nearest(edit)
        return _verdict(principle, nearest >= TELL_APART, f"the two closest colours are {nearest:.1f} apart")
    return Verdict(principle=principle, passed=None, reason="not a question about the palette")


def _verdict(principle: Principle, passed: bool, reason: str) -> Verdict:
    return Verdict(principle=principle, passed=bool(passed), reason=reason)


def _nearest(edit: Edit) -> float:
    """Distance between the two closest colours that each cover at least 1 % of the edited image."""
    colours, shares = main_colours(edit.edited, 256)
    colours = colours[shares >= 0.01]
    if len(colours) < 2:
        return 0.0
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    return float(distances[np.triu_indices(len(colours), 1)].min())
