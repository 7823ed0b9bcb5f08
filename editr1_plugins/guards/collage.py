"""Collage: the whole source appears, smaller, within the edited image, so that a judge sees both in one picture.

Method: the source is looked for anywhere in the edited image, at scales 1/5 to 3/4, and squeezed to halves and thirds
(correlation of fine structure). Sources under 64 pixels or with little structure are not searched.
"""

from __future__ import annotations

from dataclasses import dataclass

from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.guards.matching import REFINE, best_match, contrast, structure, thumbnail
from editr1_plugins.types import Alarm, Edit

__all__ = ["CollageGuard"]

_LONG_SIDE = 128
_SMALLEST = 64
_STRUCTURED = 0.4
_SCALES = (
    *((0.22 * 1.07**step,) * 2 for step in range(18)),
    *((0.5, 1.0), (1.0, 0.5), (1 / 3, 1.0), (1.0, 1 / 3), (2 / 3, 1.0), (1.0, 2 / 3)),
)


@dataclass(kw_only=True, eq=False)
class CollageGuard(PixelGuard):
    """Caps an edit that shows the source beside or inside the result.

    Attributes:
        likeness: correlation, 0..1, from which the source counts as found.
        gain: by how much it must be more alike than the source is to a part of itself.
        cap: what the score becomes at most.
    """

    likeness: float = 0.75
    gain: float = 0.1
    cap: float | None = 1.0

    def __post_init__(self) -> None:
        check_positive(likeness=self.likeness, gain=self.gain)
        check_caps(cap=self.cap)

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        if asked.collage or asked.reframe or min(max(edit.source.size), max(edit.edited.size)) < _SMALLEST:
            return None
        edited = thumbnail(edit.edited, _LONG_SIDE)
        source = thumbnail(edit.source, _LONG_SIDE).resize(edited.size)
        if contrast(structure(source)) < _STRUCTURED:
            return None
        found = best_match(source, edited, _SCALES, refine=REFINE)
        if found.likeness < self.likeness:
            return None
        itself = best_match(source, thumbnail(edit.source, _LONG_SIDE), (found.scale,))
        if found.likeness - itself.likeness < self.gain:
            return None  # the source looks like parts of itself; nothing was added
        across, down = found.scale
        reason = (
            f"the source appears within the edited image at {across:.0%} of its width and {down:.0%} of its height "
            f"(likeness {found.likeness:.2f})"
        )
        return Alarm(flag="collage", reason=reason, cap=self.cap)
