"""Resuming the training of a vision-language model by the names that its checkpoint has.

`save_pretrained` writes Qwen-VL's weights under the names of the published files (`model.layers...`), the model in
memory has others (`model.language_model.layers...`). transformers' Trainer (5.23) loads a checkpoint with neither
renaming nor strictness: nothing fits, and a resumed run begins again from the weights it was started with.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, Trainer

if TYPE_CHECKING:
    from torch import nn

__all__ = ["VLMCheckpoints"]

_log = logging.getLogger(__name__)


class VLMCheckpoints(Trainer):
    """A Trainer that reads the weights of a whole model by `from_pretrained`, which knows both kinds of names.

    Adapters, FSDP and DeepSpeed keep their own files, and transformers' way.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target = self.model if model is None else model
        if self._is_plain(target, resume_from_checkpoint):
            _load_whole(target, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is not None and self._is_plain(self.model, best):
            _load_whole(self.model, best)
        else:
            super()._load_best_model()

    def _is_plain(self, model: Any, folder: str | os.PathLike[str]) -> bool:
        whole = isinstance(model, PreTrainedModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        return whole and (Path(folder) / "config.json").is_file() and any(Path(folder).glob("model*.safetensors"))


def _load_whole(model: Any, folder: str | os.PathLike[str]) -> None:
    _log.info("loading the weights in %s", folder)
    stored = type(model).from_pretrained(folder, dtype=model.dtype, use_safetensors=True, local_files_only=True)
    model.load_state_dict(stored.state_dict())  # strict: a weight without a place is an error
