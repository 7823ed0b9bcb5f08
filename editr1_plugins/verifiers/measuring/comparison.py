"""What a measurement gets to see, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import Ask
from editr1_plugins.principles.words import Thing, read_thing
from editr1_plugins.verifiers.measuring.pixels import Array, Mask
from editr1_plugins.verifiers.measuring.scene import Region, Scene, find

__all__ = ["GROUND", "Comparison", "Finding", "unmeasured"]

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

    @cached_property
    def new_ground(self) -> Array:
        """RGB of the edited image's background: the median where the source shows nothing but background."""
        scene = self.flat
        return np.median(self.edited[scene.open], axis=0) if scene.open.any() else scene.ground

    @cached_property
    def ground_changes(self) -> bool:
        return any(ask.kind == "colour" and ask.what == GROUND for ask in self.asks)

    @property
    def wanted_ground(self) -> Array:
        """RGB of the background behind what is removed: the source's, unless the background is to change."""
        return self.new_ground if self.ground_changes else self.flat.ground

    @property
    def flat(self) -> Scene:
        if self.scene is None:
            raise LookupError("not a flat scene")  # callers ask for `regions` first
        return self.scene

    def regions(self, what: str) -> tuple[tuple[Region, ...], str]:
        """The objects of the source that a noun phrase means, or () and why that cannot be told."""
        if self.scene is None:
            return (), _NO_SCENE
        thing = self.thing(what)
        return find(self.scene, thing) if thing else ((), f"{what!r} names nothing that can be found")

    def thing(self, what: str) -> Thing | None:
        return read_thing(what)

    def is_reshaped(self, what: str) -> bool:
        return any(ask.kind == "becomes" and ask.what == what for ask in self.asks)

    def place_of(self, value: str) -> str:
        """Where an object was to be added: the place named by another question about it, or ""."""
        named = [ask.where for ask in self.asks if ask.kind == "added_at" and _bare(ask.value) == _bare(value)]
        return named[0] if named else ""

    def others(self, what: str) -> list[Region]:
        """All objects of the source but those that one of the given phrases means."""
        named = {id(region) for part in _parts(what) for region in self.regions(part)[0]}
        return [region for region in self.flat.regions if id(region) not in named]

    def free_of(self, regions: Sequence[Region]) -> Mask:
        """Where none of these objects lies."""
        covered = np.zeros(self.source.shape[:2], bool)
        for region in regions:
            covered |= region.zone
        return ~covered


def _bare(noun: str) -> str:
    head, _, tail = noun.partition(" ")
    return tail if head in {"a", "an", "the", "some", "another"} else noun


def _parts(what: str) -> tuple[str, ...]:
    from editr1_plugins.principles.phrases import read_list

    return read_list(what)
