"""What of a pipeline is trained: LoRA adapters or the whole denoiser; how it is saved, and its moving average."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel, cast_training_params
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ConfigError, DataError

__all__ = ["Policy"]

_LORA_FILE = "pytorch_lora_weights.safetensors"


class Policy:
    """The trained part of a pipeline.

    With `peft_config` a LoRA adapter is added to the pipeline's transformer; one that is already there is trained on.
    With neither, the whole transformer is trained. LoRA weights are kept in float32, whatever the base is in.

    Args:
        pipe: a diffusers pipeline with a `transformer` (or `unet`).
        peft_config: the adapter to add, or None.
        ema_decay: decay of the moving average of the trained weights; None: no average.

    Raises:
        ConfigError: no denoiser, or an adapter is both there and asked for.
    """

    def __init__(self, pipe: Any, peft_config: LoraConfig | None = None, ema_decay: float | None = None) -> None:
        self.pipe = pipe
        self.part = next((name for name in ("transformer", "unet") if getattr(pipe, name, None) is not None), "")
        if not self.part:
            raise ConfigError(f"{type(pipe).__name__} has no transformer (or unet) to train")
        self.network: Any = getattr(pipe, self.part)  # a diffusers ModelMixin with PEFT mixed in
        for component in pipe.components.values():
            if isinstance(component, nn.Module):
                component.requires_grad_(False).eval()
        present = any(isinstance(module, BaseTunerLayer) for module in self.network.modules())
        if present and peft_config is not None:
            raise ConfigError("the transformer has an adapter already; pass peft_config=None to train on with it")
        if peft_config is not None:
            self.network.add_adapter(peft_config)
        self.uses_lora = present or peft_config is not None
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_("lora_" in name if self.uses_lora else True)
        if self.uses_lora:
            cast_training_params(self.network, dtype=torch.float32)
        self.ema = EMAModel(self.parameters, decay=ema_decay, foreach=True) if ema_decay is not None else None

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def update_average(self) -> None:
        """Move the average towards the weights; after each update."""
        if self.ema is not None:
            self.ema.step(self.parameters)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the live ones, where there is an average."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield
        finally:
            self.ema.restore(self.parameters)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the (averaged) weights: a LoRA as `pipe.load_lora_weights` reads it, else the transformer's folder."""
        with self.averaged():
            if not self.uses_lora:
                self.network.save_pretrained(Path(folder) / self.part)
            elif hasattr(self.pipe, "save_lora_weights"):
                self.pipe.save_lora_weights(
                    folder,
                    **{f"{self.part}_lora_layers": self._adapter_state()},
                    **{f"{self.part}_lora_adapter_metadata": self.network.peft_config["default"].to_dict()},
                )
            else:
                self.network.save_lora_adapter(folder)

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Read back what `save` wrote; with an average, weights and average are both set to it.

        Raises:
            DataError: the folder holds no such weights.
        """
        if self.uses_lora:
            path = Path(folder) / _LORA_FILE
            if not path.is_file():
                raise DataError(f"no {_LORA_FILE} in {folder}: it is not a checkpoint of a LoRA run")
            state = load_file(path)
            set_peft_model_state_dict(self.network, {k.removeprefix(f"{self.part}."): v for k, v in state.items()})
        else:
            path = Path(folder) / self.part
            if not path.is_dir():
                raise DataError(
                    f"no folder {self.part!r} in {folder}: it is not a checkpoint of a full fine-tuning run"
                )
            self.network.load_state_dict(type(self.network).from_pretrained(path).state_dict())
        if self.ema is not None:
            self.ema.shadow_params = [parameter.detach().clone() for parameter in self.parameters]

    def live_state(self) -> dict[str, Any]:
        """What `save` does not hold: with an average, the live weights and the average's step count."""
        if self.ema is None:
            return {}
        live = [parameter.detach().cpu().clone() for parameter in self.parameters]
        return {"weights": live, "ema_step": self.ema.optimization_step}

    def load_live_state(self, state: dict[str, Any]) -> None:
        if self.ema is None or not state:
            return
        self.ema.optimization_step = state["ema_step"]
        with torch.no_grad():
            for parameter, stored in zip(self.parameters, state["weights"], strict=True):
                parameter.copy_(stored)

    def _adapter_state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = get_peft_model_state_dict(self.network)
        return state
