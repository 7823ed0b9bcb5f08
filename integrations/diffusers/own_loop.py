"""A training loop of your own around an unmodified diffusers pipeline: only its scheduler is swapped, while it runs.

    python integrations/diffusers/own_loop.py                    about a minute on one CPU core, nothing is downloaded
    python integrations/diffusers/own_loop.py --model black-forest-labs/FLUX.1-Kontext-dev --data DIR \\
        --verifier openai:MODEL@URL                              any Kontext, on one GPU

Yours are the pipeline, its LoRA, the data, the seeds, the optimizer and the loop. From editr1-plugins come four calls,
all in `update`: `record_group` samples edits with the pipeline's own code and keeps the stochastic steps; `HostScorer`
judges them; `group_advantages` compares them; `accumulate` replays the steps, again through the pipeline's own code,
and adds the gradient of Flow-GRPO. Between these calls the pipeline has its own scheduler and is as it was.

Left out of what `EditGRPOTrainer` has: several GPUs, checkpoints, evaluation, a moving average, judging while sampling,
and the KL (`objective.refer` under `without_adapters`, once the points are prepared).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextPipeline
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, get_peft_model_state_dict
from PIL.Image import Image

from editr1_plugins.adapters.conversion import as_edit
from editr1_plugins.adapters.scorer import HostScorer
from editr1_plugins.miniedit.model import CALL, weights_path
from editr1_plugins.miniedit.pairs import edit_dataset, split_tasks
from editr1_plugins.training.advantage import group_advantages
from editr1_plugins.training.algorithms import accumulate
from editr1_plugins.training.algorithms.flow_grpo import FlowGRPO
from editr1_plugins.training.edit_data import load_edit_data
from editr1_plugins.training.edit_grpo import KontextGRPOTrainer
from editr1_plugins.training.generation import size_like
from editr1_plugins.training.preflight import require_ratio_of_one
from editr1_plugins.training.rollout import record_group


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an update does; the defaults suit MiniEdit's tiny Kontext."""

    steps: int = 6
    window: Sequence[int] = (0, 1)  # the stochastic, trained steps: the first ones decide what is edited
    noise_level: float = 0.7
    groups: int = 6  # (image, prompt) pairs per update
    group_size: int = 8  # edits of each
    batch: int = 8  # edits per pass through the pipeline, when sampling and in replay
    resolution: int = 32
    call: Mapping[str, Any]
    epsilon: float = 1e-3
    scale_rewards: str = "batch"
    max_grad_norm: float = 1.0
    learning_rate: float = 4e-3
    rank: int = 16


TINY = Recipe(call=CALL)
#: Flow-GRPO's settings for FLUX.1 Kontext at 512 px, without its KL.
REAL = Recipe(
    **{"window": range(5), "noise_level": 0.9, "group_size": 24, "batch": 3, "resolution": 512, "rank": 64},
    **{"epsilon": 1e-4, "scale_rewards": "group", "learning_rate": 3e-4, "call": {"guidance_scale": 2.5}},
)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A source, an instruction, and the seeds of its edits; all begin at the same noise, that of `start`."""

    image: Image
    prompt: str
    seeds: Sequence[int]
    start: int

    def call(self, recipe: Recipe) -> dict[str, Any]:
        """The pipeline's arguments: about resolution x resolution pixels in the source's proportions."""
        width, height = size_like(self.image.size, recipe.resolution, 16)
        size = {"width": width, "height": height, "max_area": width * height, "_auto_resize": False}
        source = {"image": self.image.resize((width, height)), "prompt": self.prompt}
        return {**recipe.call, **size, **source, "num_inference_steps": recipe.steps}


def update(pipe: Any, groups: Sequence[Group], scorer: HostScorer, optimizer: Any, recipe: Recipe) -> dict[str, float]:
    """One update on freshly sampled groups; returns what to log."""
    autocast = torch.autocast(pipe.device.type, torch.bfloat16, enabled=pipe.transformer.dtype == torch.bfloat16)
    sampling = {"chunk": recipe.batch, "window": recipe.window, "noise_level": recipe.noise_level}
    with autocast:
        rollouts = [
            record_group(
                pipe, each.call(recipe), seeds=each.seeds, start_seeds=[each.start] * len(each.seeds), **sampling
            )
            for each in groups
        ]
    made = [(group, edit) for group, rollout in zip(groups, rollouts, strict=True) for edit in rollout.images]
    scored = scorer.score([as_edit(of.image, edit, of.prompt, row=row) for row, (of, edit) in enumerate(made)])
    # What could not be judged is None here, and takes no part; the scorer raises when that is too much of a batch.
    rewards = [[outcome.score] for outcome in scored.outcomes]
    advantages = group_advantages(rewards, recipe.group_size, scale_rewards=recipe.scale_rewards).values

    objective, ratio_error = FlowGRPO(epsilon=recipe.epsilon), 0.0
    optimizer.zero_grad()
    for rollout, values in zip(rollouts, advantages.split(recipe.group_size), strict=True):
        points = objective.prepare(pipe, rollout)
        for first in range(0, len(rollout), recipe.batch):
            rows = slice(first, min(first + recipe.batch, len(rollout)))
            share = (rows.stop - rows.start) / len(made)
            with autocast:
                found = accumulate(objective, pipe, rollout, points, values, rows=rows, scale=share)
            ratio_error = max(ratio_error, found.get("ratio_error", 0.0))
    require_ratio_of_one(ratio_error)  # the weights are those that sampled: else what is trained is not what was made
    trained = [parameter for options in optimizer.param_groups for parameter in options["params"]]
    torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
    optimizer.step()
    return {**scored.metrics, "ratio_error": ratio_error}


def groups_of(rows: Any, recipe: Recipe, seed: int) -> Iterator[list[Group]]:
    """The groups of update after update, without end."""
    rng = random.Random(seed)
    while True:
        yield [
            Group(
                image=rows[index]["image"],
                prompt=rows[index]["prompt"],
                seeds=[rng.getrandbits(32) for _ in range(recipe.group_size)],
                start=rng.getrandbits(32),
            )
            for index in rng.sample(range(len(rows)), recipe.groups)
        ]


def add_lora(pipe: Any, rank: int) -> list[torch.nn.Parameter]:
    """The trained parameters: those of a new LoRA, in float32."""
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False).eval()
    targets = list(KontextGRPOTrainer.lora_targets)  # the published ones; any others will do
    lora = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
    pipe.transformer.add_adapter(lora)
    cast_training_params(pipe.transformer, torch.float32)
    return [parameter for parameter in pipe.transformer.parameters() if parameter.requires_grad]


def main(arguments: Sequence[str] | None = None) -> list[dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Kontext, by id or folder; default: MiniEdit's tiny one")
    parser.add_argument("--data", type=Path, help="what `training.edit_data` reads; default: MiniEdit's drawings")
    parser.add_argument("--verifier", default="measure", help="judge; measure needs no model; default: %(default)s")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("outputs/own_loop"))
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    recipe, dtype = (TINY, torch.float32) if args.model is None else (REAL, torch.bfloat16)
    pipe = FluxKontextPipeline.from_pretrained(args.model or weights_path(), dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    if args.model is None:
        torch.set_num_threads(1)  # tiny networks are slower on several
    else:
        pipe.to("cuda")
        pipe.transformer.enable_gradient_checkpointing()
    adamw = {"lr": recipe.learning_rate, "betas": (0.9, 0.95), "weight_decay": 1e-4}
    optimizer = torch.optim.AdamW(add_lora(pipe, recipe.rank), **adamw)
    drawings = edit_dataset(split_tasks(200, seed=0, held_out=False))
    groups = groups_of(drawings if args.data is None else load_edit_data(args.data).usable(), recipe, seed=0)
    scorer, logs = HostScorer(verifier=args.verifier), []
    for number in range(1, args.updates + 1):
        logs.append(update(pipe, next(groups), scorer, optimizer, recipe))
        print(f"update {number}: " + ", ".join(f"{name} {value:.3g}" for name, value in logs[-1].items()), flush=True)
    pipe.save_lora_weights(args.output, transformer_lora_layers=get_peft_model_state_dict(pipe.transformer))
    print(f"pipe.load_lora_weights({str(args.output)!r}) uses it")
    return logs


if __name__ == "__main__":
    main()
