"""The one seam to any diffusers pipeline: `record` samples with it, `visit` finds velocities with it.

    rollout = record(pipe, call, seeds=range(8), window=range(1, 4))
    visit(pipe, rollout, [t.visit() for t in rollout.transitions], on_velocity)

`call` holds the pipeline's own arguments for one (image, instruction) pair; a group of edits is the pipeline's
`num_images_per_prompt` (or its video twin). Nothing is particular to a pipeline and nothing of it is modified: its
scheduler, a few methods of its instances and the grad mode are exchanged while a call runs, and put back whatever
happens. Rows have their own generators; the global one is not used. Wrap both in the same `torch.autocast` if any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, ReplayError
from .pipelines import (
    accepted_arguments,
    body_with_grad,
    exchanged,
    images_of,
    index_of_first_latents,
    latents_begin_at,
    latents_watched,
    on_denoisers_device,
    rows_argument,
)
from .schedulers import Arrived, RolloutScheduler, Transition, Visit, VisitScheduler
from .tape import DENOISERS, EncoderTape

__all__ = [
    "Rollout",
    "denoisers",
    "full_precision",
    "record",
    "record_group",
    "rescored",
    "velocities",
    "visit",
    "without_adapters",
]


@dataclass(frozen=True)
class Rollout:
    """A group of edits of one (image, instruction) pair, and what is needed to train on them.

    Attributes:
        call: the pipeline's arguments, without those that `record` sets itself.
        seeds: one per row; a row depends on its own seed only.
        transitions: the stochastic steps, in order.
        final: the last latents, (B, ...), in the layout that the scheduler and the denoiser see.
        images: what the pipeline returned, one per row (list, array or tensor, by its `output_type`).
        tape: the encoders' outputs.
        entry: which item of what `pipe.prepare_latents` returns the loop begins with; None: it is not found there, and
            replay spends an iteration on getting onto the path.
        chunk: rows per pipeline call while sampling; `velocities` keeps to it, since a batch's size changes rounding.
        made: how many steps the loop made, stochastic or not.
    """

    call: Mapping[str, Any]
    seeds: tuple[int, ...]
    transitions: tuple[Transition, ...]
    final: Tensor
    images: Any
    tape: EncoderTape
    entry: int | None
    chunk: int
    made: int

    def __len__(self) -> int:
        return len(self.seeds)

    def rows(self, rows: slice) -> Rollout:
        """Some rows of the group, to be replayed in one pass."""
        seeds = self.seeds[rows]
        return replace(
            self,
            seeds=seeds,
            transitions=tuple(step.rows(rows) for step in self.transitions),
            final=self.final[rows],
            images=self.images[rows],
            chunk=len(seeds),
        )


def record(
    pipe: Any,
    call: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    window: Iterable[int],
    sampler: str = "flow_grpo",
    noise_level: float = 0.7,
    start_seeds: Sequence[int] | None = None,
    tape: EncoderTape | None = None,
) -> Rollout:
    """Sample one edit per seed as the pipeline would, and keep every stochastic step.

    Args:
        pipe: a diffusers pipeline with a flow-matching Euler scheduler.
        call: the pipeline's arguments for one (image, instruction) pair.
        seeds: one per row, 0 <= seed < 2**32. With an empty window the result is `pipe(**call)` with these generators.
        window: the steps to make stochastic, counted from 0 as they are made; the others are Euler steps. Leave the
            last step out (its noise would stay in the image; for "cps" it has none).
        sampler: a name in `sde.SAMPLERS`.
        noise_level: the sampler's level a (eta for "dance").
        start_seeds: seeds of the initial latents where they are to differ from `seeds`, e.g. all equal.
        tape: that of an earlier rollout, to spare the encoders.

    Raises:
        ConfigError: an argument is wrong, or the window asks for steps that the pipeline did not make.
        ReplayError: the pipeline cannot be trained through this seam; says why.
    """
    seeds, start_seeds = _checked_seeds(seeds, start_seeds)
    wanted, tape = frozenset(window), EncoderTape() if tape is None else tape
    arguments = {**_checked_call(call), **rows_argument(pipe, len(seeds))}
    prepared: list[Any] = []
    with on_denoisers_device(pipe) as device:
        scheduler = RolloutScheduler.like(
            pipe.scheduler,
            window=wanted,
            sampler=sampler,
            level=noise_level,
            generators=[torch.Generator(device).manual_seed(_step_seed(seed)) for seed in seeds],
            entered=tape.loop_begins,
        )
        generators = [torch.Generator(device).manual_seed(seed) for seed in start_seeds]
        with exchanged(pipe, scheduler, tape), latents_watched(pipe, prepared.append), torch.no_grad():
            output = pipe(**arguments, generator=generators)
    first, final = _ends(pipe, scheduler, len(seeds), wanted)
    return Rollout(
        call=dict(call),
        seeds=seeds,
        transitions=tuple(scheduler.transitions),
        final=final.detach(),
        images=images_of(pipe, output),
        tape=tape,
        entry=index_of_first_latents(prepared, first),
        chunk=len(seeds),
        made=scheduler.made,
    )


def _ends(pipe: Any, scheduler: RolloutScheduler, rows: int, window: frozenset[int]) -> tuple[Tensor, Tensor]:
    """The first and the last latents of a loop that made what was asked for."""
    if scheduler.final is None or scheduler.first is None:
        raise ReplayError(
            f"{type(pipe).__name__} never called the step of its own scheduler: its loop cannot be seen. Where it "
            "calls another pipeline, train that one"
        )
    if len(scheduler.final) != rows:
        raise ConfigError(f"the call makes {len(scheduler.final)} rows for {rows} seeds; give it one prompt")
    if missing := window - set(range(scheduler.made)):
        raise ConfigError(f"the window asks for steps {sorted(missing)}, but {scheduler.made} steps were made (from 0)")
    return scheduler.first, scheduler.final


def record_group(
    pipe: Any, call: Mapping[str, Any], *, seeds: Sequence[int], chunk: int | None = None, **options: Any
) -> Rollout:
    """`record` with at most `chunk` rows per pipeline call (None: all at once); the encoders run for the first only.

    The result is that of one call up to the rounding that a batch's size makes.
    """
    chunk = len(seeds) if chunk is None else chunk
    if chunk < 1:
        raise ConfigError(f"chunk must be at least 1, got {chunk}")
    start_seeds, tape = options.pop("start_seeds", None), options.pop("tape", None)
    tape = EncoderTape() if tape is None else tape
    parts = [
        record(
            pipe,
            call,
            seeds=seeds[first : first + chunk],
            start_seeds=None if start_seeds is None else start_seeds[first : first + chunk],
            tape=tape,
            **options,
        )
        for first in range(0, len(seeds), chunk)
    ]
    if not parts:
        raise ConfigError("a group needs at least one seed")
    return parts[0] if len(parts) == 1 else _joined(parts)


def visit(
    pipe: Any,
    rollout: Rollout,
    visits: Sequence[Visit],
    on_velocity: Callable[[int, Tensor], None],
    *,
    grad: bool = True,
) -> None:
    """Walk the pipeline's own body through `visits` and hand out the velocity found at each.

    `on_velocity(i, velocity)` is called once per visit, in order, with the velocity after guidance, shaped like the
    latents and in the model's dtype. With `grad` it may call backward on what it makes of it: one step's graph is alive
    at a time. Rows are independent, so `visits` may hold any part of the batch; timesteps may differ per row where the
    pipeline allows it. What `on_velocity` raises leaves unchanged.

    Raises:
        ReplayError: the pipeline does not go where it is told to.
    """
    visits = list(visits)
    if not visits:
        return
    call = dict(rollout.call)
    if "strength" in accepted_arguments(pipe):
        call["strength"] = 1.0  # less would cut the schedule short
    arguments = {**call, **rows_argument(pipe, len(visits[0].latents))}

    def entered() -> None:
        rollout.tape.loop_begins()
        torch.set_grad_enabled(grad)

    on_path = rollout.entry is not None
    scheduler = VisitScheduler.like(
        pipe.scheduler, visits, on_velocity, entered=entered, on_path=on_path, grad=grad and on_path
    )
    if grad:
        torch.clear_autocast_cache()  # casts made without grad would cut the gradient off
    with on_denoisers_device(pipe) as device, exchanged(pipe, scheduler, rollout.tape) as stack:
        if rollout.entry is not None:
            stack.enter_context(latents_begin_at(pipe, rollout.entry, visits[0].latents))
        body = stack.enter_context(body_with_grad(pipe))
        stack.enter_context(torch.set_grad_enabled(grad and on_path))
        generator = torch.Generator(device).manual_seed(0)  # spares the global generator
        try:
            body(**arguments, generator=generator)
        except Arrived:
            return
    raise ReplayError(f"{type(pipe).__name__} made {scheduler.done} of {len(visits)} visits and ended")


def velocities(pipe: Any, rollout: Rollout, visits: Sequence[Visit]) -> list[Tensor]:
    """The velocity at each visit, without grad, found in chunks of `rollout.chunk` rows."""
    if not visits:
        return []
    found: list[list[Tensor]] = [[] for _ in visits]
    for first in range(0, len(visits[0].latents), rollout.chunk):
        rows = slice(first, first + rollout.chunk)
        visit(pipe, rollout, [v.rows(rows) for v in visits], lambda i, v: found[i].append(v), grad=False)
    return [torch.cat(parts) for parts in found]


def rescored(pipe: Any, rollout: Rollout) -> Rollout:
    """The same rollout with velocities and log-probabilities as a batch of this size finds them.

    For rows that were sampled in batches of another size, in a precision where that matters (bfloat16).
    """
    found = velocities(pipe, rollout, [step.visit() for step in rollout.transitions])
    transitions = tuple(
        replace(step, velocity=velocity, log_prob=step.noise.log_prob(step.x, velocity, step.x_next))
        for step, velocity in zip(rollout.transitions, found, strict=True)
    )
    return replace(rollout, transitions=transitions)


def full_precision(pipe: Any) -> bool:
    """Whether the denoisers compute in float32 (or better), here and now."""
    dtypes = {p.dtype for network in denoisers(pipe) for p in network.parameters()}
    return dtypes <= {torch.float32, torch.float64} and not torch.is_autocast_enabled(pipe._execution_device.type)


def denoisers(pipe: Any) -> list[torch.nn.Module]:
    """The networks that run in the pipeline's sampling loop, hence those that can be trained."""
    found = [getattr(pipe, name, None) for name in DENOISERS]
    return [network for network in found if isinstance(network, torch.nn.Module)]


@contextmanager
def without_adapters(*networks: torch.nn.Module) -> Iterator[None]:
    """The reference policy: the same weights with every adapter (LoRA) off, in one or several networks.

    Sets the flag that adapter layers read in forward, and nothing else. The public `disable_adapters()` also flips
    `requires_grad`, which under FSDP2 makes gradients wrong without a word.

    Raises:
        ConfigError: there is no adapter, or weights outside the adapters are trained as well; either way the policy
            with its adapters off is not where it started from.
    """
    layers = _adapter_layers(networks)
    before = {layer: layer._disable_adapters for layer in layers}
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer, disabled in before.items():
            layer._disable_adapters = disabled


def _adapter_layers(networks: Iterable[torch.nn.Module]) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    layers: list[Any] = []
    own: set[int] = set()
    for module in chain.from_iterable(network.modules() for network in networks):
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module.original_module
            layers.append(module)
            own |= {id(p) for p in module.parameters()} - {id(p) for p in base.parameters()}
    trained = chain.from_iterable(network.named_parameters() for network in networks)
    outside = [name for name, p in trained if p.requires_grad and id(p) not in own]
    if not own or outside:
        why = f"{outside[0]} is trained outside any adapter" if outside else "there is no adapter"
        raise ConfigError(f"switching the adapters off does not give the reference policy: {why}; set beta to 0")
    return layers


def _checked_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    reserved = {"generator", "latents", "num_images_per_prompt", "num_videos_per_prompt"} & call.keys()
    if reserved:
        raise ConfigError(
            f"{', '.join(sorted(reserved))}: set by the rollout itself; use seeds and start_seeds instead"
        )
    return call


def _checked_seeds(seeds: Sequence[int], start: Sequence[int] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    seeds = tuple(int(seed) for seed in seeds)
    start = seeds if start is None else tuple(int(seed) for seed in start)
    if not seeds:
        raise ConfigError("a rollout needs at least one seed")
    if len(start) != len(seeds):
        raise ConfigError(f"{len(start)} start_seeds for {len(seeds)} seeds")
    # A CPU generator reads the low 32 bits only: larger seeds would repeat others without a word.
    if bad := [seed for seed in chain(seeds, start) if not 0 <= seed < 2**32]:
        raise ConfigError(f"seeds must lie in 0..2**32 - 1, got {bad[0]}")
    return seeds, start


def _step_seed(seed: int) -> int:
    """A stream for the steps' noise that shares nothing with the stream of the initial latents."""
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4, person=b"step noise").digest(), "little")


def _joined(parts: Sequence[Rollout]) -> Rollout:
    transitions = [
        replace(
            steps[0],
            **{
                name: torch.cat([getattr(step, name) for step in steps])
                for name in ("x", "x_next", "velocity", "log_prob")
            },
        )
        for steps in zip(*(part.transitions for part in parts), strict=True)
    ]
    return replace(
        parts[0],
        seeds=tuple(chain.from_iterable(part.seeds for part in parts)),
        transitions=tuple(transitions),
        final=torch.cat([part.final for part in parts]),
        images=_joined_images([part.images for part in parts]),
    )


def _joined_images(images: Sequence[Any]) -> Any:
    if isinstance(images[0], Tensor):
        return torch.cat(list(images))
    if isinstance(images[0], np.ndarray):
        return np.concatenate(list(images))
    return list(chain.from_iterable(images))
