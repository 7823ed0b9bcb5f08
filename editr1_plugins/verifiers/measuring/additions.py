"""Follow on flat scenes: was an object added as asked, in colour, form and place?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import Ask, bare_noun
from editr1_plugins.principles.words import PLACES, SHAPES, Thing, read_thing
from editr1_plugins.verifiers.measuring.colours import credit, goals, rivals_of
from editr1_plugins.verifiers.measuring.comparison import Comparison, Finding, unmeasured
from editr1_plugins.verifiers.measuring.pixels import Array, Mask, components, dilate, length, rise
from editr1_plugins.verifiers.measuring.scene import Scene
from editr1_plugins.verifiers.measuring.shapes import Fit, best_fit, fit_shapes, form_degree

__all__ = ["added", "place_mask", "zone_of_added", "zone_of_all_added"]

_FAINT: Final = 0.08  # coverage under which a pixel is background
_OPACITY: Final = (0.10, 0.85)  # mean opacity of "nothing there" and of "solid"
_SIZE: Final = (0.2, 0.9)  # area, in usual objects' sizes x 0.35, of "nothing there" and of "an object"
_LEAST_CONTRAST: Final = 0.25  # RGB distance from the background below which an added colour cannot be seen
_PLACE_MARGIN: Final = 0.04  # an object in the top left may reach a little over the middle


@dataclass(frozen=True, kw_only=True, eq=False)
class _Addition:
    """The largest new patch of the wanted colour at the wanted place; `share` of all that is new in that colour."""

    opacity: float
    size: float
    share: float
    fits: dict[str, Fit]


def added(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `added`, `added_at`, `added_shape`, `added_solid`: a flat shape on the open background."""
    scene, thing = pair.scene, read_thing(ask.value)
    if scene is None:
        return unmeasured(pair.regions("the object")[1])
    if thing is None or not thing.shape or thing.plural:
        return unmeasured(f"whether {ask.value} was added cannot be measured without a model")
    if thing.colour and not len(_goals(scene, thing)):
        return unmeasured(f"{thing.colour} on a background of that colour cannot be seen")
    place = ask.where or pair.place_of(ask.value)
    new = pair.once(("added", bare_noun(ask.value), place), lambda: _addition(pair, scene, thing, place))
    there = min(rise(new.opacity, *_OPACITY), rise(new.size, *_SIZE))
    if there == 0:
        return Finding(degree=0.0, reason="no such new object is to be seen")
    best = best_fit(new.fits)
    form = form_degree(new.fits, thing.shape, [shape for shape in SHAPES if shape != thing.shape])
    if form == 0:
        return Finding(degree=0.0, reason=f"what is new there is most like a {best}, not a {thing.shape}")
    facet = {"added": form, "added_shape": form, "added_at": rise(new.share, 0.5, 0.9), "added_solid": 1.0}[ask.kind]
    words = f"a new patch, opacity {new.opacity:.2f}, most like a {best} (error {new.fits[best].error:.2f})"
    return Finding(degree=min(there, facet), reason=f"{words}; {new.share:.2f} of what is new in that colour is there")


def _goals(scene: Scene, thing: Thing) -> Array:
    colours = goals(thing.colour)
    return colours[length(colours - scene.ground) > _LEAST_CONTRAST]


def _coverage(pair: Comparison, scene: Scene, thing: Thing) -> Array:
    """How much of each pixel (H, W) something new of the wanted colour covers, where the source shows background."""

    def compute() -> Array:
        coverage = np.zeros(scene.open.shape, np.float32)
        now = pair.edited[scene.open]
        if thing.colour:
            earned = credit(now, scene.ground, _goals(scene, thing), rivals_of(thing.colour))
        else:
            earned = np.clip(length(now - scene.ground) / 0.5, 0, 1)
        coverage[scene.open] = np.where(earned < _FAINT, 0, earned)
        return coverage

    return pair.once(("new", thing.colour), compute)


def _addition(pair: Comparison, scene: Scene, thing: Thing, place: str) -> _Addition:
    coverage = _coverage(pair, scene, thing)
    patch = _biggest(coverage * place_mask(place, coverage.shape))
    total, top = float(patch.sum()), float(patch.max(initial=0.0))
    usual = [region.area for region in scene.regions]
    least = 0.35 * float(np.median(usual)) if usual else 0.02 * coverage.size
    if total == 0:
        return _Addition(opacity=0.0, size=0.0, share=0.0, fits=fit_shapes(patch))
    solid = float(np.quantile(patch[patch > 0], 0.8))
    return _Addition(
        opacity=float((patch * patch).sum()) / total,
        size=float((patch > 0.5 * top).sum()) / least,
        share=total / float(coverage.sum()),
        fits=fit_shapes(np.clip(patch / solid, 0, 1)),
    )


def _biggest(coverage: Array) -> Array:
    """The connected part of the coverage that weighs most, with its soft edge."""
    top = float(coverage.max(initial=0.0))
    if top == 0:
        return coverage
    labels, count = components(coverage > 0.4 * top)
    weights = np.bincount(labels.ravel(), weights=coverage.ravel(), minlength=count + 1)
    weights[0] = 0
    return coverage * dilate(labels == weights.argmax(), 1)


@lru_cache(maxsize=256)
def place_mask(place: str, shape: tuple[int, int]) -> Mask:
    """The part (H, W) of an image that a place means, a little more than that; all of it for ""."""
    left, top, right, bottom = PLACES.get(place, (0.0, 0.0, 1.0, 1.0))
    y, x = ((np.arange(side) + 0.5) / side for side in shape)
    rows = (y >= top - _PLACE_MARGIN) & (y <= bottom + _PLACE_MARGIN)
    return rows[:, None] & ((x >= left - _PLACE_MARGIN) & (x <= right + _PLACE_MARGIN))[None]


def zone_of_added(pair: Comparison, scene: Scene, noun: str, place: str) -> Mask:
    """Where the object that was to be added lies, with its edge: (H, W); nowhere when that cannot be told."""
    thing = read_thing(noun)
    if thing is None or not thing.shape:
        return np.zeros(scene.open.shape, bool)
    coverage = _coverage(pair, scene, thing)
    return dilate((coverage > 0.3) & place_mask(place, coverage.shape), 2)


def zone_of_all_added(pair: Comparison, scene: Scene) -> Mask:
    """Where any object lies that one of the questions says was to be added: (H, W)."""
    mask = np.zeros(scene.open.shape, bool)
    for ask in pair.asks:
        if ask.kind == "added":
            mask |= zone_of_added(pair, scene, ask.value, pair.place_of(ask.value))
    return mask
