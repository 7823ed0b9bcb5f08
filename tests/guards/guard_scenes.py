"""Flat synthetic scenes of 32x32 pixels, coloured shapes on white, grey or black, with honest edits and some hacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from editr1_plugins.types import Edit

SIDE = 32
COLORS = {
    "red": (230, 31, 31),
    "green": (26, 178, 51),
    "blue": (31, 64, 230),
    "yellow": (242, 217, 26),
    "purple": (153, 38, 191),
    "cyan": (26, 204, 217),
}
GROUNDS = {"white": (247, 247, 247), "gray": (140, 140, 140), "black": (15, 15, 15)}
PLACES = {"top left": (8, 8), "top right": (24, 8), "bottom left": (8, 24), "bottom right": (24, 24)}
SHAPES = ("circle", "square", "triangle")


@dataclass(frozen=True)
class Thing:
    shape: str
    color: str
    place: str
    radius: float


@dataclass(frozen=True)
class Scene:
    ground: str
    things: tuple[Thing, ...]

    def picture(self) -> Image.Image:
        y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
        out = np.tile(np.array(GROUNDS[self.ground], float), (SIDE, SIDE, 1))
        for thing in self.things:
            dx, dy = x - PLACES[thing.place][0], y - PLACES[thing.place][1]
            reach = {
                "circle": np.hypot(dx, dy) - thing.radius,
                "square": np.maximum(abs(dx), abs(dy)) - thing.radius * 0.9,
                "triangle": np.maximum(dy - thing.radius * 0.75, (abs(dx) * 2 - dy - thing.radius * 1.1) / 5**0.5),
            }[thing.shape]
            cover = np.clip(0.5 - reach, 0, 1)[..., None]
            out = out * (1 - cover) + cover * np.array(COLORS[thing.color])
        return Image.fromarray((out + 0.5).astype(np.uint8))


def scene(rng: np.random.Generator) -> Scene:
    count = int(rng.integers(1, 4))
    places, colors = rng.permutation(list(PLACES))[:count], rng.permutation(list(COLORS))[:count]
    things = tuple(
        Thing(SHAPES[rng.integers(3)], str(color), str(place), float(rng.uniform(4.6, 6.2)))
        for place, color in zip(places, colors, strict=True)
    )
    return Scene(str(rng.choice(list(GROUNDS))), things)


def decoded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """As a tiny autoencoder gives it back: edges a little soft, some levels of error."""
    array = np.asarray(image, float)
    near = (array + np.roll(array, 1, 0) + np.roll(array, -1, 0) + np.roll(array, 1, 1) + np.roll(array, -1, 1)) / 5
    noisy = 0.6 * array + 0.4 * near + rng.normal(0, 2, array.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def honest_scenes(count: int, seed: int) -> Iterator[tuple[str, Edit]]:
    """(operation, edit): every operation on `count` scenes, exact and as an autoencoder gives it back."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        before = scene(rng)
        for name, ask, after in _edits(before, rng):
            source, edited = before.picture(), after.picture()
            yield name, Edit(source=source, edited=edited, instruction=ask)
            yield f"{name} decoded", Edit(source=source, edited=decoded(edited, rng), instruction=ask)


def _edits(before: Scene, rng: np.random.Generator) -> Iterator[tuple[str, str, Scene]]:
    things = list(before.things)
    index = int(rng.integers(len(things)))
    one = things[index]
    rest = tuple(things[:index] + things[index + 1 :])
    color = str(rng.choice([name for name in COLORS if name not in {thing.color for thing in things}]))
    shape = str(rng.choice([name for name in SHAPES if name != one.shape]))
    ground = str(rng.choice([name for name in GROUNDS if name != before.ground]))
    place = str(rng.choice([name for name in PLACES if name not in {thing.place for thing in things}]))
    yield (
        "recolour",
        f"make the {one.color} {one.shape} {color}",
        Scene(before.ground, (*rest, replace(one, color=color))),
    )
    yield "remove", f"remove the {one.color} {one.shape}", Scene(before.ground, rest)
    yield (
        "replace",
        f"turn the {one.color} {one.shape} into a {shape}",
        Scene(before.ground, (*rest, replace(one, shape=shape))),
    )
    yield "background", f"make the background {ground}", Scene(ground, before.things)
    added = Thing(shape, color, place, 5.5)
    yield "add", f"add a {color} {shape} {place}", Scene(before.ground, (*before.things, added))
