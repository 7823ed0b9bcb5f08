"""What each objective gains on held-out edits per minute of CPU: a table in Markdown.

    python tests/performance/objectives.py --output runs/objectives [--updates 18] [--only nft] [--seeds 0,1,2]

The demo's set-up (`miniedit/demo_run.py`: tiny Kontext, the embedded judge, 6 groups of 12 edits of 6 steps an update,
LoRA of rank 16, cosine learning rate) with one objective each and fewer updates; every run has a control whose
advantages are shuffled. Held out are images and instructions that RL never saw; they are measured by the gold measure,
which is no part of the reward.

Each (objective, seed, arm) is one file in the output folder and is skipped when it is there, so a stopped run goes on.
Time is CPU time of one thread, measuring left out, since it does not depend on what else the machine does (but for
what neighbours cost in caches). `--tune` tries learning rates on a seed of its own, outside of those compared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ARMS = ("trained", "control")
TUNING_SEED, RATES = 77, (2e-3, 4e-3, 8e-3)
WARMUP = {"warmup_steps": 3}  # the demo's 5 are for 100 updates


@dataclass(frozen=True)
class Contestant:
    """An objective's settings: its learning rate, and what differs from the demo."""

    summary: str
    learning_rate: float
    recipe: dict[str, Any] = field(default_factory=dict)


CONTESTANTS = {
    "flow_grpo": Contestant(
        "Flow-GRPO: all steps but the last are stochastic and trained",
        4e-3,
        {"window": None, "window_range": [0, 5]},
    ),
    "fast": Contestant("Flow-GRPO-Fast: steps 0 and 1 (the demo)", 4e-3),
    "cps": Contestant("the same window, CPS sampler", 4e-3, {"sampler": "cps"}),
    "nft": Contestant(
        "DiffusionNFT: ODE rollouts from different noise, 4 noised points per edit",
        4e-3,
        {"objective": "nft", "shared_noise": False, "window": None, "window_range": None},
    ),
}


@dataclass(frozen=True)
class Job:
    objective: str
    seed: int
    arm: str
    updates: int
    prompts: int
    learning_rate: float

    def file(self, folder: Path) -> Path:
        settings = f"lr{self.learning_rate:g}-u{self.updates}-p{self.prompts}"
        return folder / f"{self.objective}-{settings}-seed{self.seed}-{self.arm}.json"


def run(job: Job, folder: Path) -> dict[str, Any]:
    """Train one arm and write its figures, whole or not at all."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from editr1_plugins.miniedit.demo_run import DemoSettings, run_arm

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    settings = DemoSettings(
        updates=job.updates,
        prompts=job.prompts,
        measure_every=max(1, job.updates // 2),
        learning_rate=job.learning_rate,
        recipe={**WARMUP, **CONTESTANTS[job.objective].recipe},
    )
    found = run_arm(job.arm, job.seed, settings)  # type: ignore[arg-type]
    result = {**asdict(job), **{name: found[name] for name in ("heldout", "reward", "cpu_seconds")}}
    path = job.file(folder)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(result) + "\n")
    os.replace(scratch, path)
    return result


def gain(result: dict[str, Any]) -> float:
    return float(result["heldout"][-1][1] - result["heldout"][0][1])


def line(result: dict[str, Any]) -> str:
    curve = " ".join(f"{value:.2f}" for _, value in result["heldout"])
    return (
        f"{result['objective']:9} lr {result['learning_rate']:g} seed {result['seed']} {result['arm']:7}"
        f" held-out {curve}  {result['cpu_seconds']:.0f} s CPU"
    )


def table(results: Iterable[dict[str, Any]]) -> str:
    by: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda one: one["seed"]):
        by.setdefault((result["objective"], result["arm"]), []).append(result)
    lines = [
        "| objective | learning rate | updates | CPU s per update | held-out gain, per seed | mean "
        "| gain per CPU minute, per seed | mean | control's gain, per seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CONTESTANTS:
        trained, control = by.get((name, "trained"), []), by.get((name, "control"), [])
        if not trained:
            continue
        rates = [gain(one) * 60 / one["cpu_seconds"] for one in trained]
        cost = statistics.mean(one["cpu_seconds"] / one["updates"] for one in trained)
        lines.append(
            f"| {name} | {trained[0]['learning_rate']:g} | {trained[0]['updates']} | {cost:.2f} "
            f"| {listed(map(gain, trained))} | **{statistics.mean(map(gain, trained)):+.2f}** "
            f"| {listed(rates)} | **{statistics.mean(rates):+.2f}** | {listed(map(gain, control))} |"
        )
    return "\n".join(lines)


def listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:+.2f}" for value in values) or "-"


def jobs(options: argparse.Namespace) -> list[Job]:
    names = [name for name in CONTESTANTS if not options.only or name in options.only.split(",")]
    if options.tune:
        return [
            Job(name, TUNING_SEED, "trained", options.updates, options.prompts, rate)
            for name in names
            for rate in RATES
        ]
    return [
        Job(name, seed, arm, options.updates, options.prompts, CONTESTANTS[name].learning_rate)
        for seed in map(int, options.seeds.split(","))
        for arm in ARMS
        for name in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs' figures")
    parser.add_argument("--updates", type=int, default=18)
    parser.add_argument("--prompts", type=int, default=6, help="groups of 12 edits per update")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--only", default="", help=f"of {', '.join(CONTESTANTS)}; separated by commas")
    parser.add_argument("--tune", action="store_true", help="try each objective's learning rates on another seed")
    parser.add_argument("--table", action="store_true", help="train nothing; show what is there")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, one thread each")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    todo = jobs(options)
    missing = [] if options.table else [job for job in todo if not job.file(options.output).exists()]
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = [pool.submit(run, job, options.output) for job in missing]
        for done in pending:
            print(line(done.result()), flush=True)
    results = [json.loads(path.read_text()) for job in todo if (path := job.file(options.output)).exists()]
    print("\n".join(map(line, results)) if options.tune else table(results))


if __name__ == "__main__":
    main()
