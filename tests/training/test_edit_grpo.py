"""The edit trainer on a tiny FLUX.1 Kontext: what it logs, learns from, stores, resumes and leaves alone."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from diffusers import FluxKontextPipeline
from peft import LoraConfig
from PIL import Image
from transformers import TrainerCallback, TrainingArguments

from editr1_plugins.errors import ConfigError, DataError, ReplayError
from editr1_plugins.testing.pipelines import picture, tiny_pipeline
from editr1_plugins.training.advantage import Advantages
from editr1_plugins.training.edit_grpo import (
    EditGRPOConfig,
    EditGRPOTrainer,
    KontextGRPOConfig,
    KontextGRPOTrainer,
    QwenImageEditGRPOConfig,
)

ROWS = 6


def redness(completions: list[Any], **_: Any) -> list[float]:
    pixels = [np.asarray(image, np.float32) for image in completions]
    return [float(p[..., 0].mean() - p[..., 1:].mean()) / 10 for p in pixels]


def dataset(**columns: Any) -> Dataset:
    rows = [{"image": picture(32, seed), "prompt": f"make it redder {seed}"} for seed in range(ROWS)]
    return Dataset.from_list([{**row, **{k: v[i] for k, v in columns.items()}} for i, row in enumerate(rows)])


def config(folder: Path, call: dict[str, Any], **changes: Any) -> EditGRPOConfig:
    set_by_trainer = ("image", "prompt", "num_inference_steps", "output_type")
    options: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "num_inference_steps": 3,
        "eval_num_inference_steps": 2,
        "max_steps": 2,
        "learning_rate": 5e-3,
        "pipeline_kwargs": {name: value for name, value in call.items() if name not in set_by_trainer},
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "preflight": False,
    }
    return EditGRPOConfig(**{**options, **changes})


def trainer(folder: Path, reward: Any = redness, *, rows: Dataset | None = None, **changes: Any) -> EditGRPOTrainer:
    dtype = changes.pop("dtype", None)
    cls = changes.pop("cls", EditGRPOTrainer)
    more = {name: changes.pop(name) for name in ("eval_dataset", "callbacks", "peft_config") if name in changes}
    pipe, call = tiny_pipeline("kontext", dtype=dtype, lora_rank=0 if "peft_config" in more else 4)
    return cls(pipe, reward, config(folder, call, **changes), dataset() if rows is None else rows, **more)


def history(of: EditGRPOTrainer, name: str) -> list[float]:
    return [logs[name] for logs in of.state.log_history if name in logs]


def weights(of: EditGRPOTrainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in of.policy.network.named_parameters() if p.requires_grad}


def edits(pipe: Any, call: dict[str, Any]) -> np.ndarray:
    return np.asarray(pipe(**{**call, "output_type": "np"}, generator=torch.Generator().manual_seed(3)).images)


def test_logs_have_the_promised_names(tmp_path: Path) -> None:
    run = trainer(tmp_path, beta=0.04)
    run.train()
    names = ["reward", "reward_std", "rewards/redness/mean", "ratio_error", "clip_fraction", "kl", "frac_unscored"]
    for name in [*names, "frac_reward_zero_std", "grad_norm", "encoder_calls"]:
        assert len(history(run, name)) == 2, name
    assert history(run, "encoder_calls") == [3.0, 3.0]  # two text encoders and the VAE, once each
    assert all(norm > 0 for norm in history(run, "grad_norm"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dtype": torch.bfloat16},
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"sampler": "cps"},
        {"sampler": "dance", "noise_level": 0.3},
        {"ratio": "guard"},
    ],
    ids=["fp32", "bf16 weights", "bf16 autocast", "checkpointing", "cps", "dance", "guard"],
)
def test_ratio_is_one_on_the_first_pass(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = trainer(tmp_path, **changes)
    run.train()
    assert max(history(run, "ratio_error")) <= 1e-6
    assert all(norm > 0 for norm in history(run, "grad_norm"))


def test_the_second_iteration_is_off_the_sampling_policy_and_is_not_counted_as_error(tmp_path: Path) -> None:
    run = trainer(tmp_path, num_iterations=2, max_steps=4, learning_rate=0.05)
    run.train()
    assert max(history(run, "ratio_error")) <= 1e-6
    assert max(history(run, "clip_fraction")) > 0


def test_the_kind_of_ratio_reaches_the_objective(tmp_path: Path) -> None:
    plain, guarded = gradient(tmp_path), gradient(tmp_path, ratio="guard")
    assert trainer(tmp_path, ratio="guard").objective.ratio == "guard"
    assert any(not torch.allclose(plain[name], guarded[name], rtol=0.1) for name in plain)


def test_groups_without_an_advantage_are_skipped_and_counted(tmp_path: Path) -> None:
    def reward(prompts: list[str], completions: list[Any], **_: Any) -> list[float | None]:
        kinds = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        values = {0: redness(completions), 1: [3.0] * len(prompts), 2: [None] * len(prompts)}
        return [values[kinds[prompt]][i] for i, prompt in enumerate(prompts)]

    calls: list[int] = []

    def count(_: Any, args: Any, kwargs: Any) -> None:
        if torch.is_grad_enabled():
            calls.append(len(kwargs["hidden_states"]))

    found = {}
    for beta in (0.0, 0.1):
        run = trainer(tmp_path, reward, beta=beta, gradient_accumulation_steps=3, max_steps=1)
        run.pipe.transformer.register_forward_pre_hook(count, with_kwargs=True)
        run.train()
        found[beta] = (history(run, "groups_skipped"), len(calls))
        calls.clear()
        assert history(run, "frac_unscored") == [pytest.approx(1 / 3)]
    # Two trained steps a group. With a KL, a group whose rewards are equal still has something to learn.
    assert found == {0.0: ([2.0], 2), 0.1: ([1.0], 4)}


def test_our_own_settings_are_few() -> None:
    known = {field.name for field in fields(TrainingArguments)}
    own = [field.name for field in fields(EditGRPOConfig) if field.name not in known]
    assert len(own) <= 36, own
    for recipe in (KontextGRPOConfig, QwenImageEditGRPOConfig):
        assert {field.name for field in fields(recipe)} == known | set(own)


def test_pipeline_is_left_as_it_was(tmp_path: Path) -> None:
    pipe, call = tiny_pipeline("kontext", lora_rank=0)
    before, scheduler, attributes = edits(pipe, call), pipe.scheduler, set(vars(pipe))
    lora = LoraConfig(r=2, target_modules=["to_q", "to_v"])
    run = EditGRPOTrainer(pipe, redness, config(tmp_path, call), dataset(), peft_config=lora)
    run.train()
    assert pipe.scheduler is scheduler
    assert set(vars(pipe)) - attributes <= {"_progress_bar_config"}
    assert not np.array_equal(edits(pipe, call), before)
    pipe.transformer.disable_adapters()
    assert np.array_equal(edits(pipe, call), before)


def test_saved_lora_loads_in_plain_diffusers(tmp_path: Path) -> None:
    lora = LoraConfig(r=2, lora_alpha=5, target_modules=["to_q", "to_v"])
    run = trainer(tmp_path, peft_config=lora)
    run.train()
    run.save_model()
    fresh, call = tiny_pipeline("kontext", lora_rank=0)
    before = edits(fresh, call)
    fresh.load_lora_weights(str(tmp_path))
    assert np.allclose(edits(fresh, call), edits(run.pipe, call), atol=1e-6)
    assert not np.allclose(edits(fresh, call), before, atol=1e-4)


RESUMED = {
    "plain": {},
    "second epoch": {"max_steps": 10, "save_steps": 8},
    "ema": {"ema_decay": 0.8},
    "two updates per rollout": {"steps_per_generation": 2, "per_device_train_batch_size": 2},
    "two iterations": {"num_iterations": 2},
    "windows": {"window": 1, "num_inference_steps": 4, "shared_noise": True},
}


LONGER = ("two updates per rollout", "windows")


@pytest.mark.parametrize(
    "changes",
    [pytest.param(changes, id=name, marks=[pytest.mark.slow] * (name in LONGER)) for name, changes in RESUMED.items()],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, changes: dict[str, Any]) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 5, **changes}
    whole = trainer(tmp_path, **options)
    whole.train()
    resumed = trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{options['save_steps']}"))
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert history(whole, "reward") == history(resumed, "reward")
    if whole.policy.ema is not None and resumed.policy.ema is not None:
        pairs = zip(whole.policy.ema.shadow_params, resumed.policy.ema.shadow_params, strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_checkpoint_waits_for_the_end_of_a_rollout(tmp_path: Path) -> None:
    run = trainer(tmp_path, num_iterations=3, max_steps=6, save_strategy="steps", save_steps=2)
    run.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]


def test_full_fine_tuning_is_stored_and_resumed(tmp_path: Path) -> None:
    options = {"beta": 0.0, "learning_rate": 1e-4, "save_strategy": "steps", "save_steps": 1, "peft_config": None}
    whole = trainer(tmp_path, **options)
    whole.train()
    resumed = trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert len(weights(whole)) == len(list(whole.policy.network.parameters()))
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_a_missing_reward_is_left_out_of_its_group(tmp_path: Path) -> None:
    found: list[Advantages] = []

    class Watching(EditGRPOTrainer):
        def compute_advantages(self, rewards: torch.Tensor) -> Advantages:
            found.append(super().compute_advantages(rewards))
            return found[-1]

    run = trainer(tmp_path, lambda **_: [None, 1.0, 3.0, float("nan")], cls=Watching, max_steps=1)
    run.train()
    assert history(run, "frac_unscored") == [0.5]
    assert history(run, "reward") == [2.0]
    missing, low, high, not_a_number = found[0].values.tolist()
    assert missing == not_a_number == 0.0
    assert high == pytest.approx(-low)
    assert high > 0


def test_nothing_judged_trains_nothing_and_the_run_goes_on(tmp_path: Path) -> None:
    run = trainer(tmp_path, lambda completions, **_: [None] * len(completions))
    before = weights(run)
    run.train()
    assert history(run, "frac_unscored") == [1.0, 1.0]
    assert all(torch.equal(value, before[name]) for name, value in weights(run).items())


def test_rewards_are_called_as_trl_calls_them(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def reward(
        *, prompts: Any, completions: Any, image: Any, level: Any, trainer_state: Any, log_extra: Any, log_metric: Any
    ) -> list[float]:
        seen.update(prompts=prompts, completions=completions, image=image, level=level, step=trainer_state.global_step)
        log_extra("note", ["x"] * len(prompts))
        log_metric("brightness", 2.0)
        return [float(i) for i in range(len(prompts))]

    async def slow(completions: Any, **_: Any) -> list[float]:
        return [1.0] * len(completions)

    rows = dataset(level=list(range(ROWS)))
    run = trainer(tmp_path, [reward, slow], rows=rows, max_steps=1, reward_weights=[1.0, 10.0])
    run.train()
    assert len(set(seen["prompts"])) == 1
    assert len(seen["prompts"]) == len(seen["level"]) == 4
    assert all(isinstance(image, Image.Image) for image in [*seen["completions"], *seen["image"]])
    assert history(run, "brightness") == [2.0]
    assert history(run, "reward") == [11.5]
    assert history(run, "rewards/slow/mean") == [1.0]


def gradient(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """The first update's gradient."""
    found: dict[str, torch.Tensor] = {}

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            found.update({n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad})

    trainer(folder, callbacks=[Watch()], max_steps=1, max_grad_norm=0.0, beta=0.1, **changes).train()
    return found


SPLITS = [(4, 4, 2), (6, 3, 4), *(pytest.param(*split, marks=pytest.mark.slow) for split in ((4, 2, 4), (4, 8, 1)))]


@pytest.mark.parametrize(("size", "batch", "accumulation"), SPLITS, ids=str)
def test_the_split_into_passes_does_not_change_the_update(
    tmp_path: Path, size: int, batch: int, accumulation: int
) -> None:
    common = {"num_generations": size, "num_inference_steps": 2}
    one = gradient(tmp_path, per_device_train_batch_size=batch * accumulation, **common)
    many = gradient(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, **common)
    total = torch.cat([g.flatten() for g in one.values()]).norm()
    gap = torch.cat([(one[name] - many[name]).flatten() for name in one]).norm()
    assert total > 0
    assert gap / total < 1e-4


def test_evaluation_uses_the_same_noise_each_time_and_leaves_the_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path, eval_dataset=dataset(), eval_strategy="steps", eval_steps=1, ema_decay=0.5)
    run.train()
    assert len(history(run, "eval_reward")) == 2
    assert history(run, "eval_rewards/redness/mean") == history(run, "eval_reward")
    before = weights(run)
    assert run.evaluate()["eval_reward"] == run.evaluate()["eval_reward"]
    assert all(torch.equal(value, before[name]) for name, value in weights(run).items())


def test_tensorboard_and_callbacks_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    steps: list[int] = []

    class Count(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            steps.append(state.global_step)

    trainer(tmp_path, callbacks=[Count()], report_to=["tensorboard"]).train()
    assert steps == [1, 2]
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    log = EventAccumulator(str(events)).Reload()
    assert {"train/reward", "train/ratio_error", "train/rewards/redness/mean"} <= set(log.Tags()["scalars"])


def test_preflight_refuses_what_does_not_replay(tmp_path: Path) -> None:
    lora = LoraConfig(r=2, lora_dropout=0.5, target_modules=["to_q", "to_v"])
    run = trainer(tmp_path, peft_config=lora, preflight=True)
    with pytest.raises(ReplayError, match="dropout"):
        run.train()


def test_model_may_be_a_path_and_the_recipe_is_a_lora(tmp_path: Path) -> None:
    from editr1_plugins.miniedit.model import CALL, build_pipeline

    build_pipeline().save_pretrained(tmp_path / "model")
    args = KontextGRPOConfig(
        output_dir=str(tmp_path / "out"),
        num_generations=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        num_inference_steps=2,
        max_steps=1,
        pipeline_kwargs=json.dumps({name: value for name, value in CALL.items() if name != "guidance_scale"}),
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    run = KontextGRPOTrainer(str(tmp_path / "model"), redness, args, dataset())
    assert isinstance(run.pipe, FluxKontextPipeline)
    assert run.policy.uses_lora
    assert run.pipe.transformer.peft_config["default"].r == 64
    run.train()
    assert max(history(run, "ratio_error")) <= 1e-6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_generations": 3}, "multiple of num_generations"),
        ({"num_generations": 1}, "at least 2"),
        ({"window": 7}, "window=7"),
        ({"window_range": [0, 9]}, "window_range"),
        ({"ratio": "exact"}, "one of plain, guard"),
        ({"scale_rewards": "all"}, "one of group, batch, none"),
        ({"reward_weights": [1.0, 2.0]}, "2 reward_weights for 1"),
        ({"pipeline_kwargs": {"colour": "red"}}, "takes no colour"),
        ({"objective": "flow_grp"}, "did you mean 'flow_grpo'"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        trainer(tmp_path, **changes)


def test_bad_data_and_rewards_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column prompt"):
        trainer(tmp_path, rows=dataset().rename_column("prompt", "text"))
    with pytest.raises(DataError, match="6 rows, but one rollout takes 8"):
        trainer(tmp_path, per_device_train_batch_size=32).get_train_dataloader()
    with pytest.raises(ConfigError, match="callables"):
        trainer(tmp_path, torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="same name"):
        trainer(tmp_path, [redness, redness])
    with pytest.raises(DataError, match="no pytorch_lora_weights"):
        trainer(tmp_path).policy.load(tmp_path)


def test_edits_are_printed_with_what_rewards_say_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reward(completions: Any, log_extra: Any, **_: Any) -> list[float]:
        log_extra("verdict", ["met"] * len(completions))
        return [1.25] * len(completions)

    trainer(tmp_path, reward, log_completions=True, max_steps=1).train()
    assert "reward 1.25 | verdict: met" in capsys.readouterr().out
