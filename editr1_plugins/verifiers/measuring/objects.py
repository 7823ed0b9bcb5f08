"""Follow on flat scenes: was an object (or the background) recoloured, removed or replaced as asked?

Every measure compares the two images, so an untouched copy earns exactly 0, and half of the change earns about half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import Ask
from editr1_plugins.principles.words import SHAPES, Thing, colour_name, read_thing
from editr1_plugins.verifiers.measuring.additions import zone_of_all_added
from editr1_plugins.verifiers.measuring.colours import credit, examples, goals, is_named, name_of, rivals_of
from editr1_plugins.verifiers.measuring.comparison import GROUND, Comparison, Finding, unmeasured
from editr1_plugins.verifiers.measuring.pixels import Array, Mask, distance, length, rise
from editr1_plugins.verifiers.measuring.scene import Region
from editr1_plugins.verifiers.measuring.shapes import Fit, best_fit, fit_shapes, form_degree

__all__ = ["becomes", "grade", "new_coverage", "recoloured", "removed"]

_STARTED, _DONE = 0.10, 0.86  # mean credit at which a change begins to count, and from which it counts as made
_ALREADY: Final = 0.25  # RGB distance to a colour up to which the source has it already
_CHANGED: Final = 0.08  # RGB distance (rms) from which a pixel has changed
#: Share of the way from one form to another that a blurred edge may feign, and from which the form counts as changed.
_RESHAPED: Final = (0.28, 0.80)
#: Change of coverage that a blurred edge makes, and that only another form makes.
_EDGE_CHANGE: Final = (0.13, 0.25)
_VISIBLE: Final = 0.12  # RGB distance from the background from which an object can be seen


def grade(credits: Array) -> float:
    """Mean credit of some pixels as a degree: 0 up to a beginning, 1 where next to nothing is missing."""
    return rise(float(credits.mean()), _STARTED, _DONE) if credits.size else 0.0


def _completeness(credits: Array) -> float:
    """Like `grade`, but counts pixels that are done rather than how far each has come."""
    return rise(float(np.clip((credits - 0.2) / 0.6, 0, 1).mean()), _STARTED, _DONE) if credits.size else 0.0


def _of_changed(credits: Array, now: Array, was: Array) -> float:
    """The grade of the pixels that changed at all; 0 when next to none did."""
    changed = distance(now, was) > _CHANGED
    return grade(credits[changed]) if changed.mean() > 0.05 else 0.0


def _mean(found: Sequence[Finding]) -> Finding:
    """Of several things that were to change alike, half of them changed is half of the change."""
    degrees = [finding.degree for finding in found if finding.degree is not None]
    words = "; ".join(finding.reason for finding in found)
    return Finding(degree=float(np.mean(degrees)), reason=words) if len(degrees) == len(found) else unmeasured(words)


# --- recolour ---------------------------------------------------------------------------------------------------------


def recoloured(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `colour`, `colour_everywhere`, `colour_clear`: of an object or of the background."""
    colour = colour_name(ask.value)
    if colour is None:
        return unmeasured(f"{ask.value!r} is no colour that can be measured")
    areas, reason = _areas(pair, ask.what)
    if not areas:
        return unmeasured(reason)
    if any(is_named(was, colour) and length(examples(colour) - was).min() < _ALREADY for _, was in areas):
        return unmeasured(f"{ask.what} is {colour} in the source already: there is no change to measure")
    degrees, words = [], []
    for index, (mask, was) in enumerate(areas):
        now = pair.edited[mask]
        credits = pair.once(
            ("colour", ask.what, colour, index), partial(_towards, pair, colour, now, was, ask.what == GROUND)
        )
        if ask.kind == "colour":
            degrees.append(grade(credits))
        elif ask.kind == "colour_everywhere":
            degrees.append(_completeness(credits))
        else:
            degrees.append(_of_changed(credits, now, was))
        seen = name_of(np.median(now, axis=0))
        words.append(f"its colour is {seen} now; {float((credits > 0.6).mean()):.2f} of its pixels are {colour}")
    return Finding(degree=float(np.mean(degrees)), reason="; ".join(words))


def _towards(pair: Comparison, colour: str, now: Array, was: Array, is_ground: bool) -> Array:
    rivals, ground = rivals_of(colour), pair.flat.ground
    if not is_ground and length(examples(colour) - ground).min() > 0.2:
        rivals = np.concatenate([rivals, ground[None]])  # what shows the background is gone, not half way
    return credit(now, was, goals(colour), rivals)


def _areas(pair: Comparison, what: str) -> tuple[list[tuple[Mask, Array]], str]:
    """(where it is, its colour in the source) of each thing meant."""
    if what != GROUND:
        regions, reason = pair.regions(what)
        return [(region.inside, region.colour) for region in regions], reason
    if pair.scene is None:
        return [], "the background of an image that is no flat scene cannot be told from the rest without a model"
    area = pair.scene.open & ~zone_of_all_added(pair, pair.scene)
    return ([(area, pair.scene.ground)], "") if area.any() else ([], "the source shows no open background")


# --- remove -----------------------------------------------------------------------------------------------------------


def removed(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `gone`, `gone_fully`, `filled`."""
    regions, reason = pair.regions(ask.what)
    if not regions:
        return unmeasured(reason)
    return _mean([_removed(pair, region, ask.kind) for region in regions])


def _removed(pair: Comparison, region: Region, kind: str) -> Finding:
    if pair.once(("reshaped", region.box), lambda: _is_reshaped(pair, region)):
        return Finding(degree=0.0, reason="an object of another form is in its place")
    ground = pair.wanted_ground
    part = (region.alpha > (0.1 if kind == "gone_fully" else 0.5)) & (length(pair.source - ground) > 0.17)
    if not part.any():
        return unmeasured("it has the colour of the background: its removal cannot be seen")
    now, was = pair.edited[part], pair.source[part]
    credits = credit(now, was, ground[None], rivals_of(name_of(ground)))
    if kind == "gone":
        degree = grade(credits)
    else:
        degree = _completeness(credits) if kind == "gone_fully" else _of_changed(credits, now, was)
    share = float((credits > 0.6).mean())
    return Finding(degree=degree, reason=f"{share:.2f} of its pixels show the background now")


def _is_reshaped(pair: Comparison, region: Region) -> bool:
    """Whether a whole object of another form stands where the region was: that is no removal."""
    coverage, colour = new_coverage(pair, region)
    if length(colour - pair.wanted_ground) < 2 * _VISIBLE or float(coverage.sum()) < 0.3 * region.area:
        return False
    fits = fit_shapes(coverage)
    best = best_fit(fits)
    own = fits[region.shape].error if region.shape else 1.0
    return best != region.shape and fits[best].error < min(0.2, 0.6 * own)


# --- replace ----------------------------------------------------------------------------------------------------------


def new_coverage(pair: Comparison, region: Region) -> tuple[Array, Array]:
    """What stands in a region's place in the edited image: coverage (h, w) in 0..1 of its window, and its RGB.

    The coverage is all 0 where nothing stands out from the background there.
    """
    return pair.once(("coverage", region.box), lambda: _new_coverage(pair, region))


def _new_coverage(pair: Comparison, region: Region) -> tuple[Array, Array]:
    window = pair.window(region)
    free = pair.free_of([other for other in pair.flat.regions if other is not region])[window]
    contrast = pair.edited[window] - pair.new_ground
    weights = (contrast * contrast).sum(-1) * free
    total = float(weights.sum())
    if total < 1e-6:
        return np.zeros(weights.shape, np.float32), pair.new_ground
    way = np.einsum("hw,hwc->c", weights, contrast) / total
    square = float(way @ way)
    if square < _VISIBLE**2:
        return np.zeros(weights.shape, np.float32), pair.new_ground + way
    return np.clip(contrast @ way / square, 0, 1) * free, pair.new_ground + way


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
    return _mean([_became(pair, region, wanted, ask.kind) for region in regions])


def _became(pair: Comparison, region: Region, wanted: Thing, kind: str) -> Finding:
    recolours = bool(wanted.colour) and not is_named(region.colour, wanted.colour)
    reshapes = region.shape != wanted.shape
    if not reshapes and not recolours:
        return unmeasured(f"it is a {wanted.shape} in the source already: there is no change to measure")
    coverage, colour = new_coverage(pair, region)
    size = float(coverage.sum()) / region.area
    if size < 0.2:
        return Finding(degree=0.0, reason="nothing is to be seen in its place")
    degree, words = 1.0, f"{size:.2f} times as large"
    if reshapes:
        change = pair.once(("reshape", region.box, wanted.shape), lambda: _reshape(pair, region, wanted.shape))
        form = form_degree(change.fits, wanted.shape, [shape for shape in SHAPES if shape != wanted.shape])
        degree = {"becomes": min(change.share, form), "old_gone": change.share, "becomes_clear": form}[kind]
        if min(change.share, form) == 0:
            degree = 0.0  # nothing took its place, or something else did
        best = best_fit(change.fits)
        words = f"{change.share:.2f} of the way to a {wanted.shape} (what changed fits a {best} best), {words}"
    if recolours:
        earned = credit(colour[None], region.colour, goals(wanted.colour), rivals_of(wanted.colour))
        degree = min(degree, grade(earned))
    return Finding(degree=min(degree, rise(size, 0.2, 0.5)), reason=f"{words}, {name_of(colour)} in colour")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reshape:
    """`share` of the way from the old form to the wanted one; `fits` of the form that the change is heading for."""

    share: float
    fits: dict[str, Fit]


def _reshape(pair: Comparison, region: Region, wanted: str) -> _Reshape:
    """Half a change is a blend of two forms, and fits neither: so carry the change on to its end, and look at that."""
    now, was = new_coverage(pair, region)[0], region.alpha[pair.window(region)]
    change = now - was
    size = np.sort(np.abs(change), axis=None)[-6:].mean() if change.size >= 6 else 0.0
    if size < 0.1:
        return _Reshape(share=0.0, fits=fit_shapes(now))
    fits = fit_shapes(np.clip(was + change / max(size, 0.3), 0, 1))
    way = fits[wanted].template - was
    share = float((change * way).sum()) / max(float((way * way).sum()), 1e-6)
    return _Reshape(share=rise(share, *_RESHAPED) * rise(size, *_EDGE_CHANGE), fits=fits)
