"""Oversharpening: edges and texture of the source are amplified, because judges take halos for detail.

Method: fine detail (a pixel against its 3x3 mean) of the edited image is regressed on that of the source, per block of
16 pixels; the slope is the gain. It is divided by the gain at a coarser scale, so that more contrast is not taken for
sharpening. Blocks whose detail is other than the source's (new content) are left out.
A larger edited image is compared at the source's size, since an enlarged source has no detail of its own. Pictures
under 64 pixels are not measured.
Source: Edit-R1 (arXiv 2604.27505), judging rule "over-sharpening".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.guards.measures import Floats, block_means, fit, luma, smooth, windows
from editr1_plugins.types import Alarm, Edit

__all__ = ["SharpnessGuard", "detail_gain"]

_SMALLEST = 64  # pixels of the shorter side; below, the coarser scale does not fit in
_BLOCK = 16
_COARSE = (8, 16)  # pixels, radii of the coarser scale: beyond the reach of usual sharpening
_TEXTURED = 1.5  # levels of fine detail (root mean square) from which a block is measured
_ALIKE = 0.6  # correlation of fine detail from which a block shows the same content
_FEWEST = 0.3  # share of measured blocks that must show the same content


@dataclass(kw_only=True, eq=False)
class SharpnessGuard(PixelGuard):
    """Caps an edit whose detail is the source's, amplified.

    Attributes:
        gain: factor by which fine detail is amplified, beyond contrast, from which it is oversharpened.
        soft_gain: the same for edits of tone or background.
        cap: what the score becomes at most.
        soft_cap: the same for edits of tone or background.
    """

    gain: float = 1.5
    soft_gain: float = 2.0
    cap: float | None = 5.0
    soft_cap: float | None = 7.0

    def __post_init__(self) -> None:
        check_positive(gain=self.gain, soft_gain=self.soft_gain)
        check_caps(cap=self.cap, soft_cap=self.soft_cap)

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        if asked.sharpness or asked.style:
            return None
        if min(*edit.edited.size, *edit.source.size) < _SMALLEST:
            return None
        gain = detail_gain(edit)
        if gain < (self.soft_gain if asked.everywhere else self.gain):
            return None
        reason = f"fine detail is amplified {gain:.2f} times against the source"
        return Alarm(flag="oversharpening", reason=reason, cap=self.soft_cap if asked.everywhere else self.cap)


def detail_gain(edit: Edit) -> float:
    """By what factor the edited image amplifies the source's fine detail, relative to contrast; 1.0 where unknown."""
    if edit.edited.width > edit.source.width:
        edit = Edit(source=edit.source, edited=fit(edit.edited, edit.source.size), instruction=edit.instruction)
    fine: list[Floats] = []
    coarse: list[Floats] = []
    for source, edited in windows(edit):
        fine.append(_gains(_band(luma(source), 0, 1), _band(luma(edited), 0, 1)))
        coarse.append(_gains(_band(luma(source), *_COARSE), _band(luma(edited), *_COARSE)))
    slope, alike = np.concatenate(fine, axis=1)
    same = alike >= _ALIKE
    if same.size == 0 or same.mean() < _FEWEST:
        return 1.0
    slope_coarse, alike_coarse = np.concatenate(coarse, axis=1)
    steady = alike_coarse >= _ALIKE
    contrast = float(np.median(slope_coarse[steady])) if steady.any() else 1.0
    return float(np.median(slope[same])) / max(contrast, 1.0)


def _band(gray: Floats, inner: int, outer: int) -> Floats:
    return (smooth(gray, inner) if inner else gray) - smooth(gray, outer)


def _gains(before: Floats, after: Floats) -> Floats:
    """Slope and correlation of `after` on `before`, for every block where `before` has structure; shape (2, blocks)."""
    energy, energy_after = block_means(before**2, _BLOCK), block_means(after**2, _BLOCK)
    shared = block_means(before * after, _BLOCK)
    measured = energy >= _TEXTURED**2
    slope = shared[measured] / energy[measured]
    return np.stack([slope, shared[measured] / np.sqrt(energy[measured] * energy_after[measured] + 1e-6)])
