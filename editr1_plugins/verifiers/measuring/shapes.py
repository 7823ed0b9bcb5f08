"""Which of the few known shapes a patch of coverage is: templates with the patch's own area, centre and aspect."""

from __future__ import annotations

from typing import Final

import numpy as np

from editr1_plugins.verifiers.measuring.pixels import Array

__all__ = ["classify", "shape_errors", "shape_margin"]

_EDGE_WIDTHS: Final = (1.0, 2.2)  # pixels; a blurred edge must not read as another shape
_CLEAR: Final = 0.30  # largest error at which a shape is recognised at all
_ASPECTS: Final = (0.55, 1.8)  # width over height of what still counts as a circle, square or triangle


def shape_errors(coverage: Array) -> dict[str, float]:
    """How badly each shape explains coverage (H, W) in 0..1: mean absolute error over the patch's area, 0 = perfect.

    Empty coverage fits nothing: every error is 1.
    """
    area = float(coverage.sum())
    if area < 3:
        return {"circle": 1.0, "square": 1.0, "triangle": 1.0}
    y, x = np.mgrid[0 : coverage.shape[0], 0 : coverage.shape[1]].astype(np.float32) + 0.5
    dy = y - float((coverage * y).sum()) / area
    dx = x - float((coverage * x).sum()) / area
    aspect = float(np.sqrt((coverage * dx * dx).sum() / max(float((coverage * dy * dy).sum()), 1e-6)))
    if not _ASPECTS[0] <= aspect <= _ASPECTS[1]:
        return {"circle": 1.0, "square": 1.0, "triangle": 1.0}
    outlines = {
        "circle": (_ellipse(dx, dy, area, aspect),),
        "square": (_rectangle(dx, dy, area, aspect),),
        "triangle": (_triangle(dx, dy, area, aspect), _triangle(dx, -dy, area, aspect)),
    }
    return {
        shape: min(
            float(np.abs(coverage - np.clip(0.5 - outline / width, 0, 1)).sum()) / area
            for outline in options
            for width in _EDGE_WIDTHS
        )
        for shape, options in outlines.items()
    }


def _ellipse(dx: Array, dy: Array, area: float, aspect: float) -> Array:
    """Signed distance in pixels to the outline (about), negative inside; so for the other shapes."""
    height = np.sqrt(area / (np.pi * aspect))
    width = height * aspect
    return (np.hypot(dx / width, dy / height) - 1) * min(width, height)


def _rectangle(dx: Array, dy: Array, area: float, aspect: float) -> Array:
    height = np.sqrt(area / (4 * aspect))
    return np.maximum(np.abs(dx) - height * aspect, np.abs(dy) - height)


def _triangle(dx: Array, dy: Array, area: float, aspect: float) -> Array:
    # Isosceles, pointing up, centred on its centroid: deviations are base / sqrt(24) and height / sqrt(18).
    ratio = aspect * np.sqrt(24 / 18)
    height = np.sqrt(2 * area / ratio)
    slope = 2 / ratio
    side = (np.abs(dx) * slope - dy - height * 2 / 3) / np.sqrt(1 + slope * slope)
    return np.maximum(dy - height / 3, side)


def shape_margin(errors: dict[str, float], shape: str, others: tuple[str, ...]) -> float:
    """-1..1: how much better `shape` explains the patch than the best of `others` does."""
    own, rival = errors[shape], min(errors[other] for other in others)
    return (rival - own) / max(rival + own, 1e-6)


def classify(coverage: Array) -> str:
    """The shape's name, or "" when none of the known ones fits clearly."""
    errors = shape_errors(coverage)
    best = min(errors, key=errors.__getitem__)
    others = tuple(shape for shape in errors if shape != best)
    return best if errors[best] < _CLEAR and shape_margin(errors, best, others) > 0.12 else ""
