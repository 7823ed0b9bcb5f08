"""Oversaturation: the colours of the whole picture are pushed, because judges like vivid pictures.

Method: means over blocks of 1/32 of the longer side. Among the blocks that have colour in the source, the share is
measured whose hue stayed and whose chroma grew. An edit that paints or replaces objects changes hues, or few blocks.
Where the instruction asks for vivid colours or another style nothing is said; a change of tone or background must be
stronger to count and costs less.
Source: Edit-R1 (arXiv 2604.27505), judging rule "oversaturation".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.guards.measures import Levels, block_means, chroma, pair
from editr1_plugins.types import Alarm, Edit

__all__ = ["SaturationGuard", "pushed_colors"]

_BLOCKS = 32
_COLORED = 6.0  # levels of chroma from which a block has a colour
_SAME_HUE = 0.9  # cosine between the chroma before and after
_FEWEST = 0.05  # share of blocks with colour below which nothing can be said


@dataclass(kw_only=True, eq=False)
class SaturationGuard(PixelGuard):
    """Caps an edit whose colours were pushed all over.

    Attributes:
        growth: factor of chroma from which a block counts as pushed.
        soft_growth: the same where tone or background were to change.
        share: share of the coloured blocks, 0..1, from which the picture counts as oversaturated.
        cap: what the score becomes at most.
        soft_cap: the same where tone or background were to change.
    """

    growth: float = 1.2
    soft_growth: float = 1.8
    share: float = 0.6
    cap: float | None = 5.0
    soft_cap: float | None = 7.0

    def __post_init__(self) -> None:
        check_positive(growth=self.growth, soft_growth=self.soft_growth, share=self.share)
        check_caps(cap=self.cap, soft_cap=self.soft_cap)

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        if asked.saturation or asked.style:
            return None
        soft = asked.everywhere
        pushed, growth = pushed_colors(*pair(edit), self.soft_growth if soft else self.growth)
        if pushed < self.share:
            return None
        reason = f"colours are pushed in {pushed:.0%} of the coloured areas, to {growth:.2f} times their chroma"
        return Alarm(flag="oversaturation", reason=reason, cap=self.soft_cap if soft else self.cap)


def pushed_colors(source: Levels, edited: Levels, growth: float) -> tuple[float, float]:
    """Share of coloured blocks whose hue stayed and whose chroma grew by `growth`, and the median factor of all."""
    block = max(1, round(max(edited.shape[:2]) / _BLOCKS))
    before, after = chroma(block_means(source, block)), chroma(block_means(edited, block))
    strength, strength_after = np.hypot(*np.moveaxis(before, 2, 0)), np.hypot(*np.moveaxis(after, 2, 0))
    colored = strength >= _COLORED
    if colored.mean() < _FEWEST:
        return 0.0, 1.0
    product = np.maximum(strength * strength_after, 1e-6)
    same_hue = (before * after).sum(axis=2) / product >= _SAME_HUE
    factor = strength_after / np.maximum(strength, 1e-6)
    pushed = same_hue & (factor >= growth)
    return float(pushed[colored].mean()), float(np.median(factor[colored]))
