"""Segmentation of flat scenes: plain objects on a plain background.

Anything else, photographs above all, is no flat scene (`read_scene` returns None): objects there cannot be told apart
without a model, and this verifier does not guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np

from editr1_plugins.principles.words import PLACES, Thing, read_thing
from editr1_plugins.verifiers.measuring.colours import is_named
from editr1_plugins.verifiers.measuring.pixels import Array, Mask, components, dilate
from editr1_plugins.verifiers.measuring.shapes import classify

__all__ = ["Region", "Scene", "read_scene"]

_FLAT_STEP: Final = 0.07  # largest step between neighbours inside of a plain area
_SAME_COLOUR: Final = 0.13  # RGB distance within one plain colour
_SPREAD: Final = 0.04  # largest deviation (rms) inside one plain colour
_MOST_COLOURS: Final = 10
_LEAST_PLAIN, _LEAST_COVERED, _LEAST_BETWEEN = 0.45, 0.93, 0.93  # shares of the image that make it a flat scene


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """One object. `alpha` (H, W) is how much of each pixel it covers, `core` where that is nearly all of it, `zone`
    where any of it or of its edge may lie; `box` is (top, left, bottom, right) of the zone."""

    colour: Array
    alpha: Array
    core: Mask
    zone: Mask
    box: tuple[int, int, int, int]
    centre: tuple[float, float]
    area: float
    shape: str

    @cached_property
    def ring(self) -> Mask:
        """The background next to it."""
        return dilate(self.zone, 2) & ~self.zone

    @cached_property
    def inside(self) -> Mask:
        """Where its own colour is to be seen."""
        return self.core if self.core.sum() >= 4 else self.alpha > 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """`ground` is the background's RGB, `open` where nothing but background is, `regions` the objects."""

    pixels: Array
    ground: Array
    open: Mask
    regions: tuple[Region, ...]
    _found: dict[str, tuple[tuple[Region, ...], str]] = field(default_factory=dict)

    def find(self, what: str) -> tuple[tuple[Region, ...], str]:
        """The objects that a noun phrase means ("the red circle"), or () and why that cannot be told."""
        if what not in self._found:
            thing = read_thing(what)
            self._found[what] = _find(self, thing) if thing else ((), f"{what!r} names nothing that can be found")
        return self._found[what]


def read_scene(pixels: Array) -> Scene | None:
    """The flat scene of an image (H, W, 3), or None when it is none."""
    colours = _plain_colours(pixels)
    if colours is None:
        return None
    away = np.linalg.norm(pixels[:, :, None] - colours, axis=-1)
    labels = away.argmin(-1)
    ground = _ground_label(labels, len(colours))
    if not _between(pixels, colours, ground, away):
        return None
    least = max(6, round(0.004 * labels.size))
    masks = [mask for label in range(len(colours)) if label != ground for mask in _parts(labels == label, least)]
    taken = np.zeros(labels.shape, np.int32)
    for mask in masks:
        taken += mask
    regions = tuple(_region(pixels, mask, taken, colours[ground]) for mask in masks)
    covered = np.zeros(labels.shape, bool)
    for region in regions:
        covered |= region.zone
    return Scene(pixels=pixels, ground=colours[ground], open=~covered, regions=regions)


def _plain_colours(pixels: Array) -> Array | None:
    """The few colours (K, 3) that the plain areas have, or None where plain areas or few colours are missing."""
    plain = np.ones(pixels.shape[:2], bool)
    for axis in (0, 1):
        small = np.abs(np.diff(pixels, axis=axis)).max(-1) < _FLAT_STEP
        first, last = [slice(None)] * 2, [slice(None)] * 2
        first[axis], last[axis] = slice(1, None), slice(None, -1)
        plain[tuple(first)] &= small
        plain[tuple(last)] &= small
    rest = pixels[plain]
    if len(rest) < max(1, _LEAST_PLAIN * plain.size):
        return None
    left_over = round((1 - _LEAST_COVERED) * len(rest))
    colours: list[Array] = []
    least = max(3, round(0.002 * plain.size))
    while len(rest) and len(colours) < _MOST_COLOURS:
        codes = (rest * 7.99).astype(np.int32) @ np.array([64, 8, 1])
        counts = np.bincount(codes, minlength=512)
        colour = rest[codes == counts.argmax()].mean(0)
        for _ in range(2):
            near = np.linalg.norm(rest - colour, axis=-1) < _SAME_COLOUR
            if not near.any():
                return None
            colour = rest[near].mean(0)
        if near.sum() < least:
            break
        if float(np.sqrt(((rest[near] - colour) ** 2).mean())) > _SPREAD:
            return None
        colours.append(colour)
        rest = rest[~near]
    return np.stack(colours) if colours and len(rest) <= left_over else None


def _ground_label(labels: Array, count: int) -> int:
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    votes = np.bincount(labels.ravel(), minlength=count) / labels.size + np.bincount(edge, minlength=count) / len(edge)
    return int(votes.argmax())


def _between(pixels: Array, colours: Array, ground: int, away: Array) -> bool:
    """Whether nearly every pixel is a plain colour or a mixture of one with the background (an edge)."""
    odd = pixels[away.min(-1) > _SAME_COLOUR]
    if not len(odd):
        return True
    beside = np.full(len(odd), np.inf)
    for label, colour in enumerate(colours):
        if label != ground:
            way = colour - colours[ground]
            share = np.clip((odd - colours[ground]) @ way / (way @ way), 0, 1)
            beside = np.minimum(beside, np.linalg.norm(odd - colours[ground] - share[:, None] * way, axis=-1))
    strange = float((beside > _SAME_COLOUR).sum()) / away[..., 0].size
    return strange <= 1 - _LEAST_BETWEEN


def _parts(mask: Mask, least: int) -> list[Mask]:
    labels, count = components(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    inner = mask
    for _ in range(max(1, round(max(mask.shape) / 48))):
        inner = _erode(inner)
    thick = labels * inner  # what has no inside is the edge of something, not a thing
    return [labels == name for name in range(1, count + 1) if sizes[name] >= least and (thick == name).any()]


def _erode(mask: Mask) -> Mask:
    inner = np.zeros_like(mask)
    across = mask[:, :-2] & mask[:, 1:-1] & mask[:, 2:]
    inner[1:-1, 1:-1] = across[:-2] & across[1:-1] & across[2:]
    return inner


def _region(pixels: Array, mask: Mask, taken: Array, ground: Array) -> Region:
    # An edge may be a few pixels wide in a small image that was enlarged.
    zone = dilate(mask, max(2, round(max(mask.shape) / 24))) & ((taken == 0) | mask)
    inner = pixels[mask]
    middle = np.median(inner, axis=0)
    colour = inner[np.linalg.norm(inner - middle, axis=-1) < _SAME_COLOUR].mean(0)
    way = colour - ground
    alpha = np.clip((pixels - ground) @ way / max(float(way @ way), 1e-6), 0, 1) * zone
    rows, columns = np.nonzero(zone)
    area = float(alpha.sum())
    y, x = np.arange(mask.shape[0]) + 0.5, np.arange(mask.shape[1]) + 0.5
    box = (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
    return Region(
        colour=colour,
        alpha=alpha,
        core=alpha > 0.9,
        zone=zone,
        box=box,
        centre=(float(alpha.sum(1) @ y) / area, float(alpha.sum(0) @ x) / area),
        area=area,
        shape=classify(alpha[box[0] : box[2], box[1] : box[3]]),
    )


def _find(scene: Scene, thing: Thing) -> tuple[tuple[Region, ...], str]:
    if not thing.shape and thing.noun not in {"object", "objects"}:
        return (), f"a {thing.noun!r} cannot be found without a model"
    height, width = scene.pixels.shape[:2]
    found = [region for region in scene.regions if not thing.colour or is_named(region.colour, thing.colour)]
    found = [region for region in found if not thing.shape or region.shape in (thing.shape, "")]
    if thing.place:
        left, top, right, bottom = PLACES[thing.place]
        found = [r for r in found if top <= r.centre[0] / height <= bottom and left <= r.centre[1] / width <= right]
    words = " ".join(filter(None, (thing.colour, thing.noun, f"in the {thing.place}" if thing.place else "")))
    if not found:
        return (), f"the source shows no {words}"
    if len(found) > 1 and not thing.plural:
        return (), f"the source shows {len(found)} times a {words}; which one is meant is open"
    return tuple(found), ""
