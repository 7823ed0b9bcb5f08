"""GCPO by two processes (gloo, CPU) against one: the same pairs, rewards, advantages, gradients and metrics.

What is sampled is fixed by the trace's place in the global batch, since random states differ between processes; all
else is the real thing. This file is also the program of the two processes: `torchrun ... THIS_FILE FOLDER`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pictures
from transformers import TrainerCallback

from editr1_plugins.errors import ConfigError
from editr1_plugins.testing.judges import prompt_words
from editr1_plugins.testing.language import (
    tiny_tokenizer,
    tiny_vision_language_model,
    tiny_vision_language_processor,
)
from editr1_plugins.training.gcpo import GCPOConfig, GCPOTrainer
from editr1_plugins.types import FOLLOW, NoPrinciples, Principle

pytestmark = pytest.mark.slow  # the processes alone take half a minute to start

SAID = ["<score>2</score>", "<score>5</score>", "<score>8</score>", "no answer", "hm"]
N = 4

#: Settings of one process; two take half of the `halved` setting each.
CASES: dict[str, dict[str, Any]] = {
    "whole pairs per process": {},
    "winner here, loser there": {"per_device_train_batch_size": 2 * N},
    "group over processes": {"per_device_train_batch_size": N, "gradient_accumulation_steps": 4},
    "accumulation": {"gradient_accumulation_steps": 2},
    "accumulation halved": {"gradient_accumulation_steps": 2, "halved": "gradient_accumulation_steps"},
    "iterations and KL": {"num_iterations": 2, "beta": 0.1, "max_steps": 4},
    # TRL shuffles a rollout within each process, so updates see other traces; standing still, their sum is the same.
    "several updates a rollout": {"steps_per_generation": 2, "max_steps": 4, "learning_rate": 0.0},
    "evaluation": {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4 * N},
    "evaluation, pair over processes": {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 2 * N},
}


def pairs_of(count: int, principles: bool = True) -> Dataset:
    rows: dict[str, list[Any]] = {
        "source": [Pictures.new("RGB", (16, 16), (50, 50, 50))] * count,
        "winner": [Pictures.new("RGB", (16, 16), (150 + 10 * i,) * 3) for i in range(count)],
        "loser": [Pictures.new("RGB", (16, 16), (10 * i,) * 3) for i in range(count)],
        "instruction": [f"make the image brighter, number {i}" for i in range(count)],
        "principles": [[{"question": "Is it brighter?", "category": FOLLOW}] if principles else None] * count,
    }
    features: dict[str, Any] = {name: Image() for name in ("source", "winner", "loser")}
    features |= {"instruction": Value("string")}
    features |= {"principles": List({"question": Value("string"), "category": Value("string")})}
    return Dataset.from_dict(rows, features=Features(features))


class FixedTraces(GCPOTrainer):
    """Samples what (update, place in the global batch) says, of one to three tokens, and keeps what was made of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[dict[str, Any]] = []

    def _generate_single_turn(self, prompt_ids: Any, images: Any, fields: Any, generations: Any, *_: Any) -> Any:
        made, first = [], self.args.process_index * len(prompt_ids)
        pixels = [int(pair[1].getpixel((0, 0))[0]) for pair in images]
        for place in range(first, first + len(prompt_ids)):
            draw = random.Random(f"{self.state.global_step}/{self.model.training}/{pixels[place - first]}/{place % N}")
            words = [draw.choice(SAID[3:]) for _ in range(draw.randint(0, 2))] + [draw.choice(SAID[:4])]
            made.append([*self._tokenizer.convert_tokens_to_ids(words), self._tokenizer.eos_token_id])
        return made, None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        found = super()._generate_and_score_completions(inputs)
        kept = {"rows": [(each["pair"], each["side"]) for each in inputs], "training": self.model.training}
        self.seen.append({**kept, "advantages": found["advantages"].tolist()})
        return found


class Gradients(TrainerCallback):
    def __init__(self) -> None:
        self.found: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        named = model.named_parameters()
        self.found.append({n.removeprefix("module."): p.grad.clone() for n, p in named if p.grad is not None})


def build(folder: Path, name: str, processes: int) -> tuple[FixedTraces, Gradients]:
    settings: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 4 * N,
        "num_generations": N,
        "max_completion_length": 4,
        "max_steps": 2,
        "learning_rate": 0.1,
        "optim": "sgd",  # Adam would make of rounding what it makes of gradients
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        **CASES[name],
    }
    halved = settings.pop("halved", "per_device_train_batch_size")
    settings[halved] //= processes
    if "per_device_eval_batch_size" in settings:
        settings["per_device_eval_batch_size"] //= processes
    tokenizer, gradients = tiny_tokenizer([*prompt_words(), *SAID]), Gradients()
    path = folder / f"model-{os.environ.get('RANK', 0)}"
    tiny_vision_language_model(tokenizer).save_pretrained(path)  # TRL reads a reference model from where it came from
    trainer = FixedTraces(
        str(path),
        GCPOConfig(**settings),
        pairs_of(8),
        pairs_of(5),  # no multiple of the processes' pairs
        processing_class=tiny_vision_language_processor(tokenizer),
        callbacks=[gradients],
    )
    return trainer, gradients


def train(folder: Path, name: str, processes: int, rank: int = 0) -> None:
    trainer, gradients = build(folder, name, processes)
    trainer.train()
    logs = [{k: v for k, v in entry.items() if _is_compared(k)} for entry in trainer.state.log_history]
    found = {"seen": trainer.seen, "gradients": gradients.found, "logs": [entry for entry in logs if entry]}
    torch.save(found, folder / f"{name}-{processes}-{rank}.pt")


def _is_compared(name: str) -> bool:
    # Of an evaluation's last batch, filled up for two processes, only our own measures leave out what is twice there.
    ours = "eval_" not in name or name.startswith("eval_gcpo")
    return ours and not any(word in name for word in ("time", "second", "runtime"))


class Fickle:
    """A decomposer that answers anew each time, and not at all for number 3."""

    def decompose(self, requests: Any) -> list[Any]:
        made = [(Principle(question=f"Is it {os.urandom(4).hex()}?", category=FOLLOW),) for _ in requests]
        return [
            NoPrinciples("odd") if text.endswith("3") else each for each, (_, text) in zip(made, requests, strict=True)
        ]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    assert world == 2
    for name in CASES:
        train(folder, name, world, rank)
    from editr1_plugins.training import gcpo

    gcpo.resolve = lambda *_: Fickle()  # type: ignore[assignment]
    trainer, _ = build(folder, "accumulation", world)
    rows = gcpo._prepared(pairs_of(8, principles=False), trainer.args)
    torch.save([row["questions"] for row in rows], folder / f"principles-{rank}.pt")
    trainer.args.accelerator_config.split_batches = True
    batch = [trainer.train_dataset[row] for row in (range(8) if rank == 0 else (9, 8, 10, 11, 12, 13, 14, 15))]
    try:
        trainer._generate_and_score_completions(batch)
    except ConfigError as error:
        (folder / f"torn-{rank}.txt").write_text(str(error))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([*command, str(folder)], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_update_of_one(both: Path, tmp_path: Path, name: str) -> None:
    train(tmp_path, name, 1)
    one = torch.load(tmp_path / f"{name}-1-0.pt")
    first, second = (torch.load(both / f"{name}-2-{rank}.pt") for rank in (0, 1))
    of_training = [[each for each in run["seen"] if each["training"]] for run in (one, first, second)]
    assert len(of_training[0]) > 0
    for single, left, right in zip(*of_training, strict=True):
        if "halved" not in CASES[name]:
            assert single["rows"] == left["rows"] + right["rows"]
        assert single["advantages"] == pytest.approx(left["advantages"] + right["advantages"], abs=1e-6)
    assert any(value != 0 for each in of_training[0] for value in each["advantages"])
    assert len(one["gradients"]) == len(first["gradients"]) == CASES[name].get("max_steps", 2)
    if "steps_per_generation" in CASES[name]:
        for run in (one, first, second):
            run["gradients"] = [{key: sum(each[key] for each in run["gradients"]) for key in run["gradients"][0]}]
            run["logs"] = [{key: value for key, value in each.items() if "gcpo" in key} for each in run["logs"]]
    norms = []
    for single, left, right in zip(one["gradients"], first["gradients"], second["gradients"], strict=True):
        assert single.keys() == left.keys()
        norm = torch.stack([value.norm() for value in single.values()]).norm()
        for key, value in single.items():
            assert torch.equal(left[key], right[key]), key
            assert (left[key] - value).norm() <= 1e-5 * norm, key
        norms.append(norm)
    assert max(norms) > 1e-3
    assert len(one["logs"]) == len(first["logs"]) > 0
    for single, left in zip(one["logs"], first["logs"], strict=True):
        assert single == {key: pytest.approx(value, rel=1e-4, abs=1e-6) for key, value in left.items()}


def test_every_batch_of_all_processes_holds_whole_pairs_in_their_order(both: Path) -> None:
    for name in CASES:
        runs = [torch.load(both / f"{name}-2-{rank}.pt")["seen"] for rank in (0, 1)]
        for left, right in zip(*runs, strict=True):
            rows = left["rows"] + right["rows"]
            for start in range(0, len(rows), 2 * N):
                pair = rows[start][0]
                assert rows[start : start + 2 * N] == [(pair, "winner")] * N + [(pair, "loser")] * N


def test_evaluation_counts_no_pair_twice(both: Path) -> None:
    logs = torch.load(both / "evaluation-2-0.pt")
    rows = [row for each in logs["seen"] if not each["training"] for row in each["rows"]]
    assert len(rows) > 0
    assert any("eval_gcpo/pair_accuracy" in entry for entry in logs["logs"])


def test_both_processes_ask_the_same_questions(both: Path) -> None:
    left, right = (torch.load(both / f"principles-{rank}.pt") for rank in (0, 1))
    assert left == right
    assert len(left) == 14  # the pair without principles is left out
    assert left[0::2] == left[1::2]  # winner and loser
    assert len({questions[0] for questions in left}) == 7


def test_a_torn_pair_is_refused(both: Path) -> None:
    assert "does not hold whole pairs of 2 x 4 traces" in (both / "torn-0.txt").read_text()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
