"""Make what MiniEdit's judge is trained on: traces by a cold start, and preference pairs with human noise.

    python examples/miniature/make_data.py --output data

The cold start is the package's own (`editr1 coldstart`): noisy teachers write traces, `measure` says what is true, the
best trace of each edit is chosen. Pairs are ordered by the gold measure, which no judge sees; some are turned round as
people do: the closer the two, the more often. Writes `traces/`, `pairs/`, and `heldout_traces/`, `heldout_pairs/`
without noise in the labels.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from editr1_plugins.miniedit.compounds import Compound, draw_attempt, sample_attempt, sample_compound
from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.judge_texts import main_principles
from editr1_plugins.miniedit.model import CALL, WEIGHTS, load_pipeline
from editr1_plugins.miniedit.teachers import NoisyTeacher
from editr1_plugins.miniedit.world import draw
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.training.coldstart import config_from_mapping, run_coldstart
from editr1_plugins.training.preference_files import save_pairs
from editr1_plugins.types import Principle
from editr1_plugins.verifiers.measure import MeasureVerifier

TEMPERATURE = 1.0  # of the noise in human labels, in points of the gold score
LEAST_GAP = 1.0
SPREAD = 0.5  # of the noise in a teacher's score
CANDIDATES = 2
LONGEST = 11  # principles of an instruction with one part


class MainPrinciples:
    """The main principles of the rules; for a third of the instructions with one part, all of them.

    Traces stay short, and of like length: one long trace makes its whole batch long.
    """

    identity = "miniature-main/2"

    def decompose(self, requests: Sequence[tuple[Image, str]]) -> list[tuple[Principle, ...]]:
        return [self._principles(instruction) for _, instruction in requests]

    def _principles(self, instruction: str) -> tuple[Principle, ...]:
        principles = decompose_instruction(instruction)
        chosen = hashlib.blake2b(instruction.encode(), digest_size=1).digest()[0] % 3 == 0
        return tuple(principles if chosen and len(principles) <= LONGEST else main_principles(principles))


def edits(count: int, seed: int, *, by_editors: float = 0.15) -> Iterator[tuple[Compound, list[Image]]]:
    """`count` tasks with two edits each; a share comes from the tiny editors, which do one thing at a time."""
    rng = np.random.default_rng(seed)
    single = [sample_compound(rng, parts=1) for _ in range(round(count * by_editors))]
    # The tiny editors do not know "turn it into a blue square".
    single = [compound for compound in single if compound.task.operation != "exchange"]
    yield from zip(single, edited_by_model(list(single), seed), strict=True)
    for _ in range(count - len(single)):
        compound = sample_compound(rng)
        yield compound, [draw_attempt(compound, sample_attempt(rng, compound)) for _ in range(CANDIDATES)]


def edited_by_model(compounds: list[Compound], seed: int) -> list[list[Image]]:
    """One edit by each of the shipped tiny editors."""
    made = []
    for weights in WEIGHTS:
        made.append(
            load_pipeline(weights)(
                image=[draw(compound.task.scene) for compound in compounds],
                prompt=[compound.task.instruction for compound in compounds],
                num_inference_steps=6,
                generator=torch.Generator().manual_seed(seed),
                **CALL,
            ).images
        )
    return [list(images) for images in zip(*made, strict=True)]


def make_traces(folder: Path, count: int, seed: int) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": str(number),
            "source": draw(compound.task.scene),
            "instruction": compound.task.instruction,
            "edited": images,
        }
        for number, (compound, images) in enumerate(edits(count, seed))
    ]
    teachers = [NoisyTeacher(name=f"teacher-{number}", seed=number, spread=SPREAD) for number in range(2)]
    config = config_from_mapping(
        {
            "output": str(folder),
            "seed": seed,
            "candidates": [{"name": "attempts", "column": "edited"}],
            "traces": {"judges": [{"name": teacher.name} for teacher in teachers]},
            "dataset": {"title": "MiniEdit judge traces", "license": "apache-2.0"},
        }
    )
    run_coldstart(
        config,
        rows=rows,
        judges={each.name: each for each in teachers},
        gold=MeasureVerifier(),
        decomposer=MainPrinciples(),
    )


def make_pairs(folder: Path, count: int, seed: int, *, noise: bool) -> None:
    rng = np.random.default_rng(seed)
    pairs = []
    for compound, (first, second) in edits(2 * count, seed + 1):
        scores = [gold_score(compound.task, image).score for image in (first, second)]
        gap = abs(scores[0] - scores[1])
        if gap < LEAST_GAP or len(pairs) == count:
            continue
        winner, loser = (first, second) if scores[0] > scores[1] else (second, first)
        if noise and rng.random() < 1 / (1 + np.exp(gap / TEMPERATURE)):
            winner, loser = loser, winner
        pairs.append(
            {
                "source": draw(compound.task.scene),
                "winner": winner,
                "loser": loser,
                "instruction": compound.task.instruction,
                "principles": [
                    {"question": each.question, "category": each.category}
                    for each in main_principles(decompose_instruction(compound.task.instruction))
                ],
            }
        )
    save_pairs(pairs, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=4000, help="of the traces; two edits each")
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--held-out", type=int, default=400, help="pairs, and half as many tasks with traces")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    # Both parts of the data from seeds of their own; instructions repeat, scenes do not.
    for name, make in (
        ("traces", lambda at: make_traces(at, arguments.tasks, 1)),
        ("heldout_traces", lambda at: make_traces(at, arguments.held_out // 2, 2)),
        ("pairs", lambda at: make_pairs(at, arguments.pairs, 3, noise=True)),
        ("heldout_pairs", lambda at: make_pairs(at, arguments.held_out, 5, noise=False)),
    ):
        make(arguments.output / name)
        print(f"{name}: done, {time.process_time() - began:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
