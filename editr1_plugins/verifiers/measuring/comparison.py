"""What a measurement gets to see, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeVar, cast

import numpy as np

from editr1_plugins.principles.phrases import Ask, bare_noun, read_list
from editr1_plugins.principles.words import colour_name
from editr1_plugins.verifiers.measuring.colours import goals
from editr1_plugins.verifiers.measuring.pixels import Array, Mask
from editr1_plugins.verifiers.measuring.scene import Region, Scene

__all__ = ["GROUND", "Comparison", "Finding", "unmeasured"]

_T = TypeVar("_T")
#: How a principle names the background.
GROUND: Final = "the background"
_NO_SCENE: Final = "the source is not a flat scene of plain shapes; objects in it cannot be measured without a model"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How far one question is fulfilled: `degree` in 0..1, or None where that cannot be measured."""

    degree: float | None
    reason: str


def unmeasured(reason: str) -> Finding:
    return Finding(degree=None, reason=reason)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Source and edited image at one size (H, W, 3) in 0..1, and everything asked about them.

    `scene` is the source's flat scene, or None. `asks` are all questions of this edit that could be read: what one of
    them changes, another one leaves out.
    """

    source: Array
    edited: Array
    scene: Scene | None
    asks: Sequence[Ask]
    _memo: dict[tuple[object, ...], object] = field(default_factory=dict)

    @cached_property
    def new_ground(self) -> Array:
        """RGB of the edited image's background: the median where the source shows nothing but background."""
        scene = self.flat
        return np.median(self.edited[scene.open], axis=0) if scene.open.any() else scene.ground

    @cached_property
    def ground_goals(self) -> tuple[Array, ...]:
        """RGB of what the background is to become, for all examples of the colour asked for; () when it is to stay."""
        asked = (colour_name(ask.value) for ask in self.asks if ask.kind == "colour" and ask.what == GROUND)
        return tuple(goal for colour in asked if colour for goal in goals(colour))

    @property
    def wanted_ground(self) -> Array:
        """RGB of the background behind what is removed: the source's, unless the background is to change."""
        return self.new_ground if self.ground_goals else self.flat.ground

    @property
    def flat(self) -> Scene:
        if self.scene is None:
            raise LookupError("not a flat scene")  # callers ask for `regions` first
        return self.scene

    def regions(self, what: str) -> tuple[tuple[Region, ...], str]:
        """The objects of the source that a noun phrase means, or () and why that cannot be told."""
        return self.scene.find(what) if self.scene else ((), _NO_SCENE)

    def once(self, key: tuple[object, ...], compute: Callable[[], _T]) -> _T:
        """Compute what several questions about one change need only once."""
        if key not in self._memo:
            self._memo[key] = compute()
        return cast("_T", self._memo[key])

    def is_reshaped(self, what: str) -> bool:
        return any(ask.kind == "becomes" and ask.what == what for ask in self.asks)

    def place_of(self, value: str) -> str:
        """Where an object was to be added: the place named by another question about it, or ""."""
        noun = bare_noun(value)
        named = [ask.where for ask in self.asks if ask.kind == "added_at" and bare_noun(ask.value) == noun]
        return named[0] if named else ""

    def window(self, region: Region) -> tuple[slice, slice]:
        """Rows and columns of a region's place and its near surroundings."""
        top, left, bottom, right = region.box
        more = max(1, round(0.15 * max(bottom - top, right - left)))
        return slice(max(0, top - more), bottom + more), slice(max(0, left - more), right + more)

    def others(self, what: str) -> list[Region]:
        """All objects of the source but those that one of the given phrases means."""
        named = {id(region) for part in read_list(what) for region in self.regions(part)[0]}
        return [region for region in self.flat.regions if id(region) not in named]

    def free_of(self, regions: Sequence[Region]) -> Mask:
        """Where none of these objects lies."""
        covered = np.zeros(self.source.shape[:2], bool)
        for region in regions:
            covered |= region.zone
        return ~covered
