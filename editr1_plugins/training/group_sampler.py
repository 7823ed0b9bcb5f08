"""The order of the training rows: groups of the same row, whole rollouts one after the other, anew in each epoch."""

from __future__ import annotations

from typing import Any

from trl.trainer.utils import RepeatSampler

from .generation import derived_seed

__all__ = ["GroupSampler"]


class GroupSampler(RepeatSampler):
    """TRL's `RepeatSampler`, with an order that depends on the epoch alone, so that a resumed run finds it again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        if self.shuffle:
            self.generator.manual_seed(derived_seed(self.seed, "epoch", epoch))
