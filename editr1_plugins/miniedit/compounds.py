"""Instructions of several parts, and edits that do them in part: what a judge learns from.

`world.sample_task` asks for one change, which is all the tiny editors know. Here a task asks for one or two at once
("make the red circle blue and remove the green square") and holds demands that nobody spells out: what is turned into
a blue square keeps its place and size. An `Attempt` is one edit of it, right or wrong in known ways.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from editr1_plugins.miniedit.world import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    Scene,
    Shape,
    Task,
    coverage,
    sample_scene,
    sample_task,
    to_image,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["Attempt", "Compound", "Part", "draw_attempt", "sample_attempt", "sample_compound"]

_JOINS: Final = (" and ", ", ")
_OPERATIONS: Final = ("recolour", "remove", "replace", "exchange", "background", "add")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One requested change: `before` becomes `after` (None: nothing there), or the background becomes another."""

    text: str
    operation: str
    before: Shape | None = None
    after: Shape | None = None
    background: str | None = None


@dataclass(frozen=True, kw_only=True)
class Compound:
    """A task and the parts that its instruction names, in their order."""

    task: Task
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How an edit was made.

    Attributes:
        done: per part, the share of the change that was made, in 0..1.
        wrong: per part, what was made instead of the part's own `after` or background, or None.
        other: a shape that nobody named, and what became of it (None: removed); or None.
        tint: RGB that is added to the background, each in -1..1.
        noise: standard deviation of grain, RGB in 0..1.
        blur: radius of a Gaussian blur in pixels.
        seed: of the grain.
    """

    done: tuple[float, ...]
    wrong: tuple[Part | None, ...]
    other: tuple[Shape, Shape | None] | None = None
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise: float = 0.0
    blur: float = 0.0
    seed: int = 0


def sample_compound(rng: np.random.Generator, *, parts: int | None = None) -> Compound:
    """A random task of one or two parts (`parts`; None: either), each about another thing of the scene."""
    count = parts or int(rng.integers(1, 3))
    while True:
        scene = sample_scene(rng)
        found: list[Part] = []
        for _ in range(4 * count):
            part = _sample_part(rng, scene)
            if len(found) < count and all(_apart(part, other) for other in found):
                found.append(part)
        if len(found) == count:
            return Compound(task=_task(rng, scene, found), parts=tuple(found))


def sample_attempt(rng: np.random.Generator, compound: Compound) -> Attempt:
    """A random edit: each part done, half done, left or done wrong; things nobody asked for; grain or blur."""
    done, wrong = [], []
    for part in compound.parts:
        fate = rng.random()
        done.append(1.0 if fate < 0.55 else float(rng.uniform(0.25, 0.6)) if fate < 0.75 else 0.0)
        instead = _sample_part(rng, compound.task.scene, operation=part.operation, shape=part.before)
        wrong.append(
            instead if fate > 0.9 and part.operation != "remove" and _result(instead) != _result(part) else None
        )
    done = [1.0 if other is not None else share for share, other in zip(done, wrong, strict=True)]
    tint, noise, blur = np.zeros(3), 0.0, 0.0
    if rng.random() < 0.3:
        tint = rng.uniform(0.12, 0.4) * rng.choice([-1.0, 1.0], 3) * rng.random(3)
    flaw = rng.random()
    if flaw < 0.18:
        noise = float(rng.uniform(0.05, 0.18))
    elif flaw < 0.33:
        blur = float(rng.uniform(0.6, 1.2))
    return Attempt(
        done=tuple(done),
        wrong=tuple(wrong),
        other=_sample_other(rng, compound) if rng.random() < 0.3 else None,
        tint=(float(tint[0]), float(tint[1]), float(tint[2])),
        noise=noise,
        blur=blur,
        seed=int(rng.integers(2**31)),
    )


def draw_attempt(compound: Compound, attempt: Attempt) -> Image:
    """The edited image, 32x32."""
    from PIL import ImageFilter

    scene = compound.task.scene
    ground = np.asarray(BACKGROUNDS[scene.background], np.float32)
    layers: dict[Shape, list[tuple[Shape, float]]] = {shape: [(shape, 1.0)] for shape in scene.shapes}
    added: list[tuple[Shape, float]] = []
    for asked, share, wrong in zip(compound.parts, attempt.done, attempt.wrong, strict=True):
        part = wrong or asked
        if part.background is not None:
            ground = (1 - share) * ground + share * np.asarray(BACKGROUNDS[part.background], np.float32)
        elif part.before is None and part.after is not None:
            added.append((part.after, share))
        elif part.before is not None:
            layers[part.before] = [(part.before, 1.0)] if share < 1 else []
            layers[part.before] += [(part.after, share)] if part.after is not None else []
            if part.after is None or part.after.kind != part.before.kind:
                # What goes away fades; a recoloured shape is painted over and stays solid.
                layers[part.before][:1] = [(part.before, 1.0 - share)] if share < 1 else layers[part.before][:1]
    if attempt.other is not None:
        shape, instead = attempt.other
        layers[shape] = [(instead, 1.0)] if instead is not None else []
    pixels: NDArray[np.float32] = np.empty((32, 32, 3), np.float32)
    pixels[:] = np.clip(ground + np.asarray(attempt.tint, np.float32), 0, 1)
    for shape, opacity in [*(layer for stack in layers.values() for layer in stack), *added]:
        alpha = opacity * coverage(shape)[..., None]
        pixels = pixels * (1 - alpha) + alpha * np.asarray(COLOURS[shape.colour], np.float32)
    if attempt.noise:
        grain = np.random.default_rng(attempt.seed).normal(0, attempt.noise, pixels.shape)
        pixels = pixels + grain.astype(np.float32)
    image = to_image(pixels)
    return image.filter(ImageFilter.GaussianBlur(attempt.blur)) if attempt.blur else image


def _sample_part(
    rng: np.random.Generator, scene: Scene, *, operation: str | None = None, shape: Shape | None = None
) -> Part:
    operation = operation or str(rng.choice(_OPERATIONS))
    if operation == "exchange":
        before = shape or scene.shapes[int(rng.integers(len(scene.shapes)))]
        kind = str(rng.choice([kind for kind in KINDS if kind != before.kind]))
        colour = str(rng.choice([name for name in COLOURS if all(name != other.colour for other in scene.shapes)]))
        after = replace(before, kind=kind, colour=colour)
        text = f"turn the {before.name} into a {after.name}"
        return Part(text=text, operation=operation, before=before, after=after)
    while True:
        task = sample_task(rng, operation=operation, scene=scene)
        old = next((one for one in scene.shapes if one not in task.goal.shapes), None)
        if shape is None or old == shape:
            break
    new = next((one for one in task.goal.shapes if one not in scene.shapes), None)
    background = task.goal.background if operation == "background" else None
    return Part(text=task.instruction, operation=operation, before=old, after=new, background=background)


def _result(part: Part) -> tuple[object, ...]:
    after = part.after
    return (part.background, after and (after.kind, after.colour, after.quarter))


def _apart(part: Part, other: Part) -> bool:
    """Whether two parts can stand in one instruction: about different things, with different new colours."""
    if part.before is other.before:  # one shape, or twice the background or an addition
        return part.before is None and (part.background is None) != (other.background is None)
    return part.after is None or other.after is None or part.after.colour != other.after.colour


def _task(rng: np.random.Generator, scene: Scene, parts: list[Part]) -> Task:
    goal = scene
    for part in parts:
        shapes = tuple(shape for shape in goal.shapes if shape is not part.before)
        if part.after is not None:
            shapes = (*shapes, part.after)
        goal = Scene(background=part.background or goal.background, shapes=shapes)
    return Task(
        scene=scene,
        goal=goal,
        instruction=str(rng.choice(_JOINS)).join(part.text for part in parts),
        operation="+".join(part.operation for part in parts),
    )


def _sample_other(rng: np.random.Generator, compound: Compound) -> tuple[Shape, Shape | None] | None:
    """A shape that no part names, with what it becomes; None where every shape is named."""
    kept = [shape for shape in compound.task.scene.shapes if shape in compound.task.goal.shapes]
    if not kept:
        return None
    shape = kept[int(rng.integers(len(kept)))]
    part = _sample_part(
        rng, compound.task.scene, operation=str(rng.choice(["recolour", "remove", "replace"])), shape=shape
    )
    return shape, part.after
