"""The Flow-GRPO objective: its loss and metrics by hand, and its gradient through a real pipeline."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from editr1_plugins.errors import ConfigError
from editr1_plugins.testing.pipelines import lora_parameters, tiny_pipeline
from editr1_plugins.training.algorithms import PointLoss, accumulate
from editr1_plugins.training.algorithms.flow_grpo import FlowGRPO, GRPOPoint
from editr1_plugins.training.rollout import record_group, velocities, without_adapters
from editr1_plugins.training.schedulers import Transition, Visit
from editr1_plugins.training.sde import StepNoise

GROUP, STEPS = 4, 4
ADVANTAGES = torch.tensor([-1.2, 0.3, 0.0, 0.9])


def rollout_of(name="kontext", chunk=None, **options):
    pipe, call = tiny_pipeline(name, steps=STEPS, **options)
    return pipe, record_group(pipe, call, seeds=range(20, 20 + GROUP), chunk=chunk, window=range(STEPS - 1))


def gradient(pipe):
    parts = []
    for p in lora_parameters(pipe).values():
        parts.append(torch.zeros_like(p).flatten() if p.grad is None else p.grad.double().flatten())
        p.grad = None
    return torch.cat(parts)


def far(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def points_of(objective, pipe, rollout):
    """Prepared points; the reference policy is the pipeline with its adapters off."""
    points = objective.prepare(pipe, rollout)
    if not objective.needs_reference:
        return points
    with without_adapters(pipe.transformer):
        return objective.refer(pipe, rollout, points)


def made_up_step(rows=3, seed=0):
    """A step that another policy sampled: its log-probability is not that of any velocity used below."""
    generator = torch.Generator().manual_seed(seed)
    x, old, eps = (torch.randn(rows, 4, 5, generator=generator) for _ in range(3))
    noise = StepNoise(on_x=0.9, on_v=-0.2, std=0.3)
    x_next = noise.sample(x, old, eps)
    return Transition(0, torch.tensor(500.0), x, x_next, old, noise, noise.log_prob(x, old, x_next))


@pytest.mark.parametrize(("epsilon", "epsilon_high"), [(0.05, None), (0.02, 0.2)])
def test_loss_and_metrics_by_hand(epsilon, epsilon_high):
    step, generator = made_up_step(rows=64), torch.Generator().manual_seed(1)
    velocity = step.velocity + 0.3 * torch.randn(step.velocity.shape, generator=generator)
    reference = step.velocity + 0.1 * torch.randn(step.velocity.shape, generator=generator)
    advantages = torch.randn(64, generator=generator)
    objective = FlowGRPO(epsilon=epsilon, epsilon_high=epsilon_high, beta=0.5)
    found = objective.loss(GRPOPoint(step, reference), velocity, advantages)

    new, ref = (torch.distributions.Normal(0.9 * step.x - 0.2 * v, 0.3) for v in (velocity, reference))
    kl = torch.distributions.kl_divergence(new, ref).mean((1, 2))
    ratios = (new.log_prob(step.x_next).mean((1, 2)) - step.log_prob).exp().tolist()
    high = epsilon if epsilon_high is None else epsilon_high
    policy, cut = [], []
    for ratio, a in zip(ratios, advantages.tolist(), strict=True):
        clipped = min(max(ratio, 1 - epsilon), 1 + high)
        policy.append(-min(ratio * a, clipped * a))
        cut.append(float((ratio > 1 + high and a > 0) or (ratio < 1 - epsilon and a < 0)))
    assert torch.allclose(found.loss, torch.tensor(policy) + 0.5 * kl, atol=1e-5)
    assert torch.allclose(found.means["kl"], kl, rtol=1e-4)
    assert found.means["clip_fraction"].tolist() == cut
    assert 0 < sum(cut) < 64
    assert found.maxima["ratio_error"].max().item() == pytest.approx(max(abs(r - 1) for r in ratios), rel=1e-4)


def test_the_guarded_ratio_is_the_step_noise_against_the_mean_shift():
    """log rho + mean(dmu^2)/(2 std^2), times std, is mean(eps * dmu): no bias, and no 1/std."""
    step = made_up_step()
    velocity = step.velocity + 0.1
    eps = (step.x_next - step.noise.mean(step.x, step.velocity)) / step.noise.std
    expected = (eps * (step.noise.on_v * 0.1)).mean((1, 2)).exp()
    found = FlowGRPO(epsilon=10, ratio="guard").loss(GRPOPoint(step), velocity, torch.ones(3))
    assert torch.allclose(-found.loss, expected, atol=1e-5)


def test_the_guarded_gradient_weighs_each_step_by_its_noise():
    """At ratio 1 the gradient of exp((log rho + KL) std) is std times that of log rho, as the KL is at its minimum."""
    pipe, rollout = rollout_of()
    objective = FlowGRPO(ratio="guard")
    accumulate(objective, pipe, rollout, objective.prepare(pipe, rollout), ADVANTAGES)
    ours = gradient(pipe)

    from editr1_plugins.training.rollout import visit

    losses = []

    def on_velocity(index, velocity):
        step = rollout.transitions[index]
        policy = torch.distributions.Normal(step.noise.on_x * step.x + step.noise.on_v * velocity, step.noise.std)
        losses.append(-(step.noise.std * ADVANTAGES * policy.log_prob(step.x_next).mean((1, 2))).mean())

    visit(pipe, rollout, [step.visit() for step in rollout.transitions], on_velocity)
    torch.stack(losses).mean().backward()
    assert len({step.noise.std for step in rollout.transitions}) == len(rollout.transitions) > 1
    assert far(ours, gradient(pipe)) <= 1e-5


def test_guarded_ratios_have_mean_one_and_one_spread_at_every_step():
    """What GRPO-Guard is for: over many draws of a step, plain ratios of a small std are biased and spread wide."""
    generator = torch.Generator().manual_seed(0)
    x, old, shift = (torch.randn(1, 4, 5, generator=generator) for _ in range(3))
    x, old, shift = (t.expand(4096, 4, 5) for t in (x, old, 0.02 * shift))
    logs = {}
    for std in (0.05, 0.5):
        noise = StepNoise(on_x=1.0, on_v=-1.0, std=std)
        x_next = noise.sample(x, old, torch.randn(x.shape, generator=generator))
        step = Transition(0, torch.tensor(500.0), x, x_next, old, noise, noise.log_prob(x, old, x_next))
        for kind in ("plain", "guard"):
            objective = FlowGRPO(epsilon=10, ratio=kind)
            logs[kind, std] = (-objective.loss(GRPOPoint(step), old + shift, torch.ones(4096)).loss).log()
    assert logs["plain", 0.05].std() > 5 * logs["plain", 0.5].std()
    assert logs["guard", 0.05].std().item() == pytest.approx(logs["guard", 0.5].std().item(), rel=0.1)
    spread = logs["guard", 0.05].std() / 64
    assert logs["guard", 0.05].mean().abs() < 4 * spread
    assert logs["plain", 0.05].mean() < -4 * logs["plain", 0.05].std() / 64


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "cfg"])
def test_the_gradient_at_ratio_one_is_the_policy_gradient(guided):
    pipe, rollout = rollout_of(guided=guided)
    objective = FlowGRPO()
    metrics = accumulate(objective, pipe, rollout, points_of(objective, pipe, rollout), ADVANTAGES)
    assert metrics["ratio_error"] <= 1e-6
    assert metrics["clip_fraction"] == 0
    assert "kl" not in metrics
    ours = gradient(pipe)

    from editr1_plugins.training.rollout import visit

    losses = []  # all steps' graphs at once, and REINFORCE instead of a ratio
    visits = [step.visit() for step in rollout.transitions]

    def on_velocity(index, velocity):
        step = rollout.transitions[index]
        losses.append(-(ADVANTAGES * step.noise.log_prob(step.x, velocity, step.x_next)).mean())

    visit(pipe, rollout, visits, on_velocity)
    torch.stack(losses).mean().backward()
    assert far(ours, gradient(pipe)) <= 1e-6


def test_the_kl_and_its_gradient_are_those_of_the_two_policies():
    pipe, rollout = rollout_of(guided=True)
    objective = FlowGRPO(beta=0.7)
    points = points_of(objective, pipe, rollout)
    metrics = accumulate(objective, pipe, rollout, points, torch.zeros(GROUP))
    ours = gradient(pipe)

    from editr1_plugins.training.rollout import visit

    visits = [step.visit() for step in rollout.transitions]
    with without_adapters(pipe.transformer):
        references = velocities(pipe, rollout, visits)
    divergences = []

    def on_velocity(index, velocity):
        noise, x = rollout.transitions[index].noise, rollout.transitions[index].x
        new, ref = (
            torch.distributions.Normal(noise.on_x * x + noise.on_v * v, noise.std)
            for v in (velocity, references[index])
        )
        divergences.append(torch.distributions.kl_divergence(new, ref).mean())

    visit(pipe, rollout, visits, on_velocity)
    total = torch.stack(divergences).mean()
    (0.7 * total).backward()
    assert metrics["kl"] == pytest.approx(total.item(), rel=1e-4)
    assert metrics["kl"] > 0
    assert far(ours, gradient(pipe)) <= 1e-4


def test_at_the_start_of_training_there_is_no_kl():
    pipe, rollout = rollout_of()
    for name, p in lora_parameters(pipe).items():
        if "lora_B" in name:
            p.data.zero_()
    objective = FlowGRPO(beta=1.0)
    metrics = accumulate(objective, pipe, rollout, points_of(objective, pipe, rollout), torch.zeros(GROUP))
    assert metrics["kl"] == 0


@pytest.mark.parametrize("name", ["kontext", "klein"])
def test_the_update_does_not_depend_on_how_the_rows_are_cut(name):
    pipe, rollout = rollout_of(name, guided=True, chunk=2)
    objective, found = FlowGRPO(beta=0.3), {}
    points = points_of(objective, pipe, rollout)
    for at_once in (4, 2, 1):
        for first in range(0, GROUP, at_once):
            rows = slice(first, first + at_once)
            metrics = accumulate(objective, pipe, rollout, points, ADVANTAGES, rows=rows, scale=at_once / GROUP)
            assert metrics["ratio_error"] <= 1e-6
        found[at_once] = gradient(pipe)
    assert far(found[2], found[4]) <= 1e-5
    assert far(found[1], found[4]) <= 1e-5


def test_a_second_pass_over_a_rollout_is_off_policy_and_clipped():
    pipe, rollout = rollout_of()
    objective = FlowGRPO(epsilon=1e-4)
    points = points_of(objective, pipe, rollout)
    first = accumulate(objective, pipe, rollout, points, ADVANTAGES)
    for p in lora_parameters(pipe).values():
        p.data -= 5 * p.grad  # along the gradient, so rows of positive advantage get likelier
    second = accumulate(objective, pipe, rollout, points, ADVANTAGES)
    assert first["ratio_error"] <= 1e-6
    assert second["ratio_error"] > 1e-4
    assert second["clip_fraction"] > 0


def test_rows_that_train_nothing_are_not_visited():
    pipe, rollout = rollout_of()
    calls = []
    pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    objective = FlowGRPO()
    points = points_of(objective, pipe, rollout)
    assert accumulate(objective, pipe, rollout, points, ADVANTAGES, rows=slice(2, 3)) == {}
    assert calls == []
    assert FlowGRPO(beta=0.1).idle(torch.zeros(2)) is False


@dataclass(frozen=True)
class NoisedPoint:
    """A noised final latent and the velocity that leads back from it."""

    at: Visit
    target: torch.Tensor

    def rows(self, rows):
        return replace(self, at=self.at.rows(rows), target=self.target[rows])

    def visit(self):
        return self.at


class WeightedMatching:
    """Another kind of objective on the same seam: no density, random timesteps, advantages weigh a regression."""

    stochastic = False

    def prepare(self, pipe, rollout, *, seed):
        generator = torch.Generator().manual_seed(seed)
        clean = rollout.final
        t = torch.rand(len(clean), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        return [NoisedPoint(Visit(t * 1000, torch.lerp(clean, noise, t[:, None, None])), noise - clean)]

    def loss(self, point, velocity, advantages):
        miss = (velocity - point.target).square().flatten(1).mean(1)
        return PointLoss(advantages * miss, means={"miss": miss})

    def idle(self, advantages):
        return not bool(advantages.any())


def test_an_objective_without_densities_fits_the_same_interface():
    pipe, call = tiny_pipeline(steps=STEPS)
    rollout = record_group(pipe, call, seeds=range(GROUP), window=())
    objective = WeightedMatching()
    points = objective.prepare(pipe, rollout, seed=3)
    whole = accumulate(objective, pipe, rollout, points, ADVANTAGES)
    assert whole["miss"] > 0
    expected, halves = gradient(pipe), []
    for rows in (slice(0, 2), slice(2, 4)):
        halves.append(accumulate(objective, pipe, rollout, points, ADVANTAGES, rows=rows, scale=0.5)["miss"])
    assert far(gradient(pipe), expected) <= 1e-5
    assert sum(halves) / 2 == pytest.approx(whole["miss"], rel=1e-5)


def test_bad_arguments_are_refused():
    for options in ({"epsilon": -1.0}, {"epsilon_high": math.nan}, {"beta": -0.1}):
        with pytest.raises(ConfigError, match="must be a number >= 0"):
            FlowGRPO(**options)
    with pytest.raises(ConfigError, match="pass the points through refer"):
        FlowGRPO(beta=0.1).loss(GRPOPoint(made_up_step()), made_up_step().velocity, torch.ones(3))
    with pytest.raises(ConfigError, match="'plain' or 'guard'"):
        FlowGRPO(ratio="normalised")
    pipe, rollout = rollout_of()
    objective = FlowGRPO()
    points = points_of(objective, pipe, rollout)
    with pytest.raises(ConfigError, match="2 advantages for 4 rows"):
        accumulate(objective, pipe, rollout, points, torch.ones(2))
    with pytest.raises(ConfigError, match="nothing to train on"):
        accumulate(objective, pipe, rollout, [], ADVANTAGES)
    with pytest.raises(ConfigError, match="nothing to train on"):
        accumulate(objective, pipe, rollout, points, ADVANTAGES, rows=slice(9, 12))
