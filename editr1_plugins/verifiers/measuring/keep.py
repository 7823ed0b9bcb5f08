"""Keep on flat scenes: is what nobody asked to change still what it was?

The background and each object are judged apart, so that one lost object is not averaged away by a large background.
"""

from __future__ import annotations

import numpy as np

from editr1_plugins.principles.phrases import Ask, read_list
from editr1_plugins.principles.words import PLACES, place_name
from editr1_plugins.verifiers.measuring.colours import name_of
from editr1_plugins.verifiers.measuring.comparison import Comparison, Finding, unmeasured
from editr1_plugins.verifiers.measuring.objects import added_coverage, new_coverage
from editr1_plugins.verifiers.measuring.pixels import Array, dilate, distance, soft
from editr1_plugins.verifiers.measuring.scene import Region

__all__ = ["form_kept", "ground_kept", "nothing_new", "others_kept", "replacement_kept"]

_COLOUR_FREE, _COLOUR_SCALE = 0.06, 0.12  # RGB distance (rms) of an object's colour
_FORM_FREE, _FORM_SCALE = 0.14, 0.14  # 1 - IoU of an object's coverage
_SHARE_FREE, _SHARE_SCALE = 0.012, 0.04  # share of the background that changed visibly
_DRIFT_FREE, _DRIFT_SCALE = 0.025, 0.08  # RGB distance of the background's colour
_VISIBLE = 0.10


def others_kept(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `others_colour`, `others_form` (and `..._but`): every object that is not among the exceptions."""
    if pair.scene is None:
        return unmeasured(pair.regions("the object")[1])
    if missing := _unknown(pair, ask.what):
        return unmeasured(missing)
    others = pair.others(ask.what)
    if not others:
        return Finding(degree=1.0, reason="the source has no other object")
    measure = _colour_of if ask.kind.startswith("others_colour") else _form_of
    found = [measure(pair, region) for region in others]
    degree = float(np.prod([degree for degree, _ in found]))
    return Finding(degree=degree, reason="; ".join(words for _, words in found))


def _unknown(pair: Comparison, what: str) -> str:
    reasons = (pair.regions(part)[1] for part in read_list(what) if " that is new" not in part)
    return next((reason for reason in reasons if reason), "")


def _name(region: Region) -> str:
    return f"{name_of(region.colour)} {region.shape or 'object'}"


def _colour_of(pair: Comparison, region: Region) -> tuple[float, str]:
    core = region.core if region.core.sum() >= 4 else region.alpha > 0.5
    change = float(distance(pair.edited[core], pair.source[core]).mean())
    return soft(change, _COLOUR_FREE, _COLOUR_SCALE), f"{_name(region)}: colour changed by {change:.2f}"


def _form_of(pair: Comparison, region: Region) -> tuple[float, str]:
    top, left, bottom, right = region.box
    window = slice(top, bottom), slice(left, right)
    zone = region.zone[window]
    core = region.core if region.core.sum() >= 4 else region.alpha > 0.5
    ground = pair.new_ground if pair.ground_changes else pair.flat.ground
    way = pair.edited[core].mean(0) - ground
    if float(way @ way) < 3 * _VISIBLE**2:
        return 0.0, f"{_name(region)}: no longer to be seen"
    now = np.clip((pair.edited[window] - ground) @ way / float(way @ way), 0, 1) * zone
    overlap = _overlap(now, region.alpha[window])
    return soft(1 - overlap, _FORM_FREE, _FORM_SCALE), f"{_name(region)}: {overlap:.2f} of its form kept"


def _overlap(a: Array, b: Array) -> float:
    """Intersection over union of two coverages, contours sharpened: a blurred edge is not another form."""
    a, b = np.clip(2.5 * a - 0.75, 0, 1), np.clip(2.5 * b - 0.75, 0, 1)
    union = float(np.maximum(a, b).sum())
    return float(np.minimum(a, b).sum()) / union if union > 0 else 0.0


def form_kept(pair: Comparison, ask: Ask) -> Finding:
    """Kind `form_kept`: a recoloured object's outline, by its contrast to the background in both images."""
    regions, reason = pair.regions(ask.what)
    if not regions:
        return unmeasured(reason)
    found = [_outline(pair, region) for region in regions]
    return Finding(degree=min(degree for degree, _ in found), reason="; ".join(words for _, words in found))


def _outline(pair: Comparison, region: Region) -> tuple[float, str]:
    coverage, colour = new_coverage(pair, region)
    if float(np.linalg.norm(colour - pair.wanted_ground)) < _VISIBLE or coverage.sum() < 1:
        return 0.0, f"{_name(region)}: no longer to be seen"
    top, left, bottom, right = region.box
    more = max(1, round(0.15 * max(bottom - top, right - left)))
    window = slice(max(0, top - more), bottom + more), slice(max(0, left - more), right + more)
    overlap = _overlap(coverage, region.alpha[window])
    return soft(1 - overlap, _FORM_FREE, _FORM_SCALE), f"{_name(region)}: {overlap:.2f} of its form kept"


def ground_kept(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `ground_kept`, `ground_kept_but`: the open background outside of what was to change."""
    if pair.scene is None:
        return unmeasured(pair.regions("the object")[1])
    if missing := _unknown(pair, ask.what):
        return unmeasured(missing)
    area = pair.scene.open.copy()
    for part in read_list(ask.what):
        noun, new, where = part.partition(" that is new")
        if new:
            area &= ~_new_zone(pair, noun, place_name(where.removeprefix(" in the ")) or "")
        for region in pair.regions(part)[0] if not new else ():
            area &= ~_near(region, pair.is_reshaped(part))
    if not area.any():
        return unmeasured("no background is left that was to stay as it is")
    return _ground_finding(distance(pair.edited, pair.source)[area])


def _ground_finding(change: Array) -> Finding:
    share, drift = float((change > _VISIBLE).mean()), float(np.median(change))
    degree = soft(share, _SHARE_FREE, _SHARE_SCALE) * soft(drift, _DRIFT_FREE, _DRIFT_SCALE)
    return Finding(degree=degree, reason=f"{share:.3f} of the background changed visibly; its colour by {drift:.3f}")


def _new_zone(pair: Comparison, noun: str, place: str) -> Array:
    """Where the added object may lie: what has its colour at its place, and the edge around that."""
    coverage = added_coverage(pair, noun)
    if coverage is None:
        return np.zeros(pair.source.shape[:2], bool)
    left, top, right, bottom = PLACES.get(place, (0.0, 0.0, 1.0, 1.0))
    height, width = coverage.shape
    inside = np.zeros(coverage.shape, bool)
    inside[int((top - 0.05 * (top > 0)) * height) : int(np.ceil((bottom + 0.05) * height))] = True
    inside[:, : max(0, int((left - 0.05) * width))] = False
    inside[:, int(np.ceil((right + 0.05) * width)) :] = False
    return dilate(inside & (coverage > 0.3), 2)


def _near(region: Region, reshaped: bool) -> Array:
    if not reshaped:
        return dilate(region.zone, 1)
    top, left, bottom, right = region.box
    more = max(1, round(0.15 * max(bottom - top, right - left)))
    near = np.zeros(region.zone.shape, bool)
    near[max(0, top - more) : bottom + more, max(0, left - more) : right + more] = True
    return near


def nothing_new(pair: Comparison, ask: Ask) -> Finding:
    """Kind `nothing_new`: the new background is one plain area; what stands out of it is new."""
    if pair.scene is None:
        return unmeasured(pair.regions("the object")[1])
    if not pair.scene.open.any():
        return unmeasured("the source shows no open background")
    now = pair.edited[pair.scene.open]
    # Old background left over is not new: that is the Follow principles' matter.
    change = np.minimum(distance(now, pair.new_ground), distance(now, pair.flat.ground))
    way = pair.new_ground - pair.flat.ground
    if (length := float(way @ way)) > 1e-4:
        share = np.clip((now - pair.flat.ground) @ way / length, 0, 1)
        change = np.minimum(change, distance(now, pair.flat.ground + share[:, None] * way))
    stray = float((change > _VISIBLE).mean())
    return Finding(
        degree=soft(stray, _SHARE_FREE, _SHARE_SCALE), reason=f"{stray:.3f} of the background shows something new"
    )


def replacement_kept(pair: Comparison, ask: Ask) -> Finding:
    """Kinds `place_kept`, `colour_kept`: what replaced an object has its place and size, or its colour."""
    regions, reason = pair.regions(ask.what)
    if not regions:
        return unmeasured(reason)
    found = [_place_of(pair, region) if ask.kind == "place_kept" else _colour_left(pair, region) for region in regions]
    return Finding(degree=min(degree for degree, _ in found), reason="; ".join(words for _, words in found))


def _place_of(pair: Comparison, region: Region) -> tuple[float, str]:
    coverage, _ = new_coverage(pair, region)
    area = float(coverage.sum())
    if area < 1:
        return 0.0, "nothing is in its place"
    top, left, bottom, right = region.box
    more = max(1, round(0.15 * max(bottom - top, right - left)))
    y = np.arange(coverage.shape[0]) + 0.5 + max(0, top - more)
    x = np.arange(coverage.shape[1]) + 0.5 + max(0, left - more)
    centre = float(coverage.sum(1) @ y) / area, float(coverage.sum(0) @ x) / area
    moved = float(np.hypot(centre[0] - region.centre[0], centre[1] - region.centre[1])) / max(pair.source.shape[:2])
    size = abs(float(np.log(area / region.area)))
    words = f"moved by {moved:.2f} of the side, {area / region.area:.2f} times as large"
    return soft(moved, 0.06, 0.06) * soft(size, 0.75, 0.5), words


def _colour_left(pair: Comparison, region: Region) -> tuple[float, str]:
    _, colour = new_coverage(pair, region)
    change = float(distance(colour, region.colour))
    return soft(change, _COLOUR_FREE + 0.02, _COLOUR_SCALE), f"colour changed by {change:.2f} (now {name_of(colour)})"
