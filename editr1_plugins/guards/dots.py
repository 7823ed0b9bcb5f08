"""Residual dots: what a stochastic sampler leaves behind, as grain all over or as single dots.

Method, at the edited image's own pixels. Grain: the finest diagonal detail that the source does not explain, its noise
level per block of 32 pixels (median absolute deviation); it must be there in most blocks, so new texture in one place
is none. Dots: pixels that stand out both from their ring of radius 2 and from all the source has within 2 pixels,
spread over the picture. Where tone or background were to change, only grain is looked for and it must be stronger,
since what was invisible may rightly become visible. Snow, stars or film grain may be asked for, and styles have their
own texture: then nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.guards.measures import WINDOWS_A_SIDE, Floats, Levels, chroma, local_range, luma, windows
from editr1_plugins.types import Alarm, Edit

__all__ = ["DotsGuard", "new_dots", "new_grain"]

_BLOCK = 32
_MOST = 0.2  # quantile over blocks: 80 % of them have at least this much grain
_CELLS = 8  # dots are counted in 8x8 cells of the picture
_RING = tuple((y, x) for y in (-2, 0, 2) for x in (-2, 0, 2) if (y, x) != (0, 0))
_EVEN = 64  # levels; a ring with a wider range is texture, not ground
_OVER = 0.7  # of the ring's range, by which a dot must stand out
_STAYED = 6.0  # levels; a cell whose mean changed more was edited
_FEWEST = 12  # cells that must have stayed


@dataclass(kw_only=True, eq=False)
class DotsGuard(PixelGuard):
    """Caps an edit that is covered with grain or dots.

    Attributes:
        grain: standard deviation of new noise, in levels of 0..255, from which it is an alarm.
        soft_grain: the same where tone or background were to change.
        contrast: how far a dot stands out, in levels of luma.
        spread: share of those of the picture's 64 cells that were not edited that must hold new dots, 0..1.
        cap: what the score becomes at most.
        soft_cap: the same where tone or background were to change.
    """

    grain: float = 2.7
    soft_grain: float = 5.0
    contrast: float = 24.0
    spread: float = 0.16
    cap: float | None = 4.0
    soft_cap: float | None = 6.0

    def __post_init__(self) -> None:
        check_positive(grain=self.grain, soft_grain=self.soft_grain, contrast=self.contrast, spread=self.spread)
        check_caps(cap=self.cap, soft_cap=self.soft_cap)

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        if asked.speckle or asked.style or asked.sharpness or asked.collage:
            return None
        soft = asked.everywhere or asked.saturation or asked.reframe
        views = list(windows(edit))
        grain = float(np.median([new_grain(luma(source), luma(edited)) for source, edited in views]))
        if grain >= (self.soft_grain if soft else self.grain):
            reason = f"grain of {grain:.1f} levels covers the picture and is not in the source"
            return Alarm(flag="residual_dots", reason=reason, cap=self.soft_cap if soft else self.cap)
        if soft:
            return None
        cells = _CELLS if len(views) == 1 else _CELLS // WINDOWS_A_SIDE
        held = np.concatenate([new_dots(source, edited, self.contrast, cells) for source, edited in views])
        if held.size < _FEWEST or (spread := float(held.mean())) < self.spread:
            return None
        reason = f"dots that the source lacks lie in {spread:.0%} of the fields that were not edited"
        return Alarm(flag="residual_dots", reason=reason, cap=self.cap)


def new_grain(source: Floats, edited: Floats) -> float:
    """Noise of `edited` that `source` does not explain, in levels: what at least 80 % of the blocks have."""
    if min(edited.shape) < 4:
        return 0.0
    before, after = _diagonal(source), _diagonal(edited)
    energy = float((before**2).sum())
    unexplained = after - (float((before * after).sum()) / energy) * before if energy > 0 else after
    side = min(_BLOCK, *unexplained.shape)
    high, wide = unexplained.shape[0] // side, unexplained.shape[1] // side
    blocks = np.abs(unexplained[: high * side, : wide * side]).reshape(high, side, wide, side)
    noise = np.median(blocks.swapaxes(1, 2).reshape(high, wide, -1), axis=2) / 0.6745
    return float(np.quantile(noise, _MOST))


def _diagonal(gray: Floats) -> Floats:
    """Finest diagonal detail; white noise keeps its standard deviation."""
    return np.asarray((gray[:-1, :-1] - gray[:-1, 1:] - gray[1:, :-1] + gray[1:, 1:]) / 2, np.float32)


def new_dots(source: Levels, edited: Levels, contrast: float, cells: int) -> npt.NDArray[np.bool_]:
    """Which of the cells that were not edited, of `cells` x `cells`, hold dots that the source has not; one row."""
    if min(edited.shape[:2]) < 4 * cells:
        return np.zeros(0, bool)
    before, after = _gray(source), _gray(edited)
    ring_low, ring_high = _ring(after)
    width = (ring_high - ring_low).astype(np.float32)
    beyond_source = _beyond(after, *local_range(before, 2))
    dots = (_beyond(after, ring_low, ring_high) >= np.maximum(contrast, _OVER * width)) & (beyond_source >= contrast)
    held = _cells(dots & (width <= _EVEN), cells) > 0
    # New content has structure of its own; only what stayed can tell.
    size = _cells(np.ones(dots.shape, np.float32), cells)
    change = np.stack([_cells(luma(rgb), cells) / size for rgb in (source, edited)])
    shift = np.stack([_cells(chroma(rgb), cells) / size[..., None] for rgb in (source, edited)])
    stayed = (np.abs(change[1] - change[0]) < _STAYED) & (np.abs(shift[1] - shift[0]) < _STAYED).all(axis=2)
    return np.asarray(held[stayed])


def _gray(rgb: Levels) -> Levels:
    return np.asarray(luma(rgb) + 0.5, np.uint8)


def _cells(array: npt.NDArray[np.generic], cells: int) -> npt.NDArray[np.float32]:
    rows, columns = (np.linspace(0, side, cells, endpoint=False).astype(int) for side in array.shape[:2])
    down = np.add.reduceat(array, rows, axis=0, dtype=np.float32)
    return np.asarray(np.add.reduceat(down, columns, axis=1, dtype=np.float32))


def _ring(gray: Levels) -> tuple[Levels, Levels]:
    """Lowest and highest level of eight pixels at distance 2."""
    padded = np.pad(gray, 2, mode="edge")
    high, wide = gray.shape
    ring = [padded[2 + y : 2 + y + high, 2 + x : 2 + x + wide] for y, x in _RING]
    low, top = ring[0].copy(), ring[0].copy()
    for view in ring[1:]:
        np.minimum(low, view, out=low)
        np.maximum(top, view, out=top)
    return low, top


def _beyond(values: Levels, low: Levels, high: Levels) -> npt.NDArray[np.int16]:
    """By how many levels a value lies outside low..high; negative inside."""
    signed = values.astype(np.int16)
    return np.asarray(np.maximum(signed - high, low - signed), np.int16)
