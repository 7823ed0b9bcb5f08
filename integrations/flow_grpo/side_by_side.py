"""Time to the same held-out gain: the demo's recipe and flow_grpo's, both in our trainer, on the tiny Kontext.

    OMP_NUM_THREADS=1 nice python integrations/flow_grpo/side_by_side.py --output runs/side_by_side

Both start from the same weights, draw the same tasks, are judged by the same judge (`measure`), and are measured on the
same held-out tasks with the gold measure, which is no part of the reward. Each recipe gets the same search: three
learning rates on a seed of their own, and the one whose mean held-out gain over its run is largest is then run on the
seeds compared. A run ends by updates that cost both recipes about the same CPU time (`RECIPES`).

A file per run in the output folder; what is there is not run again, so a stopped comparison goes on. Time is CPU time
of one thread, measuring left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TUNING_SEED, SEEDS, RATES = 77, (0, 1, 2), (2e-3, 4e-3, 8e-3)
GAINS = (0.2, 0.4)


@dataclass(frozen=True)
class Recipe:
    """What differs from the demo, updates of a run, and updates between two measures."""

    summary: str
    updates: int
    every: int
    settings: dict[str, Any]


RECIPES = {
    "ours": Recipe("window of the first 2 steps, one noise per group, 6 groups an update", 20, 5, {"warmup_steps": 3}),
    "flow_grpo": Recipe(
        "all steps but the last, own noise, 6 groups an epoch of 2 updates, its optimiser",
        28,
        4,
        {
            **{"window": None, "window_range": [0, 5], "noise_level": 0.9, "shared_noise": False},
            **{"scale_rewards": "batch", "advantage_clip": 5.0, "beta": 0.0, "epsilon": 1e-4},
            # An epoch is 6 groups, and an update 3 of them: the second update is slightly off-policy, as there.
            **{"gradient_accumulation_steps": 3, "steps_per_generation": 6},
            **{"adam_beta2": 0.999, "weight_decay": 1e-4, "max_grad_norm": 1.0},
            **{"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {}, "warmup_steps": 0},
        },
    ),
}


def run(name: str, rate: float, seed: int, folder: Path) -> dict[str, Any]:
    """One run, or its file if it is there."""
    recipe = RECIPES[name]
    path = folder / f"{name}-lr{rate:g}-u{recipe.updates}-seed{seed}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from editr1_plugins.miniedit.demo_run import DemoSettings, run_arm

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    settings = DemoSettings(
        updates=recipe.updates, measure_every=recipe.every, learning_rate=rate, recipe=recipe.settings
    )
    found = run_arm("trained", seed, settings)
    kept = {key: found[key] for key in ("heldout", "reward", "cpu_seconds")}
    result = {"recipe": name, "learning_rate": rate, "seed": seed, "updates": recipe.updates, **kept}
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(result) + "\n")
    os.replace(scratch, path)
    curve = " ".join(f"{value:.3f}" for _, value in result["heldout"])
    print(f"{name:9} lr {rate:g} seed {seed}: held-out {curve}; {result['cpu_seconds']:.0f} s CPU", flush=True)
    return result


def gains(result: dict[str, Any]) -> list[tuple[float, float]]:
    """(CPU seconds, held-out gain) at each measure; an update's cost is taken to be the run's mean."""
    first, per_update = result["heldout"][0][1], result["cpu_seconds"] / result["updates"]
    return [(update * per_update, value - first) for update, value in result["heldout"]]


def mean_gain(result: dict[str, Any]) -> float:
    """Mean gain over the run's measures: what a learning rate is chosen by."""
    return statistics.mean(gain for _, gain in gains(result)[1:])


def time_to(result: dict[str, Any], wanted: float) -> float | None:
    """CPU seconds to the first gain of `wanted`, between two measures by a straight line; None: not reached."""
    points = gains(result)
    for (before, low), (after, high) in itertools.pairwise(points):
        if high >= wanted:
            return before + (after - before) * (wanted - low) / (high - low)
    return None


def interval(values: list[float], draws: int = 10_000) -> str:
    """Mean and its 95 % bootstrap interval over seeds (few: it says little more than their range)."""
    generator = random.Random(0)
    means = sorted(statistics.mean(generator.choices(values, k=len(values))) for _ in range(draws))
    return f"{statistics.mean(values):.3g} [{means[draws // 40]:.3g}, {means[-draws // 40]:.3g}]"


def row(name: str, results: list[dict[str, Any]]) -> str:
    cost = statistics.mean(one["cpu_seconds"] / one["updates"] for one in results)
    times = []
    for wanted in GAINS:
        reached = [seconds for one in results if (seconds := time_to(one, wanted)) is not None]
        missed = len(results) - len(reached)
        shown = interval(reached) if reached else "-"
        times.append(f"{shown}; {missed} of {len(results)} did not" if missed else shown)
    last = interval([gains(one)[-1][1] for one in results])
    spent = statistics.mean(one["cpu_seconds"] for one in results)
    cells = [name, f"{results[0]['learning_rate']:g}", f"{cost:.2f}", *times, last, f"{spent:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs' figures")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, float] = {}
    for name in RECIPES:
        tried = [run(name, rate, TUNING_SEED, options.output) for rate in RATES]
        chosen[name] = max(tried, key=mean_gain)["learning_rate"]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in RECIPES}
    for seed in SEEDS:  # recipes alternate, so that a change in the machine's load meets both
        for name, rate in chosen.items():
            results[name].append(run(name, rate, seed, options.output))
    wanted = " | ".join(f"CPU s to a gain of {gain:g}" for gain in GAINS)
    print(f"| recipe | learning rate | CPU s per update | {wanted} | gain at the end | CPU s of a run |")
    print("|---" * (5 + len(GAINS)) + "|")
    for name, found in results.items():
        print(row(name, found))


if __name__ == "__main__":
    main()
