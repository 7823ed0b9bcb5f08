"""The gold measure: how good an edit is, by what the world knows and no judge is told.

It compares the edited image with the goal scene, so it sees what a judge must infer. Evaluation only: nothing that
trains may import it (a test enforces that).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from editr1_plugins.miniedit.world import SIZE, Task, coverage, draw
from editr1_plugins.types import MAX_SCORE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["GoldScore", "gold_score"]

_VISIBLE = 0.15  # summed RGB difference from which a pixel has to change
_DRIFT_FREE, _DRIFT_SCALE = 0.02, 0.10  # mean RGB error of a kept region: ignored below, 1/e at free + scale


@dataclass(frozen=True, kw_only=True)
class GoldScore:
    """`follow` and `keep` in 0..1; `score` = 10 * follow * keep."""

    follow: float
    keep: float

    @property
    def score(self) -> float:
        return MAX_SCORE * self.follow * self.keep


def gold_score(task: Task, edited: Image) -> GoldScore:
    """Measure an edited image of the task's scene.

    `follow` is the share of the demanded change that was made, weighted by how much each pixel has to change; `keep` is
    the product of how well the background and each shape that was not to change are what they were. Doing nothing and
    doing something else both score 0.

    Raises:
        ValueError: the image is not 32x32.
    """
    if edited.size != (SIZE, SIZE):
        raise ValueError(f"MiniEdit images are {SIZE}x{SIZE}, got {edited.size[0]}x{edited.size[1]}")
    pixels = _pixels(edited)
    source, goal = _pixels(draw(task.scene)), _pixels(draw(task.goal))
    need = np.abs(goal - source).sum(-1)
    missing = np.abs(goal - pixels).sum(-1)
    made = np.clip(1 - missing / np.maximum(need, _VISIBLE), 0, 1)
    follow = float((need * made).sum() / need.sum())
    return GoldScore(follow=follow, keep=_keep(task, np.abs(goal - pixels).mean(-1), need < _VISIBLE))


def _pixels(image: Image) -> NDArray[np.float32]:
    pixels: NDArray[np.float32] = np.asarray(image.convert("RGB")).astype(np.float32) / np.float32(255)
    return pixels


def _keep(task: Task, error: NDArray[np.float32], unchanged: NDArray[np.bool_]) -> float:
    kept = [coverage(shape) > 0.5 for shape in task.scene.shapes if shape in task.goal.shapes]
    regions = [*kept, ~np.any(kept, axis=0) if kept else np.ones_like(unchanged)]
    drifts = [error[region & unchanged].mean() for region in regions if (region & unchanged).any()]
    return float(np.prod([np.exp(-max(0.0, drift - _DRIFT_FREE) / _DRIFT_SCALE) for drift in drifts]))
