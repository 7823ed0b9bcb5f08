"""Quality, of any image: sharpness and noise relative to the source, proportions and borders."""

from __future__ import annotations

from typing import Final

import numpy as np

from editr1_plugins.verifiers.measuring.comparison import Finding, unmeasured
from editr1_plugins.verifiers.measuring.pixels import Array, drop, rise

__all__ = ["borders", "clean", "framed", "noise_level", "sharp", "sharpness"]

_EDGE: Final = 0.30  # range, summed over the channels, within 7x7 pixels that makes an edge
_LEAST_EDGES: Final = 8  # pixels of edge
_SHARP: Final = (0.25, 0.85)  # edge steepness relative to the source
_NOISE: Final = (0.012, 0.055)  # deviation from the local median, beyond the source's
_ALL_NOISE: Final = 0.15  # deviation from the local median of an image that is nothing but noise
_SPECKLE: Final = (0.02, 0.10)  # share of pixels that stand out from their neighbours, beyond the source's
_BORDER_PLAIN, _BORDER_STEP = 0.06, 0.15  # largest difference within a border, least difference at its inner edge
_DEEPEST_BORDER: Final = 0.2  # share of a side in which a border is looked for


def _extreme(values: Array, fold: np.ufunc) -> Array:
    """Largest or smallest value within 3x3 pixels; the result is 2 smaller in both directions."""
    rows = fold(fold(values[:-2], values[1:-1]), values[2:])
    return fold(fold(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])  # type: ignore[no-any-return]


def sharpness(pixels: Array) -> tuple[float, int]:
    """How much of an edge's height is climbed within 3 pixels (0..1; a step has 1), and how many edge pixels there are.

    The same measure for any content: what is blurred is the edges that are there, not their number.
    """
    if min(pixels.shape[:2]) < 7:
        return 1.0, 0
    low, high = _extreme(pixels, np.minimum), _extreme(pixels, np.maximum)
    near = (high - low)[2:-2, 2:-2].sum(-1)
    far = (_extreme(_extreme(high, np.maximum), np.maximum) - _extreme(_extreme(low, np.minimum), np.minimum)).sum(-1)
    # Only strong edges, and only their middle: beside it the wide window sees the edge and the small one does not.
    middle = (far > max(_EDGE, 0.5 * float(far.max()))) & (near >= 0.25 * far)
    if not middle.any():
        return 1.0, 0
    return float(np.quantile(near[middle] / far[middle], 0.75)), int(middle.sum())


def sharp(source: tuple[float, int], edited: tuple[float, int], noise: float) -> Finding:
    """Kind `sharp`, from both images' `sharpness` and the edited image's noise, under which there is nothing sharp."""
    if noise > _ALL_NOISE:
        return Finding(degree=0.0, reason=f"noise of {noise:.2f} hides what edges there are")
    if source[1] < _LEAST_EDGES:
        return unmeasured("the source has no edges to compare with")
    if edited[1] < _LEAST_EDGES:
        return unmeasured("the edited image has no edges whose sharpness could be measured")
    ratio = edited[0] / source[0]
    return Finding(degree=float(rise(ratio, *_SHARP)), reason=f"edges are {ratio:.2f} times as steep as in the source")


def noise_level(pixels: Array) -> tuple[float, float]:
    """(typical deviation from the median of 3x3 neighbours, share of pixels that deviate visibly); edges have none."""
    height, width = pixels.shape[:2]
    if min(height, width) < 3:
        return 0.0, 0.0
    window = [pixels[y : y + height - 2, x : x + width - 2] for y in range(3) for x in range(3)]
    away = np.abs(window[4] - np.partition(np.stack(window), 4, axis=0)[4]).max(-1)
    return float(np.quantile(away, 0.6)), float((away > 0.09).mean())


def clean(source: tuple[float, float], edited: tuple[float, float]) -> Finding:
    """Kind `clean`, from both images' `noise_level`; half as much again as the source has is left out of account."""
    noise = edited[0] - 1.5 * source[0]
    speckle = edited[1] - 1.5 * source[1]
    degree = float(drop(noise, *_NOISE)) * float(drop(speckle, *_SPECKLE))
    return Finding(degree=degree, reason=f"noise {edited[0]:.3f} (source {source[0]:.3f}), speckles {edited[1]:.3f}")


def borders(pixels: Array) -> tuple[float, ...]:
    """Width of a plain border at each side (top, bottom, left, right) as a share of the side; 0 where there is none.

    A border is a margin of one colour that ends in a step along most of the side.
    """
    turned = pixels.swapaxes(0, 1)
    return tuple(_border(view) for view in (pixels, pixels[::-1], turned, turned[::-1]))


def _border(view: Array) -> float:
    deepest = min(len(view) - 1, max(1, round(_DEEPEST_BORDER * len(view))))
    if deepest < 1 or view.shape[1] < 8:
        return 0.0
    away = np.abs(view[: deepest + 1] - view[0].mean(0)).max(-1)
    lines = (away < _BORDER_PLAIN).mean(1) > 0.97
    if not lines[0] or lines.all():
        return 0.0
    depth = int(np.argmin(lines))
    return depth / len(view) if (away[depth] > _BORDER_STEP).mean() > 0.8 else 0.0


def framed(
    source: tuple[float, ...],
    edited: tuple[float, ...],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    same_aspect: bool,
) -> Finding:
    """Kind `framed`, from both images' `borders` and `sizes` (width, height): same proportions, no new border."""
    (width, height), (new_width, new_height) = sizes
    words = "size is kept" if sizes[0] == sizes[1] else f"{new_width}x{new_height} instead of {width}x{height}"
    if not same_aspect:
        return Finding(degree=0.0, reason=f"{words}: other proportions")
    new = [depth for depth, old in zip(edited, source, strict=True) if depth > old + 0.01]
    if new:
        return Finding(degree=max(0.0, 0.5 - 2 * sum(new)), reason=f"{words}; a new border on {len(new)} of 4 sides")
    return Finding(degree=1.0 if sizes[0] == sizes[1] else 0.95, reason=f"{words}; no new border")
