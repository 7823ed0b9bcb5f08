"""Global tone of any image: was it made warmer, brighter, ... as a whole, and is the content still the same?

A tone edit is one map of colours for the whole image. Where no such map explains the edited image from the source, the
content is another one, and nothing is said to have become "warmer".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import Ask
from editr1_plugins.verifiers.measuring.comparison import Finding, unmeasured
from editr1_plugins.verifiers.measuring.pixels import Array, drop, luma, rise, soft

__all__ = ["ToneChange", "tone", "tone_kept"]

_BLOCKS: Final = 8  # blocks a side for what must hold everywhere
_SAME_CONTENT: Final = (0.55, 0.85)  # share of the edited image's variation that one colour map explains
_LEAST_VARIATION: Final = 0.15  # of the source's variation: below, the content is washed out
#: What makes a clear change: log ratio of light, shift of the red-blue balance, log ratio of chroma.
_CLEAR: Final = {"light": 0.16, "warmth": 0.05, "chroma": 0.26}
_DEAD: Final = 0.06  # shares of a clear change that count as none


@dataclass(frozen=True, kw_only=True, eq=False)
class ToneChange:
    """Both images at one small size, (H, W, 3) in 0..1."""

    source: Array
    edited: Array

    @cached_property
    def content(self) -> float:
        """0..1: how surely the edited image shows the source's content, under any one map of colours."""
        was, now = self.source.reshape(-1, 3).astype(np.float64), luma(self.edited).ravel().astype(np.float64)
        variation = float(now.std()) / max(float(luma(self.source).std()), 1e-6)
        if variation < _LEAST_VARIATION or not self.residual.size:
            return 0.0
        explained = 1 - float((self.residual**2).mean()) / max(float(now.var()), 1e-9)
        return float(rise(explained, *_SAME_CONTENT)) if len(was) > 40 else 0.0

    @cached_property
    def residual(self) -> Array:
        """Luma (H, W) of the edited image that no quadratic map of the source's colours explains."""
        r, g, b = self.source.reshape(-1, 3).astype(np.float64).T
        terms = np.stack([np.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, r * b, g * b])
        now = luma(self.edited).ravel().astype(np.float64)
        gram = terms @ terms.T + 1e-6 * len(r) * np.eye(len(terms))
        return (now - np.linalg.solve(gram, terms @ now) @ terms).reshape(self.edited.shape[:2])

    @cached_property
    def light(self) -> float:
        return _log_ratio(luma(self.source).mean(), luma(self.edited).mean(), 0.05)

    @cached_property
    def warmth(self) -> float:
        return _warmth(self.edited.mean((0, 1))) - _warmth(self.source.mean((0, 1)))

    @cached_property
    def chroma_scale(self) -> float:
        """How many times as colourful: the slope of the edited colours over the source's, a cast left out."""
        was, now = _opponents(self.source).reshape(-1, 2), _opponents(self.edited).reshape(-1, 2)
        was = was - was.mean(0)
        spread = float((was * was).sum())
        return float((was * (now - now.mean(0))).sum()) / spread if spread > 1e-9 else 1.0

    @cached_property
    def cast(self) -> float:
        """Shift of the colour of what was grey, in opponent units."""
        was, now = _opponents(self.source).reshape(-1, 2), _opponents(self.edited).reshape(-1, 2)
        return float(np.linalg.norm(now.mean(0) - self.chroma_scale * was.mean(0)))


def _log_ratio(was: float, now: float, floor: float) -> float:
    return float(np.log((now + floor) / (was + floor)))


def _warmth(rgb: Array) -> float:
    return float((rgb[..., 0] - rgb[..., 2]) / (rgb.sum(-1) + 0.05))


def _opponents(pixels: Array) -> Array:
    """Red-blue and green-magenta balance per pixel: (..., 2)."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return np.stack([red - blue, green - (red + blue) / 2], -1)


def _chroma(pixels: Array) -> Array:
    return pixels.max(-1) - pixels.min(-1)


_DIRECTIONS: Final = {
    "warmer": ("warmth", 1),
    "cooler": ("warmth", -1),
    "brighter": ("light", 1),
    "darker": ("light", -1),
    "more saturated": ("chroma", 1),
    "less saturated": ("chroma", -1),
}


def tone(change: ToneChange, ask: Ask) -> Finding:
    """Kinds `tone`, `tone_state`, `tone_everywhere`, `tone_visible`."""
    if ask.value != "black and white" and ask.value not in _DIRECTIONS:
        return unmeasured(f"whether an image is {ask.value} cannot be measured")
    chroma = float(_chroma(change.source).mean())
    if chroma < 0.02 and (ask.value == "black and white" or "saturated" in ask.value):
        return unmeasured("the source has no colour: there is no change to measure")
    if change.content == 0:
        return Finding(degree=0.0, reason="the edited image does not show the source's content")
    if ask.value == "black and white":
        left = float(_chroma(change.edited).mean()) / chroma
        degree, words = float(rise(1 - left, 0.05, 0.98)), f"{left:.2f} of the colour is left"
    else:
        kind, sign = _DIRECTIONS[ask.value]
        shift = sign * {"light": change.light, "warmth": change.warmth, "chroma": _log_chroma(change)}[kind]
        size = shift / _CLEAR[kind]
        steep = 1.0 if ask.kind != "tone_visible" else 1.25
        degree = float(np.tanh(max(0.0, size - _DEAD) * steep))
        words = f"{kind} changed by {sign * shift:+.3f}, a clear change is {sign * _CLEAR[kind]:+.2f}"
    if ask.kind == "tone_everywhere":
        share = _everywhere(change, ask.value)
        degree, words = min(share, float(rise(degree, 0.0, 0.8))), f"{share:.2f} of the image changed that way"
    return Finding(degree=degree * change.content, reason=words)


def _log_chroma(change: ToneChange) -> float:
    return float(np.log(max(change.chroma_scale, 0.02)))


def _everywhere(change: ToneChange, value: str) -> float:
    """Share of the blocks that changed in the wanted way, at least a third as far as a clear change."""
    was, now = _block_means(change.source), _block_means(change.edited)
    if value == "black and white" or "saturated" in value:
        before, after = _block_means(_chroma(change.source)[..., None]), _block_means(_chroma(change.edited)[..., None])
        colourful = before[..., 0] > 0.04
        if not colourful.any():
            return 1.0
        ratio = after[colourful, 0] / before[colourful, 0]
        if value == "black and white":
            return float(rise(1 - ratio, 0.1, 0.7).mean())
        shift = np.log(np.maximum(ratio, 0.02)) / _CLEAR["chroma"] * (1 if value == "more saturated" else -1)
    else:
        kind, sign = _DIRECTIONS[value]
        if kind == "light":
            shift = sign * np.log((luma(now) + 0.05) / (luma(was) + 0.05)) / _CLEAR[kind]
        else:
            shift = sign * ((now[..., 0] - now[..., 2]) / (now.sum(-1) + 0.05)) / _CLEAR[kind]
            shift = shift - sign * ((was[..., 0] - was[..., 2]) / (was.sum(-1) + 0.05)) / _CLEAR[kind]
        # Where there is no room (white cannot get brighter), nothing can be asked.
        room = (luma(was) < 0.93) & (luma(was) > 0.04)
        shift = shift[room] if room.any() else shift
    return float(rise(shift, 0.05, 0.35).mean())


def _block_means(pixels: Array) -> Array:
    height, width, channels = pixels.shape
    rows, columns = min(_BLOCKS, height), min(_BLOCKS, width)
    cut = pixels[: height // rows * rows, : width // columns * columns]
    return cut.reshape(rows, height // rows, columns, width // columns, channels).mean((1, 3))


def tone_kept(change: ToneChange, ask: Ask) -> Finding:
    """Kinds `content_kept`, `light_kept`, `hues_kept`, `detail_kept`."""
    if ask.kind == "content_kept":
        blocks = np.sqrt(_block_means((change.residual**2)[..., None])[..., 0])
        worst = float(blocks.max())
        degree = change.content * float(drop(worst, 0.08, 0.30))
        return Finding(
            degree=degree, reason=f"content agrees to {change.content:.2f}, worst part differs by {worst:.2f}"
        )
    if ask.kind == "light_kept":
        return Finding(
            degree=soft(abs(change.light), 0.12, 0.30), reason=f"brightness changed by {change.light:+.2f} (log)"
        )
    if ask.kind == "hues_kept":
        return Finding(degree=soft(change.cast, 0.04, 0.10), reason=f"colour cast of {change.cast:.3f}")
    was, now = luma(change.source), luma(change.edited)
    lost = float((((now > 0.985) & (was < 0.93)) | ((now < 0.012) & (was > 0.05))).mean())
    return Finding(degree=soft(lost, 0.06, 0.30), reason=f"{lost:.2f} of the image lost its detail to white or black")
