"""What speaks against training a pipeline exactly and can be told without running anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from .pipelines import facts_of
from .rollout import denoisers
from .tape import DENOISERS

__all__ = ["reasons_to_refuse"]


def reasons_to_refuse(pipe: Any, trainable: Sequence[nn.Parameter]) -> list[str]:
    """Why `trainable` cannot be trained through the pipeline as it is set up; empty: nothing is known against it.

    Raises:
        ReplayError: a plugin says that the pipeline cannot be trained.
    """
    facts_of(pipe)
    networks = denoisers(pipe)
    # Offloading replaces parameters, so it comes first and alone.
    reasons = [reason for network in networks for reason in _offloading(network)]
    if not reasons:
        reasons = [*_wrong_parameters(pipe, networks, trainable)]
        reasons += [reason for network in networks for reason in (*_dropouts(network), *_caches(network))]
    return reasons


def _wrong_parameters(pipe: Any, networks: Sequence[nn.Module], trainable: Sequence[nn.Parameter]) -> Iterator[str]:
    if not networks:
        yield f"it has no denoiser (looked for {', '.join(DENOISERS)})"
        return
    if not any(parameter.requires_grad for parameter in trainable):
        yield "no parameter to train was given, or none requires grad"
    own = {id(parameter) for network in networks for parameter in network.parameters()}
    if any(id(parameter) not in own for parameter in trainable):
        taped = [
            name for name, part in pipe.components.items() if _holds_any(part, trainable) and name not in DENOISERS
        ]
        yield f"parameters of {', '.join(taped) or 'another model'} are to be trained, but only the denoiser can be"


def _holds_any(part: Any, trainable: Sequence[nn.Parameter]) -> bool:
    wanted = {id(parameter) for parameter in trainable}
    return isinstance(part, nn.Module) and any(id(parameter) in wanted for parameter in part.parameters())


def _dropouts(network: nn.Module) -> Iterator[str]:
    active = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0
    ]
    if active:
        yield (
            f"dropout is active in {active[0]} and {len(active) - 1} more modules, so replay draws another mask than "
            "sampling did; set it to 0 (lora_dropout=0.0) or put the network in eval mode"
        )


def _caches(network: nn.Module) -> Iterator[str]:
    if getattr(network, "is_cache_enabled", False):
        yield "a cache across steps is enabled on the denoiser; call disable_cache()"


def _offloading(network: nn.Module) -> Iterator[str]:
    from accelerate.hooks import AlignDevicesHook, CpuOffload, SequentialHook

    hooks = [module._hf_hook for module in network.modules() if hasattr(module, "_hf_hook")]
    hooks += [inner for hook in hooks if isinstance(hook, SequentialHook) for inner in hook.hooks]
    if any(isinstance(hook, CpuOffload) or (isinstance(hook, AlignDevicesHook) and hook.offload) for hook in hooks):
        yield "the denoiser is offloaded between calls; keep it on its device while training"
