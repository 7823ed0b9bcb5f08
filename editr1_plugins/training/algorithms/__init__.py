"""Objectives for flow-matching RL: one file per algorithm, each with its paper.

An objective says at which points the velocity is wanted (`prepare`) and what the loss is there (`loss`); `accumulate`
walks the pipeline through the points and calls backward at each, so one step's graph is alive at a time. That is all
the trainer knows of an algorithm:

    points = objective.prepare(pipe, rollout, seed=7)                      # once per rollout, before the first update
    if objective.needs_reference:                                          # a KL, for instance
        with without_adapters(*denoisers(pipe)):                           # or another way to the reference policy
            points = objective.refer(pipe, rollout, points)
    metrics = accumulate(objective, pipe, rollout, points, advantages, rows=slice(0, 4), scale=1 / accumulation)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from ...errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from ..rollout import Rollout
    from ..schedulers import Visit

__all__ = ["Objective", "Point", "PointLoss", "accumulate"]


class Point(Protocol):
    """Where the velocity is wanted, with whatever the objective's loss needs there. Frozen; tensors are (B, ...)."""

    def rows(self, rows: slice) -> Any:
        """The same point for some rows only."""

    def visit(self) -> Visit: ...


@dataclass(frozen=True)
class PointLoss:
    """The loss of each row at one point, (B,), with grad; and what to report of it, (B,) tensors by name.

    `means` are averaged over rows and points, `maxima` give the largest value.
    """

    loss: Tensor
    means: Mapping[str, Tensor] = field(default_factory=dict)
    maxima: Mapping[str, Tensor] = field(default_factory=dict)


P = TypeVar("P", bound=Point)


class Objective(Protocol[P]):
    """An RL objective. `stochastic` True: rollouts need a window of stochastic steps; False: plain ODE rollouts."""

    stochastic: ClassVar[bool]

    def configured(self, config: Any) -> Objective[P]:
        """The objective with the settings that it reads from an `EditGRPOConfig`; the trainer asks for it once."""

    def prepare(self, pipe: Any, rollout: Rollout, *, seed: int) -> Sequence[P]:
        """The points of a rollout. Called under the sampling weights, so an old policy can be asked here.

        Whatever is drawn at random comes from `seed`, with one stream per row of `rollout.seeds`.
        """

    @property
    def needs_reference(self) -> bool:
        """Whether points are to go through `refer`."""

    def refer(self, pipe: Any, rollout: Rollout, points: Sequence[P]) -> Sequence[P]:
        """The same points with what the reference policy says there. Called under the reference policy."""

    def loss(self, point: P, velocity: Tensor, advantages: Tensor) -> PointLoss:
        """The loss at one point, for the velocity found there and the rows' advantages, (B,)."""

    def idle(self, advantages: Tensor) -> bool:
        """Whether rows with these advantages have no gradient, so that their visit can be spared."""


def accumulate(
    objective: Objective[P],
    pipe: Any,
    rollout: Rollout,
    points: Sequence[P],
    advantages: Tensor,
    *,
    rows: slice = slice(None),
    scale: float = 1.0,
    skip_idle: bool = True,
) -> dict[str, float]:
    """Add the gradient of `scale` times the loss, averaged over `rows` and points; the caller owns the optimizer.

    Args:
        advantages: (B,), one per row of the rollout; `rows` selects from them and from the points.
        skip_idle: False: visit the points even if the rows have no gradient, because other processes do.

    Returns:
        `loss` and the objective's metrics for these rows; empty when they are idle and nothing was visited.

    Raises:
        ConfigError: the advantages do not match the rollout, or no point or row is left to train on.
    """
    import torch

    from ..rollout import visit

    if len(advantages) != len(rollout):
        raise ConfigError(f"{len(advantages)} advantages for {len(rollout)} rows")
    chosen, here = advantages[rows], [point.rows(rows) for point in points]
    if not here or not len(chosen):
        raise ConfigError("nothing to train on: no point or no row was selected (is the window empty?)")
    if skip_idle and objective.idle(chosen):
        return {}
    chosen = chosen.to(here[0].visit().latents.device)
    count = len(chosen) * len(here)
    sums: dict[str, Tensor] = {}
    tops: dict[str, Tensor] = {}

    def on_velocity(index: int, velocity: Tensor) -> None:
        found = objective.loss(here[index], velocity, chosen)
        torch.autograd.backward(found.loss.sum() * (scale / count))
        for name, value in {"loss": found.loss, **found.means}.items():
            total = value.detach().sum()
            sums[name] = sums[name] + total if name in sums else total
        for name, value in found.maxima.items():
            top = value.detach().max()
            tops[name] = tops[name].maximum(top) if name in tops else top

    visit(pipe, rollout, [point.visit() for point in here], on_velocity)
    return {name: total.item() / count for name, total in sums.items()} | {name: t.item() for name, t in tops.items()}
