"""Configuration of the edit trainers: `transformers.TrainingArguments` plus what RL of a flow-matching editor needs.

A name that TRL has keeps TRL's meaning, a name that diffusers has keeps diffusers'. Nothing else is renamed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from transformers import TrainingArguments

from editr1_plugins.errors import ConfigError

__all__ = ["EditGRPOConfig", "KontextGRPOConfig", "QwenImageEditGRPOConfig"]

_CHOICES: Final = {
    "judge_calls": ("auto", "group", "rollout"),
    "ratio": ("plain", "guard"),
    "scale_rewards": ("group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "window_strategy": ("fixed", "random", "sliding"),
}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class EditGRPOConfig(TrainingArguments):
    """Arguments of `EditGRPOTrainer`.

    `per_device_train_batch_size` counts edits in one replay pass; prompts per update = batch x accumulation x processes
    / `num_generations`. The defaults of `learning_rate`, `logging_steps` and `remove_unused_columns` differ from
    TrainingArguments'; everything else that is not listed here is as there.

    Raises:
        ConfigError: (a ValueError) a value that cannot work, or values that do not fit together.
    """

    learning_rate: float = _option(3e-4, "Initial learning rate for AdamW; the published LoRA recipes use 3e-4.")
    logging_steps: float = _option(1, "Log every so many updates.")
    remove_unused_columns: bool | None = _option(False, "Columns are handed to the rewards, so they are kept.")

    # Groups and reuse (TRL's names and meaning)
    num_generations: int = _option(8, "G: edits sampled per (image, prompt).")
    steps_per_generation: int | None = _option(
        None, "Replay passes that one rollout feeds; None: gradient_accumulation_steps."
    )
    num_iterations: int = _option(1, "Times that each rollout is trained on (mu).")
    shuffle_dataset: bool = _option(True, "Shuffle the training set, anew in each epoch.")

    # Objective
    objective: str = _option("flow_grpo", "Name of a registered algorithm.")
    beta: float = _option(0.04, "Weight of the exact KL to the reference policy (paper: 0.04); 0 spares its pass.")
    epsilon: float = _option(1e-4, "Clip range of the ratio below 1 (and above, unless epsilon_high is given).")
    epsilon_high: float | None = _option(None, "Clip range of the ratio above 1.")
    ratio: str = _option("plain", "'plain', or 'guard': GRPO-Guard's, normalised per step.")
    scale_rewards: str = _option("group", "Divide advantages by the std of the 'group', the 'batch', or 'none'.")
    advantage_clip: float = _option(5.0, "Advantages are clamped to +- this value.")
    reward_weights: list[float] | None = _option(None, "One weight per reward function; None: all 1.")
    multi_objective_aggregation: str = _option(
        "sum_then_normalize", "Several rewards: 'sum_then_normalize', or 'normalize_then_sum' (GDPO)."
    )

    judge_calls: str = _option(
        "auto",
        "'rollout': a reward is called once per rollout and process, as in TRL; 'group': for each group, in threads,"
        " while others are sampled; 'auto': by group if the reward has the attribute row_wise = True, else once.",
    )
    judge_patience: float | None = _option(
        600.0, "Seconds to wait for a judge that cannot be reached, before the run stops; None: train on without it."
    )

    # Sampling (diffusers' names where it has one)
    num_inference_steps: int = _option(10, "Denoising steps of a training rollout.")
    guidance_scale: float | None = _option(None, "Passed to the pipeline; None: its own default.")
    true_cfg_scale: float | None = _option(None, "Passed to the pipeline; None: its own default.")
    height: int | None = _option(None, "Height of the edits in pixels; None: the pipeline decides.")
    width: int | None = _option(None, "Width of the edits in pixels; None: the pipeline decides.")
    resolution: int | None = _option(
        None,
        "Edits get about resolution x resolution pixels in their source's proportions, unless height, width or"
        " max_area is given; None: the pipeline decides (Kontext makes squares of 1024).",
    )
    pipeline_kwargs: dict[str, Any] | str | None = _option(None, "More arguments of the pipeline's call (JSON).")
    sampler: str = _option("flow_grpo", "Family of the stochastic steps: 'flow_grpo', 'dance' or 'cps'.")
    noise_level: float = _option(0.7, "a (eta for 'dance'): how much noise a stochastic step adds.")
    window: int | None = _option(None, "Stochastic, trained steps per rollout; None: all of window_range.")
    window_range: list[int] | None = _option(None, "[first, end) of steps that may be in the window; None: [0, T-1).")
    window_strategy: str = _option("random", "Where the window lies in its range: 'fixed', 'random' or 'sliding'.")
    generation_chunk: int | None = _option(
        None, "Edits sampled per pipeline call; None: as they are replayed, per_device_train_batch_size at a time."
    )
    offload_encoders: bool = _option(False, "Text encoders and VAE wait on the CPU while the denoiser is trained.")
    tape_dir: str | None = _option(None, "Folder for the encoders' outputs while the run lasts; None: host memory.")
    shared_noise: bool = _option(False, "One initial noise per group, so that only the stochastic steps differ.")

    # Evaluation and saving
    eval_num_inference_steps: int = _option(28, "Denoising steps (ODE) of an edit in evaluation.")
    eval_images: int = _option(16, "Held-out edits drawn onto a sheet in output_dir/eval and the tracker; 0: none.")
    ema_decay: float | None = _option(None, "EMA of the trained weights, used in evaluation and saving; None: off.")
    log_completions: bool = _option(False, "Print a table of edits with their rewards at each log.")
    preflight: bool = _option(True, "Before the first update, prove that the pipeline replays exactly.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.pipeline_kwargs, str):
            self.pipeline_kwargs = json.loads(self.pipeline_kwargs)
        if self.steps_per_generation is None:
            self.steps_per_generation = self.gradient_accumulation_steps
        self._check_choices()
        self._check_sizes()
        self._check_window()
        self._check_patience()

    def __getstate__(self) -> dict[str, Any]:
        """Without the hub's token: `training_args.bin` lies in folders that are published."""
        return {**self.__dict__, "hub_token": None}

    @property
    def generation_batch_size(self) -> int:
        """Edits per rollout over all processes: batch x processes x steps_per_generation."""
        assert self.steps_per_generation is not None
        return int(self.per_device_train_batch_size * self.world_size * self.steps_per_generation)

    @property
    def trainable_range(self) -> range:
        """The steps that may be stochastic; the last step is left out, its Gaussian is too sharp to train on."""
        first, end = self.window_range or (0, max(1, self.num_inference_steps - 1))
        return range(first, end)

    def _check_choices(self) -> None:
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(f"{name}={value!r}: one of {', '.join(allowed)}")

    def _check_sizes(self) -> None:
        if self.resolution is not None and self.resolution < 16:
            raise ConfigError(f"resolution={self.resolution}: at least 16 pixels")
        if self.generation_chunk is not None and self.generation_chunk < 1:
            raise ConfigError(f"generation_chunk={self.generation_chunk}: at least 1 edit per pipeline call")
        if self.num_generations < 2:
            raise ConfigError(f"num_generations={self.num_generations}: a group needs at least 2 edits to compare")
        if self.generation_batch_size % self.num_generations:
            raise ConfigError(
                f"per_device_train_batch_size x processes x steps_per_generation = {self.generation_batch_size} must be"
                f" a multiple of num_generations = {self.num_generations}"
            )

    def _check_patience(self) -> None:
        patience = self.judge_patience
        if patience is not None and not patience >= 0:
            raise ConfigError(f"judge_patience={patience}: seconds (0: none), or None to train on without a judge")
        if patience and self.world_size > 1 and patience >= self.ddp_timeout:
            raise ConfigError(
                f"judge_patience={patience:g} must be below ddp_timeout={self.ddp_timeout}, which ends the others' wait"
            )

    def _check_window(self) -> None:
        steps = self.trainable_range
        if not 0 <= steps.start < steps.stop <= self.num_inference_steps:
            raise ConfigError(f"window_range={self.window_range} must lie within 0..{self.num_inference_steps}")
        if self.window is not None and not 1 <= self.window <= len(steps):
            raise ConfigError(f"window={self.window}: between 1 and the {len(steps)} steps of its range")


@dataclass
class KontextGRPOConfig(EditGRPOConfig):
    """The published recipe for FLUX.1 Kontext at 512 px (Flow-GRPO's), with this project's paper's group and KL."""

    resolution: int | None = 512
    num_generations: int = 24
    per_device_train_batch_size: int = 3
    gradient_accumulation_steps: int = 8
    weight_decay: float = 1e-4
    num_inference_steps: int = 6
    eval_num_inference_steps: int = 28
    guidance_scale: float | None = 2.5
    noise_level: float = 0.9
    ema_decay: float | None = 0.9


@dataclass
class QwenImageEditGRPOConfig(EditGRPOConfig):
    """The published recipe for Qwen-Image-Edit at 512 px: true CFG in training too, 3 SDE steps in the first half."""

    resolution: int | None = 512
    num_generations: int = 16
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 4
    weight_decay: float = 1e-4
    num_inference_steps: int = 12
    eval_num_inference_steps: int = 40
    true_cfg_scale: float | None = 4.0
    noise_level: float = 0.7
    window: int | None = 3
    window_range: list[int] | None = field(default_factory=lambda: [0, 6])
    ema_decay: float | None = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.true_cfg_scale is not None and self.true_cfg_scale > 1:
            given = self.pipeline_kwargs if isinstance(self.pipeline_kwargs, dict) else {}
            # Without a negative prompt these pipelines leave true guidance out; a blank one is what they document.
            self.pipeline_kwargs = {"negative_prompt": " ", **given}
