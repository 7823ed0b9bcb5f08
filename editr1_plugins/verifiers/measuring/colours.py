"""What a colour word means in pixels, and how far a pixel has come from one colour to another."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from editr1_plugins.principles.words import COLOURS
from editr1_plugins.verifiers.measuring.pixels import Array

__all__ = ["credit", "examples", "is_named", "name_of", "rivals_of"]

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
_NEAR_GOAL: Final = 0.30


@lru_cache(maxsize=256)
def examples(name: str) -> Array:
    """RGB examples (K, 3) of a colour phrase of the vocabulary, e.g. "dark blue"."""
    shade, _, base = name.rpartition(" ")
    rgb = np.array(COLOURS[base], np.float32) / np.float32(255)
    if shade == "dark":
        return rgb * np.float32(0.55)
    return rgb * np.float32(0.5) + np.float32(0.5) if shade == "light" else rgb


def oklab(rgb: Array) -> Array:
    """sRGB in 0..1 to OKLab (Ottosson 2020): equal steps look about equal."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS) @ _TO_LAB


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


def _distances(rgb: Array, names: tuple[str, ...]) -> dict[str, float]:
    lab = oklab(np.asarray(rgb, np.float64))
    return {name: float(np.linalg.norm(_lab_examples(name) - lab, axis=-1).min()) for name in names}


@lru_cache(maxsize=256)
def _lab_examples(name: str) -> Array:
    return oklab(examples(name).astype(np.float64))


def name_of(rgb: Array) -> str:
    """The basic colour word that fits an RGB colour best."""
    near = _distances(rgb, _BASIC)
    return min(near, key=near.__getitem__)


def is_named(rgb: Array, name: str) -> bool:
    """Whether a colour word fits an RGB colour (no basic word fits it clearly better)."""
    near = _distances(rgb, tuple(dict.fromkeys((*_BASIC, name))))
    base = near[name] if " " not in name else min(near[name], near.get(name.rpartition(" ")[2], 9.0))
    return base <= min(near.values()) + _SAME_NAME


@lru_cache(maxsize=256)
def rivals_of(name: str) -> Array:
    """One example of each basic colour that is clearly not `name`: (R, 3)."""
    goals = examples(name)
    others = np.stack([examples(other)[0] for other in _BASIC if other != name])
    far = np.linalg.norm(others[:, None] - goals[None], axis=-1).min(1) > _NEAR_GOAL / 2
    return others[far]


def credit(pixels: Array, start: Array, goals: Array, rivals: Array) -> Array:
    """How far each pixel (N, 3) has come from `start` (3) or (N, 3) towards one of `goals` (K, 3): (N,) in 0..1.

    The share of the straight way in RGB; a colour beside the way earns less, another named colour (`rivals`, (R, 3))
    nothing. The goal is the example that the pixels as a whole come nearest to.
    """
    best = np.zeros(len(pixels), np.float32)
    if len(rivals):
        reach = np.linalg.norm(pixels[:, None] - rivals[None], axis=-1).min(1)
        reach = np.maximum(reach - _RIVAL_REACH, 0) ** 2
    for goal in goals:
        way = goal - start
        length = np.maximum((way * way).sum(-1), 1e-6)
        share = np.clip(((pixels - start) * way).sum(-1) / length, 0, 1)
        beside = np.linalg.norm(pixels - start - share[:, None] * way, axis=-1)
        earned = share * np.exp(-((np.maximum(beside - _BESIDE_FREE, 0) / _BESIDE_SCALE) ** 2))
        if len(rivals):
            earned = earned * (reach / (reach + beside**2 + 1e-6))
        if earned.mean() > best.mean():
            best = earned
    return best
