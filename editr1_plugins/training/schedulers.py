"""The two schedulers that stand in for a pipeline's own while it is trained.

`RolloutScheduler` samples (Euler, or a stochastic sampler inside a window of steps) and keeps every stochastic step.
`VisitScheduler` walks the pipeline through given (timestep, latents) points and hands out the velocity found at each,
after the pipeline's own guidance arithmetic. Both are drop-in subclasses of `FlowMatchEulerDiscreteScheduler`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ..errors import ConfigError, ReplayError
from .sde import SAMPLERS, Sampler, StepNoise

__all__ = ["Arrived", "RolloutScheduler", "Transition", "Visit", "VisitScheduler"]


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


class RolloutScheduler(FlowMatchEulerDiscreteScheduler):
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
        new.generators, new.entered, new.made = list(generators), entered, 0
        new.transitions, new.first, new.final = [], None, None
        return new  # type: ignore[no-any-return]

    window: frozenset[int]
    sampler: Sampler
    level: float
    generators: list[torch.Generator]
    entered: Callable[[], None]
    made: int
    transitions: list[Transition]
    first: Tensor | None
    final: Tensor | None

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
        if self.step_index is None:
            self._init_step_index(timestep)
        stochastic = self.made in self.window
        if stochastic and per_token_timesteps is not None:
            raise ReplayError("the pipeline gives every token its own timestep; no stochastic sampler covers that")
        if stochastic:
            self.final = self._stochastic_step(model_output, timestep, sample)
        else:
            more = extra if per_token_timesteps is None else {**extra, "per_token_timesteps": per_token_timesteps}
            (self.final,) = super().step(model_output, timestep, sample, return_dict=False, **more)
        self.made += 1
        # A copy: some pipelines write into the latents, which must not change what was recorded.
        return _as_output(self.final.clone(), return_dict)

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


class VisitScheduler(FlowMatchEulerDiscreteScheduler):
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
    ) -> VisitScheduler:
        """A scheduler whose timesteps are those of `visits`.

        `on_path` False: the loop cannot be made to begin at the first visit, so its first iteration is spent on
        getting there. `entered()` is called in the loop's first iteration, before any velocity is handed out.
        """
        new = _schedule_of(scheduler, cls)
        new.visits, new.on_velocity, new.entered = list(visits), on_velocity, entered
        new.on_path, new.begun, new.done = on_path, False, 0
        return new  # type: ignore[no-any-return]

    visits: list[Visit]
    on_velocity: Callable[[int, Tensor], None]
    entered: Callable[[], None]
    on_path: bool
    begun: bool
    done: int

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

    def scale_noise(self, sample: Tensor, timestep: Any, noise: Tensor | None = None) -> Tensor:
        """The visited latents: inpainting blends what this returns into them, which must change nothing."""
        here = self.visits[min(self.done, len(self.visits) - 1)].latents
        return here.clone() if here.shape == sample.shape else sample

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
        _require_at(self.visits[self.done], timestep, sample)
        self.on_velocity(self.done, model_output)
        self.done += 1
        if self.done == len(self.visits):
            raise Arrived
        return _as_output(self.visits[self.done].latents.clone(), return_dict)


def _schedule_of(scheduler: Any, cls: Any) -> Any:
    plain = type(scheduler) in (FlowMatchEulerDiscreteScheduler, RolloutScheduler, VisitScheduler)
    if not plain:
        raise ReplayError(
            f"the pipeline's scheduler is a {type(scheduler).__name__}; only the Euler step of "
            "FlowMatchEulerDiscreteScheduler itself can be made stochastic and replayed. Where the model allows it, "
            "set pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)"
        )
    if scheduler.config.stochastic_sampling:
        raise ReplayError(
            "the scheduler has stochastic_sampling=True, which draws noise that nobody records; turn it off"
        )
    new = cls.from_config(scheduler.config)
    new.set_shift(scheduler.shift)
    return new


def _require_at(here: Visit, timestep: Tensor, sample: Tensor) -> None:
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
    if not gap <= rounding:
        raise ReplayError(f"the pipeline changed the latents between steps (by up to {gap:.1e}) in a way not recorded")


def _as_output(latents: Tensor, return_dict: bool) -> Any:
    return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=latents) if return_dict else (latents,)
