"""Refuses, before training, a pipeline that does not replay exactly what it samples, and says why.

A tiny rollout is made and replayed as training would: whole, row by row, and step by step. Three things must hold: the
log-probabilities come out as they were while sampling, no encoder runs again, and the gradients of the rows, and of the
steps, add up to that of the whole. The sums catch what the ratio cannot see, such as a K/V cache filled in the first
step: there the ratio is 1, and the gradient through the cache is missing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, Editr1Error, ReplayError
from .denoiser_inputs import DenoiserInputs, differing
from .inspection import reasons_to_refuse
from .pipelines import accepted_arguments
from .rollout import Rollout, denoisers, full_precision, record, visit
from .schedulers import Transition

__all__ = ["PreflightReport", "preflight", "require_ratio_of_one"]

#: Away from replay's own generator seed (0): coinciding draws would hide a condition that is drawn anew.
_FIRST_SEED = 1000


@dataclass(frozen=True)
class PreflightReport:
    """What a preflight saw of a pipeline that passed; `as_dict()` for machines, `str()` for people.

    Attributes:
        pipeline: its class name.
        rows, steps: the size of the rollout that was made.
        replayed: which of its steps were replayed with gradients.
        rows_per_call: 1: the pipeline makes no more rows a call, so edits are sampled and replayed one by one.
        log_prob_error: largest difference of a log-probability in replay, of whole batches and single steps.
        row_error: the same for a row replayed alone (rounding differs with the batch's size).
        row_gap, step_gap: relative distance of the rows' (steps') summed gradients from that of the whole.
        unused: trainable parameters that the denoiser itself does not use (in a last block, say), so stay as they are.
        encoder_calls: how often encoders ran while sampling; in replay they did not.
        taped_bytes: what is kept of their outputs.
        enters_at_once: False: each replay pass spends one denoiser iteration on getting onto the path.
        seconds: how long all this took.
    """

    pipeline: str
    rows: int
    steps: int
    replayed: tuple[int, ...]
    rows_per_call: int | None
    log_prob_error: float
    row_error: float
    row_gap: float
    step_gap: float
    unused: tuple[str, ...]
    encoder_calls: int
    taped_bytes: int
    enters_at_once: bool
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Every attribute, JSON-ready, and `passed`: True."""
        return {"passed": True, **asdict(self), "replayed": list(self.replayed), "unused": list(self.unused)}

    def __str__(self) -> str:
        lines = [
            f"{self.pipeline} replays exactly ({self.rows} rows, {self.steps} steps, {self.seconds:.1f} s)",
            f"  log-probabilities differ by at most {self.log_prob_error:.1e} (a row alone: {self.row_error:.1e})",
            f"  gradients add up: steps within {self.step_gap:.1e}, rows within {self.row_gap:.1e}",
            f"  encoders ran {self.encoder_calls} times in sampling, never in replay; {self.taped_bytes} bytes kept",
        ]
        if self.rows_per_call is not None:
            lines.append(f"  it makes {self.rows_per_call} row a call: edits are sampled and replayed one by one")
        if not self.enters_at_once:
            lines.append("  each replay pass spends one denoiser iteration on getting onto the path")
        if self.unused:
            lines.append(f"  not used by the denoiser, so not trained: {', '.join(self.unused)}")
        return "\n".join(lines)


def preflight(
    pipe: Any,
    call: Mapping[str, Any],
    trainable: Iterable[nn.Parameter],
    *,
    rows: int = 2,
    steps: int = 3,
    window: Iterable[int] | None = None,
    sampler: str = "flow_grpo",
    noise_level: float = 0.7,
    tolerance: float | None = None,
) -> PreflightReport:
    """Prove on a tiny rollout that training through `record` and `visit` will be exact.

    Args:
        pipe, call: as for `record`; without a `window`, `num_inference_steps` is replaced unless `sigmas` are given.
        trainable: the parameters to be trained. Their gradients are left as they were.
        rows: 1 skips the comparison of rows, for pipelines (or memories) that make one row a call.
        steps: how many steps to sample; all but the last are stochastic and replayed. State between steps shows from 3.
        window: the steps that training may make stochastic, at the call's own number of steps: each is replayed without
            gradients, out of its place, three of them with gradients. Finds what holds for a part of the steps only.
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
    if reasons := reasons_to_refuse(pipe, trainable):
        raise ReplayError(f"{type(pipe).__name__} cannot be trained exactly: {'; '.join(reasons)}")
    trial = _Trial(pipe, trainable, tolerance, sampler, noise_level)
    call, wanted = _shortened(pipe, call, steps) if window is None else (dict(call), tuple(window))
    with _gradients_kept(trainable):
        report = trial.run(call, wanted, rows)
    return replace(report, seconds=time.perf_counter() - started)


def require_ratio_of_one(error: float) -> None:
    """Stop a run whose first replay of a rollout, at unchanged weights, gives ratios that are off by more than 1e-2.

    Raises:
        ReplayError: they are; what is trained would not be what was sampled.
    """
    if not error <= _LARGEST_RATIO_ERROR:
        raise ReplayError(
            f"the first replay of a rollout gives a ratio that is off by {error:.1e} at unchanged weights: the "
            "pipeline does not replay what it sampled for this row, though the preflight passed on the first one"
        )


def _spread(steps: Sequence[Transition]) -> list[Transition]:
    """The first, the middle and the last."""
    return [steps[index] for index in sorted({0, len(steps) // 2, len(steps) - 1})]


#: What rounding makes stays far below this; what is silently wrong lies far above.
_LARGEST_RATIO_ERROR = 1e-2


class _Trial:
    """One pipeline under test: its rollout, replays of parts of it, and the reasons to refuse it."""

    def __init__(
        self, pipe: Any, trainable: Sequence[nn.Parameter], tolerance: float | None, sampler: str, level: float
    ) -> None:
        self.pipe, self.trainable, self.sampler, self.level = pipe, trainable, sampler, level
        exact = full_precision(pipe)
        self.tolerance = (1e-5 if exact else 1e-4) if tolerance is None else tolerance
        self.row_tolerance = self.tolerance if exact else max(self.tolerance, 2e-2)
        self.gap = 1e-3 if exact else 0.1
        self.reached: list[bool] = []
        self.inputs = DenoiserInputs(pipe)

    def run(self, call: Mapping[str, Any], window: Iterable[int], rows: int) -> PreflightReport:
        """Sample, replay, compare; `seconds` is left to the caller."""
        rollout = self.record(call, window, rows)
        alone, rows = len(rollout) < rows, len(rollout)
        calls = rollout.tape.misses
        chosen = _spread(rollout.transitions)
        off, whole = self.replay(rollout, chosen)
        self.require(off, rollout, chosen, "replay")
        self.require_no_encoder_ran(rollout, calls)
        unused = self.unused(rollout, chosen)
        if not whole.any():
            raise self.refused("no gradient reaches the trainable parameters")
        step_off, step_gap = self.step_by_step(rollout, chosen, whole)
        self.out_of_place(rollout)
        # Before the rows: some pipelines repeat the source to the number of rows first, so encode anew for each.
        self.require_no_encoder_ran(rollout, calls)
        row_off, row_gap = self.row_by_row(rollout, chosen, whole) if rows > 1 else (0.0, 0.0)
        return PreflightReport(
            pipeline=type(self.pipe).__name__,
            rows=rows,
            steps=rollout.made,
            replayed=tuple(step.index for step in chosen),
            rows_per_call=1 if alone else None,
            log_prob_error=max(off, step_off),
            row_error=row_off,
            row_gap=row_gap,
            step_gap=step_gap,
            unused=unused,
            encoder_calls=calls,
            taped_bytes=rollout.tape.kept_bytes,
            enters_at_once=rollout.entry is not None,
        )

    def record(self, call: Mapping[str, Any], window: Iterable[int], rows: int) -> Rollout:
        """A rollout of `rows` rows, or of one where the pipeline fails to make several."""
        before = torch.get_rng_state()
        try:
            rollout = self._record(call, window, rows)
        except Editr1Error:
            raise
        except Exception as error:
            if rows == 1:
                raise self.refused("sampling 1 row fails", error) from error
            try:
                rollout = self._record(call, window, 1)
            except Exception as also:
                raise self.refused(f"sampling {rows} rows fails, and so does 1 row", also) from error
        if not torch.equal(before, torch.get_rng_state()):
            raise self.refused("sampling draws from the global random generator, so replay cannot repeat it")
        if not torch.stack([step.log_prob for step in rollout.transitions]).isfinite().all():
            raise self.refused("sampling gives log-probabilities that are not finite: weights or input are broken")
        return rollout

    def _record(self, call: Mapping[str, Any], window: Iterable[int], rows: int, **options: Any) -> Rollout:
        seeds = range(_FIRST_SEED, _FIRST_SEED + rows)
        return record(
            self.pipe, call, seeds=seeds, window=window, sampler=self.sampler, noise_level=self.level, **options
        )

    def replay(self, rollout: Rollout, steps: Sequence[Transition], *, grad: bool = True) -> tuple[float, Tensor]:
        """The largest log-probability difference, and the gradient of minus the sum of all log-probabilities."""
        for parameter in self.trainable:
            parameter.grad = None
        off: list[float] = []

        def on_velocity(index: int, velocity: Tensor) -> None:
            step = steps[index]
            log_prob = step.noise.log_prob(step.x, velocity, step.x_next)
            off.append((log_prob.detach() - step.log_prob).abs().max().item())
            if grad:
                torch.autograd.backward(-log_prob.sum())

        try:
            visit(self.pipe, rollout, [step.visit() for step in steps], on_velocity, grad=grad)
        except Editr1Error as error:
            raise self.refused(str(error)) from error
        except Exception as error:
            raise self.refused("replay fails", error) from error
        self.reached = [p.grad is not None for p in self.trainable]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.trainable]
        return max(off), torch.cat([grad.detach().double().flatten().cpu() for grad in grads])

    def unused(self, rollout: Rollout, steps: Sequence[Transition]) -> tuple[str, ...]:
        """Names of the parameters that no gradient reaches since the denoiser itself does not use them.

        Raises:
            ReplayError: the denoiser uses one of them, so its gradient got lost on the way.
        """
        missing = [p for p, reached in zip(self.trainable, self.reached, strict=True) if not reached]
        if not missing:
            return ()
        with self.inputs.kept():
            self.replay(rollout, steps[:1], grad=False)
        names = {id(p): name for network in denoisers(self.pipe) for name, p in network.named_parameters()}
        used = self.inputs.parameters_used(missing)
        lost = [names[id(p)] for p in missing if id(p) in used]
        if lost:
            raise self.refused(
                f"no gradient reaches {lost[0]} (and {len(lost) - 1} more parameters to be trained), though the "
                "denoiser uses it: the pipeline cuts it off, or does not run that network in the trained steps"
            )
        return tuple(names[id(p)] for p in missing)

    def step_by_step(self, rollout: Rollout, steps: Sequence[Transition], whole: Tensor) -> tuple[float, float]:
        parts = [self.replay(rollout, [step]) for step in steps]
        off, gap = max(part for part, _ in parts), self._gap([grad for _, grad in parts], whole)
        if not off <= self.tolerance:
            raise self.refused(f"{_differs('a step replayed alone', off)}: {_PLACE}")
        if not gap <= self.gap:
            raise self.refused(f"gradients of the steps do not add up to the whole ({gap:.1e} apart): {_STATE}")
        return off, gap

    def out_of_place(self, rollout: Rollout) -> None:
        """Every step of the window, each at another place of the loop than it was made."""
        steps = rollout.transitions[1:] + rollout.transitions[:1]
        off, _ = self.replay(rollout, steps, grad=False)
        if not off <= self.tolerance:
            raise self.refused(f"{_differs('a step replayed at another place of the loop', off)}: {_PLACE}")

    def row_by_row(self, rollout: Rollout, steps: Sequence[Transition], whole: Tensor) -> tuple[float, float]:
        rows = [slice(row, row + 1) for row in range(len(rollout))]
        parts = [self.replay(rollout, [step.rows(row) for step in steps]) for row in rows]
        off, gap = max(part for part, _ in parts), self._gap([grad for _, grad in parts], whole)
        if not off <= self.row_tolerance:
            raise self.refused(f"{_differs('a row replayed alone', off)}: rows are not independent")
        if not gap <= self.gap:
            raise self.refused(f"gradients of the rows do not add up ({gap:.1e} apart): rows are not independent")
        return off, gap

    def require(self, off: float, rollout: Rollout, steps: Sequence[Transition], what: str) -> None:
        if not off <= self.tolerance:
            raise self.refused(f"{_differs(what, off)}: {self._cause(rollout, steps)}")

    def require_no_encoder_ran(self, rollout: Rollout, calls: int) -> None:
        if again := rollout.tape.missed_since(calls):
            raise self.refused(
                f"replay ran encoders again ({', '.join(dict.fromkeys(again))}): their input is made anew"
            )

    def _cause(self, rollout: Rollout, steps: Sequence[Transition]) -> str:
        """Why replay finds something else than sampling did, by looking at what the denoiser is given."""
        window = [step.index for step in rollout.transitions]
        with self.inputs.kept() as sampled:
            again = self._record(rollout.call, window, len(rollout), tape=rollout.tape)
        gap = max((a.x - b.x).abs().max().item() for a, b in zip(again.transitions, rollout.transitions, strict=True))
        if gap > 1e-6:
            return f"sampling twice with the same seeds gives two results ({gap:.1e} apart): {_DRAWN}"
        if len(steps) < len(rollout.transitions) and self.replay(rollout, rollout.transitions, grad=False)[0] <= (
            self.tolerance
        ):
            return _PLACE
        with self.inputs.kept() as replayed:
            self.replay(rollout, steps, grad=False)
        per_step = len(sampled) // rollout.made
        skipped = 0 if rollout.entry is not None else per_step
        if per_step * len(steps) + skipped != len(replayed):
            return f"the denoiser runs {len(replayed)} times in replay for {len(steps)} steps; {_PLACE}"
        pairs = [
            (sampled[step.index * per_step + call], replayed[skipped + place * per_step + call])
            for place, step in enumerate(steps)
            for call in range(per_step)
        ]
        if names := sorted({name for one, other in pairs for name in differing(one, other)}):
            return f"the denoiser is given another {', '.join(names)}: {_DRAWN}"
        return (
            "the denoiser is given the same and returns something else: it draws random numbers or keeps state itself"
        )

    def refused(self, what: str, error: Exception | None = None) -> ReplayError:
        """The error to raise: what differed, and what is known about the pipeline that explains it."""
        if error is not None and "backward through the graph a second time" in str(error):
            what, error = f"the graph of one step reaches into another: {_STATE}", None
        if error is not None and "does not require grad" in str(error):
            what, error = "the velocity comes out without a gradient: the pipeline detaches it", None
        detail = "" if error is None else f": {type(error).__name__}: {error}"
        return ReplayError(f"{type(self.pipe).__name__} cannot be trained exactly: {what}{detail}")

    def _gap(self, parts: Sequence[Tensor], whole: Tensor) -> float:
        return float((torch.stack(list(parts)).sum(0) - whole).norm() / whole.norm())


def _differs(what: str, off: float) -> str:
    return f"{what} finds other log-probabilities than sampling did (by {off:.1e})"


_STATE = "the pipeline keeps state between steps (a K/V cache, for instance)"
_PLACE = (
    "what a step computes depends on the steps before it or on its place in the loop (a cache, or guidance that "
    "holds for a part of the steps)"
)
_DRAWN = (
    "it is drawn anew in each call (a sampled VAE posterior, augmentation, noise blended in), or changed by a callback"
)


def _shortened(pipe: Any, call: Mapping[str, Any], steps: int) -> tuple[dict[str, Any], Sequence[int]]:
    """The call with few steps, and the window: all of them but the last."""
    if call.get("sigmas") is not None:
        return dict(call), range(min(steps, len(call["sigmas"])) - 1)
    accepted = accepted_arguments(pipe)
    strength = call.get("strength", accepted.get("strength", 1.0))
    # Image-to-image pipelines make only this share of the steps.
    return {**call, "num_inference_steps": math.ceil(steps / (strength or 1.0))}, range(steps - 1)


@contextmanager
def _gradients_kept(trainable: Sequence[nn.Parameter]) -> Iterator[None]:
    before = [parameter.grad for parameter in trainable]
    try:
        yield
    finally:
        for parameter, grad in zip(trainable, before, strict=True):
            parameter.grad = grad
