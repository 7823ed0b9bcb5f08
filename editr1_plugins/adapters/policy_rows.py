"""The edit of a row whose policy writes text: the edited image lies in the row, or an editor follows the text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from typing import Any, Final, Literal, get_args

from editr1_plugins.adapters.conversion import EditOrReason, as_edit, as_image, first_image, last_image
from editr1_plugins.adapters.trl_editor import EditsByText, edit_or_reason, editor_from_environment, planned_text
from editr1_plugins.errors import ConfigError, DataError, ImageError

__all__ = ["NO_EDIT", "NoEdit", "PolicyRows", "environment_editor", "plain_settings"]

NoEdit = Literal["error", "source"]
NO_EDIT: Final[tuple[NoEdit, ...]] = get_args(NoEdit)


@dataclass(frozen=True, kw_only=True)
class PolicyRows:
    """Where the rows of a host hold what is judged.

    Attributes:
        source_key, edited_key, instruction_key: names in a row. Images are in any form that `as_image` takes; of
            several source images the first counts, of several edited ones the last.
        image_folder: below which a path in a row may be opened; None: no path is.
        editor: a dotted path (MODULE.NAME) of what makes the edit from the policy's text: a function `(source, text)
            -> image`, or an object with such a method `edit`; thread-safe. None: the row holds the edited image.
        no_edit: of a row without an edited image: "error", or "source": the policy edited nothing, and what is judged
            is the source image as it was.

    Raises:
        ConfigError: a wrong argument.
    """

    source_key: str = "source"
    edited_key: str = "edited"
    instruction_key: str = "instruction"
    image_folder: str | None = None
    editor: str | None = None
    no_edit: NoEdit = "error"

    def __post_init__(self) -> None:
        if self.no_edit not in NO_EDIT:
            raise ConfigError(f"no_edit must be one of {', '.join(NO_EDIT)}, got {self.no_edit!r}")

    @classmethod
    def split(cls, settings: Mapping[str, Any]) -> tuple[PolicyRows, dict[str, Any]]:
        """Settings of an adapter, as those of its rows and the others."""
        names = {field.name for field in fields(cls)}
        own = {name: value for name, value in settings.items() if name in names}
        return cls(**own), {name: value for name, value in settings.items() if name not in names}

    def edit(self, row: Mapping[str, Any], text: str, *, number: int = 0, instruction: Any = None) -> EditOrReason:
        """The edit, or why this row alone has none.

        Args:
            row: the host's.
            text: what the policy wrote; only `editor` reads it.
            number: of the row, for messages.
            instruction: where the row holds none under `instruction_key`.

        Raises:
            DataError: something is absent or of a wrong type, which the set-up of the job is to blame for.
            ConfigError: the editor is wrongly set up.
        """
        asked = row.get(self.instruction_key)
        asked = instruction if asked is None else asked
        source = first_image(_listed(row.get(self.source_key)))
        if source is None:
            raise DataError(
                f"row {number} has no image {self.source_key!r}, only {', '.join(sorted(map(str, row))) or 'nothing'}; "
                "put the source image there, or say by source_key where it is"
            )
        if self.editor is not None:
            return self._edited_by(self.editor, source, text, asked, number)
        edited = last_image(_listed(row.get(self.edited_key)))
        if edited is None:
            edited = self._unedited(source, number)
        return as_edit(source, edited, asked, row=number, folder=self.image_folder)

    def _edited_by(self, path: str, source: Any, text: str, asked: Any, number: int) -> EditOrReason:
        try:
            image = as_image(source, f"row {number}: source image", folder=self.image_folder)
        except ImageError as error:
            return f"source image: {error}"
        plan = planned_text(text)
        # A text that tells the editor nothing edits nothing.
        edited = edit_or_reason(_editor(path), image, plan) if plan else image
        if isinstance(edited, str):
            return f"no edit was made: {edited}"
        return as_edit(image, edited, asked, row=number)

    def _unedited(self, source: Any, number: int) -> Any:
        if self.no_edit == "source":
            return source
        raise DataError(
            f"row {number} has no edited image {self.edited_key!r}; put it there, say by edited_key where it is or by "
            "editor who makes it, or set no_edit to 'source' where a policy may leave the image as it is"
        )


def plain_settings(value: Any) -> Any:
    """Containers of a host's configuration (OmegaConf) as dicts and tuples; anything else as it is."""
    if isinstance(value, Mapping):
        return {str(name): plain_settings(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return tuple(plain_settings(each) for each in value)
    return value


def environment_editor(source: Any, text: str) -> Any:
    """An `editor`: the pipeline that `$EDITR1_EDITOR` names, loaded once per process when it is first asked."""
    return _environment_editor().edit(source, text)


@cache
def _environment_editor() -> EditsByText:
    return editor_from_environment()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_environment_editor.cache_clear)


class _Function:
    def __init__(self, function: Any) -> None:
        self.edit = function


@cache
def _editor(path: str) -> EditsByText:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"editor={path!r} must be a dotted path, MODULE.NAME: {error}") from error
    if callable(getattr(found, "edit", None)):
        return found  # type: ignore[no-any-return]
    if callable(found):
        return _Function(found)
    raise ConfigError(f"editor={path!r} is a {type(found).__name__}: neither a function nor an object with `edit`")


def _listed(value: Any) -> Any:
    """A host's array of objects as a list; pixels stay an array."""
    return value.tolist() if str(getattr(value, "dtype", None)) == "object" else value
