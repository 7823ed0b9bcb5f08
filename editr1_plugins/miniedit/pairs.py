"""Data sets of MiniEdit: tasks drawn from a seed, and (source, instruction, target) pairs, clean or half wrong."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from editr1_plugins.miniedit.world import Scene, Task, draw, sample_task

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Pair", "edit_dataset", "is_held_out", "sample_pairs", "sample_tasks", "split_tasks"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What an editor is trained on: `target` is the task's goal, or a wrong edit of it."""

    task: Task
    target: Scene


def sample_tasks(count: int, *, seed: int, operations: tuple[str, ...] | None = None) -> list[Task]:
    """`count` tasks; the same seed gives the same tasks. `operations` narrows what is drawn."""
    rng = np.random.default_rng(seed)
    return [sample_task(rng, operation=str(rng.choice(operations)) if operations else None) for _ in range(count)]


def sample_pairs(count: int, *, seed: int, wrong: float = 0.0) -> list[Pair]:
    """Pairs of which a share `wrong` has a wrong target: half of these untouched, half with another edit instead."""
    rng = np.random.default_rng(seed)
    return [_pair(rng, wrong) for _ in range(count)]


def is_held_out(instruction: str) -> bool:
    """Whether an instruction is kept from RL: about a quarter of them, some of each operation, always the same."""
    return hashlib.blake2b(instruction.encode(), digest_size=1, salt=b"heldout").digest()[0] % 4 == 0


def split_tasks(count: int, *, seed: int, held_out: bool) -> list[Task]:
    """`count` tasks whose instructions are all held out, or all not."""
    rng = np.random.default_rng(seed)
    drawn = (sample_task(rng) for _ in itertools.count())
    wanted = (task for task in drawn if is_held_out(task.instruction) == held_out)
    return list(itertools.islice(wanted, count))


def _pair(rng: np.random.Generator, wrong: float) -> Pair:
    task = sample_task(rng)
    target = task.goal
    if rng.random() < wrong:
        target = task.scene if rng.random() < 0.5 else sample_task(rng, scene=task.scene).goal
    return Pair(task=task, target=target)


def edit_dataset(tasks: list[Task]) -> Dataset:
    """What an edit trainer reads: columns `image` (the source) and `prompt` (the instruction)."""
    from datasets import Dataset, Features, Image, Value

    rows = {"image": [draw(task.scene) for task in tasks], "prompt": [task.instruction for task in tasks]}
    return Dataset.from_dict(rows, features=Features({"image": Image(), "prompt": Value("string")}))
