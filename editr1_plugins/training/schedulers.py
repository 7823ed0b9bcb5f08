"""The two schedulers that stand in for a pipeline's own while it is trained.

`RolloutScheduler` samples (Euler, or a stochastic sampler inside a window of steps) and keeps every stochastic step.
`VisitScheduler` walks the pipeline through given (timestep, latents) points and hands out the velocity found at each,
after the pipeline's own guidance arithmetic. Both are drop-in subclasses of `FlowMatchEulerDiscreteScheduler`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ..errors import ConfigError, ReplayError
from .sde import SAMPLERS, Sampler, StepNoise

__all__ = ["Arrived", "RolloutScheduler", "Transition", "Visit", "VisitScheduler"]


_COPIED = (
    "the pipeline copies its scheduler: it denoises several sets of latents at once (picture and sound, say), which "
    "have no single log-probability"
)


class Arrived(BaseException):  # not an Exception: no handler inside a pipeline may swallow it
    """The last visit is made; nothing that would follow (decoding, offloading) is wanted."""


@dataclass(frozen=True)
class Visit:
    """A point where the velocity is wanted.

    `timestep` is in the scheduler's units (sigma * 1000): a 0-d tensor, or (B,) with one per row. `latents` is
    (B, ...) in the layout that the scheduler sees.
    """

    timestep: Tensor
    latents: Tensor

    def rows(self, rows: slice) -> Visit:
        """The same point for some rows of the batch only."""
        return Visit(self.timestep[rows] if self.timestep.ndim else self.timestep, self.latents[rows])


@dataclass(frozen=True)
class Transition:
    """One stochastic step of a rollout, for every row of the batch.

    Attributes:
        index: which step of the rollout it was, from 0.
        timestep: 0-d, as the pipeline passed it.
        x, x_next: latents before and after, (B, ...); `x_next` as the pipeline got it, rounded to the model's dtype.
        velocity: what the sampling policy saw at `x`, after guidance.
        noise: the step's distribution.
        log_prob: of `x_next` under the sampling policy, (B,) float32.
    """

    index: int
    timestep: Tensor
    x: Tensor
    x_next: Tensor
    velocity: Tensor
    noise: StepNoise
    log_prob: Tensor

    def rows(self, rows: slice) -> Transition:
        """The same step for some rows of the batch only."""
        parts = {name: getattr(self, name)[rows] for name in ("x", "x_next", "velocity", "log_prob")}
        return replace(self, **parts)

    def visit(self) -> Visit:
        """The point where the velocity has to be found again."""
        return Visit(self.timestep, self.x)


class _ExchangedScheduler(FlowMatchEulerDiscreteScheduler):
    """What stands in the pipeline's place of its scheduler while a call runs."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise ReplayError(_COPIED)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample as it is; some pipelines ask every scheduler but the Euler class itself."""
        return sample


class RolloutScheduler(_ExchangedScheduler):
    """Euler outside `window`, a stochastic sampler inside; keeps the stochastic steps in `transitions`.

    Steps are counted as they are made, from 0 (an image-to-image pipeline enters its schedule late). `first` holds the
    latents that the loop began with, `final` those that it ended with.
    """

    @classmethod
    def like(
        cls,
        scheduler: Any,
        *,
        window: frozenset[int],
        sampler: str,
        level: float,
        generators: Sequence[torch.Generator],
        entered: Callable[[], None],
    ) -> RolloutScheduler:
        """A scheduler with the schedule of `scheduler`; `entered()` is called when the first step is made.

        Raises:
            ConfigError: an unknown sampler.
            ReplayError: the pipeline's scheduler is not a plain flow-matching Euler one.
        """
        if sampler not in SAMPLERS:
            raise ConfigError(f"unknown sampler {sampler!r}; one of: {', '.join(sorted(SAMPLERS))}")
        new = _schedule_of(scheduler, cls)
        new.window, new.sampler, new.level = window, SAMPLERS[sampler], level
        new.generators, new.entered, new.made, new.latest = list(generators), entered, 0, math.nan
        new.transitions, new.first, new.final = [], None, None
        return new  # type: ignore[no-any-return]

    window: frozenset[int]
    sampler: Sampler
    level: float
    generators: list[torch.Generator]
    entered: Callable[[], None]
    made: int
    latest: float
    transitions: list[Transition]
    first: Tensor | None
    final: Tensor | None

    def set_timesteps(  # spelled out, since pipelines inspect this signature for `sigmas` and `timesteps`
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        """The schedule that the pipeline asks for."""
        if self.made:
            raise ReplayError(
                f"the pipeline sets the timesteps anew after {self.made} steps: it denoises in several passes "
                "(sections, a second stage), which cannot be replayed as one"
            )
        super().set_timesteps(num_inference_steps, device, sigmas, mu, timesteps)
        if not (self.sigmas.min() >= 0 and self.sigmas.max() <= 1):
            raise ReplayError(
                f"noise levels reach from {self.sigmas.max():.3g} to {self.sigmas.min():.3g}: the model is no "
                "rectified flow (whose levels lie in 1..0), so no stochastic sampler here fits its steps"
            )

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        generator: Any = None,
        per_token_timesteps: Tensor | None = None,
        return_dict: bool = True,
        **extra: Any,
    ) -> Any:
        """One step of the pipeline's loop. `generator` is ignored: rows have their own, given at construction."""
        if self.made == 0:
            self.first = sample.detach().clone()
            self.entered()
        self._require_another_step(timestep)
        if self.step_index is None:
            self._init_step_index(timestep)
        stochastic = self.made in self.window
        if stochastic and per_token_timesteps is not None:
            raise ReplayError(
                "the pipeline gives every token its own timestep (frames that are given stay clean while others are "
                "denoised); no stochastic sampler covers that"
            )
        if stochastic:
            self.final = self._stochastic_step(model_output, timestep, sample)
        else:
            more = extra if per_token_timesteps is None else {**extra, "per_token_timesteps": per_token_timesteps}
            (self.final,) = super().step(model_output, timestep, sample, return_dict=False, **more)
        self.made += 1
        # A copy: some pipelines write into the latents, which must not change what was recorded.
        return _as_output(self.final.clone(), return_dict)

    def _require_another_step(self, timestep: Tensor) -> None:
        now = float(torch.as_tensor(timestep).flatten()[0])
        if self.made and now == self.latest:
            raise ReplayError(
                f"the pipeline makes two steps at timestep {now:g}: it denoises several sets of latents, or evaluates "
                "the model more than once per step; neither has one log-probability"
            )
        self.latest = now

    def _stochastic_step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
        noise = self._noise(self.step_index)
        if not noise.std > 0:
            raise ConfigError(f"step {self.made} adds no noise; leave it out of the window")
        if len(sample) != len(self.generators):
            raise ConfigError(
                f"the pipeline makes {len(sample)} rows for {len(self.generators)} seeds; one prompt a call"
            )
        x, velocity = sample.detach().clone(), model_output.detach().clone()
        draw = randn_tensor(x.shape, generator=self.generators, device=x.device, dtype=torch.float32)
        # Rounded to the storage dtype before its log-probability is taken, or the ratio would not be 1.
        x_next = noise.sample(x, velocity, draw).to(velocity.dtype)
        log_prob = noise.log_prob(x, velocity, x_next)
        self.transitions.append(Transition(self.made, timestep, x, x_next, velocity, noise, log_prob))
        self._step_index += 1
        return x_next

    def _noise(self, index: int) -> StepNoise:
        if not self.config.invert_sigmas:
            return self.sampler(self.sigmas, index, self.level)
        mirrored = self.sampler(1 - self.sigmas, index, self.level)  # time and velocity run the other way
        return replace(mirrored, on_v=-mirrored.on_v)


class VisitScheduler(_ExchangedScheduler):
    """Teacher forcing: the pipeline decides nothing, it only evaluates the velocity where it is told to."""

    @classmethod
    def like(
        cls,
        scheduler: Any,
        visits: Sequence[Visit],
        on_velocity: Callable[[int, Tensor], None],
        *,
        entered: Callable[[], None],
        on_path: bool,
        grad: bool = False,
    ) -> VisitScheduler:
        """A scheduler whose timesteps are those of `visits`.

        `on_path` False: the loop cannot be made to begin at the first visit, so its first iteration is spent on
        getting there. `entered()` is called in the loop's first iteration, before any velocity is handed out. `grad`
        switches gradients on before the loop, for a call within a call that has a `torch.no_grad` of its own.
        """
        new = _schedule_of(scheduler, cls)
        new.visits, new.on_velocity, new.entered = list(visits), on_velocity, entered
        new.on_path, new.begun, new.done, new.grad, new.reshaped = on_path, False, 0, grad, False
        return new  # type: ignore[no-any-return]

    visits: list[Visit]
    on_velocity: Callable[[int, Tensor], None]
    entered: Callable[[], None]
    on_path: bool
    begun: bool
    done: int
    grad: bool
    reshaped: bool

    def set_timesteps(  # spelled out, since pipelines inspect this signature for `sigmas` and `timesteps`
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        """Sets the visits' own timesteps, whatever the pipeline asks for."""
        wanted = torch.stack([visit.timestep for visit in self.visits]).to(device)
        self.timesteps = wanted if self.on_path else torch.cat([wanted[:1], wanted])
        levels = self.timesteps / self.config.num_train_timesteps
        self.sigmas = torch.cat([levels, torch.full_like(levels[:1], float(self.config.invert_sigmas))])
        self.num_inference_steps = len(self.timesteps)
        self._step_index = self._begin_index = None
        if self.grad:
            torch.set_grad_enabled(True)

    def scale_noise(self, sample: Tensor, timestep: Any, noise: Tensor | None = None) -> Tensor:
        """The visited latents: inpainting blends what this returns into them, which must change nothing."""
        here = self.visits[min(self.done, len(self.visits) - 1)].latents
        if here.shape == sample.shape:
            return here.clone()
        self.reshaped = self.reshaped or self.begun
        return sample

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True, **extra: Any
    ) -> Any:
        """Hands the velocity to `on_velocity` and leads the pipeline to the next visit.

        Raises:
            ReplayError: the pipeline is not where it was told to be.
            Arrived: after the last visit.
        """
        if not self.begun:
            self.begun = True
            self.entered()
        if not self.on_path:
            self.on_path = True
            return _as_output(self.visits[0].latents.clone(), return_dict)
        _require_at(self.visits[self.done], timestep, sample, blended=self.reshaped)
        self.on_velocity(self.done, model_output)
        self.done += 1
        if self.done == len(self.visits):
            raise Arrived
        return _as_output(self.visits[self.done].latents.clone(), return_dict)


def _schedule_of(scheduler: Any, cls: Any) -> Any:
    plain = type(scheduler) in (FlowMatchEulerDiscreteScheduler, RolloutScheduler, VisitScheduler)
    if not plain:
        raise ReplayError(f"the pipeline's scheduler is a {type(scheduler).__name__}: {_why_not(scheduler)}")
    if scheduler.config.stochastic_sampling:
        raise ReplayError(
            "the scheduler has stochastic_sampling=True, which draws noise that nobody records; turn it off"
        )
    new = cls.from_config(scheduler.config)
    new.set_shift(scheduler.shift)
    return new


def _why_not(scheduler: Any) -> str:
    """Why its steps are no Euler steps of a flow, and what to put in its place where the model is one."""
    config = getattr(scheduler, "config", {})
    flow = "FlowMatch" in type(scheduler).__name__ or isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    by_option = config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas")
    if not (flow or by_option):
        kind = config.get("prediction_type")
        return f"it is made for another kind of model (prediction_type={kind!r}), not for flow matching"
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        reason = "a subclass of FlowMatchEulerDiscreteScheduler may step in another way"
    elif isinstance(scheduler, FlowMatchHeunDiscreteScheduler):
        reason = "it evaluates the model twice per step, so a step has no single velocity"
    elif isinstance(scheduler, FlowMatchLCMScheduler):
        reason = "it draws new noise in every step, which nobody records"
    elif config.get("solver_order", 1) > 1:
        reason = f"a multistep solver of order {config['solver_order']}: a step depends on the velocities before it"
    else:
        reason = "its step is not known to be an Euler step"
    shift = config.get("flow_shift") or config.get("shift") or 1.0
    return (
        f"{reason}. Only the Euler step of FlowMatchEulerDiscreteScheduler itself can be made stochastic and replayed. "
        "Where the model is a rectified flow, sample with that instead (its steps may lie at other noise levels): "
        f"pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift={shift:g})"
    )


def _require_at(here: Visit, timestep: Tensor, sample: Tensor, *, blended: bool) -> None:
    if sample.shape != here.latents.shape:
        raise ReplayError(
            f"the pipeline left the recorded path: latents {tuple(sample.shape)} where {tuple(here.latents.shape)} "
            "were recorded"
        )
    if not torch.equal(torch.as_tensor(timestep, device=here.timestep.device), here.timestep):
        raise ReplayError(f"the pipeline left the recorded path: it is at timestep {timestep}, not {here.timestep}")
    gap = (sample.detach().float() - here.latents.float()).abs().max().item()
    # What a pipeline blends back in may be rounded once more; other noise is larger by orders of magnitude.
    rounding = 8 * torch.finfo(here.latents.dtype).eps * max(1.0, here.latents.abs().max().item())
    if gap <= rounding:
        return
    cause = (
        "it blends the noised source into them after the step, in another layout than theirs"
        if blended
        else "noise blended in after the step, or a callback that writes into them"
    )
    raise ReplayError(f"the pipeline changed the latents between steps (by up to {gap:.1e}): {cause}")


def _as_output(latents: Tensor, return_dict: bool) -> Any:
    return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=latents) if return_dict else (latents,)
