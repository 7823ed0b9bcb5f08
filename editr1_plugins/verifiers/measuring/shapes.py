"""Which of the few known shapes a patch of coverage is: templates with the patch's own area, centre and aspect."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from editr1_plugins.principles.words import SHAPES
from editr1_plugins.verifiers.measuring.pixels import Array, drop, rise

__all__ = ["Fit", "best_fit", "classify", "fit_shapes", "form_degree", "margin"]

#: Pixels over which an outline fades: a blurred edge must not read as another shape. (2, 1, 1, 1) for broadcasting.
_EDGE_WIDTHS: Final = np.array([1.0, 2.2], np.float32).reshape(2, 1, 1, 1)
_LEAST_AREA: Final = 3.0
_LEAST_MARGIN: Final = 0.12
_MARGIN: Final = (-0.25, 0.15)  # shape margin of "clearly another shape" and of "clearly this shape"
_MISFIT: Final = (0.30, 0.60)  # shape error of "clearly this shape" and of "no such shape"
_STRETCHED: Final = (0.35, 0.90)  # log aspect of "not stretched" and of "no longer that shape"
_CLEAR: Final = 0.30  # largest error at which a shape is recognised at all
_ASPECTS: Final = (0.3, 3.3)  # width over height beyond which a patch is a line, not a shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The best template of one shape: `error` is its mean absolute difference over the patch's area, 0 = perfect.

    The template has the patch's own `aspect`, width over height; 1 is that of a true circle or square.
    """

    error: float
    template: Array
    aspect: float = 1.0


def fit_shapes(coverage: Array) -> dict[str, Fit]:
    """How each shape explains coverage (H, W) in 0..1. Nearly empty or very long coverage fits none (error 1)."""
    area = float(coverage.sum())
    nothing = dict.fromkeys(SHAPES, Fit(error=1.0, template=np.zeros_like(coverage)))
    if area < _LEAST_AREA:
        return nothing
    y, x = np.arange(coverage.shape[0], dtype=np.float32) + 0.5, np.arange(coverage.shape[1], dtype=np.float32) + 0.5
    rows, columns = coverage.sum(1), coverage.sum(0)
    y -= float(rows @ y) / area
    x -= float(columns @ x) / area
    aspect = float(np.sqrt((columns @ (x * x)) / max(float(rows @ (y * y)), 1e-6)))
    if not _ASPECTS[0] <= aspect <= _ASPECTS[1]:
        return nothing
    dy, dx = y[:, None], np.abs(x)[None]
    outlines = np.stack(
        [
            _ellipse(dx, dy, area, aspect),
            _rectangle(dx, dy, area, aspect),
            _triangle(dx, dy, area, aspect),
            _triangle(dx, -dy, area, aspect),
        ]
    )
    templates = np.clip(0.5 - outlines / _EDGE_WIDTHS, 0, 1)
    errors = np.abs(templates - coverage).sum((2, 3)) / area
    best = errors.argmin(0)
    fits: dict[str, Fit] = {}
    for option, shape in enumerate(("circle", "square", "triangle", "triangle")):
        error = float(errors[best[option], option])
        if shape not in fits or error < fits[shape].error:
            fits[shape] = Fit(error=error, template=templates[best[option], option], aspect=aspect)
    return fits


def _ellipse(dx: Array, dy: Array, area: float, aspect: float) -> Array:
    """Signed distance in pixels to the outline (about), negative inside; `dx` is absolute. So for the other shapes."""
    height = np.sqrt(area / (np.pi * aspect))
    width = height * aspect
    outline: Array = (np.hypot(dx / width, dy / height) - 1) * min(width, height)
    return outline


def _rectangle(dx: Array, dy: Array, area: float, aspect: float) -> Array:
    height = np.sqrt(area / (4 * aspect))
    outline: Array = np.maximum(dx - height * aspect, np.abs(dy) - height)
    return outline


def _triangle(dx: Array, dy: Array, area: float, aspect: float) -> Array:
    # Isosceles, pointing up, centred on its centroid: deviations are base / sqrt(24) and height / sqrt(18).
    ratio = aspect * np.sqrt(24 / 18)
    height = np.sqrt(2 * area / ratio)
    slope = 2 / ratio
    side = (dx * slope - dy - height * 2 / 3) / np.sqrt(1 + slope * slope)
    outline: Array = np.maximum(dy - height / 3, side)
    return outline


def margin(fits: dict[str, Fit], shape: str, others: Iterable[str]) -> float:
    """-1..1: how much better `shape` explains the patch than the best of `others` does."""
    own, rival = fits[shape].error, min(fits[other].error for other in others)
    return (rival - own) / max(rival + own, 1e-6)


def form_degree(fits: dict[str, Fit], shape: str, rivals: Iterable[str]) -> float:
    """How clearly a patch is `shape` (0..1), well drawn and none of `rivals`."""
    fit = fits[shape]
    drawn = drop(fit.error, *_MISFIT) * drop(abs(math.log(fit.aspect)), *_STRETCHED)
    return min(rise(margin(fits, shape, rivals), *_MARGIN), drawn)


def best_fit(fits: dict[str, Fit]) -> str:
    return min(fits, key=lambda shape: fits[shape].error)


def classify(coverage: Array) -> str:
    """The shape's name, or "" when none of the known ones fits clearly."""
    fits = fit_shapes(coverage)
    best = best_fit(fits)
    clear = (
        fits[best].error < _CLEAR
        and abs(math.log(fits[best].aspect)) < _STRETCHED[1]
        and margin(fits, best, [shape for shape in fits if shape != best]) > _LEAST_MARGIN
    )
    return best if clear else ""
