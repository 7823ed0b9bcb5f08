"""The reference policy and the saved weights of full fine-tuning, on tiny pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from diffusers import DiffusionPipeline
from transformers import TrainerCallback

from editr1_plugins.errors import DataError
from editr1_plugins.testing.pipelines import picture, tiny_pipeline
from editr1_plugins.training.edit_grpo import EditGRPOConfig, EditGRPOTrainer
from editr1_plugins.training.policy import Policy
from editr1_plugins.training.reference import FrozenCopy
from editr1_plugins.training.rollout import record, velocities


def redness(completions: list[Any], **_: Any) -> list[float]:
    pixels = [np.asarray(image, np.float32) for image in completions]
    return [float(p[..., 0].mean() - p[..., 1:].mean()) / 10 for p in pixels]


def trainer(folder: Path, pipe: Any, call: dict[str, Any], callbacks: Any = (), **options: Any) -> EditGRPOTrainer:
    set_by_trainer = ("image", "prompt", "num_inference_steps", "output_type")
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "num_inference_steps": 3,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "beta": 0.3,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "preflight": False,
        "pipeline_kwargs": {name: value for name, value in call.items() if name not in set_by_trainer},
    }
    rows = Dataset.from_list([{"image": picture(32, seed), "prompt": f"redder {seed}"} for seed in range(4)])
    return EditGRPOTrainer(pipe, redness, EditGRPOConfig(**{**settings, **options}), rows, callbacks=list(callbacks))


def history(of: EditGRPOTrainer, name: str) -> list[float]:
    return [logs[name] for logs in of.state.log_history if name in logs]


def state(pipe: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in pipe.transformer.state_dict().items()}


class KL(TrainerCallback):
    """The KL of every update's rollout, from a second pipeline with the first weights and torch's own distributions."""

    def __init__(self) -> None:
        self.reference, _ = tiny_pipeline("kontext", lora_rank=0)
        self.trainer: Any = None
        self.before: dict[str, torch.Tensor] = {}
        self.found: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.before = state(self.trainer.pipe)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        live, _ = tiny_pipeline("kontext", lora_rank=0)
        live.transformer.load_state_dict(self.before)
        values = []
        for chunk in self.trainer._generation.chunks:
            visits = [step.visit() for step in chunk.rollout.transitions]
            both = (velocities(pipe, chunk.rollout, visits) for pipe in (live, self.reference))
            for step, v, v_ref in zip(chunk.rollout.transitions, *both, strict=True):
                new, ref = (
                    torch.distributions.Normal(step.noise.on_x * step.x + step.noise.on_v * u, step.noise.std)
                    for u in (v, v_ref)
                )
                values.append(torch.distributions.kl_divergence(new, ref).mean().item())
        self.found.append(sum(values) / len(values))


@pytest.mark.parametrize("objective", ["flow_grpo", "nft"])
def test_the_kl_of_full_fine_tuning_is_that_to_the_first_weights(tmp_path: Path, objective: str) -> None:
    pipe, call = tiny_pipeline("kontext", lora_rank=0)
    watch = KL()
    run = trainer(tmp_path, pipe, call, [watch] if objective == "flow_grpo" else [], objective=objective)
    watch.trainer = run
    run.train()
    kl = history(run, "kl")
    assert kl[0] == 0
    assert kl[2] > kl[1] > 0
    if objective == "flow_grpo":
        assert kl == pytest.approx(watch.found, rel=1e-3)


def test_the_reference_pass_leaves_weights_and_gradients_alone(tmp_path: Path) -> None:
    pipe, call = tiny_pipeline("kontext", lora_rank=0)
    policy = Policy(pipe, with_reference=True)
    rollout = record(pipe, call, seeds=[3], window=range(2))
    visits = [step.visit() for step in rollout.transitions]
    policy.keep_reference()
    first, parameters = velocities(pipe, rollout, visits), policy.parameters
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            parameter.grad = torch.ones_like(parameter)
    policy.keep_reference()  # the first call counts
    moved, live = velocities(pipe, rollout, visits), state(pipe)
    for _ in range(2):
        with policy.reference():
            assert all(map(torch.equal, velocities(pipe, rollout, visits), first))
    with pytest.raises(RuntimeError, match="broken"), policy.reference():
        raise RuntimeError("broken")
    assert all(map(torch.equal, velocities(pipe, rollout, visits), moved))
    assert not torch.equal(moved[0], first[0])
    assert all(torch.equal(value, live[name]) for name, value in state(pipe).items())
    assert all(new is old and new.grad.eq(1).all() for new, old in zip(policy.parameters, parameters, strict=True))


def test_a_resumed_run_is_compared_with_the_first_weights_and_not_with_the_checkpoint(tmp_path: Path) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path, *tiny_pipeline("kontext", lora_rank=0), **options)
    whole.train()
    resumed = trainer(tmp_path, *tiny_pipeline("kontext", lora_rank=0), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert history(whole, "kl") == history(resumed, "kl")
    assert history(resumed, "kl")[3] > 0
    expected = state(whole.pipe)
    assert all(torch.equal(value, expected[name]) for name, value in state(resumed.pipe).items())


def test_resuming_with_other_first_weights_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, *tiny_pipeline("kontext", lora_rank=0), save_strategy="steps", save_steps=1).train()
    pipe, call = tiny_pipeline("kontext", lora_rank=0)
    pipe.transformer.load_state_dict(
        type(pipe.transformer).from_pretrained(tmp_path / "checkpoint-1" / "transformer").state_dict()
    )
    with pytest.raises(DataError, match="the pipeline that the run started from"):
        trainer(tmp_path, pipe, call).train(resume_from_checkpoint=True)


def test_a_copy_is_kept_only_where_it_is_needed(tmp_path: Path) -> None:
    for rank, beta in ((0, 0.0), (4, 0.3)):
        run = trainer(tmp_path, *tiny_pipeline("kontext", lora_rank=rank), beta=beta, max_steps=1)
        run.train()
        assert run.policy.frozen is None


def test_a_failed_exchange_is_undone() -> None:
    weights = [torch.nn.Parameter(torch.full((3,), float(value))) for value in (1, 2)]
    frozen = FrozenCopy(lambda: weights)
    with torch.no_grad():
        weights[0].fill_(5)
    frozen._kept[1] = torch.zeros(4)  # cannot be copied
    with pytest.raises(RuntimeError), frozen.in_place():
        pass
    assert weights[0].tolist() == [5, 5, 5]
    assert weights[1].tolist() == [2, 2, 2]


def test_full_weights_are_saved_as_a_pipeline_that_plain_diffusers_loads(tmp_path: Path) -> None:
    from editr1_plugins.miniedit.model import CALL, build_pipeline

    pipe = build_pipeline()
    call = {**CALL, "num_inference_steps": 2}
    options = {"save_strategy": "steps", "save_steps": 3, "ema_decay": 0.5, "num_inference_steps": 2}
    run = trainer(tmp_path, pipe, call, **options)
    run.train()
    run.save_model()
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is type(pipe)
    assert type(loaded.scheduler) is type(pipe.scheduler)
    shown = {**call, "image": picture(32), "prompt": "redder", "output_type": "np"}

    def edit(of: Any) -> np.ndarray:
        return np.asarray(of(**shown, generator=torch.Generator().manual_seed(3)).images)

    with run.policy.averaged():
        expected = edit(pipe)
    assert np.array_equal(edit(loaded), expected)
    assert not np.array_equal(edit(pipe), expected)
    # A checkpoint holds the denoiser alone: the rest of a pipeline never changes.
    assert not (tmp_path / "checkpoint-3" / "model_index.json").exists()
    network = type(pipe.transformer).from_pretrained(tmp_path / "checkpoint-3" / "transformer")
    saved = loaded.transformer.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())


def test_a_large_denoiser_is_proved_on_a_part_of_its_weights() -> None:
    pipe, _ = tiny_pipeline("kontext", lora_rank=0)
    policy = Policy(pipe)
    everything = policy.parameters
    with policy.few_parameters() as chosen:
        assert all(map(lambda a, b: a is b, chosen, everything))
        assert len(chosen) == len(everything)
    total = sum(parameter.numel() for parameter in everything)
    with policy.few_parameters(limit=total // 4) as chosen:
        assert total / 8 < sum(parameter.numel() for parameter in chosen) <= total / 4
        assert all(map(lambda a, b: a is b, policy.parameters, chosen))
    assert len(policy.parameters) == len(everything)
