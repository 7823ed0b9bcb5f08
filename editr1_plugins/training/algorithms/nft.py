"""DiffusionNFT (arXiv 2509.16117): RL on the forward process, from clean edits alone, without likelihoods.

    r    = clip(A, -c, c) / (2 c) + 1/2
    v+   = b v + (1 - b) v_old          v- = (1 + b) v_old - b v
    L+-  = mean((x_t - t v+- - x_0)^2) / mean|x_t - t v+- - x_0|   (the divisor without gradient)
    loss = c / b (r L+ + (1 - r) L-) + beta mean((v - v_ref)^2)

x_t = (1 - t) x_0 + t noise are the rollout's own results noised again at a random t per row, so rollouts may use the
plain ODE and few steps. v_old is the velocity of the policy that sampled, asked for once per rollout. Left out: the
slowly moving sampling policy of the paper's longer runs (here it is the live one).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ...errors import ConfigError, ReplayError
from ..schedulers import Visit
from . import PointLoss

if TYPE_CHECKING:
    from ..rollout import Rollout

__all__ = ["DiffusionNFT", "NFTPoint"]

_TIMES = (0.01, 0.99)  # where t is drawn; at the ends one of the two parts of x_t is missing
_LEAST_WEIGHT = 1e-5


@dataclass(frozen=True)
class NFTPoint:
    """A noised result. Per row: `time` t in 0..1, (B,); `latents` x_t, `clean` x_0, `old` v_old, all (B, ...)."""

    timestep: Tensor
    time: Tensor
    latents: Tensor
    clean: Tensor
    old: Tensor
    reference: Tensor | None = None

    def rows(self, rows: slice) -> NFTPoint:
        names = ("timestep", "time", "latents", "clean", "old")
        reference = None if self.reference is None else self.reference[rows]
        return replace(self, **{name: getattr(self, name)[rows] for name in names}, reference=reference)

    def visit(self) -> Visit:
        return Visit(self.timestep, self.latents)


@dataclass(frozen=True)
class DiffusionNFT:
    """The DiffusionNFT objective.

    Args:
        mix: b, how far v+ and v- lie from the sampling policy's velocity.
        times: noised points per edit.
        advantage_clip: c, the advantage that counts as certainly good.
        beta: weight of the squared distance to the reference policy's velocity; 0 spares its passes.

    Metrics: `kl` is mean((v - v_ref)^2), when beta > 0; `drift` the mean((v - v_old)^2), 0 on the first pass.

    Raises:
        ConfigError: a setting out of its range.
    """

    mix: float = 1.0
    times: int = 4
    advantage_clip: float = 5.0
    beta: float = 0.0

    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("mix", "times", "advantage_clip"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(f"{name} must be a number > 0, got {getattr(self, name)}")
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise ConfigError(f"beta must be a number >= 0, got {self.beta}")

    def configured(self, config: Any) -> DiffusionNFT:
        """The same objective with an `EditGRPOConfig`'s advantage clip and weight of the reference policy."""
        return replace(self, advantage_clip=config.advantage_clip, beta=config.beta)

    def prepare(self, pipe: Any, rollout: Rollout, *, seed: int = 0) -> Sequence[NFTPoint]:
        """Noised points of the rollout's results, with the sampling policy's velocities there."""
        from ..rollout import velocities

        if pipe.scheduler.config.get("invert_sigmas", False):
            raise ReplayError(f"{type(pipe).__name__} runs its noise levels backwards, which nft does not cover")
        drawn = [self._draw(rollout, seed, number) for number in range(self.times)]
        scale = pipe.scheduler.config.num_train_timesteps
        visits = [Visit(time * scale, noised) for time, noised in drawn]
        old = velocities(pipe, rollout, visits)
        return [
            NFTPoint(visit.timestep, time, noised, rollout.final, before)
            for visit, (time, noised), before in zip(visits, drawn, old, strict=True)
        ]

    @property
    def needs_reference(self) -> bool:
        """True with a pull to the reference policy (beta > 0)."""
        return self.beta > 0

    def refer(self, pipe: Any, rollout: Rollout, points: Sequence[NFTPoint]) -> Sequence[NFTPoint]:
        """The same points with the reference policy's velocities."""
        from ..rollout import velocities

        found = velocities(pipe, rollout, [point.visit() for point in points])
        return [replace(point, reference=reference) for point, reference in zip(points, found, strict=True)]

    def loss(self, point: NFTPoint, velocity: Tensor, advantages: Tensor) -> PointLoss:
        """The contrast of reconstruction errors, per row."""
        v, old, clip = velocity.float(), point.old.float(), self.advantage_clip
        quality = advantages.clamp(-clip, clip) / (2 * clip) + 0.5
        better = self._error(point, old + self.mix * (v - old))
        worse = self._error(point, old - self.mix * (v - old))
        loss = clip / self.mix * (quality * better + (1 - quality) * worse)
        means = {"drift": (v.detach() - old).square().flatten(1).mean(1)}
        if self.beta:
            if point.reference is None:
                raise ConfigError("beta > 0 needs the reference policy's velocities: pass the points through refer()")
            distance = (v - point.reference.float()).square().flatten(1).mean(1)
            means["kl"], loss = distance, loss + self.beta * distance
        return PointLoss(loss, means)

    def idle(self, advantages: Tensor) -> bool:
        """Never: at advantage 0 both halves still pull, towards a smaller error and away from it."""
        return False

    def _error(self, point: NFTPoint, velocity: Tensor) -> Tensor:
        time = point.time.view(-1, *[1] * (velocity.ndim - 1))
        gap = point.latents.float() - time * velocity - point.clean.float()
        weight = gap.detach().abs().flatten(1).mean(1).clamp(min=_LEAST_WEIGHT)
        return gap.square().flatten(1).mean(1) / weight

    def _draw(self, rollout: Rollout, seed: int, number: int) -> tuple[Tensor, Tensor]:
        """t, (B,), and x_t; a row's draw depends on its own seed only."""
        clean, times, noise = rollout.final, [], []
        for row in range(len(clean)):
            generator = torch.Generator(clean.device).manual_seed(_stream(seed, rollout.seeds[row], number))
            times.append(torch.empty((), device=clean.device).uniform_(*_TIMES, generator=generator))
            noise.append(torch.randn(clean[row].shape, generator=generator, device=clean.device))
        time, eps = torch.stack(times), torch.stack(noise)
        at = time.view(-1, *[1] * (clean.ndim - 1))
        return time, ((1 - at) * clean.float() + at * eps).to(clean.dtype)


def _stream(*parts: int) -> int:
    from ..generation import derived_seed

    return derived_seed("nft", *parts)
