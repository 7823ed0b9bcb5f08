"""Several processes: what keeps their update that of one process, whether weights are replicated or sharded (FSDP2).

A pipeline reads attributes of its denoiser, which a DDP wrapper hides, so the denoiser is never wrapped. Replicated
weights: gradients are averaged once per update, in buckets, which is what DDP computes. Sharded weights: accelerate's
FSDP2 (`fully_shard`) works in place and averages by itself; what is needed here is that all processes make the same
calls in the same order, and that nothing reads parameters while they are gathered.

    torchrun --nproc_per_node 8 train.py     # replicated: what DDP would compute, with nothing to configure
    fsdp=True, fsdp_config={"version": 2}    # sharded: in TrainingArguments, or by accelerate launch --use_fsdp

Blocks to shard by are the model's `_no_split_modules`, else name them in `transformer_layer_cls_to_wrap`. The preflight
runs before sharding, so a denoiser must fit one device for it (`preflight=False` spares that). Under CFG, checkpointing
and autocast the same holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import ConfigError
from .edit_config import EditGRPOConfig
from .tape import patched

__all__ = [
    "as_plain_class",
    "average_gradients",
    "check_launch",
    "everywhere",
    "full_state",
    "load_full",
    "loading_full",
    "local",
    "plain_class",
    "reshard",
    "shard_on_cpu",
    "sharded",
    "start_alike",
]

_BUCKET = 2**24  # elements per all-reduce


def check_launch(args: EditGRPOConfig) -> None:
    """Refuse what cannot train a denoiser that must stay unwrapped, and settings under which processes would hang.

    Raises:
        ConfigError: DeepSpeed, FSDP version 1, fp16 autocast, or batches that differ in shape over sharded processes.
    """
    if args.deepspeed:
        raise ConfigError(
            "deepspeed wraps the denoiser, which pipelines cannot use; set fsdp=True for sharding (FSDP2)"
        )
    if args.fp16:
        raise ConfigError("fp16 autocast needs loss scaling, which replay has not; use bf16=True")
    args._n_gpu = min(args.n_gpu, 1)  # one process drives one device; more of them by torchrun
    plugin = _asked_sharding(args)
    if plugin is None:
        return
    if plugin.fsdp_version != 2:
        raise ConfigError("FSDP version 1 wraps the denoiser, which pipelines cannot use; ask for version 2")
    batch, group = args.per_device_train_batch_size, args.num_generations
    if batch % group and group % batch:
        raise ConfigError(
            f"with FSDP all processes must make the same calls: per_device_train_batch_size = {batch} must divide"
            f" num_generations = {group}, or the other way round"
        )


def shard_on_cpu(accelerator: Accelerator, args: EditGRPOConfig) -> bool:
    """Have accelerate shard on CPU processes too, where it would silently not (for trying a setting, and for tests)."""
    plugin = _asked_sharding(args)
    if plugin is None or accelerator.distributed_type != DistributedType.MULTI_CPU:
        return False
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    return True


def _asked_sharding(args: EditGRPOConfig) -> FullyShardedDataParallelPlugin | None:
    """What `fsdp` and `fsdp_config` ask for, or else `accelerate launch --use_fsdp` by the environment."""
    if args.fsdp_plugin_args:
        return FullyShardedDataParallelPlugin(**args.fsdp_plugin_args)
    return FullyShardedDataParallelPlugin() if parse_flag_from_env("ACCELERATE_USE_FSDP") else None


def everywhere(accelerator: Accelerator, flags: Sequence[bool]) -> list[bool]:
    """For each flag, whether it is set on any process; every process passes equally many."""
    if accelerator.num_processes == 1 or not flags:
        return list(flags)
    counts = torch.tensor([float(flag) for flag in flags], device=accelerator.device)
    dist.all_reduce(counts)
    return [count > 0 for count in counts.tolist()]


def start_alike(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> None:
    """Give all processes the first one's weights, as DDP does: random ones may differ, and averages would not tell."""
    if accelerator.num_processes > 1:
        for parameter in parameters:
            dist.broadcast(parameter.detach(), src=0)


def average_gradients(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over processes. Where no process has one they stay None: nothing was learned."""
    replicated = [p for p in parameters if not isinstance(p, DTensor)]  # sharded ones are averaged in backward
    if accelerator.num_processes == 1 or not replicated:
        return
    if not everywhere(accelerator, [any(p.grad is not None for p in replicated)])[0]:
        return
    for parameter in replicated:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([p.grad for p in replicated if p.grad is not None]):
        flat = torch.cat([grad.flatten() for grad in bucket])
        dist.all_reduce(flat)
        flat /= accelerator.num_processes
        for grad, mean in zip(bucket, torch.split(flat, [grad.numel() for grad in bucket]), strict=True):
            grad.copy_(mean.view_as(grad))


def _buckets(grads: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one dtype in a row, about `_BUCKET` elements at a time."""
    bucket: list[Tensor] = []
    for grad in grads:
        if bucket and (grad.dtype != bucket[0].dtype or sum(g.numel() for g in bucket) + grad.numel() > _BUCKET):
            yield bucket
            bucket = []
        bucket.append(grad)
    if bucket:
        yield bucket


def sharded(network: nn.Module) -> bool:
    """Whether FSDP2 holds the network's weights."""
    return isinstance(network, FSDPModule)


def reshard(network: nn.Module) -> None:
    """Free gathered weights, so that `network.parameters()` are the sharded ones, which the optimizer holds.

    A forward pass without a backward leaves the root's gathered.
    """
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor: its shard, or all of a replicated one. Shares the memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_state(network: nn.Module, *, trained_only: bool, keep: bool) -> dict[str, Tensor]:
    """The state dict of `network` with whole tensors, on the CPU where it is sharded; every process must call this.

    Args:
        trained_only: leave out what does not require grad.
        keep: False: an empty dict on this process, which only gives its shards.
    """
    reshard(network)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad} if trained_only else set()
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        if name not in frozen:
            whole = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
            if keep:
                state[name] = whole
    return state


def load_full(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set weights by name from whole tensors, which every process has; names that are not in `state` stay.

    Raises:
        KeyError: the network has no weight of a name.
    """
    reshard(network)
    own = network.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            target = own[name]
            if isinstance(target, DTensor):
                value = value.to(target.device, target.dtype)
                value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
            target.copy_(value)


@contextmanager
def loading_full(network: nn.Module) -> Iterator[None]:
    """`network.load_state_dict` takes whole tensors in here (PEFT's loader calls it), also when it is sharded."""

    def load(state: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        own = network.state_dict().keys()
        load_full(network, {name: value for name, value in state.items() if strict or name in own})
        return nn.modules.module._IncompatibleKeys([], [name for name in state if name not in own])

    if not sharded(network):
        yield
        return
    with patched(network, "load_state_dict", load):
        yield


def plain_class(network: nn.Module) -> Any:
    """The network's own class, without the mark that `fully_shard` puts on it."""
    return next(cls for cls in type(network).__mro__ if not issubclass(cls, FSDPModule))


@contextmanager
def as_plain_class(network: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """A sharded network as one of its plain class that holds `state`, for code that saves it by name and weights."""
    if not sharded(network):
        yield
        return
    cls = type(network)
    with patched(network, "state_dict", lambda *args, **kwargs: dict(state)):
        network.__class__ = plain_class(network)
        try:
            yield
        finally:
            network.__class__ = cls
