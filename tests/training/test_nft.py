"""DiffusionNFT against an independent derivation, and through the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from editr1_plugins.errors import ConfigError
from editr1_plugins.testing.pipelines import lora_parameters, tiny_pipeline
from editr1_plugins.training.algorithms import accumulate
from editr1_plugins.training.algorithms.nft import DiffusionNFT, NFTPoint
from editr1_plugins.training.rollout import record


def point(rows: int = 3, **changes: Any) -> NFTPoint:
    generator = torch.Generator().manual_seed(1)
    time = torch.rand(rows, generator=generator)
    parts = {n: torch.randn(rows, 5, 4, generator=generator) for n in ("latents", "clean", "old")}
    return NFTPoint(timestep=time * 1000, time=time, **{**parts, **changes})


def by_hand(point: NFTPoint, velocity: torch.Tensor, advantages: torch.Tensor, mix: float, clip: float) -> np.ndarray:
    """The paper's formula in float64, written with loops."""
    losses = []
    for row in range(len(velocity)):
        v, old, x_t, x_0 = (a[row].double().numpy() for a in (velocity, point.old, point.latents, point.clean))
        t, r = float(point.time[row]), float(np.clip(float(advantages[row]) / clip, -1, 1)) / 2 + 0.5
        parts = []
        for share, candidate in ((r, mix * v + (1 - mix) * old), (1 - r, (1 + mix) * old - mix * v)):
            error = x_t - t * candidate - x_0
            parts.append(share * (error**2).mean() / np.abs(error).mean())
        losses.append(sum(parts) * clip / mix)
    return np.array(losses)


@pytest.mark.parametrize("mix", [1.0, 0.1])
def test_loss_is_the_papers(mix: float) -> None:
    velocity = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2))
    advantages = torch.tensor([2.0, -1.0, 9.0])
    found = DiffusionNFT(mix=mix).loss(point(), velocity, advantages).loss
    assert np.allclose(found.numpy(), by_hand(point(), velocity, advantages, mix, 5.0), rtol=1e-5)


def test_gradient_pulls_towards_good_edits_and_away_from_bad_ones() -> None:
    here = point(1)
    velocity = here.old.clone().requires_grad_()
    target = (here.latents - here.clean) / here.time.view(-1, 1, 1)  # the velocity that leads back to the edit
    pulls = []
    for advantage in (5.0, 0.0, -5.0):
        (gradient,) = torch.autograd.grad(DiffusionNFT().loss(here, velocity, torch.tensor([advantage])).loss, velocity)
        pulls.append(-(gradient * (target - here.old)).sum().item())
    assert pulls[0] > 0 > pulls[2]
    assert pulls[1] == pytest.approx(0, abs=1e-5)


def test_points_are_a_function_of_the_rows_seed() -> None:
    pipe, call = tiny_pipeline("kontext", steps=2)
    both = record(pipe, call, seeds=[3, 4], window=())
    alone = record(pipe, call, seeds=[4], window=())
    first, second = (DiffusionNFT(times=2).prepare(pipe, rollout, seed=7) for rollout in (both, alone))
    assert not both.transitions
    for many, one in zip(first, second, strict=True):
        assert torch.equal(many.time[1:], one.time)
        assert torch.allclose(many.latents[1:], one.latents, atol=1e-5)
        assert torch.allclose(many.old[1:], one.old, atol=1e-5)
    assert not torch.equal(first[0].time, first[1].time)


def test_gradients_of_rows_add_up_and_match_a_direct_computation() -> None:
    pipe, call = tiny_pipeline("kontext", steps=2)
    rollout = record(pipe, call, seeds=[3, 4], window=())
    objective, advantages = DiffusionNFT(times=2), torch.tensor([1.5, -0.5])
    points = objective.prepare(pipe, rollout, seed=7)

    def gradient(*parts: slice) -> torch.Tensor:
        pipe.transformer.zero_grad()
        for rows in parts:
            scale = len(range(*rows.indices(2))) / 2
            found = accumulate(objective, pipe, rollout, points, advantages, rows=rows, scale=scale)
            assert found["drift"] == pytest.approx(0, abs=1e-10)
        return torch.cat([p.grad.flatten() for p in lora_parameters(pipe).values() if p.grad is not None])

    whole, split = gradient(slice(None)), gradient(slice(0, 1), slice(1, 2))
    assert whole.norm() > 0
    assert (whole - split).norm() / whole.norm() < 1e-4


def test_the_trainer_runs_it(tmp_path: Path) -> None:
    from datasets import Dataset

    from editr1_plugins.testing.pipelines import picture
    from editr1_plugins.training.edit_grpo import EditGRPOConfig, EditGRPOTrainer

    pipe, call = tiny_pipeline("kontext")
    keep = {n: v for n, v in call.items() if n not in ("image", "prompt", "num_inference_steps", "output_type")}
    args = EditGRPOConfig(
        output_dir=str(tmp_path),
        objective="nft",
        num_generations=2,
        per_device_train_batch_size=2,
        num_inference_steps=2,
        max_steps=2,
        pipeline_kwargs=keep,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = Dataset.from_list([{"image": picture(32, i), "prompt": f"edit {i}"} for i in range(2)])
    run = EditGRPOTrainer(pipe, lambda completions, **_: [0.0, 1.0], args, rows)
    run.train()
    logs = [entry for entry in run.state.log_history if "reward" in entry]
    assert len(logs) == 2
    assert all(entry["grad_norm"] > 0 and entry["kl"] > 0 for entry in logs)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="mix"):
        DiffusionNFT(mix=0)
    with pytest.raises(ConfigError, match="beta"):
        DiffusionNFT(beta=-1)
