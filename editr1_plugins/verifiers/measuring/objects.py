"""Follow on flat scenes: was an object (or the background) recoloured, removed, replaced or added as asked?

Every measure compares the two images, so an untouched copy earns exactly 0, and half of the change earns about half.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import Ask
from editr1_plugins.principles.words import PLACES, SHAPES, Thing, colour_name, read_thing
from editr1_plugins.verifiers.measuring.colours import credit, examples, is_named, name_of, rivals_of
from editr1_plugins.verifiers.measuring.comparison import GROUND, Comparison, Finding, unmeasured
from editr1_plugins.verifiers.measuring.pixels import Array, Mask, components, dilate, distance, drop, rise
from editr1_plugins.verifiers.measuring.scene import Region
from editr1_plugins.verifiers.measuring.shapes import shape_errors, shape_margin

__all__ = ["added", "added_coverage", "becomes", "new_coverage", "recoloured", "removed"]

_STARTED, _DONE = 0.10, 0.86  # mean credit at which a change begins to count, and from which it counts as made
_VISIBLE: Final = 0.12  # RGB distance from the background from which an object can be seen
_MARGIN: Final = (-0.30, 0.30)  # shape margin of "clearly another shape" and of "clearly this shape"
_MISFIT: Final = (0.30, 0.60)  # shape error of "clearly this shape" and of "no such shape"


def _grade(credits: Array) -> float:
    return float(rise(float(credits.mean()), _STARTED, _DONE)) if credits.size else 0.0


# --- recolour ---------------------------------------------------------------------------------------------------------


def recoloured(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `colour`, `colour_everywhere`, `colour_clear`: of an object or of the background."""
    colour = colour_name(ask.value)
    if colour is None:
        return unmeasured(f"{ask.value!r} is no colour that can be measured")
    areas, reason = _areas(pair, ask.what)
    if not areas:
        return unmeasured(reason)
    degrees, words = [], []
    for mask, start in areas:
        if is_named(start, colour) and np.linalg.norm(examples(colour) - start, axis=-1).min() < 0.25:
            return unmeasured(f"{ask.what} is {colour} in the source already: there is no change to measure")
        rivals = rivals_of(colour)
        if ask.what != GROUND and np.linalg.norm(examples(colour) - pair.flat.ground, axis=-1).min() > 0.2:
            rivals = np.concatenate([rivals, pair.flat.ground[None]])
        now = pair.edited[mask]
        credits = credit(now, start, examples(colour), rivals)
        degrees.append(_colour_degree(ask.kind, credits, now, start))
        seen = name_of(np.median(now, axis=0))
        words.append(f"mean colour {seen}; {float((credits > 0.6).mean()):.2f} of its pixels are {colour}")
    return Finding(degree=min(degrees), reason="; ".join(words))


def _colour_degree(kind: str, credits: Array, now: Array, start: Array) -> float:
    if kind == "colour":
        return _grade(credits)
    if kind == "colour_everywhere":
        return float(rise(float(rise(credits, 0.2, 0.8).mean()), _STARTED, _DONE))
    changed = distance(now, start) > 0.08
    return _grade(credits[changed]) if changed.mean() > 0.05 else 0.0


def _areas(pair: Comparison, what: str) -> tuple[list[tuple[Mask, Array]], str]:
    """(mask, colour in the source) of each thing meant."""
    if what == GROUND:
        if pair.scene is None:
            return [], "the background of an image that is no flat scene cannot be told from the rest without a model"
        scene = pair.scene
        return ([(scene.open, scene.ground)], "") if scene.open.any() else ([], "the source shows no open background")
    regions, reason = pair.regions(what)
    return [
        (region.core if region.core.sum() >= 4 else region.alpha > 0.5, region.colour) for region in regions
    ], reason


# --- remove -----------------------------------------------------------------------------------------------------------


def removed(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `gone`, `gone_fully`, `filled`."""
    regions, reason = pair.regions(ask.what)
    if not regions:
        return unmeasured(reason)
    degrees, words = [], []
    for region in regions:
        if _reshaped(pair, region):
            degrees.append(0.0)
            words.append("an object of another form is in its place")
            continue
        part = region.alpha > (0.1 if ask.kind == "gone_fully" else 0.5)
        part &= distance(pair.source, pair.wanted_ground) > 0.1
        if not part.any():
            return unmeasured(f"{ask.what} has the colour of the background: its removal cannot be seen")
        now, was = pair.edited[part], pair.source[part]
        credits = credit(now, was, pair.wanted_ground[None], rivals_of(name_of(pair.wanted_ground)))
        if ask.kind == "gone_fully":
            degree = float(rise(float(rise(credits, 0.2, 0.8).mean()), _STARTED, _DONE))
        elif ask.kind == "filled":
            changed = distance(now, was) > 0.08
            degree = _grade(credits[changed]) if changed.mean() > 0.05 else 0.0
        else:
            degree = _grade(credits)
        degrees.append(degree)
        words.append(f"{float((credits > 0.6).mean()):.2f} of its pixels show the background")
    return Finding(degree=min(degrees), reason="; ".join(words))


def _reshaped(pair: Comparison, region: Region) -> bool:
    """Whether a whole object of another form stands where the region was: that is no removal."""
    coverage, colour = new_coverage(pair, region)
    if np.linalg.norm(colour - pair.wanted_ground) < 2 * _VISIBLE or float(coverage.sum()) < 0.3 * region.area:
        return False
    errors = shape_errors(coverage)
    best = min(errors, key=errors.__getitem__)
    return errors[best] < 0.2 and best != region.shape and errors[best] < 0.6 * errors.get(region.shape, 1.0)


# --- replace ----------------------------------------------------------------------------------------------------------


def new_coverage(pair: Comparison, region: Region) -> tuple[Array, Array]:
    """What stands in a region's place in the edited image: coverage (h, w) in 0..1 of a window, and its RGB."""
    top, left, bottom, right = region.box
    more = max(1, round(0.15 * max(bottom - top, right - left)))
    rows = slice(max(0, top - more), bottom + more)
    columns = slice(max(0, left - more), right + more)
    ground = pair.wanted_ground
    free = pair.free_of([other for other in pair.flat.regions if other is not region])[rows, columns]
    patch = pair.edited[rows, columns]
    contrast = ((patch - ground) ** 2).sum(-1) * free
    total = float(contrast.sum())
    if total < 1e-6:
        return np.zeros(contrast.shape, np.float32), ground
    colour = np.einsum("hw,hwc->c", contrast, patch) / total
    way = colour - ground
    length = float(way @ way)
    if length < _VISIBLE**2:
        return np.zeros(contrast.shape, np.float32), colour
    return np.clip((patch - ground) @ way / length, 0, 1) * free, colour


def becomes(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `becomes`, `old_gone`, `becomes_clear`: one flat shape in the place of another."""
    if ask.what == GROUND:
        return unmeasured(f"whether {ask.value} is the background cannot be measured without a model")
    wanted = read_thing(ask.value)
    if wanted is None or not wanted.shape:
        return unmeasured(f"whether something is {ask.value} cannot be measured without a model")
    regions, reason = pair.regions(ask.what)
    if not regions:
        return unmeasured(reason)
    findings = [_became(pair, region, wanted, ask.kind) for region in regions]
    return min(findings, key=lambda finding: -1.0 if finding.degree is None else finding.degree)


def _became(pair: Comparison, region: Region, wanted: Thing, kind: str) -> Finding:
    recolours = bool(wanted.colour) and not is_named(region.colour, wanted.colour)
    if region.shape == wanted.shape and not recolours:
        return unmeasured(f"it is a {wanted.shape} in the source already: there is no change to measure")
    coverage, colour = new_coverage(pair, region)
    size = float(coverage.sum()) / region.area
    if np.linalg.norm(colour - pair.wanted_ground) < _VISIBLE or size < 0.2:
        return Finding(degree=0.0, reason="nothing is in its place")
    errors = shape_errors(coverage)
    rivals = tuple(shape for shape in SHAPES if shape != wanted.shape)
    if kind == "old_gone" and region.shape and region.shape != wanted.shape:
        rivals = (region.shape,)
    degree = float(rise(shape_margin(errors, wanted.shape, rivals), *_MARGIN))
    degree = min(degree, float(drop(errors[wanted.shape], *_MISFIT)), float(rise(size, 0.2, 0.5)))
    if recolours:
        goals = examples(wanted.colour)
        earned = credit(colour[None], region.colour, goals, rivals_of(wanted.colour))
        degree = min(degree, _grade(earned))
    best = min(errors, key=errors.__getitem__)
    words = f"a {name_of(colour)} {best} fits what is there best (error {errors[best]:.2f}"
    return Finding(degree=degree, reason=f"{words}; {wanted.shape} {errors[wanted.shape]:.2f})")


# --- add --------------------------------------------------------------------------------------------------------------


def added_coverage(pair: Comparison, value: str) -> Array | None:
    """How much of each pixel (H, W) a new object of the wanted colour covers, where the source shows background.

    None when what is asked for is neither a known shape nor of a known colour.
    """
    thing = read_thing(value)
    if pair.scene is None or thing is None or not thing.shape:
        return None
    scene = pair.scene
    coverage = np.zeros(scene.open.shape, np.float32)
    if thing.colour:
        goals = examples(thing.colour)
        goals = goals[np.linalg.norm(goals - scene.ground, axis=-1) > 2 * _VISIBLE]
        earned = credit(pair.edited[scene.open], scene.ground, goals, rivals_of(thing.colour)) if len(goals) else 0.0
    else:
        earned = np.clip(distance(pair.edited[scene.open], scene.ground) / 0.3, 0, 1)
    coverage[scene.open] = earned
    coverage[coverage < 0.08] = 0
    return coverage


def added(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `added`, `added_at`, `added_shape`, `added_solid`: a flat shape on the open background."""
    if pair.scene is None:
        return unmeasured(pair.regions("the object")[1])
    thing = read_thing(ask.value)
    coverage = added_coverage(pair, ask.value)
    if thing is None or coverage is None or thing.plural:
        return unmeasured(f"whether {ask.value} was added cannot be measured without a model")
    place = PLACES.get(ask.where or pair.place_of(ask.value), (0.0, 0.0, 1.0, 1.0))
    patch = _biggest(coverage * _inside(place, coverage.shape))
    usual = [region.area for region in pair.flat.regions]
    least = 0.35 * float(np.median(usual)) if usual else 0.02 * coverage.size
    opacity = float((patch**2).sum() / max(float(patch.sum()), 1e-6))
    size = float((patch > 0.5 * patch.max()).sum()) / least if patch.max() > 0 else 0.0
    there = min(float(rise(opacity, 0.10, 0.80)), float(rise(size, 0.2, 0.9)))
    if there == 0:
        return Finding(degree=0.0, reason="no such new object is to be seen")
    errors = shape_errors(np.clip(patch / max(float(np.quantile(patch[patch > 0], 0.8)), 1e-6), 0, 1))
    rivals = tuple(shape for shape in SHAPES if shape != thing.shape)
    form = min(
        float(rise(shape_margin(errors, thing.shape, rivals), *_MARGIN)), float(drop(errors[thing.shape], *_MISFIT))
    )
    share = float(patch.sum() / coverage.sum())
    degree = {
        "added": min(there, form),
        "added_shape": min(there, form),
        "added_at": min(there, float(rise(share, 0.5, 0.9))),
        "added_solid": there,
    }[ask.kind]
    best = min(errors, key=errors.__getitem__)
    reason = f"a new patch, opacity {opacity:.2f}, most like a {best} (error {errors[best]:.2f})"
    return Finding(degree=degree, reason=f"{reason}; {share:.2f} of what is new of that colour lies there")


@lru_cache(maxsize=64)
def _inside(place: tuple[float, float, float, float], shape: tuple[int, int]) -> Array:
    y = (np.arange(shape[0]) + 0.5) / shape[0]
    x = (np.arange(shape[1]) + 0.5) / shape[1]
    left, top, right, bottom = place
    # A margin: an object in the top left may reach a little over the middle.
    rows = (y >= top - 0.04) & (y <= bottom + 0.04)
    return (rows[:, None] & ((x >= left - 0.04) & (x <= right + 0.04))[None]).astype(np.float32)


def _biggest(coverage: Array) -> Array:
    """The connected part of the coverage that weighs most, with its soft edge."""
    top = float(coverage.max())
    if top <= 0:
        return coverage
    labels, count = components(coverage > 0.4 * top)
    weights = np.bincount(labels.ravel(), weights=coverage.ravel(), minlength=count + 1)
    weights[0] = 0
    return coverage * dilate(labels == weights.argmax(), 1)
