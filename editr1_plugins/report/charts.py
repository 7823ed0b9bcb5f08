"""Geometry of the page's charts; the template draws them as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from editr1_plugins.report.summary import BINS, CategoryRate
from editr1_plugins.types import MAX_SCORE

__all__ = ["CHART_HEIGHT", "CHART_WIDTH", "Bar", "distribution", "stacked_rates"]

#: Units of the drawing area; the template adds margins for labels.
CHART_WIDTH: Final = 400.0
CHART_HEIGHT: Final = 120.0

_GAP: Final = 3.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A rectangle in units of the drawing area, `kind` for its colour, and what it says."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str


def distribution(bins: Sequence[int]) -> list[Bar]:
    """One bar per bin, the highest as high as the drawing area."""
    step, top = CHART_WIDTH / BINS, max(max(bins), 1)
    edges = [at * MAX_SCORE / BINS for at in range(BINS + 1)]
    return [
        Bar(
            x=round(at * step + _GAP / 2, 2),
            y=round(CHART_HEIGHT - _bar_height(number, top), 2),
            width=round(step - _GAP, 2),
            height=round(_bar_height(number, top), 2),
            kind="score",
            text=f"score {edges[at]:g} to {edges[at + 1]:g}: {number}",
        )
        for at, number in enumerate(bins)
    ]


def _bar_height(number: int, top: int) -> float:
    # One edit among ten thousand must still be seen.
    return max(CHART_HEIGHT * number / top, 1.5) if number else 0.0


def stacked_rates(rate: CategoryRate) -> list[Bar]:
    """Met, not met and not judged side by side, together as wide as the drawing area."""
    parts = (("met", rate.met), ("unmet", rate.unmet), ("unjudged", rate.unjudged))
    words = {"met": "met", "unmet": "not met", "unjudged": "not judged"}
    bars, x = [], 0.0
    for kind, number in parts:
        width = CHART_WIDTH * number / rate.total if rate.total else 0.0
        if width:
            text = f"{words[kind]}: {number}"
            bars.append(Bar(x=round(x, 2), y=0.0, width=round(width, 2), height=12.0, kind=kind, text=text))
        x += width
    return bars
