"""Where the time of a whole training step goes: sampling, decoding, judging, replay, optimizer; a table in Markdown.

    python tests/performance/step_amdahl.py [--updates 4] [--window 2]

The demo's set-up (tiny Kontext, the embedded judge, 6 groups of 12 edits of 6 steps, LoRA of rank 16) on one thread, in
CPU time. Each part is timed where the trainer calls it; parts within parts are taken off, so the shares add up to 100 %
with what is left ("the rest": data, logging, the Trainer). The last column is Amdahl's bound: how much faster a step
would be if that part cost nothing. The first update warms up and is left out.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from editr1_plugins.miniedit.demo_run import DemoSettings, trainer_config
from editr1_plugins.miniedit.model import load_pipeline
from editr1_plugins.miniedit.pairs import edit_dataset, split_tasks
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.training.edit_grpo import KontextGRPOTrainer

PARTS = {
    "encoding": "text encoders and VAE encoder, once per prompt",
    "sampling": "the transformer's steps in rollouts, and the pipeline around them",
    "decoding": "VAE decoder and conversion to images",
    "judging": "the reward: decompose, guards, verifier",
    "replay": "the transformer's steps with gradient, loss, backward",
    "optimizer": "clipping and AdamW on the LoRA",
}
REST = "the rest"


class Clock:
    """CPU seconds by part; of nested parts only the innermost runs. Judging has a thread, so a stack, of its own."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.threads = threading.local()
        self.threads.stack, self.threads.since = [REST], time.thread_time()

    def book(self) -> None:
        """Book what passed on this thread since the last booking."""
        now = time.thread_time()
        if self.threads.stack:
            self.seconds[self.threads.stack[-1]] += now - self.threads.since
        self.threads.since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if not hasattr(self.threads, "stack"):
            self.threads.stack = []
        self.book()
        self.threads.stack.append(name)
        try:
            yield
        finally:
            self.book()
            self.threads.stack.pop()

    def restart(self) -> None:
        self.book()
        self.seconds.clear()

    def times(self, owner: Any, method: str, name: str) -> None:
        """From now on, `owner.method` is booked under `name`."""
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return original(*args, **kwargs)

        setattr(owner, method, timed)


class TimedReward:
    """`EditRRMReward`, booked as judging."""

    __name__ = "edit_rrm"
    row_wise = EditRRMReward.row_wise

    def __init__(self, clock: Clock) -> None:
        self.clock, self.reward = clock, EditRRMReward()

    def __call__(self, **columns: Any) -> list[float | None]:
        with self.clock.part("judging"):
            return self.reward(**columns)


class FromSecondUpdate(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            self.clock.restart()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.clock.book()


def measure(updates: int, recipe: dict[str, Any]) -> dict[str, float]:
    """CPU seconds per update and part."""
    torch.set_num_threads(1)
    settings, clock = DemoSettings(updates=updates + 1, recipe=recipe), Clock()
    pipe = load_pipeline(settings.weights)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = KontextGRPOTrainer(
            pipe,
            TimedReward(clock),
            trainer_config(settings, 0, scratch),
            edit_dataset(split_tasks(settings.pool, seed=4242, held_out=False)),
            peft_config=LoraConfig(
                r=settings.rank,
                lora_alpha=settings.rank,
                init_lora_weights="gaussian",
                target_modules=list(KontextGRPOTrainer.lora_targets),
            ),
            callbacks=[FromSecondUpdate(clock)],
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        clock.times(trainer, "training_step", "replay")
        clock.times(trainer.sampler, "sample", "sampling")
        clock.times(trainer, "_settle", "judging")
        clock.times(pipe, "encode_prompt", "encoding")
        clock.times(pipe.vae, "encode", "encoding")
        clock.times(pipe.vae, "decode", "decoding")
        clock.times(pipe.image_processor, "postprocess", "decoding")
        create = trainer.create_optimizer

        def create_timed(*args: Any, **kwargs: Any) -> Any:
            optimizer = create(*args, **kwargs)
            clock.times(optimizer, "step", "optimizer")
            return optimizer

        trainer.create_optimizer = create_timed  # type: ignore[method-assign]
        clock.times(trainer.accelerator, "clip_grad_norm_", "optimizer")
        trainer.train()
    return {name: clock.seconds[name] / updates for name in (*PARTS, REST)}


def table(seconds: dict[str, float]) -> str:
    whole = sum(seconds.values())
    lines = ["| part | CPU ms per step | share | a step would be faster by at most |", "|---|---|---|---|"]
    for name, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        bound = whole / (whole - spent)
        what = f"{name}: {PARTS[name]}" if name in PARTS else name
        lines.append(f"| {what} | {1e3 * spent:.0f} | {100 * spent / whole:.1f} % | x {bound:.2f} |")
    return "\n".join([*lines, f"| whole step | {1e3 * whole:.0f} | 100 % | |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--window", type=int, default=2, help="trained steps, the first ones; 5 is plain Flow-GRPO")
    options = parser.parse_args()
    # All rewards at once, after sampling, or their time could not be told from sampling's.
    recipe = {"window": options.window, "window_range": [0, options.window], "judge_calls": "rollout"}
    print(f"{options.window} trained steps of 6, 72 edits, mean of {options.updates} updates\n")
    print(table(measure(options.updates, recipe)))


if __name__ == "__main__":
    main()
