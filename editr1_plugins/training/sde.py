"""Step arithmetic of the stochastic flow-matching samplers. Pure: tensors and floats in, tensors and floats out.

Every sampler here makes one reverse step `x_next ~ Normal(on_x * x + on_v * v, std)`: x are the latents at noise level
sigma, v the model's velocity (noise minus image), s' the next noise level, dt = s' - sigma < 0, a the sampler's level.

| family      | source                             | std                                          |
|-------------|------------------------------------|----------------------------------------------|
| `ode`       | Euler step of the probability flow | 0                                            |
| `flow_grpo` | Flow-GRPO, arXiv 2505.05470        | g sqrt(-dt), g = a sqrt(sigma / (1 - sigma)) |
| `dance`     | DanceGRPO, arXiv 2505.07818        | g sqrt(-dt), g = a                           |
| `cps`       | Flow-CPS, arXiv 2509.05952         | s' sin(a pi / 2)                             |

A log-probability is the *mean* over dimensions, not the sum (as in Flow-GRPO): clip ranges and weights are tuned to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from ..errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SAMPLERS", "Sampler", "StepNoise", "cps", "dance", "flow_grpo", "ode"]

#: Closer than this to 1 (pure noise), Flow-GRPO's diffusion coefficient is taken at the second noise level.
_PURE_NOISE = 1 - 1e-6


@dataclass(frozen=True)
class StepNoise:
    """The distribution of one reverse step: `x_next ~ Normal(on_x * x + on_v * v, std)`.

    Tensors are (B, ...) of any floating dtype; everything is computed and returned in float32.
    """

    on_x: float
    on_v: float
    std: float

    def mean(self, x: Tensor, v: Tensor) -> Tensor:
        """Where the step leads on average, shaped like `x`."""
        return self.on_x * x.float() + self.on_v * v.float()

    def sample(self, x: Tensor, v: Tensor, noise: Tensor) -> Tensor:
        """The next latents for a standard normal draw `noise`, shaped like `x`."""
        return self.mean(x, v) + self.std * noise.float()

    def log_prob(self, x: Tensor, v: Tensor, x_next: Tensor) -> Tensor:
        """Log-density of `x_next` per row, (B,): mean over dimensions, constants kept.

        Pass `x_next` as it is stored: rounding it afterwards shifts the result by as much as a clip range.

        Raises:
            ConfigError: the step is deterministic (std 0), so there is no density.
        """
        self._require_noise("a log-probability")
        z = (x_next.float() - self.mean(x, v)) / self.std
        per_dim = -0.5 * z.square() - math.log(self.std) - 0.5 * math.log(2 * math.pi)
        return per_dim.flatten(1).mean(1)

    def kl(self, v: Tensor, v_ref: Tensor) -> Tensor:
        """Exact KL between the steps of two velocities at the same point, per row, (B,): mean over dimensions.

        The latents cancel: KL = (mu - mu_ref)^2 / (2 std^2) with mu - mu_ref = on_v (v - v_ref).

        Raises:
            ConfigError: the step is deterministic (std 0).
        """
        self._require_noise("a KL divergence")
        gap = self.on_v / self.std * (v.float() - v_ref.float())
        return 0.5 * gap.square().flatten(1).mean(1)

    def _require_noise(self, what: str) -> None:
        if not self.std > 0:
            raise ConfigError(f"a deterministic step (std {self.std}) has no density, so it has no {what[2:]}")


#: (sigmas, index, level) -> the step from sigmas[index] to sigmas[index + 1]; sigmas fall from <= 1 to 0.
Sampler: TypeAlias = "Callable[[Sequence[float] | Tensor, int, float], StepNoise]"


def ode(sigmas: Sequence[float] | Tensor, index: int) -> StepNoise:
    """The Euler step x + v dt, without noise."""
    sigma, after = _levels(sigmas, index)
    return StepNoise(on_x=1.0, on_v=after - sigma, std=0.0)


def flow_grpo(sigmas: Sequence[float] | Tensor, index: int, level: float) -> StepNoise:
    """Flow-GRPO's SDE. At sigma = 1 the second noise level stands in, in the denominator 1 - sigma only."""
    sigma, _ = _levels(sigmas, index)
    safe = float(sigmas[1]) if sigma > _PURE_NOISE else sigma
    return _reverse_sde(sigmas, index, _checked(level) ** 2 * sigma / (1 - safe))


def dance(sigmas: Sequence[float] | Tensor, index: int, level: float) -> StepNoise:
    """DanceGRPO's SDE: the same drift with a constant diffusion coefficient (0.3 in its recipes)."""
    return _reverse_sde(sigmas, index, _checked(level) ** 2)


def cps(sigmas: Sequence[float] | Tensor, index: int, level: float) -> StepNoise:
    """Coefficients-preserving sampling: the noise level of x_next is s' exactly, whatever `level` in 0..1 is."""
    if _checked(level) > 1:
        raise ConfigError(f"cps takes a noise level in 0..1, got {level}")
    sigma, after = _levels(sigmas, index)
    std = after * math.sin(level * math.pi / 2)
    kept = after * math.cos(level * math.pi / 2)  # sqrt(s'^2 - std^2), without its rounding
    return StepNoise(on_x=(1 - after) + kept, on_v=(1 - sigma) * kept - sigma * (1 - after), std=std)


#: The stochastic samplers by the name that `record` and the trainer's configuration use.
SAMPLERS: Mapping[str, Sampler] = MappingProxyType({"flow_grpo": flow_grpo, "dance": dance, "cps": cps})


def _reverse_sde(sigmas: Sequence[float] | Tensor, index: int, g2: float) -> StepNoise:
    """x + v dt + g^2 / (2 sigma) (x + (1 - sigma) v) dt + g sqrt(-dt) noise."""
    sigma, after = _levels(sigmas, index)
    dt, pull = after - sigma, g2 / (2 * sigma)
    return StepNoise(on_x=1 + pull * dt, on_v=(1 + pull * (1 - sigma)) * dt, std=math.sqrt(g2 * -dt))


def _levels(sigmas: Sequence[float] | Tensor, index: int) -> tuple[float, float]:
    sigma, after = float(sigmas[index]), float(sigmas[index + 1])
    if not 1 >= sigma > after >= 0:
        raise ConfigError(f"noise levels must fall within 1..0, got {sigma} then {after} at step {index}")
    return sigma, after


def _checked(level: float) -> float:
    if not (level >= 0 and math.isfinite(level)):
        raise ConfigError(f"a noise level is a number >= 0, got {level}")
    return level
