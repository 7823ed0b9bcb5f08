"""Evaluation on held-out rows: categories, sheets, trackers, the best checkpoint."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers.integrations import TensorBoardCallback

from editr1_plugins.errors import JudgeUnavailableError
from editr1_plugins.testing.pipelines import picture, tiny_pipeline
from editr1_plugins.training.edit_evaluation import MAX_CATEGORIES, category_of, rewards_by_category
from editr1_plugins.training.edit_grpo import EditGRPOConfig, EditGRPOTrainer
from editr1_plugins.training.eval_pictures import KEPT_SHEETS, draw_sheet, keep_sheet, shown_edit


def brightness(completions: Any, **_: Any) -> list[float]:
    return [float(np.asarray(image, np.float32).mean()) / 25.5 for image in completions]


def rows(count: int = 5, **columns: Any) -> Dataset:
    made = [{"image": picture(32, 100 + i), "prompt": f"make the sky red {i}"} for i in range(count)]
    return Dataset.from_list([{**row, **{k: v[i] for k, v in columns.items()}} for i, row in enumerate(made)])


def trainer(folder: Path, reward: Any = brightness, held_out: Any = None, **changes: Any) -> EditGRPOTrainer:
    pipe, call = tiny_pipeline("kontext", lora_rank=4)
    set_by_trainer = ("image", "prompt", "num_inference_steps", "output_type")
    options: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "num_generations": 2,
        "num_inference_steps": 3,
        "eval_num_inference_steps": 2,
        "max_steps": 2,
        "learning_rate": 0.02,
        "beta": 0.0,
        "pipeline_kwargs": {name: value for name, value in call.items() if name not in set_by_trainer},
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "preflight": False,
    }
    more = {name: changes.pop(name) for name in ("callbacks",) if name in changes}
    args = EditGRPOConfig(**{**options, **changes})
    return EditGRPOTrainer(pipe, reward, args, rows(), rows() if held_out is None else held_out, **more)


def history(of: EditGRPOTrainer, name: str) -> list[float]:
    return [logs[name] for logs in of.state.log_history if name in logs]


# What is measured


def test_rewards_by_category_are_means_of_their_rows(tmp_path: Path) -> None:
    edits: list[Any] = []

    def reward(completions: Any, log_metric: Any, **_: Any) -> list[float | None]:
        edits.extend(completions)
        log_metric("largest", len(completions))
        return [None if len(edits) == 5 else value for value in brightness(completions)]

    held_out = rows(5, category=["colour", "new things!", "colour", "new things!", "style"])
    metrics = trainer(tmp_path, reward, held_out).evaluate()
    values = brightness(edits)
    assert metrics["eval_reward/colour"] == pytest.approx((values[0] + values[2]) / 2)
    assert metrics["eval_reward/new_things_"] == pytest.approx((values[1] + values[3]) / 2)
    assert "eval_reward/style" not in metrics  # its only row was not judged
    assert metrics["eval_reward"] == pytest.approx(sum(values[:4]) / 4)
    assert metrics["eval_frac_unscored"] == pytest.approx(0.2)
    assert metrics["eval_largest"] == pytest.approx((2 * 2 + 2 * 2 + 1) / 5)


def test_a_category_is_read_in_the_instruction_where_no_column_tells_it() -> None:
    assert category_of({"prompt": "remove the red circle"}) == "remove"
    assert category_of({"prompt": "remove the red circle", "category": "mine"}) == "mine"
    assert category_of({"prompt": "remove the red circle", "category": None}) == "remove"
    assert category_of({"prompt": "Surprise me."}) is None


def test_categories_are_few_and_named_safely() -> None:
    many = [f"kind {i}" for i in range(1000)] + ["often/ü"] * 3 + [None]
    found = rewards_by_category(torch.ones(len(many)), many)
    assert len(found) == MAX_CATEGORIES + 1
    assert found["often_"] == found["other"] == 1.0
    assert rewards_by_category(torch.ones(2), [None, None]) == {}
    assert rewards_by_category(torch.tensor([1.0, torch.nan, 3.0]), ["a", "a", None]) == {"a": 1.0, "other": 3.0}


def test_several_sets_are_kept_apart(tmp_path: Path) -> None:
    run = trainer(tmp_path, held_out={"near": rows(2, category=["a", "b"]), "far": rows(3)})
    metrics = run.evaluate()
    assert {"eval_near_reward", "eval_far_reward", "eval_near_reward/a", "eval_near_reward/b"} <= metrics.keys()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")) == [
        "eval/far/step-0.jpg",
        "eval/near/step-0.jpg",
    ]


def test_the_next_batch_is_edited_while_one_is_judged(tmp_path: Path) -> None:
    edited, outcomes = threading.Event(), []

    def reward(completions: Any, **_: Any) -> list[float]:
        outcomes.append(edited.wait(60))
        return brightness(completions)

    reward.row_wise = True  # type: ignore[attr-defined]
    run = trainer(tmp_path, reward)
    evaluate = run.sampler.evaluate

    def watched(row: Any, index: int) -> Any:
        if index == 2:
            edited.set()
        return evaluate(row, index)

    run.sampler.evaluate = watched
    assert math.isfinite(run.evaluate()["eval_reward"])
    assert outcomes == [True] * 3


def test_averaged_weights_are_evaluated(tmp_path: Path) -> None:
    run = trainer(tmp_path, ema_decay=0.5)
    run.train()
    averaged = run.evaluate()["eval_reward"]
    with run.policy.averaged():
        assert run.policy.ema is not None
        shadow = [value.clone() for value in run.policy.ema.shadow_params]
    for parameter, value in zip(run.policy.parameters, shadow, strict=True):
        parameter.data.copy_(value)
    run.policy.ema = None
    assert run.evaluate()["eval_reward"] == averaged


def test_a_dead_judge_ends_an_evaluation(tmp_path: Path) -> None:
    def away(**_: Any) -> list[float]:
        raise ConnectionError("nobody there")

    with pytest.raises(JudgeUnavailableError, match="nobody there"):
        trainer(tmp_path, away, judge_patience=0.0).evaluate()


# Sheets


def test_sheets_show_source_and_edit(tmp_path: Path) -> None:
    run = trainer(tmp_path, eval_strategy="steps", eval_steps=1, eval_images=3)
    run.train()
    files = sorted((tmp_path / "eval").iterdir())
    assert [path.name for path in files] == ["step-1.jpg", "step-2.jpg"]
    with Image.open(files[0]) as sheet:
        pixels = np.asarray(sheet.convert("RGB"), np.float32)
    assert pixels.shape[1] == 3 * (2 * 256 + 24)
    source = np.asarray(rows()[0]["image"].resize((256, 256), Image.Resampling.NEAREST), np.float32)
    assert np.abs(pixels[8 : 8 + 256, 8 : 8 + 256] - source).mean() < 12  # JPEG of noise


def test_no_sheets_where_none_are_wanted(tmp_path: Path) -> None:
    trainer(tmp_path, eval_images=0).evaluate()
    assert not (tmp_path / "eval").exists()


def test_pictures_of_any_shape_and_text_fit_their_place() -> None:
    shapes = [(1, 1), (4000, 10), (33, 700), (300, 200)]
    texts = ["a\nb\x00c\u202e", "x" * 5000, "", "把天空变成红色"]
    pairs = [
        shown_edit(Image.new("RGBA" if i else "L", shape), Image.new("RGB", shape[::-1]), text)
        for i, (shape, text) in enumerate(zip(shapes, texts, strict=True))
    ]
    assert all(max(pair.source.size) <= 256 for pair in pairs)
    sheet = draw_sheet(pairs * 5)
    assert sheet.width <= 4 * 540
    assert sheet.height <= 5 * 340
    assert draw_sheet([]).size


def test_the_first_and_the_latest_sheets_are_kept(tmp_path: Path) -> None:
    sheet = Image.new("RGB", (4, 4))
    (tmp_path / "notes.txt").write_text("mine")
    for step in range(0, 10 * (KEPT_SHEETS + 7), 10):
        keep_sheet(sheet, tmp_path, step)
    steps = sorted(int(path.stem.split("-")[1]) for path in tmp_path.glob("*.jpg"))
    assert len(steps) == KEPT_SHEETS
    assert steps[0] == 0
    assert steps[1:] == list(range(80, 10 * (KEPT_SHEETS + 7), 10))
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".jpg") == ["notes.txt"]


def test_tensorboard_gets_the_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    held_out = {"near": rows(2, category=["a", "b"]), "far": rows(2)}
    options = {"report_to": ["tensorboard"], "eval_strategy": "steps", "eval_steps": 1}
    run = trainer(tmp_path, held_out=held_out, **options)
    assert any(isinstance(callback, TensorBoardCallback) for callback in run.callback_handler.callbacks)
    run.train()
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    log = EventAccumulator(str(events), size_guidance={"images": 0}).Reload()
    assert {"eval/near_reward", "eval/near_reward/a", "eval/far_reward"} <= set(log.Tags()["scalars"])
    assert set(log.Tags()["images"]) == {"eval/edits/near", "eval/edits/far"}
    images = log.Images("eval/edits/near")
    assert [image.step for image in images] == [1, 2]
    assert images[0].encoded_image_string.startswith(b"\x89PNG")
    assert images[0].width == 2 * (2 * 256 + 24)


def test_wandb_gets_the_sheets(tmp_path: Path) -> None:
    """wandb's own callback holds the module as `_wandb`; what it would be told is checked here, not wandb itself."""
    logged: list[dict[str, Any]] = []
    run = trainer(tmp_path)
    wandb = SimpleNamespace(run=object(), log=logged.append, Image=lambda image: image.size)
    run.callback_handler.callbacks.append(SimpleNamespace(_wandb=wandb, on_log=_nothing, on_evaluate=_nothing))
    run.evaluate()
    assert [entry.keys() for entry in logged] == [{"eval/edits", "train/global_step"}]
    assert logged[0]["eval/edits"][0] == 4 * (2 * 256 + 24)


def _nothing(*_: Any, **__: Any) -> None:
    return None


# The best checkpoint


def scripted(values: list[float]) -> Any:
    """A reward for training, and for evaluation one that takes the next of `values` each time."""
    calls = iter(values)

    def reward(completions: Any, prompts: Any, **_: Any) -> list[float]:
        if prompts[0].startswith("held out"):
            return [next(calls)] * len(completions)
        return brightness(completions)

    return reward


@pytest.mark.parametrize(
    "changes", [{}, {"ema_decay": 0.7}, {"save_strategy": "best"}], ids=["live", "ema", "best only"]
)
def test_the_best_weights_are_kept_and_loaded(tmp_path: Path, changes: dict[str, Any]) -> None:
    held_out = Dataset.from_list([{"image": picture(32, 7), "prompt": "held out"}])
    options = {
        "max_steps": 5,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_reward",
        **changes,
    }
    evaluated: list[list[torch.Tensor]] = []
    run = trainer(tmp_path, scripted([1.0, 5.0, 2.0, 4.0, 3.0]), held_out, **options)
    edit = run.sampler.evaluate

    def watched(row: Any, index: int) -> Any:
        evaluated.append([parameter.detach().clone() for parameter in run.policy.parameters])
        return edit(row, index)

    run.sampler.evaluate = watched
    run.train()
    assert history(run, "eval_reward") == [1.0, 5.0, 2.0, 4.0, 3.0]
    assert run.state.best_metric == 5.0
    kept = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert kept == ["checkpoint-1" if "save_strategy" in changes else "checkpoint-2", kept[1]]
    assert kept[1] == ("checkpoint-2" if "save_strategy" in changes else "checkpoint-5")
    assert Path(str(run.state.best_model_checkpoint)).name == "checkpoint-2"
    assert all(torch.equal(*pair) for pair in zip(run.policy.parameters, evaluated[1], strict=True))
    assert not all(torch.equal(*pair) for pair in zip(evaluated[1], evaluated[-1], strict=True))
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["best_metric"] == 5.0


def test_evaluations_wait_for_the_end_of_a_rollout_where_the_best_is_kept(tmp_path: Path) -> None:
    held_out = Dataset.from_list([{"image": picture(32, 7), "prompt": "held out"}])
    options = {
        "max_steps": 6,
        "num_iterations": 3,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "reward",
    }
    run = trainer(tmp_path, scripted([2.0, 1.0]), held_out, **options)
    run.train()
    assert [logs["step"] for logs in run.state.log_history if "eval_reward" in logs] == [3, 6]
    assert Path(str(run.state.best_model_checkpoint)).name == "checkpoint-3"
