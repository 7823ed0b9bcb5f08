"""Arithmetic on pixels that several guards share: numpy and pillow, no state, no thresholds.

The edited image's own pixels are what is measured; where sizes differ the source is brought to the edited image's grid,
so that nothing an editor left in its pixels is smoothed away. Only images above `PIXEL_LIMIT` are box-averaged first
(`pair`) or looked at through windows of their own pixels (`windows`), which bounds time and memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from editr1_plugins.types import Edit

__all__ = [
    "PIXEL_LIMIT",
    "WINDOW",
    "WINDOWS_A_SIDE",
    "Floats",
    "Levels",
    "block_means",
    "chroma",
    "fit",
    "levels",
    "local_range",
    "luma",
    "pair",
    "smooth",
    "windows",
]

#: Pixels up to which an image is measured whole and as it is.
PIXEL_LIMIT = 600_000
#: A larger one is looked at through 4x4 spread windows of so many pixels a side.
WINDOW = 192
WINDOWS_A_SIDE = 4

Levels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def levels(image: Image.Image) -> Levels:
    """The image as RGB levels 0..255, shape (height, width, 3)."""
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def fit(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None) -> Image.Image:
    """`image` (or its part `box`: left, top, right, bottom) as RGB of `size`, antialiased; itself if it fits."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if box is None and rgb.size == size:
        return rgb
    return rgb.resize(size, Image.Resampling.BICUBIC, box)


def pair(edit: Edit, limit: int = PIXEL_LIMIT) -> tuple[Levels, Levels]:
    """Source and edited levels on the edited image's grid; above `limit` pixels both are box-averaged."""
    edited = edit.edited
    factor = _factor(edited, limit)
    if factor > 1:
        edited = edited.convert("RGB").reduce(factor)
    source = edit.source
    if (spare := _factor(source, limit)) > 1:
        source = source.convert("RGB").reduce(spare)
    return levels(fit(source, edited.size)), levels(edited)


def _factor(image: Image.Image, limit: int) -> int:
    return max(1, int(np.ceil((image.width * image.height / limit) ** 0.5)))


def windows(edit: Edit, limit: int = PIXEL_LIMIT) -> Iterator[tuple[Levels, Levels]]:
    """Pairs of source and edited levels at the edited image's own pixels: the whole, or 16 windows of a large one."""
    width, height = edit.edited.size
    if width * height <= limit:
        yield pair(edit, limit)
        return
    wide, high = min(WINDOW, width), min(WINDOW, height)
    right, down = edit.source.width / width, edit.source.height / height
    for top in np.linspace(0, height - high, WINDOWS_A_SIDE).astype(int):
        for left in np.linspace(0, width - wide, WINDOWS_A_SIDE).astype(int):
            box = (left * right, top * down, (left + wide) * right, (top + high) * down)
            edited = edit.edited.crop((int(left), int(top), int(left) + wide, int(top) + high))
            yield levels(fit(edit.source, (wide, high), box)), levels(edited)


def luma(rgb: npt.NDArray[np.generic]) -> Floats:
    """Brightness 0..255 (Rec. 601), shape (height, width)."""
    return np.asarray(rgb, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def chroma(rgb: npt.NDArray[np.generic]) -> Floats:
    """Two colour-difference channels (Rec. 601 Cb, Cr, zero is grey), shape (height, width, 2)."""
    weights = np.array([[-0.168736, 0.5], [-0.331264, -0.418688], [0.5, -0.081312]], np.float32)
    return np.asarray(rgb, np.float32) @ weights


def block_means(array: npt.NDArray[np.generic], block: int) -> Floats:
    """Means over whole blocks of `block` x `block`; a remainder at the right and bottom joins the last block."""
    rows = np.arange(0, max(1, array.shape[0] // block)) * block
    columns = np.arange(0, max(1, array.shape[1] // block)) * block
    sums = np.add.reduceat(np.add.reduceat(array, rows, axis=0, dtype=np.float32), columns, axis=1, dtype=np.float32)
    high = np.diff(np.append(rows, array.shape[0]))
    wide = np.diff(np.append(columns, array.shape[1]))
    counts = np.outer(high, wide).astype(np.float32)
    return np.asarray(sums / counts.reshape(counts.shape + (1,) * (array.ndim - 2)), np.float32)


def local_range(array: Levels, radius: int) -> tuple[Levels, Levels]:
    """Lowest and highest level within `radius` pixels (a square), per pixel and channel."""
    low, high = array, array
    for axis in (0, 1):
        low, high = _running(low, radius, axis, np.minimum), _running(high, radius, axis, np.maximum)
    return low, high


def _running(array: Levels, radius: int, axis: int, pick: np.ufunc) -> Levels:
    out = array.copy()
    for step in range(1, min(radius, array.shape[axis] - 1) + 1):
        ahead, behind = [slice(None)] * array.ndim, [slice(None)] * array.ndim
        ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
        pick(out[tuple(behind)], array[tuple(ahead)], out=out[tuple(behind)])
        pick(out[tuple(ahead)], array[tuple(behind)], out=out[tuple(ahead)])
    return np.asarray(out, np.uint8)


def smooth(gray: Floats, radius: int) -> Floats:
    """Box mean over (2 radius + 1) squared pixels of a (height, width) array, edges repeated."""
    side = 2 * radius + 1
    padded = np.pad(gray, radius, mode="edge").astype(np.float64)
    total = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    window = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return np.asarray(window / side**2, np.float32)
