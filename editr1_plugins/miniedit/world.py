"""Scenes of coloured shapes, and edits of them in words.

A scene is at most three shapes of different colours in different quarters of a 32x32 canvas. A `Task` is a scene, an
instruction ("make the red circle blue") and the scene that a faithful editor would return.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "KINDS",
    "OPERATIONS",
    "QUARTERS",
    "SIZE",
    "WORDS",
    "Scene",
    "Shape",
    "Task",
    "coverage",
    "draw",
    "render",
    "sample_scene",
    "sample_task",
    "to_image",
]

SIZE: Final = 32
COLOURS: Final = {
    "red": (0.90, 0.12, 0.12),
    "green": (0.10, 0.70, 0.20),
    "blue": (0.12, 0.25, 0.90),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.60, 0.15, 0.75),
    "cyan": (0.10, 0.80, 0.85),
}
BACKGROUNDS: Final = {"white": (0.97, 0.97, 0.97), "gray": (0.55, 0.55, 0.55), "black": (0.06, 0.06, 0.06)}
KINDS: Final = ("circle", "square", "triangle")
QUARTERS: Final = {
    "top left": (8.0, 8.0),
    "top right": (24.0, 8.0),
    "bottom left": (8.0, 24.0),
    "bottom right": (24.0, 24.0),
}
OPERATIONS: Final = ("recolour", "remove", "replace", "background", "add")
#: Every word an instruction can hold; the tiny editor's vocabulary.
WORDS: Final = (
    *("make", "the", "turn", "into", "a", "remove", "add"),
    *("background", "in", "top", "bottom", "left", "right"),
    *COLOURS,
    *BACKGROUNDS,
    *KINDS,
)
_NEW_RADIUS: Final = 5.5


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One object: `x`, `y` and `radius` in pixels, `quarter` one of `QUARTERS`."""

    kind: str
    colour: str
    quarter: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    background: str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """An instruction on a scene. `goal` is known to the gold measure only; `operation` is one of `OPERATIONS`."""

    scene: Scene
    goal: Scene
    instruction: str
    operation: str


def coverage(shape: Shape) -> NDArray[np.float32]:
    """How much of each pixel the shape covers: (32, 32) in 0..1, with an anti-aliased edge one pixel wide."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5
    dx, dy, r = x - shape.x, y - shape.y, shape.radius
    if shape.kind == "circle":
        distance = np.hypot(dx, dy) - r
    elif shape.kind == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - 0.88 * r
    else:  # a triangle that points up
        distance = np.maximum(dy - 0.75 * r, (2 * np.abs(dx) - dy - 1.15 * r) / 5**0.5)
    covered: NDArray[np.float32] = np.clip(0.5 - distance, 0, 1).astype(np.float32)
    return covered


def render(scene: Scene) -> NDArray[np.float32]:
    """The scene as pixels: (32, 32, 3), RGB in 0..1."""
    pixels = np.empty((SIZE, SIZE, 3), np.float32)
    pixels[:] = BACKGROUNDS[scene.background]
    for shape in scene.shapes:
        alpha = coverage(shape)[..., None]
        pixels = pixels * (1 - alpha) + alpha * np.asarray(COLOURS[shape.colour], np.float32)
    return pixels


def to_image(pixels: NDArray[np.floating]) -> Image:
    """Float RGB pixels (H, W, 3) in 0..1 as a PIL image; values outside are clipped."""
    from PIL import Image

    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))


def draw(scene: Scene) -> Image:
    return to_image(render(scene))


def sample_scene(rng: np.random.Generator, *, most: int = 3) -> Scene:
    """A scene of 1..`most` shapes, no two of one colour or in one quarter."""
    count = int(rng.integers(1, most + 1))
    quarters, colours = rng.permutation(list(QUARTERS))[:count], rng.permutation(list(COLOURS))[:count]
    shapes = tuple(
        Shape(
            kind=str(rng.choice(KINDS)),
            colour=str(colour),
            quarter=str(quarter),
            x=QUARTERS[quarter][0] + rng.uniform(-1.5, 1.5),
            y=QUARTERS[quarter][1] + rng.uniform(-1.5, 1.5),
            radius=rng.uniform(4.6, 6.2),
        )
        for quarter, colour in zip(quarters, colours, strict=True)
    )
    return Scene(background=str(rng.choice(list(BACKGROUNDS))), shapes=shapes)


def sample_task(
    rng: np.random.Generator, *, operation: str | None = None, scene: Scene | None = None, most: int = 3
) -> Task:
    """A random edit, of a random scene unless one is given; the new colour is one that the scene does not have."""
    scene = scene or sample_scene(rng, most=most)
    operation = operation or str(rng.choice(OPERATIONS))
    index = int(rng.integers(len(scene.shapes)))
    shape = scene.shapes[index]
    free = [colour for colour in COLOURS if all(colour != other.colour for other in scene.shapes)]

    def with_shape(new: Shape) -> Scene:
        return replace(scene, shapes=(*scene.shapes[:index], new, *scene.shapes[index + 1 :]))

    if operation == "recolour":
        colour = str(rng.choice(free))
        goal, instruction = with_shape(replace(shape, colour=colour)), f"make the {shape.name} {colour}"
    elif operation == "remove":
        rest = tuple(other for other in scene.shapes if other is not shape)
        goal, instruction = replace(scene, shapes=rest), f"remove the {shape.name}"
    elif operation == "replace":
        kind = str(rng.choice([kind for kind in KINDS if kind != shape.kind]))
        goal, instruction = with_shape(replace(shape, kind=kind)), f"turn the {shape.name} into a {kind}"
    elif operation == "background":
        background = str(rng.choice([name for name in BACKGROUNDS if name != scene.background]))
        goal, instruction = replace(scene, background=background), f"make the background {background}"
    elif operation == "add":
        taken = {other.quarter for other in scene.shapes}
        quarter = str(rng.choice([quarter for quarter in QUARTERS if quarter not in taken]))
        x, y = QUARTERS[quarter]
        kind, colour = str(rng.choice(KINDS)), str(rng.choice(free))
        new = Shape(kind=kind, colour=colour, quarter=quarter, x=x, y=y, radius=_NEW_RADIUS)
        goal = replace(scene, shapes=(*scene.shapes, new))
        instruction = f"add a {new.name} in the {quarter}"
    else:
        raise ValueError(f"unknown operation {operation!r}; one of: {', '.join(OPERATIONS)}")
    return Task(scene=scene, goal=goal, instruction=instruction, operation=operation)
