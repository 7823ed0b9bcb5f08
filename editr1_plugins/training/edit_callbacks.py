"""What the edit trainer does between updates, as a Trainer callback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from diffusers.configuration_utils import FrozenDict

from .checkpoints import BetweenRollouts

if TYPE_CHECKING:
    from .edit_trainer import EditGRPOTrainer

__all__ = ["Bookkeeping", "TrackedConfig"]


class TrackedConfig(FrozenDict):
    """A diffusers network's configuration that transformers' tracker callbacks can write down as well."""

    def to_dict(self) -> dict[str, Any]:
        return dict(self)

    def to_json_string(self) -> str:
        return json.dumps(dict(self), indent=2, sort_keys=True, default=str) + "\n"


class Bookkeeping(BetweenRollouts):
    """Moves the average, and counts the passes that updates have used, beside what `BetweenRollouts` does."""

    trainer: EditGRPOTrainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.passes_before_update = self.trainer._passes

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.policy.update_average()
        self.trainer.passes_before_update = self.trainer._passes
        super().on_step_end(args, state, control, **kwargs)
