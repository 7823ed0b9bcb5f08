"""What a TRL job names by dotted path, set up by `$EDITR1_EDITOR`, `$EDITR1_VERIFIER` and `$EDITR1_DECOMPOSER`.

    reward_funcs: [editr1_plugins.adapters.trl.planned_edit]        # trl grpo, trl rloo, and async GRPO
    rollout_func: editr1_plugins.adapters.trl.editing_rollout       # the launcher of `trl_launch`
    environment_factory: editr1_plugins.adapters.trl.editing_environment

All are plain functions, so they travel to other processes by their name, and each process builds its own editor when it
is first asked. For other settings, make your own of `PlannedEditReward`, `EditingRollout` and `EditingEnvironment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from editr1_plugins.adapters.trl_editor import TextEditor, editor_from_environment
from editr1_plugins.adapters.trl_environment import EditingEnvironment, JudgedEditingEnvironment
from editr1_plugins.adapters.trl_plans import EditingRollout, PlannedEditReward
from editr1_plugins.reward.rrm import EditRRMReward

__all__ = [
    "EditingEnvironment",
    "EditingRollout",
    "JudgedEditingEnvironment",
    "PlannedEditReward",
    "TextEditor",
    "editing_environment",
    "editing_rollout",
    "judged_environment",
    "planned_edit",
]


def planned_edit(*, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
    """A reward: the edit that each completion asks for is made and judged; see `PlannedEditReward`."""
    return _planned_edit_reward()(prompts=prompts, completions=completions, **kwargs)


def editing_rollout(prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
    """A `rollout_func`: the edits stand in the field `edited_image`; see `EditingRollout`."""
    return _rollout()(prompts, trainer)


def editing_environment() -> EditingEnvironment:
    """A canvas and its tools, to be judged by `reward_funcs`; see `EditingEnvironment`."""
    return EditingEnvironment(_editor())


def judged_environment() -> JudgedEditingEnvironment:
    """A canvas that judges itself, as async GRPO needs; see `JudgedEditingEnvironment`."""
    return JudgedEditingEnvironment(_reward(), _editor())


@cache
def _editor() -> TextEditor:
    return editor_from_environment()


@cache
def _reward() -> EditRRMReward:
    return EditRRMReward()


@cache
def _planned_edit_reward() -> PlannedEditReward:
    return PlannedEditReward(editor=_editor(), name=planned_edit.__name__)


@cache
def _rollout() -> EditingRollout:
    return EditingRollout(_editor())
