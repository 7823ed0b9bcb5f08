"""RL of Qwen-Image-Edit with a reward of one's own: tiny weights by default, the real model by one flag.

    python examples/qwen_image_edit/train.py               about a minute on one CPU core, nothing is downloaded
    python examples/qwen_image_edit/train.py --real --data DIR --verifier openai:MODEL@URL
    torchrun --nproc_per_node 8 examples/qwen_image_edit/train.py --real --data DIR --verifier openai:MODEL@URL

The tiny weights are random: the same classes (2509's, several sources), every moving part, and edits not worth looking
at, so there only `darkness` is rewarded. It is a reward function as TRL's trainers take it: edited images for
`completions`, the data set's columns for keywords, one number an edit. DIR is laid out as `examples/edits`.

As a command, for the real model: `editr1 grpo --config examples/qwen_image_edit/qwen_image_edit.yaml`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig

from editr1_plugins import EditRRMReward, QwenImageEditGRPOConfig, QwenImageEditGRPOTrainer
from editr1_plugins.testing.pipelines import tiny_pipeline
from editr1_plugins.training.edit_data import load_edit_data

REAL_MODEL = "Qwen/Qwen-Image-Edit-2509"
EDITS = Path(__file__).parent.parent / "edits"

#: What is not the published recipe, which is the default of `QwenImageEditGRPOConfig` and of the trainer's LoRA.
REAL: dict[str, Any] = {
    "bf16": True,
    "activation_checkpointing": True,
    # Prompts per update = 4 x accumulation x processes / 16: 4 on each GPU, hence the published 32 on eight.
    "gradient_accumulation_steps": 16,
    "max_steps": 300,
    "save_steps": 20,
    "reward_weights": [1.0, 0.1],
}

TINY: dict[str, Any] = {
    "height": 64,
    "width": 64,
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_inference_steps": 4,
    "window": 2,
    "window_range": [0, 2],
    "learning_rate": 1e-3,
    "max_steps": 3,
    "save_steps": 2,
    "use_cpu": True,
}


def darkness(completions: list[Any], **_: Any) -> list[float]:
    """0 for a white edit, 10 for a black one."""
    return [10 - float(np.asarray(edit.convert("L"), np.float32).mean()) / 25.5 for edit in completions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help=f"train {REAL_MODEL} with the published recipe")
    parser.add_argument("--model", help="train this Qwen-Image-Edit (id or folder) with the published recipe")
    parser.add_argument("--data", type=Path, default=EDITS, help="folder of train.jsonl and test.jsonl")
    parser.add_argument("--verifier", default="measure", help="judge of the real model; default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("outputs/qwen-image-edit"))
    parser.add_argument("--max-steps", type=int, help="updates, instead of the setting's own")
    args = parser.parse_args()
    real = args.real or args.model is not None
    settings = REAL if real else TINY
    if real:
        pipe: Any = DiffusionPipeline.from_pretrained(args.model or REAL_MODEL, dtype=torch.bfloat16)
    else:
        torch.set_num_threads(1)  # tiny networks are slower on several
        pipe, _ = tiny_pipeline("qwen_edit_plus", lora_rank=0)

    trainer = QwenImageEditGRPOTrainer(
        pipe,
        reward_funcs=[EditRRMReward(args.verifier, record=args.output / "records"), darkness] if real else darkness,
        args=QwenImageEditGRPOConfig(
            output_dir=str(args.output),
            save_total_limit=2,
            report_to=[],
            **{**settings, **({} if args.max_steps is None else {"max_steps": args.max_steps})},
        ),
        train_dataset=load_edit_data(args.data).usable(skip_broken=real),
        peft_config="recipe" if real else small_lora(),
    )
    trainer.train(resume_from_checkpoint=any(args.output.glob("checkpoint-*")))
    trainer.save_model()
    rewards = [logs["reward"] for logs in trainer.state.log_history if "reward" in logs]
    worst = max(logs["ratio_error"] for logs in trainer.state.log_history if "ratio_error" in logs)
    trainer.accelerator.print(
        f"reward {rewards[0]:.3f} -> {rewards[-1]:.3f}; replay differed from sampling by {worst:g}"
    )
    trainer.accelerator.print(f"pipe.load_lora_weights({str(args.output)!r}) uses the result")


def small_lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules=list(QwenImageEditGRPOTrainer.lora_targets))


if __name__ == "__main__":
    main()
