"""RL of FLUX.1 Kontext with the verified reward: tiny weights by default, the real model by one flag.

    python examples/kontext/train.py                       about a minute on one CPU core, nothing is downloaded
    python examples/kontext/train.py --real --data DIR --verifier openai:MODEL@URL                        one GPU
    torchrun --nproc_per_node 8 examples/kontext/train.py --real --data DIR --verifier openai:MODEL@URL

The tiny weights are MiniEdit's: the same classes of diffusers and transformers, 1.7 M parameters, trained on drawings
of which half were edited wrongly. The run shows every part at work and is too short to learn much; `editr1 demo` makes
a hundred larger updates of the same weights. DIR holds `train.jsonl` and `test.jsonl` as `examples/edits` does. A run
that was stopped goes on from its last checkpoint when the same command is run again.

As a command, with the same settings: `editr1 grpo --config examples/kontext/tiny.yaml`, and `kontext.yaml` for the real
model. What is left out here: reward functions of one's own (see `examples/qwen_image_edit`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig

from editr1_plugins import EditRRMReward, KontextGRPOConfig, KontextGRPOTrainer
from editr1_plugins.miniedit.model import CALL, weights_path
from editr1_plugins.training.edit_data import load_edit_data

REAL_MODEL = "black-forest-labs/FLUX.1-Kontext-dev"
EDITS = Path(__file__).parent.parent / "edits"

#: What is not the published recipe, which is the default of `KontextGRPOConfig` and of the trainer's LoRA.
REAL: dict[str, Any] = {
    "bf16": True,
    "activation_checkpointing": True,
    # Prompts per update = 3 x accumulation x processes / 24: 6 on each GPU, hence the published 48 on eight.
    "gradient_accumulation_steps": 48,
    "max_steps": 300,
    "eval_steps": 20,
    "save_steps": 20,
}

#: The first two denoising steps decide what is edited, so only they are stochastic and trained.
TINY: dict[str, Any] = {
    "pipeline_kwargs": CALL,
    "num_generations": 8,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 6,
    "eval_num_inference_steps": 6,
    "window": 2,
    "window_range": [0, 2],
    "shared_noise": True,
    "noise_level": 0.7,
    "learning_rate": 1e-3,
    "warmup_steps": 3,
    "adam_beta2": 0.95,
    "weight_decay": 0.0,
    "epsilon": 1e-3,
    "beta": 0.0,
    "scale_rewards": "batch",
    "ema_decay": None,
    "max_steps": 16,
    "eval_steps": 16,
    "save_steps": 8,
    "use_cpu": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help=f"train {REAL_MODEL} with the published recipe")
    parser.add_argument("--model", help="train this Kontext (id or folder) with the published recipe")
    parser.add_argument("--data", type=Path, default=EDITS, help="folder of train.jsonl and test.jsonl")
    parser.add_argument("--verifier", default="measure", help="judge; measure needs no model; default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("outputs/kontext"))
    parser.add_argument("--max-steps", type=int, help="updates, instead of the setting's own")
    args = parser.parse_args()
    real = args.real or args.model is not None
    settings = REAL if real else TINY
    if not real:
        torch.set_num_threads(1)  # tiny networks are slower on several

    trainer = KontextGRPOTrainer(
        DiffusionPipeline.from_pretrained(
            (args.model or REAL_MODEL) if real else weights_path("start"),
            dtype=torch.bfloat16 if real else torch.float32,
        ),
        reward_funcs=EditRRMReward(args.verifier, record=args.output / "records"),
        args=KontextGRPOConfig(
            output_dir=str(args.output),
            eval_strategy="steps",
            save_total_limit=2,
            report_to=[],
            **{**settings, **({} if args.max_steps is None else {"max_steps": args.max_steps})},
        ),
        train_dataset=load_edit_data(args.data).usable(skip_broken=real),
        eval_dataset=load_edit_data(args.data, split="test").usable(skip_broken=real),
        peft_config="recipe" if real else small_lora(),
    )
    before = trainer.evaluate()
    trainer.train(resume_from_checkpoint=any(args.output.glob("checkpoint-*")))
    after = trainer.evaluate()
    trainer.save_model()
    trainer.accelerator.print(f"held-out reward {before['eval_reward']:.2f} -> {after['eval_reward']:.2f} of 10")
    trainer.accelerator.print(
        f"pipe.load_lora_weights({str(args.output)!r}) uses it; editr1 report {args.output}/records"
    )


def small_lora() -> LoraConfig:
    return LoraConfig(
        r=16, lora_alpha=16, init_lora_weights="gaussian", target_modules=list(KontextGRPOTrainer.lora_targets)
    )


if __name__ == "__main__":
    main()
