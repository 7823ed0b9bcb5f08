"""What an evaluation's page is made of: tables, intervals drawn on an axis, curves, pictures. Data, no HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from editr1_plugins.report.charts import CHART_HEIGHT, CHART_WIDTH

__all__ = [
    "AXIS",
    "FEW",
    "UNKNOWN",
    "Axis",
    "Card",
    "Curve",
    "Figure",
    "Histogram",
    "Pictures",
    "Table",
    "TableRow",
    "curve",
    "histogram",
    "list_in",
    "number_in",
    "shown",
    "spanned",
    "table_in",
    "text_in",
]

#: Units of the axis that intervals are drawn on.
AXIS: Final = 200.0
_MAX_TEXT: Final = 600
#: Stands for a number that there is none of.
UNKNOWN: Final = "\N{EN DASH}"
_BINS: Final = 20
#: What a reader must know of bootstrap intervals.
FEW: Final = " Intervals of fewer than about ten rows are too narrow: read them as hints."


def table_in(value: object) -> dict[str, Any]:
    """A nested table of a summary, empty where it is none."""
    return value if isinstance(value, dict) else {}


def list_in(value: object) -> list[Any]:
    """A list of a summary, empty where it is none."""
    return value if isinstance(value, list) else []


def number_in(value: object) -> float | None:
    """A number of a summary, None where it is none."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None  # type: ignore[arg-type]


def text_in(value: object) -> str:
    """A text of a summary, of bounded length; "" where it is none."""
    text = value if isinstance(value, str) else ""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} [...]"


def shown(value: object) -> str:
    """A number or a pair of limits, as it is written in a table."""
    if isinstance(value, list) and len(value) == 2:
        return f"{shown(value[0])} to {shown(value[1])}"
    number = number_in(value)
    if number is None:
        return UNKNOWN
    return str(value) if type(value) is int else f"{number:.2f}"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Where an interval lies on an axis of width `AXIS`: its ends, its middle, and zero, where the axis holds it."""

    low: float
    high: float
    middle: float
    zero: float | None
    kind: str


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A name and its cells as texts; `axis` is drawn after them; `kind` is "all" for rows over everything."""

    name: str
    cells: Sequence[str]
    axis: Axis | None = None
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a heading, what it means, and perhaps an axis at the right, from `ends[0]` to `ends[1]`."""

    title: str
    columns: Sequence[str]
    rows: Sequence[TableRow]
    note: str = ""
    ends: tuple[str, str] | None = None
    template: str = "table"


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Bars over an axis: (x, y, width, height, text) each, and labels at (x, text)."""

    title: str
    bars: Sequence[tuple[float, float, float, float, str]]
    ticks: Sequence[tuple[float, str]]
    note: str = ""
    template: str = "histogram"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points joined by a line, each with its label on the axis and what it says."""

    title: str
    points: Sequence[tuple[float, float, str, str]]
    ends: tuple[str, str]
    note: str = ""
    template: str = "curve"

    @property
    def line(self) -> str:
        """As SVG's `points`."""
        return " ".join(f"{x},{y}" for x, y, _, _ in self.points)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One picture: the name of its file in the run, None where there is none, and what stands below it."""

    name: str | None
    caption: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """An instruction with its pictures; `badge` is the number that it is shown for."""

    instruction: str
    figures: Sequence[Figure]
    badge: str = ""
    kind: str = ""
    facts: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Cards with a heading and what they are shown for."""

    title: str
    cards: Sequence[Card]
    note: str = ""
    template: str = "pictures"


def spanned(limits: object, middle: object, low: float, high: float, *, signed: bool = False) -> Axis | None:
    """An interval on the axis from `low` to `high`; `signed` ones say by their kind whether they exclude zero."""
    centre = number_in(middle)
    ends = [number_in(each) for each in limits] if isinstance(limits, list) and len(limits) == 2 else [centre, centre]
    if centre is None or ends[0] is None or ends[1] is None or high <= low:
        return None
    kind = ""
    if signed:
        kind = "up" if ends[0] > 0 else "down" if ends[1] < 0 else "even"
    at = [round(AXIS * (min(max(each, low), high) - low) / (high - low), 2) for each in (ends[0], ends[1], centre)]
    zero = round(AXIS * -low / (high - low), 2) if low <= 0 <= high else None
    return Axis(low=at[0], high=at[1], middle=at[2], zero=zero, kind=kind)


def histogram(title: str, values: Sequence[float], low: float, high: float, note: str = "") -> Histogram:
    """How many values lie in each twentieth of low..high."""
    counts = [0] * _BINS
    for value in values:
        counts[min(max(int((value - low) / (high - low) * _BINS), 0), _BINS - 1)] += 1
    top, step = max(*counts, 1), CHART_WIDTH / _BINS
    edge = [low + (high - low) * at / _BINS for at in range(_BINS + 1)]
    bars = [
        (
            round(at * step + 1.5, 2),
            round(CHART_HEIGHT * (1 - count / top), 2),
            round(step - 3, 2),
            round(CHART_HEIGHT * count / top, 2),
            f"{edge[at]:g} to {edge[at + 1]:g}: {count}",
        )
        for at, count in enumerate(counts)
    ]
    ticks = [(round(CHART_WIDTH * part / 5, 2), f"{low + (high - low) * part / 5:g}") for part in range(6)]
    return Histogram(title=title, bars=bars, ticks=ticks, note=note)


def curve(title: str, values: Mapping[str, float], note: str = "") -> Curve | None:
    """A line through values in the order in which they are given; None for fewer than two."""
    if len(values) < 2:
        return None
    low, high = min(values.values()), max(values.values())
    room = max((high - low) * 0.15, 0.5)
    low, high = low - room, high + room
    points = [
        (
            round(CHART_WIDTH * (place + 0.5) / len(values), 2),
            round(CHART_HEIGHT * (high - value) / (high - low), 2),
            name,
            f"{value:.2f}",
        )
        for place, (name, value) in enumerate(values.items())
    ]
    return Curve(title=title, points=points, ends=(f"{low:.1f}", f"{high:.1f}"), note=note)
