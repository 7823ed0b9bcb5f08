"""TRL agents that edit with a tool: environments for `environment_factory` (GRPO and async GRPO of TRL 1.16).

TRL makes a tool of every public method but `reset` and `get_reward`, so these classes have no others. A policy reads
the names, type hints and docstrings of the tools in its prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.adapters.trl_editor import EditsByText, TextEditor, edit_or_reason
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError
from editr1_plugins.reward.columns import EditColumns
from editr1_plugins.reward.rrm import EditRRMReward

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EditingEnvironment", "JudgedEditingEnvironment"]

_LONGEST_PROMPT: Final = 2000  # characters, as of a plan


class EditingEnvironment:
    """A canvas that begins as the row's source image; a reward finds what it has become in the attribute `image`.

    An agent that never edits leaves the source, and is judged for that. `image` is None, which no judge is shown,
    where the editor failed: that is not the agent's doing, and TRL leaves such a row out of its group's baseline.

    Args:
        editor: makes the edits, one for all environments of a process; default: `TextEditor()`.
        columns: where the source is found, see `EditColumns`; "prompt" is not looked at.
        most: edits per row; further ones are refused in words.
        show: also show the policy each edit, as an image. For vision-language policies of `GRPOTrainer` with images in
            their data; other trainers make text of what a tool returns.

    TRL calls the factory once for each concurrent row: `functools.partial(EditingEnvironment, editor=editor)`.

    Raises:
        ConfigError: a wrong argument.
    """

    def __init__(
        self,
        editor: EditsByText | None = None,
        *,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        most: int = 4,
        show: bool = False,
    ) -> None:
        if most < 1:
            raise ConfigError(f"most must be at least 1, got {most}")
        self._editor: EditsByText = editor or TextEditor()
        self._columns = EditColumns(columns)
        self._most, self._show = most, show
        self._fatal: ConfigError | MissingExtraError | None = None
        self._row: dict[str, Any] = {}
        self._states: list[Image] = []
        self._made = 0
        self.image: Image | None = None

    def reset(self, **row: Any) -> None:
        """Begin with the row's source image; TRL hands over all columns.

        Raises:
            DataError: the row has no source image.
            ConfigError, MissingExtraError: the editor turned out to be wrongly set up; TRL lets no tool say so.
        """
        if self._fatal is not None:
            raise self._fatal
        (source,) = self._columns.sources([""], {name: [cell] for name, cell in row.items()})
        if isinstance(source, str):
            raise DataError(source)
        self._row, self._states, self._made = row, [source], 0
        self.image = source

    def edit(self, prompt: str) -> Any:
        """Edit the image as it is now. Small, concrete edits work best; what the prompt does not name should stay.

        Args:
            prompt: What to change, in one sentence, e.g. "make the red car blue".

        Returns:
            Whether the image was edited.
        """
        told = prompt.strip()[:_LONGEST_PROMPT] if isinstance(prompt, str) else ""
        if not told:
            return "Not edited: say in words what to change."
        if self._made >= self._most:
            return f"Not edited: no more than {self._most} edits are allowed."
        if self.image is None:
            return "Not edited: the editor is out of order."
        try:
            made = edit_or_reason(self._editor, self._states[-1], told)
        except (ConfigError, MissingExtraError) as error:
            self.image, self._fatal = None, error
            raise
        self._made += 1
        if isinstance(made, str):
            self.image = None
            return "Not edited: the editor is out of order."
        self._states.append(made)
        self.image = made
        return self._told("Edited.")

    def undo(self) -> Any:
        """Take back the last edit. Taking back edits does not give new ones.

        Returns:
            Whether there was one.
        """
        if self.image is None or len(self._states) == 1:
            return "There is no edit to take back."
        self._states.pop()
        self.image = self._states[-1]
        return self._told("The last edit is taken back.")

    def _told(self, text: str) -> str | list[dict[str, Any]]:
        return [{"type": "image", "image": self.image}, {"type": "text", "text": text}] if self._show else text


class JudgedEditingEnvironment(EditingEnvironment):
    """The same, and it judges its own image: for async GRPO, whose rewards are not handed the environments.

    Give the trainer no `reward_funcs` then, or the edit is judged twice.

    Args:
        reward: judges the image against the row's instruction; default: `EditRRMReward()`.
        editor, columns, most, show: see `EditingEnvironment`.
    """

    def __init__(
        self,
        reward: EditRRMReward | None = None,
        editor: EditsByText | None = None,
        *,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        most: int = 4,
        show: bool = False,
    ) -> None:
        super().__init__(editor, columns=columns, most=most, show=show)
        self._reward = reward or EditRRMReward(columns=columns)

    def get_reward(self) -> float | None:
        """0..10, or None where the edit could not be made or judged, which TRL leaves out.

        Raises:
            DataError: the row has no instruction.
            ConfigError, MissingExtraError, ComponentError: the editor or a part of the reward cannot be built.
        """
        if self._fatal is not None:
            raise self._fatal
        # A data set's own column of edits must not be taken for what the agent made.
        others = ("prompt", "completion", "edited_image")
        columns = {name: [cell] for name, cell in self._row.items() if name not in others}
        prompts = [self._row.get("prompt", "")]
        (score,) = self._reward(prompts=prompts, completions=[""], **{**columns, "environments": [self]})
        return score
