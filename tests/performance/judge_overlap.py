"""What a judge's latency costs a training step: asked after sampling, against asked while sampling and replay go on.

    python tests/performance/judge_overlap.py [--rounds 5] [--group 4] [--prompts 6]

The tiny Kontext of MiniEdit on one thread, with a judge that answers after a while and needs no processor meanwhile, as
one on another machine does. Its latency is a share of a step's time without a judge: once per call ("call": the time of
one answer), or per edit ("edit": a judge that takes so many edits a second and no more; one call at a time). All
variants take turns in one run, update by update. A judge costs a step what the trainer waits for it (`judge_wait`), so
each ratio (step / step without that wait) is of one and the same step, and the machine's load cancels; the table has
medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from typing import Any, NamedTuple

import torch
from peft import LoraConfig
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from editr1_plugins.miniedit.model import CALL, load_pipeline
from editr1_plugins.miniedit.pairs import edit_dataset, split_tasks
from editr1_plugins.training.edit_grpo import KontextGRPOConfig, KontextGRPOTrainer
from editr1_plugins.training.judging import Judge

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
WARM_UP = 2


class Variant(NamedTuple):
    """How the judge is called, and how long it takes for all edits of a rollout, as a share of a step."""

    calls: str
    latency: str
    fraction: float


NONE = Variant("rollout", "call", 0.0)


class SlowJudge:
    """Scores edits by their brightness, after a while; one at a time where the latency is by edit."""

    row_wise = True
    __name__ = "slow_judge"

    def __init__(self, edits: int) -> None:
        self.edits, self.seconds, self.variant = edits, 0.0, NONE
        self._turn = threading.Lock()

    def __call__(self, completions: Any, **_: Any) -> list[float]:
        if self.variant.latency == "call":
            time.sleep(self.seconds)
        else:
            with self._turn:
                time.sleep(self.seconds * len(completions) / self.edits)
        return [sum(image.resize((1, 1)).getpixel((0, 0))) / 76.5 for image in completions]


class Turns(TrainerCallback):
    """Gives each update its variant, and books its time."""

    def __init__(self, judge: SlowJudge, variants: list[Variant]) -> None:
        self.judge, self.variants = judge, variants
        self.trainer: Any = None
        self.seconds: defaultdict[Variant, list[float]] = defaultdict(list)
        self.waited: defaultdict[Variant, list[float]] = defaultdict(list)
        self.warm: list[float] = []
        self.started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= WARM_UP:
            variant = self.variants[(state.global_step - WARM_UP) % len(self.variants)]
            self.judge.variant, self.judge.seconds = variant, variant.fraction * min(self.warm)
            self.trainer.judge = Judge(self.trainer.reward_functions, calls=variant.calls)
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds = time.perf_counter() - self.started
        if state.global_step <= WARM_UP:
            self.warm.append(seconds)
        else:
            self.seconds[self.judge.variant].append(seconds)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "judge_wait" in (logs or {}) and state.global_step > WARM_UP:
            self.waited[self.judge.variant].append(logs["judge_wait"])


def run(rounds: int, prompts: int, group: int) -> Turns:
    torch.set_num_threads(1)
    variants = [NONE]
    for latency in ("call", "edit"):
        variants += [Variant(calls, latency, f) for f in FRACTIONS for calls in ("rollout", "group")]
    judge = SlowJudge(prompts * group)
    turns = Turns(judge, variants)
    with tempfile.TemporaryDirectory() as scratch:
        args = KontextGRPOConfig(
            output_dir=scratch,
            max_steps=WARM_UP + rounds * len(variants),
            per_device_train_batch_size=group,
            num_generations=group,
            gradient_accumulation_steps=prompts,
            num_inference_steps=6,
            guidance_scale=CALL["guidance_scale"],
            pipeline_kwargs={name: value for name, value in CALL.items() if name != "guidance_scale"},
            window=2,
            window_range=[0, 2],
            beta=0.0,
            ema_decay=None,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            preflight=False,
            log_level="error",
        )
        targets = list(KontextGRPOTrainer.lora_targets)
        trainer = KontextGRPOTrainer(
            load_pipeline("start"),
            judge,
            args,
            edit_dataset(split_tasks(200, seed=1, held_out=False)),
            peft_config=LoraConfig(r=16, lora_alpha=16, init_lora_weights="gaussian", target_modules=targets),
            callbacks=[turns],
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        turns.trainer = trainer
        trainer.train()
    return turns


def ratio(turns: Turns, variant: Variant) -> float:
    steps = zip(turns.seconds[variant], turns.waited[variant], strict=True)
    return statistics.median(seconds / (seconds - waited) for seconds, waited in steps)


def table(turns: Turns) -> str:
    lines = [
        "| latency of all edits / step | per | judged after: step / without | overlapped: step / without | hidden |",
        "|---|---|---|---|---|",
    ]
    for latency in ("call", "edit"):
        for fraction in FRACTIONS:
            serial, overlapped = (Variant(calls, latency, fraction) for calls in ("rollout", "group"))
            after, beside = ratio(turns, serial), ratio(turns, overlapped)
            hidden = 1 - (beside - 1) / (after - 1)
            lines.append(f"| {fraction:.2f} | {latency} | {after:.2f} | {beside:.2f} | {100 * hidden:.0f} % |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--group", type=int, default=4)
    options = parser.parse_args()
    turns = run(options.rounds, options.prompts, options.group)
    print(f"a step without a judge: {statistics.median(turns.seconds[NONE]):.2f} s; {options.rounds} rounds\n")
    print(table(turns))


if __name__ == "__main__":
    main()
