"""The samplers' arithmetic against independent derivations: the reverse SDE, torch.distributions, exact marginals."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from editr1_plugins.errors import ConfigError
from editr1_plugins.training.sde import SAMPLERS, StepNoise, cps, dance, flow_grpo, ode

SIGMAS = [1.0, 0.904, 0.79, 0.652, 0.484, 0.273, 0.0]
STEPS = range(len(SIGMAS) - 1)


def draws(*shape: int, count: int = 3, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


def reverse_sde_mean(x, v, sigma, after, g):
    """x + (v - g^2/2 score) dt, with the score of a rectified flow's marginal written through its posterior mean."""
    clean = x - sigma * v
    score = -(x - (1 - sigma) * clean) / sigma**2
    return x + (v - 0.5 * g**2 * score) * (after - sigma)


@pytest.mark.parametrize("index", STEPS)
def test_flow_grpo_is_the_reverse_sde_with_its_diffusion(index):
    sigma, after, level = SIGMAS[index], SIGMAS[index + 1], 0.7
    g = level * math.sqrt(sigma / (1 - (SIGMAS[1] if sigma == 1 else sigma)))
    x, v, _ = (t.double() for t in draws(2, 5, 3))
    step = flow_grpo(SIGMAS, index, level)
    assert step.std == pytest.approx(g * math.sqrt(sigma - after), rel=1e-12)
    expected = reverse_sde_mean(x, v, sigma, after, g)
    assert torch.allclose(step.on_x * x + step.on_v * v, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("index", STEPS)
def test_dance_is_the_reverse_sde_with_constant_diffusion(index):
    sigma, after, eta = SIGMAS[index], SIGMAS[index + 1], 0.3
    x, v, _ = (t.double() for t in draws(2, 5, 3))
    step = dance(SIGMAS, index, eta)
    assert step.std == pytest.approx(eta * math.sqrt(sigma - after), rel=1e-12)
    expected = reverse_sde_mean(x, v, sigma, after, eta)
    assert torch.allclose(step.on_x * x + step.on_v * v, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("index", STEPS[:-1])
@pytest.mark.parametrize("level", [0.2, 0.8, 1.0])
def test_cps_keeps_the_coefficients_of_the_flow(index, level):
    """From x = (1-s) x0 + s e it must give (1-s') x0 + noise of variance s'^2 in all, part old (e) and part new."""
    sigma, after = SIGMAS[index], SIGMAS[index + 1]
    clean, noise, _ = (t.double() for t in draws(4, 6))
    step = cps(SIGMAS, index, level)
    mean = step.on_x * ((1 - sigma) * clean + sigma * noise) + step.on_v * (noise - clean)
    old = (mean - (1 - after) * clean) / noise
    assert torch.allclose(old, old.mean().expand_as(old), atol=1e-10)
    assert old.mean().item() ** 2 + step.std**2 == pytest.approx(after**2, rel=1e-10)
    assert step.std == pytest.approx(after * math.sin(level * math.pi / 2), rel=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("index", STEPS)
def test_without_noise_every_sampler_is_the_euler_step(sampler, index):
    step, euler = sampler(SIGMAS, index, 0.0), ode(SIGMAS, index)
    assert (step.on_x, step.on_v) == pytest.approx((euler.on_x, euler.on_v), abs=1e-12)
    assert step.std == euler.std == 0
    assert (euler.on_x, euler.on_v) == (1.0, SIGMAS[index + 1] - SIGMAS[index])


def test_at_pure_noise_flow_grpo_adds_exactly_its_level():
    assert flow_grpo(SIGMAS, 0, 0.9).std == pytest.approx(0.9, rel=1e-12)


@pytest.mark.parametrize("sampler", ["flow_grpo", "dance"])
def test_the_sde_keeps_the_marginals(sampler):
    """With the exact velocity of a Gaussian target the SDE must end in that Gaussian, as the ODE does."""
    spread, steps, generator = 0.5, 200, torch.Generator().manual_seed(0)
    sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    x = torch.randn(40_000, 1, generator=generator)
    for index in range(steps):
        s = float(sigmas[index])
        v = x * (s - (1 - s) * spread**2) / ((1 - s) ** 2 * spread**2 + s**2)  # E[noise - image | x]
        x = SAMPLERS[sampler](sigmas, index, 0.7).sample(x, v, torch.randn(x.shape, generator=generator))
    assert x.std().item() == pytest.approx(spread, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_log_prob_is_the_normal_density_averaged_over_dimensions(sampler, dtype):
    x, v, x_next = (t.to(dtype) for t in draws(3, 4, 5))
    step = sampler(SIGMAS, 2, 0.6)
    normal = torch.distributions.Normal(step.on_x * x.double() + step.on_v * v.double(), step.std)
    found = step.log_prob(x, v, x_next)
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), normal.log_prob(x_next.double()).mean((1, 2)), rtol=1e-5)


def test_kl_is_that_of_the_two_normals_averaged_over_dimensions():
    x, v, v_ref = draws(3, 4, 5)
    step = flow_grpo(SIGMAS, 3, 0.7)
    pair = [torch.distributions.Normal(step.mean(x, one).double(), step.std) for one in (v, v_ref)]
    expected = torch.distributions.kl_divergence(*pair).mean((1, 2))
    assert torch.allclose(step.kl(v, v_ref).double(), expected, rtol=1e-4)
    assert step.kl(v, v).abs().max() == 0


def test_sample_reparametrises_the_normal():
    x, v, noise = draws(3, 4, 5)
    step = cps(SIGMAS, 2, 0.5)
    assert torch.allclose((step.sample(x, v, noise) - step.mean(x, v)) / step.std, noise, atol=1e-5)


def test_rounding_the_next_latents_moves_the_log_prob_by_a_clip_range():
    """Why the scheduler rounds x_next before it takes the log-probability."""
    x, v, noise = draws(1, 64, 1024)
    step = StepNoise(on_x=1.0, on_v=-0.1, std=0.05)
    x_next = step.sample(x, v, noise)
    shift = step.log_prob(x, v, x_next.bfloat16()) - step.log_prob(x, v, x_next)
    assert 1e-4 < abs(shift.item()) < 1e-3


def test_a_deterministic_step_has_no_density():
    x, v, x_next = draws(1, 2)
    for step in (ode(SIGMAS, 1), flow_grpo(SIGMAS, 1, 0.0), cps(SIGMAS, len(SIGMAS) - 2, 0.8)):
        with pytest.raises(ConfigError, match="deterministic step"):
            step.log_prob(x, v, x_next)
        with pytest.raises(ConfigError, match="deterministic step"):
            step.kl(v, x_next)
        assert torch.equal(step.sample(x, v, x_next), step.mean(x, v))


@pytest.mark.parametrize("level", [-0.1, math.inf, math.nan])
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_impossible_levels_are_refused(sampler, level):
    with pytest.raises(ConfigError, match="noise level"):
        sampler(SIGMAS, 1, level)


def test_impossible_schedules_and_steps_are_refused():
    with pytest.raises(ConfigError, match="level in 0"):
        cps(SIGMAS, 1, 1.2)
    for sigmas in ([0.5, 0.7], [0.5, 0.5], [1.5, 0.5], [0.5, -0.1]):
        with pytest.raises(ConfigError, match="must fall"):
            ode(sigmas, 0)


def test_a_step_is_frozen_and_samplers_cannot_be_replaced():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ode(SIGMAS, 0).std = 1.0
    with pytest.raises(TypeError):
        SAMPLERS["flow_grpo"] = dance
