"""What a colour word means in pixels, and how far a pixel has come from one colour to another."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from editr1_plugins.principles.words import COLOURS
from editr1_plugins.verifiers.measuring.pixels import Array

__all__ = ["credit", "examples", "goals", "is_named", "name_of", "rivals_of"]

_BASIC: Final = (
    "red",
    "green",
    "blue",
    "yellow",
    "purple",
    "cyan",
    "orange",
    "pink",
    "brown",
    "white",
    "gray",
    "black",
)
#: Two colour words fit one pixel when their distances (OKLab) differ by less than this.
_SAME_NAME: Final = 0.035
#: RGB distance up to which a colour beside the way from start to goal costs nothing, and how fast it costs beyond.
_BESIDE_FREE, _BESIDE_SCALE = 0.07, 0.14
#: A pixel this near to another named colour is that colour, not a step towards the goal.
_RIVAL_REACH: Final = 0.03
_NEAR_GOAL: Final = 0.15  # a named colour this near to an example of the goal is no rival of it
_PLAIN_EXAMPLES: Final = 2


def goals(name: str) -> Array:
    """The RGB examples of a colour that a change to it should reach: the plain ones, no light or dark variants."""
    return examples(name)[:_PLAIN_EXAMPLES]


@lru_cache(maxsize=256)
def examples(name: str) -> Array:
    """RGB examples (K, 3) of a colour phrase of the vocabulary, e.g. "dark blue"; the plainest first."""
    shade, _, base = name.rpartition(" ")
    rgb: Array = np.array(COLOURS[base], np.float32) / np.float32(255)
    if shade == "dark":
        rgb = rgb * np.float32(0.55)
    elif shade == "light":
        rgb = rgb * np.float32(0.5) + np.float32(0.5)
    return rgb


def _oklab(rgb: Array) -> Array:
    """sRGB in 0..1 to OKLab (Ottosson 2020): equal steps look about equal."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab: Array = np.cbrt(linear @ _TO_LMS) @ _TO_LAB
    return lab


_TO_LMS: Final = np.array(
    [
        [0.4122214708, 0.2119034982, 0.0883024619],
        [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005],
    ]
)
_TO_LAB: Final = np.array(
    [
        [0.2104542553, 1.9779984951, 0.0259040371],
        [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ]
)


@lru_cache(maxsize=256)
def _lab_examples(name: str) -> Array:
    return _oklab(examples(name).astype(np.float64))


_BASIC_LAB: Final = np.concatenate([_lab_examples(name) for name in _BASIC])
_BASIC_STARTS: Final = np.cumsum([0, *(len(_lab_examples(name)) for name in _BASIC[:-1])])


def _nearest(rgb: Array, name: str = "") -> tuple[Array, float]:
    """OKLab distance of an RGB colour to each basic colour, and to `name`."""
    lab = _oklab(np.asarray(rgb, np.float64))
    near = np.minimum.reduceat(((_BASIC_LAB - lab) ** 2).sum(-1), _BASIC_STARTS)
    own = ((_lab_examples(name) - lab) ** 2).sum(-1).min() if name else 0.0
    return np.sqrt(near), float(np.sqrt(own))


def name_of(rgb: Array) -> str:
    """The basic colour word that fits an RGB colour best."""
    return _BASIC[int(_nearest(rgb)[0].argmin())]


def is_named(rgb: Array, name: str) -> bool:
    """Whether a colour word fits an RGB colour (no basic word fits it clearly better)."""
    near, own = _nearest(rgb, name)
    return own <= float(near.min()) + _SAME_NAME


@lru_cache(maxsize=256)
def rivals_of(name: str) -> Array:
    """One example of each basic colour that is clearly not `name`: (R, 3)."""
    own = examples(name)
    others: Array = np.stack([examples(other)[0] for other in _BASIC if other != name])
    far = np.linalg.norm(others[:, None] - own[None], axis=-1).min(1) > _NEAR_GOAL
    clear: Array = others[far]
    return clear


def credit(pixels: Array, start: Array, ends: Array, rivals: Array) -> Array:
    """How far each pixel (N, 3) has come from `start` (3) or (N, 3) towards one of `ends` (K, 3): (N,) in 0..1.

    The share of the straight way in RGB; a colour beside the way earns less, another named colour (`rivals`, (R, 3))
    nothing. The goal is the example that the pixels as a whole come nearest to.
    """
    best = np.zeros(len(pixels), np.float32)
    if len(rivals):
        # |p - r|^2 as a product: the (N, R, 3) differences would cost ten times as much.
        square = (pixels * pixels).sum(-1)[:, None] - 2 * pixels @ rivals.T + (rivals * rivals).sum(-1)
        reach = np.maximum(np.sqrt(np.maximum(square.min(1), 0)) - _RIVAL_REACH, 0) ** 2
    for end in ends:
        way = end - start
        length = np.maximum((way * way).sum(-1), 1e-6)
        share = np.clip(((pixels - start) * way).sum(-1) / length, 0, 1)
        off = pixels - start - share[:, None] * way
        beside = np.sqrt((off * off).sum(-1))
        earned = share * np.exp(-((np.maximum(beside - _BESIDE_FREE, 0) / _BESIDE_SCALE) ** 2))
        if len(rivals):
            earned = earned * (reach / (reach + beside**2 + 1e-6))
        if earned.mean() > best.mean():
            best = earned
    return best
