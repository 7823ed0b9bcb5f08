"""What the guards say to a real editor's own edits, good and bad ones: a table in Markdown.

    python tests/performance/editor_guard_rates.py [--tasks 256] [--lora FOLDER] [--details]

The editor is MiniEdit's tiny FLUX.1 Kontext, with both sets of weights that ship with the package and, with `--lora`,
with a LoRA that RL made of "start" (`editr1 demo` stores one). The tasks are held out from RL, as in the demo. An edit
is good from a gold score of 7, and an alarm on it is a false one; under a gold score of 3 it is bad, and an alarm on it
is right or does no harm. Images have 32x32 pixels, so the guard that reads text has nothing to say and is left out.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from editr1_plugins.guards import DEFAULT_GUARDS, PaintedTextGuard
from editr1_plugins.miniedit.demo_run import DemoSettings, held_out_tasks
from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.model import CALL, load_pipeline
from editr1_plugins.miniedit.world import Task, draw
from editr1_plugins.types import Alarm, Edit

GOOD, BAD = 7.0, 3.0  # gold score, 0..10
GUARDS = {name: make() for name, make, _ in DEFAULT_GUARDS if make is not PaintedTextGuard}
BATCH = 64


@dataclass
class Rates:
    """Edits by how good they are, and alarms per guard among them."""

    edits: Counter[str] = field(default_factory=Counter)
    alarms: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in GUARDS})
    false: list[str] = field(default_factory=list)


def sample(pipe: Any, tasks: Sequence[Task], steps: int, seed: int) -> list[Image.Image]:
    """One edit per task, from the ODE sampler."""
    images: list[Image.Image] = []
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(tasks), BATCH):
        batch = tasks[start : start + BATCH]
        images += pipe(
            image=[draw(task.scene) for task in batch],
            prompt=[task.instruction for task in batch],
            num_inference_steps=steps,
            generator=generator,
            **CALL,
        ).images
    return images


def measure(tasks: Sequence[Task], images: Sequence[Image.Image]) -> Rates:
    rates = Rates()
    for task, image in zip(tasks, images, strict=True):
        gold = gold_score(task, image).score
        kind = "good" if gold >= GOOD else "bad" if gold < BAD else "middling"
        rates.edits[kind] += 1
        edit = Edit(source=draw(task.scene), edited=image, instruction=task.instruction)
        for name, guard in GUARDS.items():
            [alarm] = guard.inspect([edit], [()])
            if isinstance(alarm, Alarm):
                rates.alarms[name][kind] += 1
                if kind == "good":
                    rates.false.append(f"{name}: {task.instruction} (gold {gold:.1f}): {alarm.reason}")
    return rates


def copies_found(pipe: Any, tasks: Sequence[Task]) -> int:
    """How many sources the guard against copies recognises after a way through the editor's autoencoder."""
    found = 0
    for task in tasks:
        source = draw(task.scene)
        latents = pipe.vae.encode(pipe.image_processor.preprocess(source)).latent_dist.mode()
        [copy] = pipe.image_processor.postprocess(pipe.vae.decode(latents).sample)
        edit = Edit(source=source, edited=copy, instruction=task.instruction)
        found += GUARDS["no-edit"].inspect([edit], [()]) != [None]
    return found


def table(found: dict[str, Rates]) -> str:
    editors = [f"{name}, {rates.edits.total()} edits" for name, rates in found.items()]
    kinds = ("good", "middling", "bad")
    lines = [f"| guard | {' | '.join(editors)} |", f"|---|{'---|' * len(editors)}"]
    counts = (" / ".join(str(rates.edits[kind]) for kind in kinds) for rates in found.values())
    lines.append(f"| edits: good / middling / bad | {' | '.join(counts)} |")
    for name in GUARDS:
        cells = (" / ".join(str(rates.alarms[name][kind]) for kind in kinds) for rates in found.values())
        lines.append(f"| alarms of {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=256)
    parser.add_argument("--steps", type=int, default=DemoSettings().steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lora", type=Path, help="folder of a LoRA on top of the weights 'start'")
    parser.add_argument("--details", action="store_true", help="name every false alarm")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tasks = held_out_tasks(DemoSettings(held_out=options.tasks))
    found = {}
    for name in ("start", "clean", *(["start + LoRA"] if options.lora else [])):
        pipe = load_pipeline(name.partition(" ")[0])
        if name.endswith("LoRA"):
            pipe.load_lora_weights(options.lora)
        with torch.no_grad():
            found[name] = measure(tasks, sample(pipe, tasks, options.steps, options.seed))
            copies = copies_found(pipe, tasks)
    print(table(found))
    print(f"\nno-edit finds {copies} of {len(tasks)} copies that went through the editor's autoencoder")
    if options.details:
        print("\n".join(line for rates in found.values() for line in rates.false))


if __name__ == "__main__":
    main()
