"""How TRL's trainers load the model that a command names."""

from __future__ import annotations

from typing import Any

__all__ = ["set_model_arguments"]


def set_model_arguments(model: Any, config: Any) -> None:
    """Put what a `trl.ModelConfig` says of loading into a trainer's `config`; what stands there already wins."""
    own = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        "use_safetensors": True,  # the alternative is unpickling
    }
    config.model_init_kwargs = {**own, **(config.model_init_kwargs or {})}
