"""Pixel arithmetic that every measurement shares. Images are (H, W, 3) float32 RGB in 0..1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "Array",
    "Mask",
    "clipped_share",
    "components",
    "dilate",
    "distance",
    "drop",
    "length",
    "luma",
    "rise",
    "soft",
    "to_pixels",
]

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Mask: TypeAlias = npt.NDArray[np.bool_]
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def to_pixels(image: Image, most: int, size: tuple[int, int] | None = None) -> Array:
    """The image as RGB in 0..1, reduced to at most `most` pixels a side, or resized to `size` (width, height)."""
    from PIL.Image import Resampling

    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if size is None:
        scale = most / max(rgb.size)
        size = rgb.size if scale >= 1 else (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
    if size != rgb.size:
        shrinking = size[0] <= rgb.width and size[1] <= rgb.height
        rgb = rgb.resize(size, Resampling.BOX if shrinking else Resampling.BICUBIC)
    pixels: Array = np.asarray(rgb, np.float32) / np.float32(255)
    return pixels


def clipped_share(image: Image, size: tuple[int, int]) -> Array:
    """Share (H, W) of each pixel, at `size` (width, height), that has a channel at either end of its range."""
    import PIL.Image

    values = np.asarray(image)
    clipped = np.any((values >= 252) | (values <= 2), axis=-1, keepdims=True)[..., 0]
    reduced = PIL.Image.fromarray(clipped.astype(np.uint8) * 255).resize(size, PIL.Image.Resampling.BOX)
    share: Array = np.asarray(reduced, np.float32) / np.float32(255)
    return share


def luma(pixels: Array) -> Array:
    grey: Array = pixels @ _LUMA
    return grey


def distance(a: Array, b: Array) -> Array:
    """Root mean square over the channels: 0..1 per pixel."""
    lengths: Array = length(a - b) / np.float32(math.sqrt(a.shape[-1]))
    return lengths


def length(vectors: Array) -> Array:
    """Euclidean length over the last axis."""
    lengths: Array = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))
    return lengths


def rise(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high`, linear between."""
    return min(1.0, max(0.0, (float(value) - low) / (high - low)))


def drop(value: float, low: float, high: float) -> float:
    """1 up to `low`, 0 from `high`, linear between."""
    return 1.0 - rise(value, low, high)


def soft(value: float, free: float, scale: float) -> float:
    """1 up to `free`, then falling smoothly (1/e at `free + scale`) and never rising again."""
    return math.exp(-((max(0.0, value - free) / scale) ** 2))


def dilate(mask: Mask, steps: int) -> Mask:
    """Grow a mask by `steps` pixels: 4- and 8-neighbours in turn, so that it stays roundish."""
    for step in range(steps):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        wide = grown if step % 2 else mask
        grown = grown.copy()
        grown[:, 1:] |= wide[:, :-1]
        grown[:, :-1] |= wide[:, 1:]
        mask = grown
    return mask


def components(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    """4-connected components: labels (0 outside, 1..n inside) and n. Union-find over the runs of each row."""
    height, width = mask.shape
    labels = np.zeros((height, width), np.int32)
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    parent: list[int] = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above, row_list = 0, rows.tolist()
    start_list, end_list = starts.tolist(), ends.tolist()
    for run, row in enumerate(row_list):
        while row_list[above] < row - 1 or (row_list[above] == row - 1 and end_list[above] <= start_list[run]):
            above += 1
        other = above
        while other < run and row_list[other] == row - 1 and start_list[other] < end_list[run]:
            parent[root(other)] = root(run)
            other += 1
    names: dict[int, int] = {}
    for run, row in enumerate(row_list):
        labels[row, start_list[run] : end_list[run]] = names.setdefault(root(run), len(names) + 1)
    return labels, len(names)
