"""Train MiniEdit's judge by the package's own trainers: pretraining, then SFT on traces, then GCPO on pairs.

    python examples/miniature/make_data.py --output data
    python examples/miniature/train_judge.py --data data --output judge

Each stage's model is kept in a folder of its own below --output (`base`, `sft`, `gcpo`) and a rerun goes on after the
last one that is there. Bounded by steps and seeded.

The shipped `rrm-mini` is `--size small --gcpo-steps 48`; what all of this brings is told in `docs/miniature.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from pretrain import pretrain
from transformers import Qwen2_5_VLForConditionalGeneration

from editr1_plugins.miniedit.judge_model import SIZES
from editr1_plugins.plugins import resolve
from editr1_plugins.training.gcpo import GCPOConfig, GCPOTrainer
from editr1_plugins.training.judge_evaluation import JudgeSettings, judge_in_training, judge_metrics
from editr1_plugins.training.judge_model import judge_processor
from editr1_plugins.training.judge_sft import JudgeSFTConfig, JudgeSFTTrainer
from editr1_plugins.training.preference_files import load_pairs
from editr1_plugins.training.preference_pairs import with_principles
from editr1_plugins.training.trace_data import load_traces
from editr1_plugins.verifiers.prompting import MODES, Mode

MAX_TOKENS = 100
COMMON: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "adam_beta2": 0.98,
    "max_grad_norm": 1.0,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "logging_steps": 10,
}


def load(folder: Path) -> Any:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def sft(start: Path, folder: Path, traces: Dataset, *, mode: Mode, steps: int, seed: int, rate: float = 1e-3) -> float:
    """SFT on traces; CPU seconds of training."""
    arguments = JudgeSFTConfig(
        output_dir=str(folder),
        mode=mode,
        seed=seed,
        max_steps=steps,
        per_device_train_batch_size=32,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(30, steps // 5),
        weight_decay=0.01,
        **COMMON,
    )
    trainer = JudgeSFTTrainer(load(start), arguments, traces, processing_class=judge_processor(str(start)))
    return trained(trainer, folder)


def gcpo(start: Path, folder: Path, pairs: Dataset, *, mode: Mode, steps: int, seed: int, rate: float = 2e-4) -> float:
    """GCPO on pairs: 16 pairs an update, 8 traces an image. A rate from 4e-4 on has been seen to collapse."""
    arguments = GCPOConfig(
        output_dir=str(folder),
        mode=mode,
        seed=seed,
        max_steps=steps,
        per_device_train_batch_size=64,
        gradient_accumulation_steps=4,
        num_generations=8,
        max_completion_length=MAX_TOKENS,
        temperature=1.0,
        top_k=0,
        beta=0.0,
        learning_rate=rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=3,
        **COMMON,
    )
    trainer = GCPOTrainer(load(start), arguments, pairs, processing_class=judge_processor(str(start)))
    return trained(trainer, folder)


def trained(trainer: Any, folder: Path) -> float:
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    trainer.save_model(str(folder))
    trainer.processing_class.save_pretrained(folder)
    (folder / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1) + "\n")
    return seconds


def measured(folder: Path, data: Path, *, mode: Mode, pairs: int, traces: int) -> dict[str, Any]:
    """Metrics of a judge on so many held-out pairs and traces: sampled at T = 1, greedy, by the score it expects."""
    held_out = with_principles(load_pairs(data / "heldout_pairs"), resolve("decomposer", "rules"))
    held_out = held_out.select(range(min(pairs, len(held_out))))
    told = load_traces(data / "heldout_traces" / "dataset") if mode != "think" else None
    if told is not None:
        told = told.select(range(min(traces, len(told))))
    model, processor = load(folder), judge_processor(str(folder))
    found = {}
    for way, temperature in (("sampled", 1.0), ("greedy", 0.0)):
        settings = JudgeSettings(mode=mode, max_tokens=MAX_TOKENS, max_batch=512, temperature=temperature)
        with judge_in_training(model, processor, settings) as judge:
            found[way] = judge_metrics(judge, pairs=held_out, traces=told)
    settings = JudgeSettings(mode=mode, max_tokens=MAX_TOKENS, max_batch=512, aggregate="expected")
    with judge_in_training(model, processor, settings) as judge:
        found["expected"] = judge_metrics(judge, pairs=held_out)
    return found


def report(folder: Path, arguments: argparse.Namespace) -> None:
    print(json.dumps(measured(folder, arguments.data, mode=arguments.mode, pairs=400, traces=400)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what make_data.py wrote")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--mode", choices=MODES, default="think+verify")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-steps", type=int, default=8000)
    parser.add_argument("--sft-steps", type=int, default=150)
    parser.add_argument("--gcpo-steps", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base, first, second = (arguments.output / stage for stage in ("base", "sft", "gcpo"))
    if not (base / "config.json").exists():
        pretrain(base, size=arguments.size, seed=arguments.seed, steps=arguments.base_steps)
    options: dict[str, Any] = {"mode": arguments.mode, "seed": arguments.seed}
    if not (first / "log.json").exists():
        traces = load_traces(arguments.data / "traces" / "dataset")
        print("sft: CPU s", sft(base, first, traces, steps=arguments.sft_steps, **options), flush=True)
        report(first, arguments)
    if not (second / "log.json").exists():
        pairs = load_pairs(arguments.data / "pairs")
        print("gcpo: CPU s", gcpo(first, second, pairs, steps=arguments.gcpo_steps, **options), flush=True)
        report(second, arguments)


if __name__ == "__main__":
    main()
