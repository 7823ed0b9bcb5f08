"""GCPO killed and resumed: bit by bit the run that was not. This file is also the program that gets killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from editr1_plugins.testing.judges import save_tiny_judge, tiny_pairs
from editr1_plugins.training.gcpo import GCPOConfig, GCPOTrainer
from editr1_plugins.training.judge_model import judge_processor

SAID = [f"<score>{score}</score>" for score in (2, 5, 8)]

#: Settings, the update at which the process is killed, and the checkpoint that it leaves.
CASES: dict[str, tuple[dict[str, Any], int, int]] = {
    "a rollout per update, three epochs": ({}, 5, 4),
    "two iterations": ({"num_iterations": 2, "save_steps": 3}, 6, 4),  # 3 is amid a rollout: it waits for 4
    "two updates a rollout": ({"steps_per_generation": 2, "save_steps": 1, "per_device_train_batch_size": 4}, 4, 2),
}


def build(folder: Path, name: str, *callbacks: TrainerCallback) -> GCPOTrainer:
    torch.set_num_threads(1)
    processor = judge_processor(str(folder / "judge"))
    tokenizer = processor.tokenizer
    others = [token for token in range(len(tokenizer)) if token not in tokenizer.convert_tokens_to_ids(SAID)]
    settings: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 1,
        "generation_kwargs": {"suppress_tokens": others},
        "learning_rate": 1e-2,
        "max_steps": 8,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        **CASES[name][0],
    }
    config = GCPOConfig(**settings)
    path = str(folder / "judge")
    return GCPOTrainer(path, config, tiny_pairs(3), processing_class=processor, callbacks=list(callbacks))


class Killed(TrainerCallback):
    """The process dies in the midst of update number `at`, with half a checkpoint on the disk."""

    def __init__(self, folder: Path, at: int) -> None:
        self.folder, self.at = folder, at

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.at - 1:
            half = self.folder / "out" / ".incomplete" / "checkpoint-99"
            half.mkdir(parents=True)
            (half / "trainer_state.json").write_text("{")
            os.kill(os.getpid(), signal.SIGKILL)


def outcome(made: GCPOTrainer) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    logs = [{k: v for k, v in entry.items() if "time" not in k} for entry in made.state.log_history if "loss" in entry]
    return {name: value.detach().clone() for name, value in made.model.named_parameters()}, logs


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, name: str) -> None:
    left = CASES[name][2]
    threads = torch.get_num_threads()
    for run in ("whole", "killed"):
        save_tiny_judge(tmp_path / run / "judge", SAID, initializer_range=0.18)
    whole = build(tmp_path / "whole", name)
    whole.train()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, __file__, str(tmp_path / "killed"), name]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    last = get_last_checkpoint(str(tmp_path / "killed" / "out"))
    assert last is not None
    assert Path(last).name == f"checkpoint-{left}"
    again = build(tmp_path / "killed", name)
    again.train(resume_from_checkpoint=True)
    assert not (tmp_path / "killed" / "out" / ".incomplete" / "checkpoint-99").exists()
    (weights, logs), (weights_again, logs_again) = outcome(whole), outcome(again)
    for key, value in weights.items():
        assert torch.equal(weights_again[key], value), key
    assert logs_again == logs
    begun = load_file(tmp_path / "whole" / "judge" / "model.safetensors")
    assert any(not torch.equal(value, weights[f"model.{key}"]) for key, value in begun.items() if "visual." in key)
    assert len({entry.get("gcpo/score_winner") for entry in logs}) > 2  # it sampled anew, and differently
    third = build(tmp_path / "killed", name)
    third.train(resume_from_checkpoint=True)  # it was done: nothing more is trained
    for key, value in outcome(third)[0].items():
        assert torch.equal(weights[key], value), key
    torch.set_num_threads(threads)


if __name__ == "__main__":
    home, case = Path(sys.argv[1]), sys.argv[2]
    build(home, case, Killed(home, CASES[case][1])).train()
