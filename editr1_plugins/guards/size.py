"""Size or crop mismatch: other proportions, a fraction of the pixels, or the source's content cut, zoomed or shifted.

Method: proportions and sizes are compared as they are. For the content, the middle of the edited image is looked for in
the source at scales 1/2 to 3/2 (correlation of fine structure); where it fits much better elsewhere than in its own
place, the frame was changed. Pictures under 64 pixels or with little structure are not searched.
Editors that snap to fixed formats change proportions by up to 8 %, which passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.guards.matching import REFINE, Match, best_match, contrast, structure, thumbnail
from editr1_plugins.types import Alarm, Edit

__all__ = ["SizeGuard"]

_LONG_SIDE = 96  # pixels at which content is searched
_SMALLEST = 64  # pixels of the longer side
_MIDDLE = 0.2  # of each side, left out of the template
_SCALES = tuple((0.5 * 1.07**step,) * 2 for step in range(17))
_STRUCTURED = 0.25  # share of fields with structure below which nothing can be found reliably


@dataclass(kw_only=True, eq=False)
class SizeGuard(PixelGuard):
    """Caps an edit whose frame is not the source's.

    Attributes:
        proportions: largest accepted change of width/height, as a share (0.1 is 10 %).
        shrink: smallest accepted size of the edited image, as a share of the source's (by side, not by area).
        offset: smallest cut or shift that counts, as a share of the side.
        likeness: correlation, 0..1, from which the edited middle counts as found in the source.
        gain: by how much the place found must fit better than the middle's own place.
        cap: what the score becomes at most.
    """

    proportions: float = 0.1
    shrink: float = 0.2
    offset: float = 0.03
    likeness: float = 0.67
    gain: float = 0.15
    cap: float | None = 4.0

    def __post_init__(self) -> None:
        check_positive(proportions=self.proportions, shrink=self.shrink, offset=self.offset)
        check_positive(likeness=self.likeness, gain=self.gain)
        check_caps(cap=self.cap)

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        if asked.reframe or asked.collage:
            return None
        reason = self._frame(edit) or self._content(edit)
        return Alarm(flag="size_mismatch", reason=reason, cap=self.cap) if reason else None

    def _frame(self, edit: Edit) -> str | None:
        (width, height), (wide, high) = edit.source.size, edit.edited.size
        change = abs(math.log((wide / high) / (width / height)))
        # A rounded pixel must not count: tiny images cannot keep proportions exactly.
        if change > math.log1p(self.proportions) + 1 / min(width, height, wide, high):
            return f"the edited image is {wide}x{high}, the source {width}x{height}: other proportions"
        if max(wide / width, high / height) < self.shrink:
            return f"the edited image is {wide}x{high}, the source {width}x{height}: most pixels are lost"
        return None

    def _content(self, edit: Edit) -> str | None:
        if max(edit.edited.size) < _SMALLEST or max(edit.source.size) < _SMALLEST:
            return None
        source = thumbnail(edit.source, _LONG_SIDE)
        edited = thumbnail(edit.edited, _LONG_SIDE, edit.source.size)
        if contrast(structure(edited)) < _STRUCTURED:
            return None
        cut = (round(edited.width * _MIDDLE), round(edited.height * _MIDDLE))
        box = (cut[0], cut[1], edited.width - cut[0], edited.height - cut[1])
        found = best_match(edited, source, _SCALES, box, REFINE)
        if found.likeness < self.likeness:
            return None
        around = (cut[0] - 2, cut[1] - 2, edited.width - cut[0] + 2, edited.height - cut[1] + 2)
        stayed = best_match(edited, source.crop(around), ((1.0, 1.0),), box)
        moved = _moved(found, box, source.size)
        if found.likeness - stayed.likeness < self.gain or moved < self.offset:
            return None
        return (
            f"the content is cut or shifted by up to {moved:.0%} of the side (scale {1 / found.scale[0]:.2f}, "
            f"likeness {found.likeness:.2f} there, {stayed.likeness:.2f} in place)"
        )


def _moved(found: Match, box: tuple[int, int, int, int], size: tuple[int, int]) -> float:
    """Furthest way of a corner of the whole frame, as a share of the side."""
    moves = []
    for start, place, side, scale in (
        (box[0], found.left, size[0], found.scale[0]),
        (box[1], found.top, size[1], found.scale[1]),
    ):
        first = place - start * scale
        moves += [abs(first) / side, abs(first + side * scale - side) / side]
    return max(moves)
