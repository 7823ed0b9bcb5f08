"""Background drift: a local edit was asked for, but colours or content change all around.

Method: means over blocks of 1/32 of the longer side, compared between source and edited image in luma and chroma. In
the outer ring of the picture, where a local edit seldom reaches, the share of blocks that changed is measured.
Global edits (style, tone, background) rightly change the ring: no alarm.
Source: Edit-R1 (arXiv 2604.27505), judging rule "what nobody mentioned but changed costs more than a missed detail".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.guards.measures import Levels, block_means, chroma, luma, pair
from editr1_plugins.types import Alarm, Edit

__all__ = ["BackgroundDriftGuard", "ring_changed"]

_BLOCKS = 32  # along the longer side
_RING = 0.15  # width of the ring, share of each side


@dataclass(kw_only=True, eq=False)
class BackgroundDriftGuard(PixelGuard):
    """Caps an edit whose surroundings changed although nobody asked for that.

    Attributes:
        level: change of a block's mean luma or chroma, in levels of 0..255, from which the block counts as changed.
        share: share of the ring's blocks, 0..1, from which it is drift.
        cap: what the score becomes at most.
    """

    level: float = 5.0
    share: float = 0.65
    cap: float | None = 4.0

    def __post_init__(self) -> None:
        check_positive(level=self.level, share=self.share)
        check_caps(cap=self.cap)

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        if asked.everywhere or asked.saturation or asked.reframe or asked.collage:
            return None
        changed = ring_changed(*pair(edit), self.level)
        if changed < self.share:
            return None
        reason = (
            f"{changed:.0%} of the outer ring changed by {self.level:g} levels or more; only a local edit was asked"
        )
        return Alarm(flag="background_drift", reason=reason, cap=self.cap)


def ring_changed(source: Levels, edited: Levels, level: float) -> float:
    """Share of the outer ring's blocks whose mean luma or chroma changed by at least `level`."""
    block = max(1, round(max(edited.shape[:2]) / _BLOCKS))
    before, after = block_means(source, block), block_means(edited, block)
    change = np.maximum(np.abs(luma(after) - luma(before)), np.abs(chroma(after) - chroma(before)).max(axis=2))
    ring = np.ones(change.shape, bool)
    down, aside = (max(1, round(side * _RING)) for side in change.shape)
    ring[down:-down, aside:-aside] = False
    return float((change[ring] >= level).mean())
