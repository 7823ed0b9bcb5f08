"""PrimeIntellect verifiers: the reward `edit_rrm`, which a task's configuration names by this module's dotted path.

    [env.taskset.task.rewards]
    edit_rrm = { fn = "editr1_plugins.adapters.verifiers:edit_rrm" }

Its settings are those of `HostScorer`, in `$EDITR1_SCORER`; for others make your own in a module of yours:
`my_reward = EditReward(verifier=..., top=1.0)`. Nothing of verifiers is imported here.
"""

from __future__ import annotations

import os
from typing import Any

from editr1_plugins.adapters.chat_messages import pictures_in, text_in
from editr1_plugins.adapters.conversion import EditOrReason, as_edit, as_image
from editr1_plugins.adapters.missing import FillPolicy
from editr1_plugins.adapters.scorer import HostScorer, environment_settings, shared_scorer
from editr1_plugins.errors import DataError, UnscoredError

__all__ = ["EditReward", "edit_rrm"]


class EditReward:
    """A reward of one trace, in 0..`top`: how well the agent has edited the task's image.

    The source is the task's `source`, else the first image of its prompt (its field `image` names a container); the
    instruction is its `instruction`, else the prompt's text. The edited image is `edited` of the trace's state, else of
    its `info`, else the last image that a tool has returned: model messages of verifiers hold text only.

    A missing score raises by default, which verifiers makes a TaskError: the trace has no reward and is not ok, so a
    trainer can leave it out. The trace's metric `editr1_missing` is 1 there, else 0; `trace.info["editr1"]` says what
    the judge said, or why it said nothing.

    Args:
        scorer: built already; else the process's shared one for `settings`.
        missing: "error", or "mean" for a number in its place, see `HostScorer`.
        image_folder: below which paths of images may be opened; default: none is.
        settings: of `HostScorer` (`verifier`, `top`, `max_missing`, ...), over those in $EDITR1_SCORER.
    """

    def __init__(
        self,
        scorer: HostScorer | None = None,
        *,
        missing: FillPolicy | None = None,
        image_folder: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        self.__name__ = "edit_rrm"  # verifiers wraps it as it wraps a function
        self._scorer, self._folder = scorer, image_folder
        self._settings = settings if missing is None else {**settings, "missing": missing}

    async def __call__(self, task: Any, trace: Any) -> float:
        """The reward of `trace`; verifiers calls it by these names.

        Raises:
            DataError: the task has no source image or no instruction.
            UnscoredError: the edit cannot be judged.
            ConfigError: wrong settings.
        """
        trace.record_metric("editr1_missing", 1.0)  # until there is a score
        scorer = self._scorer or _scorer_of(self._settings)
        try:
            scored = await scorer.ascore([self._edit(task, trace)])
        except UnscoredError as error:
            trace.info["editr1"] = {"score": None, "failure": str(error)}
            raise
        said = scored.outcomes[0]
        trace.info["editr1"] = {
            "score": said.score,
            "failure": said.failure,
            "flags": list(said.flags),
            "verdicts": {each.principle.question: each.passed for each in said.verdicts},
        }
        trace.record_metric("editr1_missing", float(scored.missing))
        return scored.values[0]

    def _edit(self, task: Any, trace: Any) -> EditOrReason:
        made = _edited(trace)
        if made is None:
            return "there is no edited image: no tool has returned one, and neither state nor info has `edited`"
        try:
            edited = as_image(made, "the edited image", folder=self._folder)
        except DataError as error:  # what an agent gives is no fault of the set-up
            return str(error)
        source, instruction = _asked(task)
        row = task.name if task.name is not None else task.idx
        return as_edit(source, edited, instruction, row=str(row), folder=self._folder)


async def edit_rrm(task: Any, trace: Any) -> float:
    """`EditReward` with the settings of `$EDITR1_SCORER`."""
    return await _default(task=task, trace=trace)


_default = EditReward()


def _scorer_of(settings: dict[str, Any]) -> HostScorer:
    return shared_scorer(**{"missing": "error", "one_by_one": True, **environment_settings(), **settings})


def _asked(task: Any) -> tuple[Any, Any]:
    messages = [] if task.prompt is None or isinstance(task.prompt, str) else task.prompt
    images = pictures_in(messages)
    source = getattr(task, "source", None)
    said = task.prompt if isinstance(task.prompt, str) else text_in(each for each in messages if each.role == "user")
    instruction = getattr(task, "instruction", None)
    return images[0] if source is None and images else source, said if instruction is None else instruction


def _edited(trace: Any) -> Any:
    """The edited image as the trace holds it; None where there is none."""
    for found in (getattr(trace.state, "edited", None), trace.info.get("edited")):
        if found is not None:
            return found
    images = pictures_in(trace.tool_messages)
    return images[-1] if images else None
