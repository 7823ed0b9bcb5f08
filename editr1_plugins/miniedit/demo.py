"""The demo: a tiny FLUX.1 Kontext gets better at editing by RL with the verified reward, on a CPU, in minutes.

Each seed is two runs side by side, each in a process of its own: one trained with `EditRRMReward`, and a control that
differs in one thing, its advantages are shuffled. Both are measured on images and instructions that RL never saw, with
the ODE sampler, by the gold measure, which knows the world and is no part of the reward.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from editr1_plugins.miniedit.demo_run import DemoSettings, run_arm, shown_tasks
from editr1_plugins.miniedit.world import draw

__all__ = ["run_demo", "summarise"]


def run_demo(
    output: Path, *, seeds: Sequence[int] = (0,), settings: DemoSettings | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Train, measure and draw; write `summary.json`, `before_after.png`, `curve.png` and `lora/` into `output`.

    Returns:
        The summary: means over seeds, and `per_seed`, of `heldout_before`, `heldout_after`, `heldout_control` (gold
        score, 0..10), `reward_first`, `reward_last` (tau, 0..10) and `seconds`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from editr1_plugins.miniedit.pictures import before_after, curve, require_matplotlib

    require_matplotlib()  # before minutes of training, not after
    settings = settings or DemoSettings()
    output.mkdir(parents=True, exist_ok=True)
    runs = [_run_seed(seed, settings, output, quiet) for seed in seeds]
    summary = summarise(runs, settings)
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    curve(output / "curve.png", runs)
    tasks = shown_tasks(settings)
    first, last = (runs[0]["trained"][when] for when in ("first", "last"))
    rows = [
        (draw(task.scene), draw(task.goal), before, after)
        for task, before, after in zip(tasks, first["images"], last["images"], strict=True)
    ]
    captions = [
        f"{task.instruction}   {before:.1f} → {after:.1f}"
        for task, before, after in zip(tasks, first["scores"], last["scores"], strict=True)
    ]
    before_after(output / "before_after.png", rows, captions)
    return summary


def summarise(runs: Sequence[Mapping[str, Any]], settings: DemoSettings) -> dict[str, Any]:
    """The numbers of a demo's runs, per seed and on average."""
    per_seed = [
        {
            "seed": run["seed"],
            "heldout_before": run["trained"]["heldout"][0][1],
            "heldout_after": run["trained"]["heldout"][-1][1],
            "heldout_control": run["control"]["heldout"][-1][1],
            "reward_first": _mean([value for _, value in run["trained"]["reward"]][:5]),
            "reward_last": _mean([value for _, value in run["trained"]["reward"]][-5:]),
            "seconds": round(run["seconds"], 1),
        }
        for run in runs
    ]
    means = {name: _mean([one[name] for one in per_seed]) for name in per_seed[0] if name != "seed"}
    return {**means, "per_seed": per_seed, "settings": asdict(settings)}


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _run_seed(seed: int, settings: DemoSettings, output: Path, quiet: bool) -> dict[str, Any]:
    """Both arms at once, each on one core."""
    began = time.perf_counter()
    lora = output / ("lora" if seed == 0 else f"lora-seed-{seed}")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=_no_loading_bars) as pool:
        trained = pool.submit(run_arm, "trained", seed, settings, lora=lora, quiet=quiet)
        control = pool.submit(run_arm, "control", seed, settings)
        arms = {"trained": trained.result(), "control": control.result()}
    return {"seed": seed, **arms, "seconds": time.perf_counter() - began}


def _no_loading_bars() -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
