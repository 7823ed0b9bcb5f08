"""What of a pipeline is trained: LoRA adapters or the whole denoiser; how it is saved, its average, its reference."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel, cast_training_params
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from .parallel import as_plain_class, full_state, load_full, loading_full, local, plain_class, reshard, sharded
from .reference import FrozenCopy
from .rollout import denoisers, without_adapters

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
        with_reference: whether `reference` will be asked for; after full fine-tuning that costs a copy of the weights.
        seed: of a new adapter's random weights; the global generators are left as they were.

    Attributes:
        part: the denoiser's name in the pipeline.
        uses_lora: whether adapters are trained, and not the whole denoiser.
        ema: the moving average, once `start_average` was called.
        frozen: the reference policy's weights, once `keep_reference` was called in full fine-tuning.

    Raises:
        ConfigError: no denoiser, or an adapter is both there and asked for.
    """

    def __init__(
        self,
        pipe: Any,
        peft_config: LoraConfig | None = None,
        ema_decay: float | None = None,
        *,
        with_reference: bool = False,
        seed: int = 0,
    ) -> None:
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
            with _seeded(seed):
                self.network.add_adapter(peft_config)
        self.uses_lora = present or peft_config is not None
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_("lora_" in name if self.uses_lora else True)
        if self.uses_lora:
            cast_training_params(self.network, dtype=torch.float32)
        self.adapter = self.network.active_adapters()[0] if self.uses_lora else ""
        self.ema_decay, self.with_reference = ema_decay, with_reference
        self.ema: EMAModel | None = None
        self.frozen: FrozenCopy | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters; this process's shards under FSDP2."""
        reshard(self.network)
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    @contextmanager
    def few_parameters(self, limit: int = 2**27) -> Iterator[list[nn.Parameter]]:
        """Trained parameters from all over the denoiser, at most `limit` elements; the others need no grad in here.

        All of them where they are few. For what compares whole gradients, such as the preflight: those of a large
        denoiser would not fit the host's memory.
        """
        parameters, chosen, left = self.parameters, set[int](), limit
        for index in random.Random(0).sample(range(len(parameters)), len(parameters)):
            if parameters[index].numel() <= left:
                chosen.add(index)
                left -= parameters[index].numel()
        others = [parameter for index, parameter in enumerate(parameters) if index not in chosen]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield [parameters[index] for index in sorted(chosen)]
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    def start_average(self) -> None:
        """Begin the moving average at the present weights, which are where they will be trained."""
        if self.ema_decay is not None:
            done = 0 if self.ema is None else self.ema.optimization_step
            # Sharded tensors lack some of the fused operations.
            self.ema = EMAModel(self.parameters, decay=self.ema_decay, foreach=not sharded(self.network))
            self.ema.optimization_step = done

    def update_average(self) -> None:
        """Move the average towards the weights; after each update."""
        if self.ema is not None:
            self.ema.step(self.parameters)

    def keep_reference(self) -> None:
        """Keep what `reference` needs of the present weights; once it is kept, another call does nothing."""
        if self.with_reference and not self.uses_lora and self.frozen is None:
            self.frozen = FrozenCopy(lambda: self.parameters)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """In here the pipeline is the reference policy: adapters off, or the weights that the run started from."""
        context: AbstractContextManager[None]
        context = without_adapters(*denoisers(self.pipe)) if self.frozen is None else self.frozen.in_place()
        with context:
            try:
                yield
            finally:
                reshard(self.network)  # or what was gathered of the reference would be used on

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

    def save(self, folder: str | os.PathLike[str], *, whole: bool = False, write: bool = True) -> None:
        """Write the (averaged) weights as diffusers reads them; all processes call this.

        A LoRA is written as `pipe.load_lora_weights(folder)` reads it.

        Args:
            whole: after full fine-tuning write the pipeline, for `DiffusionPipeline.from_pretrained(folder)`, and not
                only the denoiser's own folder of it.
            write: whether this process writes; the others only give their shards.
        """
        with self.averaged():
            state = full_state(self.network, trained_only=self.uses_lora, keep=write)
            if not write:
                return
            if self.uses_lora:
                self._save_lora(folder, state)
                return
            with as_plain_class(self.network, state):
                if whole:
                    self.pipe.save_pretrained(folder)
                else:
                    self.network.save_pretrained(Path(folder) / self.part)

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Read back what `save` wrote; with an average, weights and average are both set to it.

        What was there before is kept as the reference, if one is wanted and none is kept yet.

        Raises:
            DataError: the folder holds no such weights.
        """
        self.keep_reference()
        if self.uses_lora:
            path = Path(folder) / _LORA_FILE
            if not path.is_file():
                raise DataError(f"no {_LORA_FILE} in {folder}: it is not a checkpoint of a LoRA run")
            state = {name.removeprefix(f"{self.part}."): weight for name, weight in load_file(path).items()}
            with loading_full(self.network):
                set_peft_model_state_dict(self.network, state, adapter_name=self.adapter)
        else:
            path = Path(folder) / self.part
            if not path.is_dir():
                raise DataError(
                    f"no folder {self.part!r} in {folder}: it is not a checkpoint of a full fine-tuning run"
                )
            stored = plain_class(self.network).from_pretrained(path, dtype=self.network.dtype)
            load_full(self.network, stored.state_dict())
        self.start_average()

    def live_state(self, *, write: bool = True) -> dict[str, Any]:
        """What `save` does not hold: the live weights beside an average (of this process if sharded or `write`), ..."""
        state: dict[str, Any] = {}
        if self.ema is not None:
            state["ema_step"] = self.ema.optimization_step
            if write or sharded(self.network):
                state["weights"] = [local(parameter.detach()).cpu().clone() for parameter in self.parameters]
        if self.frozen is not None:
            state["reference"] = self.frozen.fingerprint()
        return state

    def load_live_state(self, state: dict[str, Any]) -> None:
        """Set what `live_state` gave.

        Raises:
            DataError: the reference policy is another one than that of the checkpoint.
        """
        if self.frozen is not None and "reference" in state:
            self.frozen.require(state["reference"])
        if self.ema is None or "weights" not in state:
            return
        self.ema.optimization_step = state["ema_step"]
        with torch.no_grad():
            for parameter, stored in zip(self.parameters, state["weights"], strict=True):
                local(parameter.detach()).copy_(stored)

    def _save_lora(self, folder: str | os.PathLike[str], state: dict[str, Tensor]) -> None:
        if hasattr(self.pipe, "save_lora_weights"):
            layers = get_peft_model_state_dict(self.network, state_dict=state, adapter_name=self.adapter)
            metadata = self.network.peft_config[self.adapter].to_dict()
            self.pipe.save_lora_weights(
                folder,
                **{f"{self.part}_lora_layers": layers},
                **{f"{self.part}_lora_adapter_metadata": metadata},
            )
        else:
            with as_plain_class(self.network, state):
                self.network.save_lora_adapter(folder, adapter_name=self.adapter)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
