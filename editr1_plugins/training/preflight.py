"""Refuses, before training, a pipeline that does not replay exactly what it samples, and says why.

A tiny rollout is made and replayed as training would: whole, row by row, and step by step. Three things must hold: the
log-probabilities come out as they were while sampling, no encoder runs again, and the gradients of the rows, and of the
steps, add up to that of the whole. The sums catch what the ratio cannot see, such as a K/V cache filled in the first
step: there the ratio is 1, and the gradient through the cache is missing.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, Editr1Error, ReplayError
from .rollout import Rollout, denoisers, record, visit
from .schedulers import Transition
from .tape import DENOISERS

__all__ = ["PreflightReport", "preflight"]

#: Away from replay's own generator seed (0): coinciding draws would hide a condition that is drawn anew.
_FIRST_SEED = 1000


@dataclass(frozen=True)
class PreflightReport:
    """What a preflight saw of a pipeline that passed.

    Attributes:
        pipeline: its class name.
        rows, steps: the size of the rollout that was replayed.
        log_prob_error: largest difference of a log-probability in replay, of whole batches and single steps.
        row_error: the same for a row replayed alone (rounding differs with the batch's size).
        row_gap, step_gap: relative distance of the rows' (steps') summed gradients from that of the whole.
        encoder_calls: how often encoders ran while sampling; in replay they did not.
        taped_bytes: what is kept of their outputs.
        enters_at_once: False: each replay pass spends one denoiser iteration on getting onto the path.
        seconds: how long all this took.
    """

    pipeline: str
    rows: int
    steps: int
    log_prob_error: float
    row_error: float
    row_gap: float
    step_gap: float
    encoder_calls: int
    taped_bytes: int
    enters_at_once: bool
    seconds: float


def preflight(
    pipe: Any,
    call: Mapping[str, Any],
    trainable: Iterable[nn.Parameter],
    *,
    rows: int = 2,
    steps: int = 3,
    sampler: str = "flow_grpo",
    noise_level: float = 0.7,
    tolerance: float | None = None,
) -> PreflightReport:
    """Prove on a tiny rollout that training through `record` and `visit` will be exact.

    Args:
        pipe, call: as for `record`; `num_inference_steps` of the call is replaced unless it gives `sigmas`.
        trainable: the parameters to be trained. Their gradients are left as they were.
        rows: 1 skips the comparison of rows, for pipelines (or memories) that make one row a call.
        steps: how many steps to sample; all but the last are stochastic and replayed. State between steps shows from 3.
        tolerance: largest allowed difference of a log-probability; None: 1e-5 for float32 weights, 1e-4 (a usual clip
            range) below that. A row alone may differ by 2e-2 in lower precision, where a batch's size changes rounding.

    Raises:
        ReplayError: the pipeline, as it is configured, cannot be trained exactly; says what differed and why.
        ConfigError: an argument is wrong.
    """
    started, trainable = time.perf_counter(), list(trainable)
    if rows < 1 or steps < 3:
        raise ConfigError(
            f"a preflight needs at least 1 row and 3 steps (two of them replayed), got {rows} and {steps}"
        )
    _inspect(pipe, trainable)
    trial = _Trial(pipe, trainable, tolerance)
    with _gradients_kept(trainable):
        rollout = trial.record(*_shortened(pipe, call, steps), rows, sampler, noise_level)
        calls = rollout.tape.misses
        off, whole = trial.replay(rollout, rollout.transitions)
        trial.require(off, "replay", "something is drawn or computed differently")
        if rollout.tape.misses > calls:
            raise trial.refused(f"replay ran encoders again ({rollout.tape.misses - calls} calls)")
        if not whole.any():
            raise trial.refused("no gradient reaches the trainable parameters")
        step_off, step_gap = trial.step_by_step(rollout, whole)
        row_off, row_gap = trial.row_by_row(rollout, whole) if rows > 1 else (0.0, 0.0)
    return PreflightReport(
        pipeline=type(pipe).__name__,
        rows=rows,
        steps=steps,
        log_prob_error=max(off, step_off),
        row_error=row_off,
        row_gap=row_gap,
        step_gap=step_gap,
        encoder_calls=calls,
        taped_bytes=rollout.tape.kept_bytes,
        enters_at_once=rollout.entry is not None,
        seconds=time.perf_counter() - started,
    )


class _Trial:
    """One pipeline under test: its rollout, replays of parts of it, and the reasons to refuse it."""

    def __init__(self, pipe: Any, trainable: Sequence[nn.Parameter], tolerance: float | None) -> None:
        self.pipe, self.trainable = pipe, trainable
        dtypes = {p.dtype for network in denoisers(pipe) for p in network.parameters()}
        exact = dtypes <= {torch.float32, torch.float64} and not torch.is_autocast_enabled(pipe._execution_device.type)
        self.tolerance = (1e-5 if exact else 1e-4) if tolerance is None else tolerance
        self.row_tolerance = self.tolerance if exact else max(self.tolerance, 2e-2)
        self.gap = 1e-3 if exact else 0.1

    def record(self, call: Mapping[str, Any], window: range, rows: int, sampler: str, level: float) -> Rollout:
        seeds = range(_FIRST_SEED, _FIRST_SEED + rows)
        before = torch.get_rng_state()
        try:
            rollout = record(self.pipe, call, seeds=seeds, window=window, sampler=sampler, noise_level=level)
        except Editr1Error:
            raise
        except Exception as error:
            hint = "; with rows=1 (and one row per pipeline call in training) it may pass" if rows > 1 else ""
            raise self.refused(f"sampling {rows} rows fails{hint}", error) from error
        if not torch.equal(before, torch.get_rng_state()):
            raise self.refused("sampling draws from the global random generator, so replay cannot repeat it")
        if not torch.stack([step.log_prob for step in rollout.transitions]).isfinite().all():
            raise self.refused("sampling gives log-probabilities that are not finite: weights or input are broken")
        return rollout

    def replay(self, rollout: Rollout, steps: Sequence[Transition]) -> tuple[float, Tensor]:
        """The largest log-probability difference, and the gradient of minus the sum of all log-probabilities."""
        for parameter in self.trainable:
            parameter.grad = None
        off: list[float] = []

        def on_velocity(index: int, velocity: Tensor) -> None:
            step = steps[index]
            log_prob = step.noise.log_prob(step.x, velocity, step.x_next)
            off.append((log_prob.detach() - step.log_prob).abs().max().item())
            torch.autograd.backward(-log_prob.sum())

        try:
            visit(self.pipe, rollout, [step.visit() for step in steps], on_velocity)
        except Editr1Error as error:
            raise self.refused(str(error)) from error
        except Exception as error:
            raise self.refused("replay fails", error) from error
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.trainable]
        return max(off), torch.cat([grad.detach().double().flatten().cpu() for grad in grads])

    def step_by_step(self, rollout: Rollout, whole: Tensor) -> tuple[float, float]:
        parts = [self.replay(rollout, [step]) for step in rollout.transitions]
        off, gap = max(part for part, _ in parts), self._gap([grad for _, grad in parts], whole)
        self.require(off, "a step replayed alone", "what a step computes depends on the steps before it")
        if not gap <= self.gap:
            raise self.refused(f"gradients of the steps do not add up to the whole ({gap:.1e} apart): {_STATE}")
        return off, gap

    def row_by_row(self, rollout: Rollout, whole: Tensor) -> tuple[float, float]:
        rows = [slice(row, row + 1) for row in range(len(rollout))]
        parts = [self.replay(rollout, [step.rows(row) for step in rollout.transitions]) for row in rows]
        off, gap = max(part for part, _ in parts), self._gap([grad for _, grad in parts], whole)
        self.require(off, "a row replayed alone", "rows are not independent", tolerance=self.row_tolerance)
        if not gap <= self.gap:
            raise self.refused(f"gradients of the rows do not add up ({gap:.1e} apart): rows are not independent")
        return off, gap

    def require(self, off: float, what: str, why: str, *, tolerance: float | None = None) -> None:
        if not off <= (self.tolerance if tolerance is None else tolerance):
            raise self.refused(f"{what} finds other log-probabilities than sampling did (by {off:.1e}): {why}")

    def refused(self, what: str, error: Exception | None = None) -> ReplayError:
        """The error to raise: what differed, and what is known about the pipeline that explains it."""
        if error is not None and "backward through the graph a second time" in str(error):
            what, error = f"the graph of one step reaches into another: {_STATE}", None
        detail = "" if error is None else f": {type(error).__name__}: {error}"
        return ReplayError(f"{type(self.pipe).__name__} cannot be trained exactly: {what}{detail}")

    def _gap(self, parts: Sequence[Tensor], whole: Tensor) -> float:
        return float((torch.stack(list(parts)).sum(0) - whole).norm() / whole.norm())


_STATE = "the pipeline keeps state between steps (a K/V cache, for instance)"


def _shortened(pipe: Any, call: Mapping[str, Any], steps: int) -> tuple[dict[str, Any], range]:
    """The call with few steps, and the window: all of them but the last."""
    if call.get("sigmas") is not None:
        return dict(call), range(min(steps, len(call["sigmas"])) - 1)
    accepted = inspect.signature(type(pipe).__call__).parameters
    strength = call.get("strength", accepted["strength"].default if "strength" in accepted else 1.0)
    # Image-to-image pipelines make only this share of the steps.
    return {**call, "num_inference_steps": math.ceil(steps / (strength or 1.0))}, range(steps - 1)


def _inspect(pipe: Any, trainable: Sequence[nn.Parameter]) -> None:
    """What can be told without running anything."""
    networks = denoisers(pipe)
    # Offloading replaces parameters, so it comes first and alone.
    reasons = [reason for network in networks for reason in _offloading(network)]
    if not reasons:
        reasons = [*_wrong_parameters(pipe, networks, trainable)]
        reasons += [reason for network in networks for reason in (*_dropouts(network), *_caches(network))]
    if reasons:
        raise ReplayError(f"{type(pipe).__name__} cannot be trained exactly: {'; '.join(reasons)}")


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


@contextmanager
def _gradients_kept(trainable: Sequence[nn.Parameter]) -> Iterator[None]:
    before = [parameter.grad for parameter in trainable]
    try:
        yield
    finally:
        for parameter, grad in zip(trainable, before, strict=True):
            parameter.grad = grad
