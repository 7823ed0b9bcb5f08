"""What is measured: numbers from pixels, nothing else."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["colourfulness", "main_colours", "regional_change", "share_of_main_colours"]


def main_colours(image: Image.Image, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` most frequent colours, (n, 3) in 0..255, and their shares of the pixels, (n,) in 0..1; n <= count."""
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:count]
    return colours[order].astype(float), counts[order] / len(pixels)


def share_of_main_colours(image: Image.Image, count: int) -> float:
    """Share of pixels, 0..1, that have one of the `count` most frequent colours."""
    return float(main_colours(image, count)[1].sum())


def colourfulness(image: Image.Image) -> float:
    """Mean distance between the largest and the smallest channel of a pixel, 0 (grey) to 255."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    return float((pixels.max(-1) - pixels.min(-1)).mean())


def regional_change(source: Image.Image, edited: Image.Image, cells: int = 8) -> float:
    """Largest change of mean colour, in 0..255, over a grid of cells x cells regions."""
    first, second = (
        np.asarray(image.convert("RGB").resize((cells, cells), Image.Resampling.BOX)).astype(float)
        for image in (source, edited)
    )
    return float(np.abs(first - second).mean(-1).max())
