"""Global tone of any image: was it made warmer, brighter, ... as a whole, and is the content still the same?

A tone edit is one map of colours for the whole image. Where no such map explains the edited image from the source, the
content is another one, and nothing is said to have become "warmer".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import Ask
from editr1_plugins.verifiers.measuring.comparison import Finding, unmeasured
from editr1_plugins.verifiers.measuring.pixels import Array, Mask, drop, luma, rise, soft

__all__ = ["ToneChange", "tone", "tone_kept"]

_BLOCKS: Final = 8  # blocks a side for what must hold everywhere
_SAME_CONTENT: Final = (0.55, 0.85)  # share of the edited image's variation that one colour map explains
_PLAIN: Final = 0.005  # deviation of luma under which an image is one plain area
_LEAST_VARIATION: Final = 0.15  # of the source's variation: below, the content is washed out
#: What makes a clear change: log ratio of light, red minus blue over luma of grey, log ratio of saturation.
_CLEAR: Final = {"light": 0.16, "warmth": 0.15, "chroma": 0.24}
_BLOCK_WARMTH: Final = 0.05  # of red minus blue over the sum of the channels, for one block
_DEAD: Final = 0.2  # share of a clear change that counts as none


@dataclass(frozen=True, kw_only=True, eq=False)
class ToneChange:
    """Both images at one small size, (H, W, 3) in 0..1; `clipped` (H, W) is the share of each edited pixel that lay at
    the end of the range before it was reduced to that size."""

    source: Array
    edited: Array
    clipped: Array

    @cached_property
    def content(self) -> float:
        """0..1: how surely the edited image shows the source's content, under any one map of colours."""
        was, now = float(luma(self.source).std()), float(luma(self.edited).std())
        if was < _PLAIN:  # a plain image has no content but being plain
            return drop(now, 2 * _PLAIN, 8 * _PLAIN)
        if now < _LEAST_VARIATION * was:
            return 0.0
        return rise(1 - float((self.residual**2).mean()) / now**2, *_SAME_CONTENT)

    @cached_property
    def residual(self) -> Array:
        """Luma (H, W) of the edited image that no quadratic map of the source's colours explains."""
        r, g, b = self.source.reshape(-1, 3).astype(np.float64).T
        terms = np.stack([np.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, r * b, g * b])
        now = luma(self.edited).ravel().astype(np.float64)
        gram = terms @ terms.T + 1e-6 * len(r) * np.eye(len(terms))
        rest: Array = now - np.linalg.solve(gram, terms @ now) @ terms
        return rest.reshape(self.edited.shape[:2])

    @cached_property
    def inner(self) -> Mask:
        """Where the edited image is not clipped (everywhere, if that is next to nowhere): (H, W)."""
        inner: Mask = self.clipped < 0.02
        return inner if inner.mean() > 0.05 else np.ones_like(inner)

    @cached_property
    def map(self) -> Array:
        """(4, 3): luma, red-blue and green-magenta of the edited image as a linear map of 1 and the source's three.

        Fitted where the edited image is not clipped. What it does to grey tells light and cast, what it does to colour
        differences tells saturation, and neither is taken for the other.
        """
        chosen = self.inner
        was, now = _opponents(self.source[chosen]), _opponents(self.edited[chosen])
        terms = np.concatenate([np.ones((len(was), 1)), was], 1)
        gram = terms.T @ terms + 1e-6 * len(was) * np.eye(4)
        change: Array = np.linalg.solve(gram, terms.T @ (now - was))
        change[1:] += np.eye(3)
        return change

    @cached_property
    def grey(self) -> tuple[Array, float]:
        """What became of a grey of the source's mean luma: (luma, red-blue, green-magenta), and that luma."""
        was = max(float(luma(self.source[self.inner]).mean()), 0.02)
        return self.map[0] + was * self.map[1], was

    @cached_property
    def light(self) -> float:
        """Log ratio of light, as far as channels and luma agree on it: a cast or another saturation is none."""
        channels = _light(self.source.mean((0, 1)), self.edited.mean((0, 1)))
        whole = math.log((float(luma(self.edited).mean()) + 0.02) / (float(luma(self.source).mean()) + 0.02))
        return min(channels, whole, key=abs) if channels * whole > 0 else 0.0

    @cached_property
    def warmth(self) -> float:
        """Red minus blue of what was grey, over its luma."""
        now, _ = self.grey
        return float(now[1]) / max(float(now[0]), 0.05)

    @cached_property
    def cast(self) -> float:
        """Colour of what was grey, in any direction, over its luma."""
        now, _ = self.grey
        return math.hypot(*now[1:]) / max(float(now[0]), 0.05)

    @cached_property
    def saturation(self) -> float:
        """How many times as colourful, for equal light: the slope of the new colour differences over the old ones."""
        spread = _opponents(self.source)[..., 1:].reshape(-1, 2).var(0)
        slope = float(spread @ np.diag(self.map[2:, 1:])) / max(float(spread.sum()), 1e-9)
        light = _light(self.source[self.inner].mean(0), self.edited[self.inner].mean(0))
        return max(slope / math.exp(light), 0.0)

    def size(self, kind: str) -> float:
        """The change of a kind in units of a clear change, with its sign."""
        change = (
            math.log(max(self.saturation, 0.02))
            if kind == "chroma"
            else {"light": self.light, "warmth": self.warmth}[kind]
        )
        return change / _CLEAR[kind]


def _light(was: Array, now: Array) -> float:
    """The median log ratio of the three channels."""
    return float(np.median(np.log((now + 0.02) / (was + 0.02))))


def _opponents(pixels: Array) -> Array:
    """Luma, red-blue and green-magenta balance per pixel: (..., 3)."""
    red, green, blue = (pixels[..., channel].astype(np.float64) for channel in range(3))
    return np.stack([luma(pixels).astype(np.float64), red - blue, green - (red + blue) / 2], -1)


def _chroma(pixels: Array) -> Array:
    spread: Array = pixels.max(-1) - pixels.min(-1)
    return spread


_OTHER_CONTENT: Final = "the edited image does not show the content of the source"
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
        return Finding(degree=0.0, reason=_OTHER_CONTENT)
    degree, words = _degree(change, ask.value, chroma)
    if ask.kind == "tone_visible":
        degree = min(1.0, 1.15 * degree)
    elif ask.kind == "tone_everywhere":
        share = _everywhere(change, ask.value)
        degree, words = min(share, rise(degree, 0.0, 0.8)), f"{share:.2f} of the image changed that way"
    return Finding(degree=degree * change.content, reason=words)


def _degree(change: ToneChange, value: str, chroma: float) -> tuple[float, str]:
    if value == "black and white":
        # A cast over an image of one hue leaves little colour too, but it leaves the differences.
        left = max(float(_chroma(change.edited).mean()) / chroma, min(change.saturation, 1.0))
        return rise(1 - left, 0.05, 0.98), f"{left:.2f} of the colour is left"
    kind, sign = _DIRECTIONS[value]
    size = change.size(kind)
    degree = math.tanh(max(0.0, sign * size - _DEAD))
    if value == "less saturated":
        degree *= rise(change.saturation, 0.05, 0.2)  # without any colour it is black and white, which was not asked
    return degree, f"{kind} changed by {size:+.2f} of a clear change, asked was {'more' if sign > 0 else 'less'}"


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
            return float(np.clip((0.9 - ratio) / 0.6, 0, 1).mean())
        shift = np.log(np.maximum(ratio, 0.02)) / _CLEAR["chroma"] * (1 if value == "more saturated" else -1)
    else:
        kind, sign = _DIRECTIONS[value]
        if kind == "light":
            shift = sign * np.log((luma(now) + 0.05) / (luma(was) + 0.05)) / _CLEAR[kind]
        else:
            shift = sign * (_balance(now) - _balance(was)) / _BLOCK_WARMTH
        # Where there is no room (white cannot get brighter), nothing can be asked.
        room = (luma(was) < 0.93) & (luma(was) > 0.04)
        shift = shift[room] if room.any() else shift
    return float(np.clip((shift - 0.05) / 0.3, 0, 1).mean())


def _balance(rgb: Array) -> Array:
    balance: Array = (rgb[..., 0] - rgb[..., 2]) / (rgb.sum(-1) + 0.05)
    return balance


def _block_means(pixels: Array) -> Array:
    height, width, channels = pixels.shape
    rows, columns = min(_BLOCKS, height), min(_BLOCKS, width)
    cut = pixels[: height // rows * rows, : width // columns * columns]
    blocks: Array = cut.reshape(rows, height // rows, columns, width // columns, channels).mean((1, 3))
    return blocks


def tone_kept(change: ToneChange, ask: Ask) -> Finding:
    """Kinds `content_kept`, `light_kept`, `hues_kept`, `detail_kept`."""
    if ask.kind == "content_kept":
        blocks = np.sqrt(_block_means((change.residual**2)[..., None])[..., 0])
        worst = float(blocks.max())
        degree = change.content * float(drop(worst, 0.08, 0.30))
        return Finding(
            degree=degree, reason=f"content agrees to {change.content:.2f}, worst part differs by {worst:.2f}"
        )
    if change.content == 0:
        return Finding(degree=0.0, reason=_OTHER_CONTENT)
    if ask.kind == "light_kept":
        return Finding(
            degree=soft(abs(change.light), 0.12, 0.30), reason=f"brightness changed by {change.light:+.2f} (log)"
        )
    if ask.kind == "hues_kept":
        return Finding(degree=soft(change.cast, 0.06, 0.15), reason=f"colour cast of {change.cast:.3f}")
    was, now = luma(change.source), luma(change.edited)
    lost = float((((now > 0.985) & (was < 0.93)) | ((now < 0.012) & (was > 0.05))).mean())
    return Finding(degree=soft(lost, 0.15, 0.40), reason=f"{lost:.2f} of the image lost its detail to white or black")
