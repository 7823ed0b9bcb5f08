"""No-edit copy: the policy returns the source, perhaps re-encoded, rescaled or a pixel aside, to earn Keep points.

Method: both images are smoothed by a box of about 1/20 of the longer side; the change is the largest step of luma or
chroma by which one leaves the range the other has within a pixel. Re-encoding, rescaling, an autoencoder or a shift by
a pixel stay below 6 levels, while an edit of 1/12 of the shorter side already shows 15 and more. Where an edit may lie
in fine detail alone (style, sharpening, grain), the pixels themselves must agree as well.
Source: Edit-R1 (arXiv 2604.27505), judging rule "no edit happened means 0".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.guards.measures import Levels, local_range, luma, pair
from editr1_plugins.types import Alarm, Edit

__all__ = ["NoEditGuard", "largest_change"]

_BOX = 1 / 40  # radius of the smoothing box, share of the longer side
_FAR = 48  # levels beyond all neighbours in the source
_FAR_SHARE = 0.0005  # of the pixels
_SMALL = 96  # pixels of the longer side below which no shift is forgiven


@dataclass(kw_only=True, eq=False)
class NoEditGuard(PixelGuard):
    """Caps at 0 where nothing was edited, so a copy costs no judge call.

    Attributes:
        threshold: largest smoothed change, in levels of 0..255, that still counts as a copy.
        small_threshold: the same for pictures under 96 pixels, where smoothing takes away less.
        detail_threshold: mean luma change per pixel, in levels, that still counts as a copy where fine detail was
            asked for.
        cap: what the score becomes at most.
    """

    threshold: float = 6.0
    small_threshold: float = 10.0
    detail_threshold: float = 2.5
    cap: float | None = 0.0

    def __post_init__(self) -> None:
        check_positive(threshold=self.threshold, small_threshold=self.small_threshold)
        check_positive(detail_threshold=self.detail_threshold)
        check_caps(cap=self.cap)

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        source, edited = pair(edit)
        change = largest_change(source, edited)
        small = max(edit.edited.size) < _SMALL
        if change >= (self.small_threshold if small else self.threshold):
            return None
        if asked.texture:
            detail = float(np.abs(luma(edited) - luma(source)).mean())
            if detail >= self.detail_threshold or _dotted(source, edited):
                return None
        reason = f"the edited image is a copy of the source: no area changes by more than {change:.1f} of 255 levels"
        return Alarm(flag="no_edit", reason=reason, cap=self.cap)


def largest_change(source: Levels, edited: Levels) -> float:
    """Largest change of smoothed luma or chroma beyond what a pixel's shift explains, in levels 0..255."""
    radius = max(1, round(max(edited.shape[:2]) * _BOX))
    before, after = _smoothed(source, radius), _smoothed(edited, radius)
    # In a tiny picture one pixel is much: an edit may hide in it.
    aside = 1 if max(edited.shape[:2]) >= _SMALL else 0
    change = np.maximum(_outside(after, before, aside), _outside(before, after, aside)).max(axis=2)
    margin = radius + 1  # the smoothing repeats the outermost pixels, which weighs them too much
    if min(change.shape) > 4 * margin:
        change = change[margin:-margin, margin:-margin]
    return float(change.max(initial=0))


def _dotted(source: Levels, edited: Levels) -> bool:
    """Whether single pixels changed far, as stars or snow do, which leaves every mean as it was."""
    far = _outside(edited, source, 1).max(axis=2) >= _FAR
    return bool(far.mean() >= _FAR_SHARE)


def _smoothed(rgb: Levels, radius: int) -> Levels:
    # Merged as RGB because pillow smooths no YCbCr images.
    planes = Image.merge("RGB", Image.fromarray(rgb).convert("YCbCr").split())
    return np.asarray(planes.filter(ImageFilter.BoxBlur(radius)))


def _outside(values: Levels, reference: Levels, aside: int) -> npt.NDArray[np.int16]:
    low, high = local_range(reference, aside)
    signed = values.astype(np.int16)
    return np.asarray(np.maximum(np.maximum(signed - high, low - signed), 0), np.int16)
