"""Border: a frame or bars of one colour around the edited image that the source does not have.

Method: from each side, whole rows of one colour are counted at the image's own pixels. Such a strip is a border when
most of the row behind it is of another colour (a plain background ends at an object, not along a line), and when the
source looks otherwise there and has no border of that width.
Source: Edit-R1 (arXiv 2604.27505), judging rule "white borders cost points".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.guards.measures import Levels, luma, pair
from editr1_plugins.types import Alarm, Edit

__all__ = ["BorderGuard", "new_border"]

_PIXELS = 4_000_000  # measured as they are; above, a border two pixels wide is no more visible
_SIDES = {"top": 0, "right": 1, "bottom": 2, "left": 3}  # quarter turns that bring the side to the top
_CORNER = 0.2  # of a row's length, left out at both ends: other borders run there
_DEEPEST = 0.4  # of the image, how far in a strip is followed
_EVEN = 0.97  # share of a row that has the strip's colour
_TOLERANCE = 12  # levels of luma
_COLOR_TOLERANCE = 40  # levels of one colour, which JPEG smears along edges
_STEP = 20  # levels by which the row behind the strip must differ
_CHUNK = 16  # rows looked at together; most pictures end in the first
_CHANGED = 0.5  # share of the strip that differs from the source
_EDGE = 0.6  # share of the row behind the strip that has another colour


@dataclass(kw_only=True, eq=False)
class BorderGuard(PixelGuard):
    """Caps an edit that got a border nobody asked for.

    Attributes:
        width: thinnest border, as a share of the image's height (or width); never under 2 pixels.
        cap: what the score becomes at most when two or more sides have a border.
        soft_cap: the same when only one side has one (it may be a plain floor or wall).
    """

    width: float = 0.01
    cap: float | None = 4.0
    soft_cap: float | None = 6.0

    def __post_init__(self) -> None:
        check_positive(width=self.width)
        check_caps(cap=self.cap, soft_cap=self.soft_cap)

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        if asked.border:
            return None
        source, edited = pair(edit, _PIXELS)
        found = {side: width for side in _SIDES if (width := new_border(source, edited, side)) >= self.width}
        if not found or (len(found) < 3 and asked.everywhere):  # a new backdrop may be even along its edges
            return None
        widths = ", ".join(f"{side} {width:.1%}" for side, width in found.items())
        reason = f"a border of one colour that the source lacks ({widths} of the image)"
        return Alarm(flag="border", reason=reason, cap=self.cap if len(found) > 1 else self.soft_cap)


def new_border(source: Levels, edited: Levels, side: str) -> float:
    """Width of a one-coloured strip along `side` that is new, as a share of the image; 0.0 where there is none."""
    turned = np.rot90(edited, _SIDES[side])
    width, color = _strip(turned)
    if width < 2 or not _ends_in_a_line(turned, width):
        return 0.0
    before = np.rot90(source, _SIDES[side])
    change = np.abs(_inner(before[:width]).astype(np.float32) - color.astype(np.float32)).max(axis=2)
    if (change > _TOLERANCE).mean() < _CHANGED:
        return 0.0  # the source already looks like that there
    width_before, _ = _strip(before)
    same_width = abs(width - width_before) <= max(1, 0.2 * width)
    if same_width and _ends_in_a_line(before, width_before):
        return 0.0  # the source has that border, in another colour
    return width / int(turned.shape[0])


def _inner(rows: Levels) -> Levels:
    cut = int(rows.shape[1] * _CORNER)
    return rows[:, cut : rows.shape[1] - cut]


def _strip(turned: Levels) -> tuple[int, npt.NDArray[np.float64]]:
    """How many rows from the top have one colour, and that colour."""
    deepest = max(1, int(turned.shape[0] * _DEEPEST))
    color = np.median(_inner(turned[:1]), axis=(0, 1))
    for start in range(0, deepest, _CHUNK):
        off = _inner(turned[start : min(start + _CHUNK, deepest)]).astype(np.float32) - color.astype(np.float32)
        same = (np.abs(luma(off)) <= _TOLERANCE) & (np.abs(off).max(axis=2) <= _COLOR_TOLERANCE)
        even = same.mean(axis=1) >= _EVEN
        if not even.all():
            return start + int(even.argmin()), color
    return deepest, color


def _ends_in_a_line(turned: Levels, width: int) -> bool:
    behind = width + max(2, turned.shape[0] // 80)  # past the blur of a rescaled edge
    if behind >= turned.shape[0] // 2:
        return False
    last = np.median(_inner(turned[max(0, width - 2) : width]), axis=(0, 1))  # a gradient does not end here
    other = np.abs(_inner(turned[behind : behind + 1]) - last).max(axis=2) >= _STEP
    return bool(other.mean() >= _EDGE)
