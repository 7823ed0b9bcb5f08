"""Guards against reward hacks, one hack per file. A guard may only lower or void a score, and says why.

All nine look at pixels and the instruction alone (numpy and pillow), so they run before the judge; where one caps at 0,
as a copy of the source does, the judge is not asked. Each measures before any resize, and passes what the instruction
asked for. `DEFAULT_GUARDS` lists (name, class, summary); `default_guards()` builds those whose extras are installed.
"""

from __future__ import annotations

from typing import Final

from editr1_plugins.errors import MissingExtraError
from editr1_plugins.guards.asked import Asked, read_asked
from editr1_plugins.guards.base import PixelGuard
from editr1_plugins.guards.border import BorderGuard
from editr1_plugins.guards.collage import CollageGuard
from editr1_plugins.guards.dots import DotsGuard
from editr1_plugins.guards.drift import BackgroundDriftGuard
from editr1_plugins.guards.no_edit import NoEditGuard
from editr1_plugins.guards.saturation import SaturationGuard
from editr1_plugins.guards.sharpness import SharpnessGuard
from editr1_plugins.guards.size import SizeGuard
from editr1_plugins.guards.text import PaintedTextGuard

__all__ = [
    "DEFAULT_GUARDS",
    "Asked",
    "BackgroundDriftGuard",
    "BorderGuard",
    "CollageGuard",
    "DotsGuard",
    "NoEditGuard",
    "PaintedTextGuard",
    "PixelGuard",
    "SaturationGuard",
    "SharpnessGuard",
    "SizeGuard",
    "default_guards",
    "read_asked",
]

#: (name, class, one line on what it objects to), cheapest and hardest first.
DEFAULT_GUARDS: Final[tuple[tuple[str, type[PixelGuard], str], ...]] = (
    ("no-edit", NoEditGuard, "the edited image is a copy of the source: score 0, and no judge call"),
    ("border", BorderGuard, "a border of one colour that the source lacks"),
    ("size", SizeGuard, "other proportions, most pixels lost, or the content cut, zoomed or shifted"),
    ("drift", BackgroundDriftGuard, "the surroundings changed although a local edit was asked"),
    ("saturation", SaturationGuard, "colours pushed all over the picture"),
    ("sharpness", SharpnessGuard, "the source's fine detail amplified"),
    ("dots", DotsGuard, "grain or dots all over the picture"),
    ("collage", CollageGuard, "the whole source shown within the edited image"),
    ("text", PaintedTextGuard, "words painted into the image; reads it with extra [ocr]"),
)


def default_guards() -> tuple[PixelGuard, ...]:
    """One of each guard with default thresholds; the one that reads text only where its extra is installed."""
    built = []
    for _, guard, _ in DEFAULT_GUARDS:
        try:
            built.append(guard())
        except MissingExtraError:
            continue
    return tuple(built)
