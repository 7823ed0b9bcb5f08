"""TRL policies that write what an editing pipeline is told: the edit is made in the reward, or in the rollout.

`PlannedEditReward` is a reward function, so plain `trl grpo` and `trl rloo` YAML can name one, and async GRPO takes it.
`EditingRollout` is a `rollout_func` of `trl.GRPOTrainer` (1.16), which hands the edits to all rewards of the run.
A reply that tells the editor nothing edits nothing: what is judged then is the source image itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from editr1_plugins.adapters.trl_editor import EditsByText, TextEditor, edit_or_reason, planned_text
from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.reward.columns import EditColumns
from editr1_plugins.reward.rrm import EditRRMReward

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EditingRollout", "PlannedEditReward"]

_EDITED = "edited_image"


class PlannedEditReward:
    """Makes the edit that each completion asks for, and judges it against the row's instruction.

    Args:
        reward: built already; else one is built from `settings`.
        editor: makes the edits; default: `TextEditor()`.
        plan: takes a completion, returns what the editor is told, "" for nothing.
        settings: of `EditRRMReward`. Source and instruction are looked for where it says (`columns`).

    Called with TRL's keyword signature it returns one float in 0..10 per completion, or None where the edit could not
    be made or judged. Where TRL gives its callbacks, it logs what `EditRRMReward` logs, the share of edits that could
    not be made as `NAME/edit_failure_rate`, and the plans as a column `edit_plan`. It pickles where its parts do.

    Raises:
        ConfigError: a wrong argument.
    """

    def __init__(
        self,
        reward: EditRRMReward | None = None,
        editor: EditsByText | None = None,
        *,
        plan: Callable[[Any], str] = planned_text,
        **settings: Any,
    ) -> None:
        if reward is not None and settings:
            raise ConfigError(f"a reward that is built takes no settings, got {', '.join(settings)}")
        given = dict(settings.pop("columns", None) or {})
        if "edited" in given:
            raise ConfigError("columns: 'edited' is what the editor makes, it stands in no column")
        # One edit stands in one place only: a data set's own column of edits must not be taken for ours.
        self._reward = reward or EditRRMReward(**settings, columns={**given, "edited": _EDITED})
        self._columns = EditColumns(given)
        self._editor: EditsByText = editor or TextEditor()
        self._plan = plan
        self.__name__ = self._reward.__name__

    def __call__(self, *, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        """One reward per completion, see the class.

        Raises:
            DataError: source or instruction is nowhere, or ambiguous.
            ConfigError, MissingExtraError, ComponentError: the editor or a part of the reward cannot be built.
        """
        plans = [self._plan(completion) for completion in completions]
        sources = self._columns.sources(prompts, kwargs)
        made = [_made(self._editor, source, plan) for source, plan in zip(sources, plans, strict=True)]
        _log_edits(self.__name__, plans, made, kwargs)
        edited = [None if isinstance(image, str) else image for image in made]
        return self._reward(prompts=prompts, completions=completions, **{**kwargs, _EDITED: edited})


class EditingRollout:
    """TRL samples as it always does; then each completion's edit is made, and stands in a field of the rewards' call.

    A rollout function is given the prompts and no other column, so the source image must be in them: TRL puts the
    columns `image` and `images` there, for vision-language policies.

    Args:
        editor: makes the edits; default: `TextEditor()`.
        field: name of the edits among the rewards' columns; None where an edit could not be made.
        plan: takes a completion's text, returns what the editor is told, "" for nothing.
    """

    def __init__(
        self,
        editor: EditsByText | None = None,
        *,
        field: str = _EDITED,
        plan: Callable[[Any], str] = planned_text,
    ) -> None:
        self._editor: EditsByText = editor or TextEditor()
        self._field, self._plan, self._columns = field, plan, EditColumns({"source": "prompt"})

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
        """What TRL's `rollout_func` returns: token ids, log-probabilities (None unless vLLM samples), and the edits.

        Raises:
            DataError: a prompt holds no image.
            ConfigError: the editor cannot be built, or this TRL samples in another way.
        """
        sources = self._columns.sources(prompts, {})
        for row, source in enumerate(sources):
            if isinstance(source, str):
                raise DataError(f"row {row}: {source}; the data set needs the source in a column 'image' or 'images'")
        prompt_ids, completion_ids, logprobs = _sampled(trainer, prompts)
        texts = trainer.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
        made = [_made(self._editor, *row) for row in zip(sources, map(self._plan, texts), strict=True)]
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": completion_ids,
            "logprobs": logprobs,
            self._field: [None if isinstance(image, str) else image for image in made],
        }


def _made(editor: EditsByText, source: Image | str, plan: str) -> Image | str:
    """The edit, or why there is none."""
    if isinstance(source, str) or not plan:
        return source
    return edit_or_reason(editor, source, plan)


def _sampled(trainer: Any, prompts: list[Any]) -> tuple[list[Any], list[Any], Any]:
    """One completion for each prompt (TRL repeats the prompts of a group), by the trainer's own generation settings."""
    try:
        # TRL 1.16 has no public name for what it does itself without a rollout function.
        tokenize, generate = trainer._tokenize_prompts, trainer._generate_single_turn
    except AttributeError as error:
        raise ConfigError(f"this trainer samples in another way than GRPOTrainer of TRL 1.16: {error}") from error
    group = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
    prompt_ids, images, fields = tokenize(prompts)
    return prompt_ids, *generate(prompt_ids, images, fields, group)


def _log_edits(name: str, plans: Sequence[str], made: Sequence[Any], callbacks: Mapping[str, Any]) -> None:
    log_metric, log_extra = callbacks.get("log_metric"), callbacks.get("log_extra")
    if log_metric is not None and made:
        log_metric(f"{name}/edit_failure_rate", sum(isinstance(image, str) for image in made) / len(made))
    if log_extra is not None and made:
        log_extra("edit_plan", list(plans))
