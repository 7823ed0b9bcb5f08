"""Flow-GRPO (arXiv 2505.05470): PPO's clipped objective on the stochastic steps of a flow-matching sampler.

    J = E[ min(rho A, clip(rho, 1 - epsilon, 1 + epsilon_high) A) ] - beta KL(pi || pi_ref)

rho is the ratio of the step's density under the weights now and while sampling (log-densities are means over
dimensions, so epsilon is about 1e-4). The KL is the exact one of the two Gaussians, step by step; pi_ref is the policy
that the run started from. Left out on purpose: the entropy bonus and a learned value, which no flow recipe uses.

`ratio="guard"` is GRPO-Guard's (arXiv 2510.22319) normalised ratio exp((log rho + mean(dmu^2) / (2 std^2)) std): it has
mean 1 and the same scale at every step, where plain ratios of late steps spread an order of magnitude wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from ...errors import ConfigError
from . import PointLoss

if TYPE_CHECKING:
    from ..rollout import Rollout
    from ..schedulers import Transition, Visit

__all__ = ["FlowGRPO", "GRPOPoint"]


@dataclass(frozen=True)
class GRPOPoint:
    """A stochastic step of the rollout, and the reference policy's velocity there, (B, ...), when it is asked for."""

    transition: Transition
    reference: Tensor | None = None

    def rows(self, rows: slice) -> GRPOPoint:
        reference = None if self.reference is None else self.reference[rows]
        return replace(self, transition=self.transition.rows(rows), reference=reference)

    def visit(self) -> Visit:
        return self.transition.visit()


@dataclass(frozen=True)
class FlowGRPO:
    """The Flow-GRPO objective.

    Args:
        epsilon: lower clip range (and upper, if `epsilon_high` is None).
        epsilon_high: upper clip range.
        beta: weight of the KL to the reference policy; 0 spares the reference's forward passes.
        ratio: "plain" or "guard" (see the module).

    Metrics: `ratio_error` is max |rho - 1| (0 up to rounding on the first pass over a rollout), `clip_fraction` the
    share of (row, step) pairs whose gradient the clip cuts off, `kl` the mean KL to the reference.

    Raises:
        ConfigError: a clip range or beta is negative or not a number, or the ratio is unknown.
    """

    epsilon: float = 1e-4
    epsilon_high: float | None = None
    beta: float = 0.0
    ratio: Literal["plain", "guard"] = "plain"

    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settings = {"epsilon": self.epsilon, "epsilon_high": self.epsilon_high, "beta": self.beta}
        for name, value in settings.items():
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"{name} must be a number >= 0, got {value}")
        if self.ratio not in ("plain", "guard"):
            raise ConfigError(f"ratio must be 'plain' or 'guard', got {self.ratio!r}")

    def configured(self, config: Any) -> FlowGRPO:
        """The same objective with an `EditGRPOConfig`'s clip range, kind of ratio and KL weight."""
        names = ("epsilon", "epsilon_high", "ratio", "beta")
        return replace(self, **{name: getattr(config, name) for name in names})

    def prepare(self, pipe: Any, rollout: Rollout, *, seed: int = 0) -> Sequence[GRPOPoint]:
        """The rollout's stochastic steps."""
        return [GRPOPoint(transition) for transition in rollout.transitions]

    @property
    def needs_reference(self) -> bool:
        """True with a KL (beta > 0)."""
        return self.beta > 0

    def refer(self, pipe: Any, rollout: Rollout, points: Sequence[GRPOPoint]) -> Sequence[GRPOPoint]:
        """The same steps with the reference's velocities (once for all passes)."""
        from ..rollout import velocities

        found = velocities(pipe, rollout, [point.visit() for point in points])
        return [replace(point, reference=reference) for point, reference in zip(points, found, strict=True)]

    def loss(self, point: GRPOPoint, velocity: Tensor, advantages: Tensor) -> PointLoss:
        """Clipped policy loss plus beta times the KL, per row.

        Raises:
            ConfigError: there is a KL, but the point did not go through `refer`.
        """
        step = point.transition
        log_ratio = step.noise.log_prob(step.x, velocity, step.x_next) - step.log_prob
        ratio = self._ratio(log_ratio, step, velocity)
        upper = self.epsilon if self.epsilon_high is None else self.epsilon_high
        clipped = ratio.clamp(1 - self.epsilon, 1 + upper)
        loss = -torch.minimum(ratio * advantages, clipped * advantages)
        cut = ((ratio < 1 - self.epsilon) & (advantages < 0)) | ((ratio > 1 + upper) & (advantages > 0))
        means = {"clip_fraction": cut.float()}
        if self.beta:
            if point.reference is None:
                raise ConfigError("beta > 0 needs the reference policy's velocities: pass the points through refer()")
            kl = step.noise.kl(velocity, point.reference)
            means["kl"], loss = kl, loss + self.beta * kl
        return PointLoss(loss, means, maxima={"ratio_error": (log_ratio.detach().exp() - 1).abs()})

    def idle(self, advantages: Tensor) -> bool:
        """Without a KL, rows of advantage 0 have no gradient."""
        return not self.beta and not bool(advantages.any())

    def _ratio(self, log_ratio: Tensor, step: Transition, velocity: Tensor) -> Tensor:
        if self.ratio == "plain":
            return log_ratio.exp()
        # mean(dmu^2) / (2 std^2) is the KL between the step's two policies.
        return ((log_ratio + step.noise.kl(velocity, step.velocity)) * step.noise.std).exp()
