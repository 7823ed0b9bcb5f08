"""Finding one picture inside another at some scale: normalised cross-correlation of fine structure, by FFT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from editr1_plugins.guards.measures import Floats, smooth

__all__ = ["REFINE", "Match", "best_match", "contrast", "correlation", "structure", "thumbnail"]

#: Fills the steps of 7 % between two scales.
REFINE = (0.955, 0.97, 0.985, 1.015, 1.03, 1.045)
_RADIUS = 3  # pixels; the same for picture and template, whatever their sizes
_FLAT = 3.0  # levels; a picture whose fine structure has less standard deviation shows nothing to match


@dataclass(frozen=True, kw_only=True)
class Match:
    """Where a template fits best: `likeness` is the correlation (-1..1), `left`, `top` its place in the image's pixels,
    `scale` the (horizontal, vertical) factors it was resized by."""

    likeness: float
    left: int
    top: int
    scale: tuple[float, float]


def thumbnail(image: Image.Image, long_side: int, like: tuple[int, int] | None = None) -> Image.Image:
    """Grey and small: `long_side` pixels along the longer side, in the proportions of `like` (default: its own)."""
    width, height = like or image.size
    factor = long_side / max(width, height)
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    # Reducing first in whole steps keeps the antialiasing of large images cheap.
    return image.convert("L").resize(size, Image.Resampling.BOX, reducing_gap=3.0)


def structure(gray: Image.Image) -> Floats:
    """Edges and texture without slow brightness, which nearly every picture shares with every other."""
    array = np.asarray(gray, np.float32)
    return array - smooth(array, _RADIUS)


def contrast(fine: Floats) -> float:
    """Share of a picture's 36 fields that show structure, 0..1."""
    rows = np.array_split(fine, 6, axis=0)
    fields = [field for row in rows for field in np.array_split(row, 6, axis=1) if field.size]
    return float(np.mean([field.std() > _FLAT for field in fields])) if fields else 0.0


def best_match(
    template: Image.Image,
    image: Image.Image,
    scales: Iterable[tuple[float, float]],
    box: tuple[int, int, int, int] | None = None,
    refine: Iterable[float] = (),
) -> Match:
    """The best place for `template` (or its part `box`), resized by each of `scales`, anywhere in `image`; both grey.

    `refine`: factors by which the best scale is then varied.
    """
    field = structure(image)
    best = Match(likeness=-1.0, left=0, top=0, scale=(1.0, 1.0))
    best = _best(template, field, scales, box, best)
    near = [(best.scale[0] * factor, best.scale[1] * factor) for factor in refine]
    return _best(template, field, near, box, best)


def _best(
    template: Image.Image,
    field: Floats,
    scales: Iterable[tuple[float, float]],
    box: tuple[int, int, int, int] | None,
    best: Match,
) -> Match:
    for scale, fine in _resized(template, scales, box):
        if fine.shape[0] > field.shape[0] or fine.shape[1] > field.shape[1]:
            continue
        likeness = correlation(fine, field)
        top, left = np.unravel_index(int(likeness.argmax()), likeness.shape)
        if likeness[top, left] > best.likeness:
            best = Match(likeness=float(likeness[top, left]), left=int(left), top=int(top), scale=scale)
    return best


def _resized(
    template: Image.Image, scales: Iterable[tuple[float, float]], box: tuple[int, int, int, int] | None
) -> Iterator[tuple[tuple[float, float], Floats]]:
    for scale in scales:
        size = (max(8, round(template.width * scale[0])), max(8, round(template.height * scale[1])))
        fine = structure(template.resize(size, Image.Resampling.BICUBIC))
        left, top, right, bottom = box or (0, 0, *template.size)
        part = [round(left * scale[0]), round(top * scale[1]), round(right * scale[0]), round(bottom * scale[1])]
        if box is None:  # what lies beside the template in the image reaches so far into it
            part = [part[0] + _RADIUS, part[1] + _RADIUS, part[2] - _RADIUS, part[3] - _RADIUS]
        if min(part[2] - part[0], part[3] - part[1]) >= _RADIUS:
            yield scale, fine[part[1] : part[3], part[0] : part[2]]


def correlation(template: Floats, image: Floats) -> Floats:
    """Normalised cross-correlation at every place where the template lies wholly inside; 0 where the image is flat."""
    high, wide = template.shape
    centred = template - template.mean()
    energy = float((centred**2).sum())
    spectrum = np.fft.rfft2(image) * np.conj(np.fft.rfft2(centred, image.shape))
    shape = (image.shape[0] - high + 1, image.shape[1] - wide + 1)
    products = np.fft.irfft2(spectrum, image.shape)[: shape[0], : shape[1]]
    spread = _window_sums(image**2, high, wide) - _window_sums(image, high, wide) ** 2 / (high * wide)
    floor = high * wide * _FLAT**2 / 4
    return np.asarray(
        np.where((spread > floor) & (energy > floor), products / np.sqrt(np.maximum(spread * energy, 1.0)), 0.0),
        np.float32,
    )


def _window_sums(array: Floats, high: int, wide: int) -> npt.NDArray[np.float64]:
    total = np.pad(array.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return np.asarray(total[high:, wide:] - total[:-high, wide:] - total[high:, :-wide] + total[:-high, :-wide])
