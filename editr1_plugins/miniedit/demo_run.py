"""One run of the demo: RL of the tiny Kontext by `KontextGRPOTrainer` with `EditRRMReward`, or its control."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch
from peft import LoraConfig
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.model import CALL, load_pipeline
from editr1_plugins.miniedit.pairs import edit_dataset, split_tasks
from editr1_plugins.miniedit.world import Task, draw
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.training.advantage import Advantages
from editr1_plugins.training.edit_grpo import KontextGRPOConfig, KontextGRPOTrainer
from editr1_plugins.training.reward_call import RewardFunction

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DemoSettings", "held_out_tasks", "run_arm", "shown_tasks", "trainer_config"]

_HELD_OUT_SEED: Final = 31_337
_SHOWN: Final = 12  # edits that are kept as pictures


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What a run takes.

    Attributes:
        updates, prompts, group, steps: so many updates, each on `prompts` groups of `group` edits of `steps` steps.
        held_out, measure_every: tasks that are measured, every so many updates.
        learning_rate, rank: of the LoRA.
        pool: training tasks that the groups are drawn from.
        verifier: spec of the judge; None: the default one.
        weights: where RL starts, a name in `miniedit.model.WEIGHTS`.
        recipe: arguments of `KontextGRPOConfig` that are to differ from the demo's.
    """

    updates: int = 100
    prompts: int = 6
    group: int = 12
    steps: int = 6
    held_out: int = 128
    measure_every: int = 20
    learning_rate: float = 4e-3
    rank: int = 16
    pool: int = 600
    verifier: str | None = None
    weights: str = "start"
    recipe: Mapping[str, Any] = field(default_factory=dict)


def held_out_tasks(settings: DemoSettings) -> list[Task]:
    """The tasks that are measured: the same for every seed and arm."""
    return split_tasks(settings.held_out, seed=_HELD_OUT_SEED, held_out=True)


def shown_tasks(settings: DemoSettings) -> list[Task]:
    """The first held-out tasks with different instructions, for the picture."""
    first: dict[str, Task] = {}
    for task in held_out_tasks(settings):
        first.setdefault(task.instruction, task)
    return list(first.values())[:_SHOWN]


def run_arm(
    arm: Literal["trained", "control"],
    seed: int,
    settings: DemoSettings,
    *,
    lora: Path | None = None,
    quiet: bool = True,
    reward: RewardFunction | None = None,
) -> dict[str, Any]:
    """One run, on one thread; the trained LoRA is stored in the folder `lora`, if given.

    `reward` stands in for `EditRRMReward` with the settings' verifier.

    Returns:
        `heldout` and `reward`: lists of [update, value]; `first` and `last`: `scores` and `images` of the `shown_tasks`
        before and after; `cpu_seconds` of training, measuring left out.
    """
    torch.set_num_threads(1)
    pipe, gold = load_pipeline(settings.weights), _GoldMeasure(settings)
    train = split_tasks(settings.pool, seed=4242 + seed, held_out=False)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = (_Control if arm == "control" else KontextGRPOTrainer)(
            pipe,
            reward or EditRRMReward(verifier=settings.verifier),
            trainer_config(settings, seed, scratch),
            edit_dataset(train),
            peft_config=LoraConfig(
                r=settings.rank,
                lora_alpha=settings.rank,
                init_lora_weights="gaussian",
                target_modules=list(KontextGRPOTrainer.lora_targets),
            ),
            callbacks=[gold],
        )
        gold.pipe = pipe
        for callback in (PrinterCallback, ProgressCallback):  # they print every metric of every update
            trainer.remove_callback(callback)
        if not quiet:
            trainer.add_callback(_RewardBar())
        trainer.train()
        if lora is not None:
            trainer.policy.save(lora)
    return {
        "heldout": [[update, round(sum(found.scores) / len(found.scores), 4)] for update, found in gold.measured],
        "reward": [[logs["step"], logs["reward"]] for logs in trainer.state.log_history if "reward" in logs],
        "first": gold.measured[0][1].shown(),
        "last": gold.measured[-1][1].shown(),
        "cpu_seconds": round(gold.training_seconds(), 2),
    }


def trainer_config(settings: DemoSettings, seed: int, folder: str) -> KontextGRPOConfig:
    """The trainer's arguments for a run that writes into `folder`."""
    arguments: dict[str, Any] = {
        "output_dir": folder,
        "seed": seed,
        "max_steps": settings.updates,
        "per_device_train_batch_size": settings.group,
        "num_generations": settings.group,
        "gradient_accumulation_steps": settings.prompts,
        "num_inference_steps": settings.steps,
        "guidance_scale": CALL["guidance_scale"],
        "pipeline_kwargs": {name: value for name, value in CALL.items() if name != "guidance_scale"},
        # The first two steps decide what is edited; one start per group, so that only they differ.
        "window": 2,
        "window_range": [0, 2],
        "shared_noise": True,
        "noise_level": 0.7,
        "learning_rate": settings.learning_rate,
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.25},
        "warmup_steps": 5,
        "epsilon": 1e-3,
        "beta": 0.0,
        "scale_rewards": "batch",
        "ema_decay": None,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "log_level": "error",
    }
    return KontextGRPOConfig(**{**arguments, **settings.recipe})


class _Control(KontextGRPOTrainer):
    """The same run, but which edit gets which advantage is chance."""

    def compute_advantages(self, rewards: torch.Tensor) -> Advantages:
        found = super().compute_advantages(rewards)
        generator = torch.Generator().manual_seed(self.args.seed * 100_003 + self.state.global_step)
        return replace(found, values=found.values[torch.randperm(len(found.values), generator=generator)])


class _RewardBar(ProgressCallback):
    """The Trainer's progress bar, with the reward beside it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.training_bar is not None and "reward" in logs:
            self.training_bar.set_postfix(reward=f"{logs['reward']:.2f}")


class _Snapshot(NamedTuple):
    scores: list[float]
    shown_scores: list[float]
    shown_images: list[Image]

    def shown(self) -> dict[str, Any]:
        return {"scores": self.shown_scores, "images": self.shown_images}


class _GoldMeasure(TrainerCallback):
    """Measures the held-out tasks before, every so many updates, and after."""

    def __init__(self, settings: DemoSettings) -> None:
        self.settings, self.tasks = settings, held_out_tasks(settings)
        self.pipe: Any = None
        self.measured: list[tuple[int, _Snapshot]] = []
        self._measuring, self._began = 0.0, 0.0

    def training_seconds(self) -> float:
        """CPU seconds of this process since training began, without those of measuring."""
        return time.process_time() - self._began - self._measuring

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._measure(0)
        self._began, self._measuring = time.process_time(), 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.settings.measure_every == 0 or state.global_step == state.max_steps:
            self._measure(state.global_step)

    def _measure(self, update: int) -> None:
        began = time.process_time()
        images = self.pipe(
            image=[draw(task.scene) for task in self.tasks],
            prompt=[task.instruction for task in self.tasks],
            num_inference_steps=self.settings.steps,
            generator=torch.Generator().manual_seed(_HELD_OUT_SEED),
            **CALL,
        ).images
        scores = [gold_score(task, image).score for task, image in zip(self.tasks, images, strict=True)]
        shown = [self.tasks.index(task) for task in shown_tasks(self.settings)]
        self.measured.append((update, _Snapshot(scores, [scores[i] for i in shown], [images[i] for i in shown])))
        self._measuring += time.process_time() - began
