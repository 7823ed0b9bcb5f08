"""Two processes measure a judge as one does. This file is also the program that they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from editr1_plugins.testing.judges import save_tiny_judge, tiny_pairs, tiny_traces


def measured(judge: Path, folder: Path) -> dict[str, float]:
    """Train three steps on four traces at a time, and what the last evaluation logged."""
    import torch

    from editr1_plugins.training.judge_evaluation import JudgeEvaluation, JudgeSettings
    from editr1_plugins.training.judge_sft import JudgeSFTConfig, JudgeSFTTrainer

    torch.set_num_threads(1)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    args = JudgeSFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=4 // processes,
        per_device_eval_batch_size=2,
        max_steps=3,
        learning_rate=1e-3,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=3,
        disable_tqdm=True,
        activation_checkpointing=False,
        gradient_checkpointing=None,
    )
    trainer = JudgeSFTTrainer(str(judge), args, tiny_traces(8), tiny_traces(3))
    assert trainer.accelerator.num_processes == processes
    settings = JudgeSettings(max_tokens=12, temperature=1.0)
    trainer.add_callback(JudgeEvaluation(trainer, pairs=tiny_pairs(3), traces=tiny_traces(3), settings=settings))
    trainer.train()
    found = [entry for entry in trainer.state.log_history if "eval_judge/parse_rate" in entry]
    assert len(found) == 1
    return dict(found[0])


@pytest.mark.slow
def test_two_processes_log_what_one_does(tmp_path: Path) -> None:
    judge = save_tiny_judge(tmp_path / "judge", initializer_range=0.1)
    alone = measured(judge, tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run(
        [*command, str(judge), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        together = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert together.keys() == alone.keys()
        assert together == pytest.approx(alone)


if __name__ == "__main__":
    found = measured(Path(sys.argv[1]), Path(sys.argv[2]) / "two")
    (Path(sys.argv[2]) / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
