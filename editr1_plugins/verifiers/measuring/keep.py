"""Keep on flat scenes: is what nobody asked to change still what it was?

The background and each object are judged apart, so that one lost object is not averaged away by a large background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import Ask, read_list
from editr1_plugins.principles.words import place_name
from editr1_plugins.verifiers.measuring.additions import zone_of_added, zone_of_all_added
from editr1_plugins.verifiers.measuring.colours import name_of
from editr1_plugins.verifiers.measuring.comparison import Comparison, Finding, unmeasured
from editr1_plugins.verifiers.measuring.objects import new_coverage
from editr1_plugins.verifiers.measuring.pixels import Array, Mask, dilate, distance, length, soft
from editr1_plugins.verifiers.measuring.scene import Region, Scene

__all__ = ["ADDED", "form_kept", "ground_kept", "nothing_new", "others_kept", "replacement_kept"]

#: What a Keep question says of an added object, between its noun and its place.
ADDED: Final = " that is new"
# (what costs nothing, what costs 1 - 1/e beyond that)
_COLOUR: Final = (0.05, 0.10)  # RGB distance (rms) of an object's colour
_FORM: Final = (0.03, 0.04)  # share of an object's area that is another form now
_SHARE: Final = (0.012, 0.04)  # share of the background that changed visibly
_DRIFT: Final = (0.025, 0.08)  # RGB distance (rms) of the background's colour
_MOVED: Final = (0.06, 0.06)  # distance between two centres, in sides of the image
_SIZE: Final = (0.75, 0.5)  # log ratio of two areas
_VISIBLE: Final = 0.10  # RGB distance (rms) from which a pixel has visibly changed
_SEEN: Final = 0.17  # RGB distance from the background from which an object has a form


def others_kept(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `others_colour`, `others_form` (and `..._but`): every object that is not among the exceptions."""
    if pair.scene is None:
        return unmeasured(pair.regions("the object")[1])
    if unknown := _unknown(pair, ask.what):
        return unmeasured(unknown)
    others = pair.others(ask.what)
    if not others:
        return Finding(degree=1.0, reason="the source has no other object")
    measure = _colour_of if ask.kind.startswith("others_colour") else _form_of
    found = [measure(pair, region) for region in others]
    degrees = [degree for degree, _ in found if degree is not None]
    words = "; ".join(words for _, words in found)
    return Finding(degree=float(np.prod(degrees)), reason=words) if degrees else unmeasured(words)


def _unknown(pair: Comparison, what: str) -> str:
    reasons = (pair.regions(part)[1] for part in read_list(what) if ADDED not in part)
    return next((reason for reason in reasons if reason), "")


def _name(region: Region) -> str:
    return f"{name_of(region.colour)} {region.shape or 'object'}"


_Measured = tuple[float | None, str]


def _colour_of(pair: Comparison, region: Region) -> _Measured:
    change = float(distance(pair.edited[region.inside], pair.source[region.inside]).mean())
    return soft(change, *_COLOUR), f"{_name(region)}: colour changed by {change:.2f}"


def _form_of(pair: Comparison, region: Region) -> _Measured:
    top, left, bottom, right = region.box
    window = slice(top, bottom), slice(left, right)
    ring = region.ring & pair.flat.open
    ground = np.median(pair.edited[ring], axis=0) if ring.any() else pair.new_ground
    way = pair.edited[region.inside].mean(0) - ground
    square = float(way @ way)
    if square < _SEEN**2:
        hidden = length(region.colour - ground) < _SEEN  # it kept its colour, the background took it on
        return (None if hidden else 0.0), f"{_name(region)}: not to be told from the background"
    now = np.clip((pair.edited[window] - ground) @ way / square, 0, 1) * region.zone[window]
    changed = _form_change(now, region.alpha[window])
    return soft(changed, *_FORM), f"{_name(region)}: {changed:.2f} of its form changed"


def _form_change(now: Array, was: Array) -> float:
    """Area that is covered otherwise, over the area covered before. What a blurred edge explains does not count."""
    change = np.clip((np.abs(now - was) - 0.35) / 0.4, 0, 1)
    return float(change.sum()) / max(float(was.sum()), 1.0)


def _of_all(pair: Comparison, what: str, measure: Callable[[Comparison, Region], _Measured]) -> Finding:
    """The least fulfilled of the regions that a noun phrase means."""
    regions, reason = pair.regions(what)
    if not regions:
        return unmeasured(reason)
    found = [measure(pair, region) for region in regions]
    degrees = [degree for degree, _ in found if degree is not None]
    words = "; ".join(words for _, words in found)
    return Finding(degree=min(degrees), reason=words) if degrees else unmeasured(words)


def form_kept(pair: Comparison, ask: Ask) -> Finding:
    """Kind `form_kept`: a recoloured object's outline, by its contrast to the background in both images."""
    return _of_all(pair, ask.what, _outline)


def _outline(pair: Comparison, region: Region) -> _Measured:
    coverage, colour = new_coverage(pair, region)
    if length(colour - pair.new_ground) < _SEEN:
        return None, f"{_name(region)}: not to be told from the background"
    changed = _form_change(coverage, region.alpha[pair.window(region)])
    return soft(changed, *_FORM), f"{_name(region)}: {changed:.2f} of its form changed"


def replacement_kept(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `place_kept`, `colour_kept`: what replaced an object has its place and size, or its colour."""
    return _of_all(pair, ask.what, _place_of if ask.kind == "place_kept" else _colour_left)


def _place_of(pair: Comparison, region: Region) -> _Measured:
    coverage, _ = new_coverage(pair, region)
    area = float(coverage.sum())
    if area < 1:
        return 0.0, "nothing is in its place"
    rows, columns = pair.window(region)
    y = np.arange(coverage.shape[0]) + 0.5 + rows.start
    x = np.arange(coverage.shape[1]) + 0.5 + columns.start
    shift = float(coverage.sum(1) @ y) / area - region.centre[0], float(coverage.sum(0) @ x) / area - region.centre[1]
    moved, size = float(np.hypot(*shift)) / max(pair.source.shape[:2]), area / region.area
    words = f"moved by {moved:.2f} of the side, {size:.2f} times as large"
    return soft(moved, *_MOVED) * soft(abs(float(np.log(size))), *_SIZE), words


def _colour_left(pair: Comparison, region: Region) -> _Measured:
    _, colour = new_coverage(pair, region)
    change = float(distance(colour, region.colour))
    # A blurred small object shows its colour in few pixels only.
    return soft(change, _COLOUR[0] + 0.02, _COLOUR[1]), f"colour changed by {change:.2f} (now {name_of(colour)})"


# --- the background ---------------------------------------------------------------------------------------------------


def ground_kept(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `ground_kept`, `ground_kept_but`: the open background outside of what was to change."""
    if pair.scene is None:
        return unmeasured(pair.regions("the object")[1])
    if unknown := _unknown(pair, ask.what):
        return unmeasured(unknown)
    area = pair.scene.open & ~_exceptions(pair, pair.scene, read_list(ask.what))
    if not area.any():
        return unmeasured("no background is left that was to stay as it is")
    change = distance(pair.edited[area], pair.source[area])
    share, drift = float((change > _VISIBLE).mean()), float(np.median(change))
    words = f"{share:.3f} of the background changed visibly; its colour by {drift:.3f}"
    return Finding(degree=soft(share, *_SHARE) * soft(drift, *_DRIFT), reason=words)


def _exceptions(pair: Comparison, scene: Scene, parts: Sequence[str]) -> Mask:
    mask = np.zeros(scene.open.shape, bool)
    for part in parts:
        noun, new, where = part.partition(ADDED)
        if new:
            mask |= zone_of_added(pair, scene, noun, place_name(where.removeprefix(" in the ")) or "")
            continue
        for region in pair.regions(part)[0]:
            if pair.is_reshaped(part):
                mask[pair.window(region)] = True
            else:
                mask |= dilate(region.zone, 1)
    return mask


def nothing_new(pair: Comparison, ask: Ask) -> Finding:
    """Kind `nothing_new`: on a background that changes, whatever is on no way from the old one to the new one."""
    scene = pair.scene
    if scene is None:
        return unmeasured(pair.regions("the object")[1])
    if not scene.open.any():
        return unmeasured("the source shows no open background")
    now = pair.edited[scene.open & ~zone_of_all_added(pair, scene)]
    beside = np.full(len(now), np.inf)
    # Old background that is left is no new thing: that is for the Follow principles.
    for end in (*pair.ground_goals, pair.new_ground):
        way = end - scene.ground
        share = np.clip((now - scene.ground) @ way / max(float(way @ way), 1e-6), 0, 1)
        beside = np.minimum(beside, distance(now, scene.ground + share[:, None] * way))
    stray = float((beside > _VISIBLE).mean()) if len(now) else 0.0
    return Finding(degree=soft(stray, *_SHARE), reason=f"{stray:.3f} of the background shows something new")
