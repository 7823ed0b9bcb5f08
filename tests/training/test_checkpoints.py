"""Folders of checkpoints: published by a rename, cleaned, rotated; and what a Trainer does around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from editr1_plugins.training.checkpoints import CheckpointFolder, WholeCheckpoints


def written(root: Path, name: str, content: str = "new") -> Path:
    folder = root / ".incomplete" / name
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "weights").write_text(content)
    return folder


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("checkpoint-*"))


def test_nothing_is_seen_before_it_is_published(tmp_path: Path) -> None:
    written(tmp_path, "checkpoint-2")
    assert get_last_checkpoint(str(tmp_path)) is None
    assert CheckpointFolder(tmp_path).publish("checkpoint-2") == tmp_path / "checkpoint-2"
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-2")
    assert (tmp_path / "checkpoint-2" / "transformer" / "weights").read_text() == "new"


def test_one_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for content in ("old", "new"):
        written(tmp_path, "checkpoint-2", content)
        folder.publish("checkpoint-2")
    assert (tmp_path / "checkpoint-2" / "transformer" / "weights").read_text() == "new"
    assert list((tmp_path / ".incomplete").iterdir()) == []


def test_the_old_one_comes_back_if_the_new_one_never_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    written(tmp_path, "checkpoint-2", "old")
    folder.publish("checkpoint-2")
    new, rename = written(tmp_path, "checkpoint-2"), Path.rename

    def killed(path: Path, target: Any) -> Path:
        if path == new:
            raise KeyboardInterrupt  # between the two renames
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.publish("checkpoint-2")
    monkeypatch.undo()
    assert names(tmp_path) == []
    folder.clean()
    assert (tmp_path / "checkpoint-2" / "transformer" / "weights").read_text() == "old"
    assert not (tmp_path / ".incomplete").exists()


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, "123"),
        (0, None, "123"),
        (5, None, "123"),
        (2, None, "23"),
        (1, None, "3"),
        (1, 1, "13"),
        (2, 1, "13"),
    ],
)
def test_rotation_keeps_the_last_and_the_best(tmp_path: Path, limit: int | None, best: int | None, left: str) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2, 3):
        written(tmp_path, f"checkpoint-{step}")
        folder.publish(f"checkpoint-{step}")
    folder.rotate(limit, None if best is None else str(tmp_path / f"checkpoint-{best}"))
    assert names(tmp_path) == [f"checkpoint-{step}" for step in left]
    folder.clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == names(tmp_path)


class Plain(WholeCheckpoints):
    """Any Trainer can have whole checkpoints."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics = {"eval_score": {1: 3.0, 2: 5.0, 3: 1.0}[self.state.global_step]}
        self.log(metrics)
        return metrics


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * x).sum()}


def plain(folder: Path, **options: Any) -> Plain:
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "use_cpu": True, "report_to": []}
    args = TrainingArguments(str(folder), disable_tqdm=True, **{**settings, **options})
    rows = [{"x": torch.ones(1)}] * 24
    return Plain(Model(), args, train_dataset=rows, eval_dataset=rows)


def test_the_best_checkpoint_is_kept_and_known_by_its_place(tmp_path: Path) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "score", "save_total_limit": 1}
    run = plain(tmp_path, greater_is_better=True, **options)
    run.train()
    assert names(tmp_path) == ["checkpoint-2"]  # as transformers does at the end with a limit of 1
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    stored = (tmp_path / "checkpoint-2" / "trainer_state.json").read_text()
    assert f'"best_model_checkpoint": "{tmp_path / "checkpoint-2"}"' in stored
    assert not (tmp_path / ".incomplete").exists() or not list((tmp_path / ".incomplete").iterdir())


def test_leftovers_of_a_killed_run_are_removed_and_callbacks_see_whole_checkpoints(tmp_path: Path) -> None:
    written(tmp_path, "checkpoint-9")
    seen: list[str | None] = []

    class OnSave(TrainerCallback):
        def on_save(self, *_: Any, **__: Any) -> None:
            seen.append(get_last_checkpoint(str(tmp_path)))

    run = plain(tmp_path)
    run.add_callback(OnSave())
    run.train()
    assert seen == [str(tmp_path / f"checkpoint-{step}") for step in (1, 2, 3)]
    assert not list((tmp_path / ".incomplete").glob("*"))


def test_the_hub_is_given_the_published_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[str] = []
    run = plain(tmp_path, max_steps=1)
    monkeypatch.setattr("transformers.Trainer._push_from_checkpoint", lambda self, folder: pushed.append(folder))
    run.args.push_to_hub = True
    monkeypatch.setattr(run, "store_flos", lambda: None)
    run.state.global_step = 1
    run.lr_scheduler = run.optimizer = None
    run.create_optimizer_and_scheduler(1)
    run._save_checkpoint(run.model, None)
    assert pushed == [str(tmp_path / "checkpoint-1")]
    assert Path(pushed[0]).is_dir()
