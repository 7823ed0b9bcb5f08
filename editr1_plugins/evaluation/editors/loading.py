"""An editor by its name: a diffusers pipeline from the hub or a folder, or MiniEdit's, with or without a LoRA."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import ConfigError

__all__ = ["DTYPES", "load_lora", "load_pipeline_of", "lora_digest", "own_device", "pipeline_call"]

DTYPES: Final = ("float32", "bfloat16", "float16")
_MINIEDIT: Final = "miniedit"
_MINIEDIT_STEPS: Final = 8


def load_pipeline_of(model: str, *, dtype: str | None = None, device: str | None = None) -> Any:
    """The pipeline on its device, its progress bar off.

    Args:
        model: a hub id or folder of a diffusers pipeline, or "miniedit" ("miniedit:clean") for the tiny trained one.
        dtype: one of `DTYPES`; default: bfloat16 on an accelerator, float32 on a CPU.
        device: default: an accelerator where there is one; of several processes each takes its own (`LOCAL_RANK`, as
            `accelerate launch` and `torchrun` set it).

    Raises:
        ConfigError: another dtype, or it cannot be loaded.
    """
    import torch
    from diffusers import DiffusionPipeline

    if _is_miniedit(model):
        from editr1_plugins.miniedit.model import load_pipeline

        weights = model.partition(":")[2]
        return load_pipeline(weights) if weights else load_pipeline()
    place = device or own_device()
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r}: one of {', '.join(DTYPES)}")
    kind = dtype or ("float32" if str(place) == "cpu" else "bfloat16")
    try:
        # safetensors only: the alternative is unpickling
        pipe = DiffusionPipeline.from_pretrained(model, dtype=getattr(torch, kind), use_safetensors=True)
    except Exception as error:  # the hub raises many kinds
        raise ConfigError(f"{model!r} cannot be loaded: {error}") from error
    pipe.to(place)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def own_device() -> str:
    """The accelerator of this process, "cpu" without one."""
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return "cpu"
    rank, count = os.environ.get("LOCAL_RANK", ""), torch.accelerator.device_count()
    # More processes than devices share them.
    return f"{accelerator.type}:{int(rank) % count}" if rank.isdigit() and count else accelerator.type


def load_lora(pipe: Any, path: str) -> None:
    """Put a LoRA on a pipeline, as `editr1 grpo` saves it.

    Raises:
        ConfigError: it cannot be loaded.
    """
    try:
        pipe.load_lora_weights(path, use_safetensors=True)
    except Exception as error:
        raise ConfigError(f"LoRA {path!r} cannot be loaded: {error}") from error


def lora_digest(path: str) -> str | None:
    """Of the weights below a local path, so that a LoRA that was trained on is another one; None for a hub id."""
    place = Path(path)
    if not place.exists():
        return None
    digest = hashlib.sha256()
    for file in [place] if place.is_file() else sorted(place.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def pipeline_call(model: str, call: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the pipeline's call: what the user gave, and for MiniEdit what its size needs."""
    if not _is_miniedit(model):
        return dict(call)
    from editr1_plugins.miniedit.model import CALL

    return {**CALL, "num_inference_steps": _MINIEDIT_STEPS, **call}


def _is_miniedit(model: str) -> bool:
    return model.partition(":")[0] == _MINIEDIT and not Path(model).exists()
