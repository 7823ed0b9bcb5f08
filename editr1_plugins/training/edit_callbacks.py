"""What the edit trainer does between updates, as a Trainer callback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from diffusers.configuration_utils import FrozenDict
from transformers import TrainerCallback

if TYPE_CHECKING:
    from .edit_trainer import EditGRPOTrainer

__all__ = ["Bookkeeping", "TrackedConfig"]


class TrackedConfig(FrozenDict):
    """A diffusers network's configuration that transformers' tracker callbacks can write down as well."""

    def to_dict(self) -> dict[str, Any]:
        return dict(self)

    def to_json_string(self) -> str:
        return json.dumps(dict(self), indent=2, sort_keys=True, default=str) + "\n"


class Bookkeeping(TrainerCallback):
    """Sets each epoch's order, moves the average, and lets checkpoints wait until a rollout has been used up.

    A rollout is not stored, so a checkpoint in the midst of its passes could not be resumed exactly. Where the best
    checkpoint is to be kept, evaluations wait as well.
    """

    def __init__(self, trainer: EditGRPOTrainer) -> None:
        self.trainer, self.save_is_due, self.evaluation_is_due = trainer, False, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.passes_before_update = self.trainer._passes

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A resumed epoch begins at a fraction; a finished one at a whole number, up to rounding.
        self.trainer.train_sampler.set_epoch(int(state.epoch + 1e-6))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.policy.update_average()
        self.trainer.passes_before_update = self.trainer._passes
        may_wait = self.trainer.within_rollout and not control.should_training_stop
        due = control.should_save or self.save_is_due
        control.should_save, self.save_is_due = due and not may_wait, due and may_wait
        if args.metric_for_best_model is not None:  # the weights that are found best must be ones that are saved
            due = control.should_evaluate or self.evaluation_is_due
            control.should_evaluate, self.evaluation_is_due = due and not may_wait, due and may_wait
