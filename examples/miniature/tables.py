"""The paper's tables in miniature: judges by mode, stage and size, and editors trained with them, over seeds.

    python examples/miniature/make_data.py --output data
    python examples/miniature/tables.py --data data --output tables judges --size small
    python examples/miniature/tables.py --data data --output tables judges --size base
    python examples/miniature/tables.py --data data --output tables editors
    python examples/miniature/tables.py --data data --output tables shipped
    python examples/miniature/tables.py --data data --output tables show

`judges` pretrains each size once (it stands for the VLM that one would download) and trains, per seed, T, V and T+V by
SFT, then T+V by GCPO, and as its control T+V by SFT for as much CPU time more. `editors` trains MiniEdit's Kontext with
the SFT judge and with the GCPO judge of each seed. Every trained judge and editor is one JSON file below --output, kept
with what was measured; a rerun makes what is missing. `shipped` measures the judge that comes with the package in the
same way. `show` prints the tables in Markdown and draws the curve.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset
from PIL.Image import Image
from pretrain import pretrain
from tables_show import show
from train_judge import gcpo, measured, sft

from editr1_plugins.miniedit.demo_run import DemoSettings, run_arm
from editr1_plugins.miniedit.judge import judge_path, load_judge
from editr1_plugins.miniedit.judge_model import SIZES
from editr1_plugins.miniedit.judge_texts import main_principles
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.training.preference_files import load_pairs
from editr1_plugins.training.trace_data import load_traces
from editr1_plugins.types import Principle
from editr1_plugins.verifiers.prompting import Mode

#: Stage, the stage it starts from, and its mode.
STAGES: Final[tuple[tuple[str, str, Mode], ...]] = (
    ("sft-think", "base", "think"),
    ("sft-verify", "base", "verify"),
    ("sft-think+verify", "base", "think+verify"),
    ("gcpo", "sft-think+verify", "think+verify"),
    ("more-sft", "sft-think+verify", "think+verify"),
)


class Judges:
    """The judges of one size."""

    def __init__(self, arguments: argparse.Namespace, size: str) -> None:
        self.arguments, self.size = arguments, size
        self.folder = arguments.output / "judges" / size
        self.traces: Dataset = load_traces(arguments.data / "traces" / "dataset")
        self.pairs: Dataset = load_pairs(arguments.data / "pairs")

    def train(self, seeds: Sequence[int]) -> None:
        base = self.folder / "base"
        made(base.with_suffix(".json"), lambda: self.base(base))
        for seed in seeds:
            for stage, start, mode in STAGES:
                folder = self.folder / f"{stage}-{seed}"
                begin = base if start == "base" else self.folder / f"{start}-{seed}"
                made(
                    folder.parent / f"{folder.name}.json",
                    lambda stage=stage, begin=begin, mode=mode, seed=seed, folder=folder: self.stage(
                        stage, begin, folder, mode, seed
                    ),
                )

    def base(self, folder: Path) -> dict[str, Any]:
        began = time.process_time()
        pretrain(folder, size=self.size, seed=0, steps=self.arguments.base_steps)
        return {"size": self.size, "stage": "base", "cpu_seconds": time.process_time() - began}

    def stage(self, stage: str, start: Path, folder: Path, mode: Mode, seed: int) -> dict[str, Any]:
        arguments = self.arguments
        if stage == "gcpo":
            seconds = gcpo(start, folder, self.pairs, mode=mode, steps=arguments.gcpo_steps, seed=seed)
        elif stage == "more-sft":
            steps = self.as_long_as_gcpo(seed)
            seconds = sft(start, folder, self.traces, mode=mode, steps=steps, seed=seed + 100)
        else:
            seconds = sft(start, folder, self.traces, mode=mode, steps=arguments.sft_steps, seed=seed)
        found = measured(folder, arguments.data, mode=mode, pairs=arguments.pairs, traces=arguments.traces)
        return {
            "size": self.size,
            "stage": stage,
            "mode": mode,
            "seed": seed,
            "cpu_seconds": round(seconds, 1),
            "metrics": found,
        }

    def as_long_as_gcpo(self, seed: int) -> int:
        """Steps of SFT that take the CPU time which GCPO took."""
        took = {
            stage: json.loads((self.folder / f"{stage}-{seed}.json").read_text())["cpu_seconds"]
            for stage in ("gcpo", "sft-think+verify")
        }
        return max(1, round(self.arguments.sft_steps * took["gcpo"] / took["sft-think+verify"]))


class MainQuestions:
    """A decomposer that asks what the judges were mostly trained on."""

    identity = "miniature-main-questions/1"

    def decompose(self, requests: Sequence[tuple[Image, str]]) -> list[tuple[Principle, ...]]:
        return [tuple(main_principles(decompose_instruction(instruction))) for _, instruction in requests]


def train_editors(arguments: argparse.Namespace) -> None:
    """MiniEdit's Kontext by RL, with the SFT judge and with the GCPO judge of each seed."""
    for seed in range(arguments.seeds):
        for stage in ("sft-think+verify", "gcpo"):
            made(
                arguments.output / "editors" / f"{stage}-{seed}.json",
                lambda stage=stage, seed=seed: editor(arguments, stage, seed),
            )


def editor(arguments: argparse.Namespace, stage: str, seed: int) -> dict[str, Any]:
    weights = arguments.output / "judges" / arguments.editors_judge / f"{stage}-{seed}"
    settings = DemoSettings(updates=arguments.updates, measure_every=8)
    run = run_arm(
        "trained", seed, settings, reward=EditRRMReward(verifier=load_judge(weights), decomposer=MainQuestions())
    )
    return {
        "stage": stage,
        "seed": seed,
        "cpu_seconds": run["cpu_seconds"],
        "gold": run["heldout"],
        "reward": run["reward"],
    }


def made(path: Path, make: Callable[[], dict[str, Any]]) -> None:
    """Make a result, unless it is there; what was left half done is made anew."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    record = make()
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(path)
    print(f"{path.parent.name}/{path.stem}: {record['cpu_seconds']:.0f} CPU s", flush=True)


def records(output: Path, pattern: str) -> list[dict[str, Any]]:
    """The results that are there, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(output.glob(pattern))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("judges", "editors", "shipped", "show"))
    parser.add_argument("--data", type=Path, required=True, help="what make_data.py wrote")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, help="of the judges; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base-steps", type=int, default=4000)
    parser.add_argument("--sft-steps", type=int, default=150)
    parser.add_argument("--gcpo-steps", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=400, help="held-out pairs that are judged")
    parser.add_argument("--traces", type=int, default=100, help="held-out traces that are judged")
    parser.add_argument("--editors-judge", choices=SIZES, default="small", help="size of the editors' judges")
    parser.add_argument("--updates", type=int, default=24, help="of an editor's RL")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "judges":
        for size in [arguments.size] if arguments.size else SIZES:
            Judges(arguments, size).train(range(arguments.seeds))
    elif arguments.what == "editors":
        train_editors(arguments)
    elif arguments.what == "shipped":
        held_out = {"pairs": arguments.pairs, "traces": arguments.traces}
        found = measured(judge_path(), arguments.data, mode="think+verify", **held_out)
        print(json.dumps(found, indent=1))
    else:
        judges = records(arguments.output, "judges/*/*.json")
        show(judges, records(arguments.output, "editors/*.json"), arguments.output)


if __name__ == "__main__":
    main()
