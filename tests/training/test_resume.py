"""A run that is killed (SIGKILL) again and again, also while it saves, ends bit by bit where an undisturbed one does.

This file is also the program that is killed: `python test_resume.py FOLDER lora|full` runs it undisturbed, then anew
with kills. Each attempt is a forked process, which dies at a chosen moment: at the n-th change of the file system (a
file that is being written is cut in half), or after a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from editr1_plugins.testing.pipelines import picture, tiny_pipeline
from editr1_plugins.training.edit_grpo import EditGRPOConfig, EditGRPOTrainer

STEPS, EVERY = 8, 2
KINDS = {
    "lora": {"ema_decay": 0.8, "window": 1, "num_inference_steps": 4, "learning_rate": 5e-3, "steps_per_generation": 2},
    "full": {"num_inference_steps": 2, "learning_rate": 1e-4},
}
#: Of each attempt: after how many changes of the file system, or after how many seconds of training, it is killed.
KILLS: dict[str, list[tuple[str, float]]] = {
    "lora": [
        *(("second", 0.4), ("second", 0.9), ("change", 3), ("change", 14), ("change", 22), ("change", 31)),
        *(("change", 33), ("change", 8), ("change", 26), ("change", 40)),
    ],
    "full": [("change", n) for n in (12, 25, 33)],
}


def noisy_redness(completions: list[Any], **_: Any) -> list[float]:
    """Depends on the global generators as well, which a checkpoint has to bring back."""
    pixels = [np.asarray(image, np.float32) for image in completions]
    noise = [torch.rand(()).item() + random.random() + np.random.random() for _ in pixels]
    return [float(p[..., 0].mean() - p[..., 1:].mean()) / 10 + n / 100 for p, n in zip(pixels, noise, strict=True)]


class Rollouts(TrainerCallback):
    """Writes down after each update what it was made from."""

    def __init__(self, file: Path) -> None:
        self.file, self.trainer = file, None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        entry = {"step": state.global_step, "chunks": []}
        for chunk in self.trainer._generation.chunks:
            edits = hashlib.sha256(chunk.rollout.final.numpy().tobytes()).hexdigest()
            windows = [transition.index for transition in chunk.rollout.transitions]
            prompt, advantages = chunk.rollout.call["prompt"], chunk.advantages.tolist()
            entry["chunks"].append([prompt, list(chunk.rollout.seeds), windows, edits, advantages])
        with open(self.file, "a") as file:
            file.write(json.dumps(entry) + "\n")


def run(folder: Path, kind: str) -> None:
    """Train from the last checkpoint, or from the start, to the end."""
    pipe, call = tiny_pipeline("kontext", lora_rank=0 if kind == "full" else 4)
    rollouts = Rollouts(folder / "rollouts.jsonl")
    config = EditGRPOConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=2,
        num_generations=2,
        beta=0.2,
        max_steps=STEPS,
        save_strategy="steps",
        save_steps=EVERY,
        save_total_limit=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        preflight=False,
        pipeline_kwargs={
            k: v for k, v in call.items() if k not in ("image", "prompt", "num_inference_steps", "output_type")
        },
        **KINDS[kind],
    )
    rows = Dataset.from_list([{"image": picture(32, seed), "prompt": f"redder {seed}"} for seed in range(4)])
    trainer = EditGRPOTrainer(pipe, noisy_redness, config, rows, callbacks=[rollouts])
    rollouts.trainer = trainer
    (folder / "out").mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=True if get_last_checkpoint(str(folder / "out")) else None)
    average = [] if trainer.policy.ema is None else trainer.policy.ema.shadow_params
    weights = [parameter.detach().clone() for parameter in trainer.policy.parameters]
    torch.save({"weights": weights, "average": average, "logs": trainer.state.log_history}, folder / "end.pt")


def die_at(count: int, root: str) -> None:
    """Kill this process at the `count`-th change below `root`."""
    left, save = [count], torch.save

    def change(cut: Any = None) -> None:
        left[0] -= 1
        if left[0] == 0:
            if cut is not None:
                os.truncate(cut, os.path.getsize(cut) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir") and root in str(arguments[0]):
            change()

    def cut_save(what: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        save(what, path, *args, **kwargs)
        if root in str(path):
            change(path)

    torch.save = cut_save
    sys.addaudithook(watched)


def attempt(folder: Path, kind: str, kill: tuple[str, float] | None) -> int:
    """Fork, run, and tell how it ended: 0, or minus the signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        if kill is not None and kill[0] == "change":
            die_at(int(kill[1]), str(folder / "out"))
        elif kill is not None:
            threading.Timer(kill[1], os.kill, (os.getpid(), signal.SIGKILL)).start()
        run(folder, kind)
        code = 0
    finally:
        os._exit(code)


def main(folder: Path, kind: str) -> None:
    torch.set_num_threads(1)
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    begun = time.perf_counter()
    assert attempt(undisturbed, kind, None) == 0
    print("undisturbed", time.perf_counter() - begun, flush=True)
    story = []
    for kill in [*KILLS[kind], None]:
        ended = attempt(disturbed, kind, kill)
        out = disturbed / "out"
        files = {p.name: sorted(f.name for f in p.rglob("*")) for p in out.glob("checkpoint-*")}
        incomplete = sorted(str(p.relative_to(out)) for p in (out / ".incomplete").glob("**/*"))
        story.append({"kill": kill, "ended": ended, "checkpoints": files, "incomplete": incomplete})
        print(story[-1]["kill"], ended, sorted(files), len(incomplete), flush=True)
    (folder / "story.json").write_text(json.dumps(story))


@pytest.fixture(scope="module", params=["lora", pytest.param("full", marks=pytest.mark.slow)])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, __file__, str(folder), request.param]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return folder


def test_it_was_killed_in_the_midst_of_saving(killed: Path) -> None:
    story = json.loads((killed / "story.json").read_text())
    assert [entry["ended"] for entry in story[:-1]].count(-signal.SIGKILL) >= len(story) // 2
    assert story[-1]["ended"] == 0
    halves = [entry for entry in story if any("checkpoint-" in name for name in entry["incomplete"])]
    assert len(halves) >= 2
    assert story[-1]["incomplete"] == []


def test_a_checkpoint_is_whole_or_not_there(killed: Path) -> None:
    story = json.loads((killed / "story.json").read_text())
    whole = set(story[-1]["checkpoints"][f"checkpoint-{STEPS}"])
    seen = [set(files) for entry in story for files in entry["checkpoints"].values()]
    assert len(seen) >= 3
    assert all(files == whole for files in seen)
    assert all(len(entry["checkpoints"]) <= 3 for entry in story)  # two, and a third between writing and deleting
    assert len(story[-1]["checkpoints"]) == 2


def test_it_ends_where_an_undisturbed_run_does(killed: Path) -> None:
    one, other = (torch.load(killed / name / "end.pt") for name in ("undisturbed", "disturbed"))
    for part in ("weights", "average"):
        assert len(one[part]) == len(other[part])
        assert all(torch.equal(a, b) for a, b in zip(one[part], other[part], strict=True))
    assert len(one["weights"]) > 0
    rewards = [[entry["reward"] for entry in end["logs"] if "reward" in entry] for end in (one, other)]
    assert rewards[0] == rewards[1]
    assert len(rewards[0]) >= STEPS // 2


def test_it_sampled_the_same_edits_on_the_way(killed: Path) -> None:
    one, other = ((killed / name / "rollouts.jsonl").read_text().splitlines() for name in ("undisturbed", "disturbed"))
    expected = {json.loads(line)["step"]: line for line in one}
    steps = [json.loads(line)["step"] for line in other]
    assert sorted(expected) == sorted(set(steps)) == list(range(1, STEPS + 1))
    assert len(steps) > STEPS  # some were lost and made again
    assert all(line == expected[json.loads(line)["step"]] for line in other)


def test_a_run_that_is_at_its_end_trains_no_further(killed: Path) -> None:
    copy, kind = killed / "copy", killed.name.rstrip("0123456789")
    shutil.copytree(killed / "undisturbed", copy)
    (copy / "rollouts.jsonl").unlink()
    run(copy, kind)
    one, other = (torch.load(folder / "end.pt") for folder in (killed / "undisturbed", copy))
    assert all(torch.equal(a, b) for a, b in zip(one["weights"], other["weights"], strict=True))
    assert not (copy / "rollouts.jsonl").exists()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
