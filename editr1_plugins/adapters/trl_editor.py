"""Edits by words, for policies that write what an editing pipeline is told: `TextEditor`, and the text in a reply.

The pipeline is loaded when an edit is first asked for, in each process anew, and is called by one thread at a time.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from editr1_plugins.errors import ComponentError, ConfigError, ImageError, MissingExtraError
from editr1_plugins.images import content_hash

if TYPE_CHECKING:
    from PIL.Image import Image

    from editr1_plugins.evaluation.editors.sampling import PipelineEditor

__all__ = ["EDITOR_VARIABLE", "EditsByText", "TextEditor", "edit_or_reason", "editor_from_environment", "planned_text"]

#: The editor of those who name none: a model, or a JSON object of `TextEditor`'s arguments.
EDITOR_VARIABLE: Final = "EDITR1_EDITOR"

_LONGEST_PLAN: Final = 2000  # characters; text encoders read a few hundred tokens, and a policy can write any number
_MARKED: Final = re.compile(r"<edit>(.*?)</edit>", re.DOTALL | re.IGNORECASE)
_REMEMBERED: Final = 32  # edits; a group often writes one plan several times
#: An editor that fails so often before it made one edit is wrongly set up.
_HOPELESS: Final = 3

_log = logging.getLogger(__name__)


class EditsByText(Protocol):
    """What makes edits here; any object with this method will do, such as one that asks a server of pipelines."""

    def edit(self, source: Image, prompt: str) -> Image:
        """The edit, RGB; an exception costs this edit alone, but a `ConfigError` ends the run. Thread-safe."""
        ...


class TextEditor:
    """A diffusers editing pipeline that is told `prompt` about `source`.

    The noise of an edit follows from `seed` and the source image alone: of several prompts for one image, the better
    edit is the doing of the prompt.

    Args:
        model: a hub id or folder of a diffusers pipeline, e.g. "black-forest-labs/FLUX.1-Kontext-dev", or "miniedit"
            ("miniedit:clean") for the tiny Kontext that ships with this package.
        lora: a hub id or folder of a LoRA, as `editr1 grpo` saves it.
        call: further arguments of the pipeline's call, e.g. {"num_inference_steps": 8}.
        seed: of the noise.
        dtype: "bfloat16", "float16" or "float32"; default: bfloat16 on an accelerator.
        device: default: an accelerator where there is one.

    Thread-safe; it pickles without the pipeline.
    """

    _pipeline: PipelineEditor | None
    _recent: OrderedDict[tuple[str, str], Image]
    _failed: int

    def __init__(
        self,
        model: str = "miniedit",
        *,
        lora: str | None = None,
        call: Mapping[str, Any] | None = None,
        seed: int = 0,
        dtype: str | None = None,
        device: str | None = None,
    ) -> None:
        self._model, self._lora, self._call, self._seed = model, lora, dict(call or {}), seed
        self._dtype, self._device = dtype, device
        self._start()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r})"

    def edit(self, source: Image, prompt: str) -> Image:
        """The edit as an RGB image.

        Raises:
            ConfigError: the pipeline cannot be loaded, takes no such arguments, or has failed from the beginning.
            ComponentError, ImageError: it failed this time.
        """
        key = content_hash(source), prompt
        with self._lock:
            if key in self._recent:
                self._recent.move_to_end(key)
                return self._recent[key].copy()
            image = self._contained(source, *key)
            self._recent[key] = image
            while len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
            return image.copy()

    def _contained(self, source: Image, digest: str, prompt: str) -> Image:
        from editr1_plugins.evaluation.editors.items import EditorItem, Sources

        if self._pipeline is None:
            self._pipeline = self._loaded()
        sources = Sources(given=(source,), shown=source)
        try:
            image = self._pipeline.edit(EditorItem(key=digest, instruction=prompt, read=lambda: sources), sources)
        except (ComponentError, ImageError) as error:
            self._failed += 1
            if not self._recent and self._failed >= _HOPELESS:
                raise ConfigError(f"none of the first {self._failed} edits could be made: {error}") from error
            raise
        self._failed = 0
        return image

    def _loaded(self) -> PipelineEditor:
        from editr1_plugins.evaluation.editors.loading import load_lora, load_pipeline_of, pipeline_call
        from editr1_plugins.evaluation.editors.sampling import PipelineEditor

        pipe = load_pipeline_of(self._model, dtype=self._dtype, device=self._device)
        if self._lora is not None:
            load_lora(pipe, self._lora)
        return PipelineEditor(pipe, call=pipeline_call(self._model, self._call), seed=self._seed)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._pipeline, self._recent, self._failed = None, OrderedDict(), 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_model", "_lora", "_call", "_seed", "_dtype", "_device")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def edit_or_reason(editor: EditsByText, source: Image, prompt: str) -> Image | str:
    """The edit, or why this one could not be made.

    Raises:
        ConfigError, MissingExtraError: the editor is wrongly set up.
    """
    try:
        return editor.edit(source, prompt)
    except (ConfigError, MissingExtraError):
        raise
    except Exception as error:  # the editor may be anybody's
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        _log.warning("an edit could not be made: %s", reason)
        return reason


def planned_text(completion: Any) -> str:
    """What a policy's reply tells the editor; "" where it tells nothing.

    Of a reply that thinks aloud, what follows the last `</think>`; there, what stands between the last `<edit>` and
    `</edit>`, or everything where nothing is marked. Longer texts are cut at 2,000 characters.

    Args:
        completion: text, or chat messages, of which the last one's text counts.
    """
    text = _text(completion).rpartition("</think>")[2]
    marked = _MARKED.findall(text)
    return str(marked[-1] if marked else text).strip()[:_LONGEST_PLAN]


def editor_from_environment() -> TextEditor:
    """The editor that `$EDITR1_EDITOR` names, which is "miniedit" where it is not set.

    Raises:
        ConfigError: neither a name nor a JSON object of `TextEditor`'s arguments.
    """
    text = os.environ.get(EDITOR_VARIABLE, "").strip()
    if not text.startswith("{"):
        return TextEditor(text) if text else TextEditor()
    try:
        return TextEditor(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"${EDITOR_VARIABLE}: {error}") from error


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    message = completion[-1] if isinstance(completion, (list, tuple)) and completion else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))
