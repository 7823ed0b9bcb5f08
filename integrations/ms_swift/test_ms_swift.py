"""The adapter within ms-swift's own code (4.6.0 from PyPI): its plug-in loader, its scoring, and a job of one step.

pytest integrations/ms_swift        # in an environment that has ms-swift
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("swift.rewards", reason="ms-swift is not installed; these tests were run with ms-swift==4.6.0")

import torch
from PIL import Image
from swift.rewards import orms
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import score_completions
from swift.rlhf_trainers.utils import resolve_reward_funcs
from swift.utils.utils import import_external_file

from editr1_plugins.adapters import ms_swift
from editr1_plugins.testing import AdapterContract
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.types import Edit

HERE = Path(__file__).parent


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sample_of(edit: Edit, text: str = "done", **more: Any) -> GRPOSample:
    """What ms-swift's trainer holds after a rollout."""
    return GRPOSample.from_row(
        {
            "messages": [
                {"role": "user", "content": f"<image>{edit.instruction}"},
                {"role": "assistant", "content": text},
            ],
            "images": [{"bytes": png(edit.source), "path": None}],
            "edited": {"bytes": png(edit.edited), "path": None},
            "instruction": edit.instruction,
            **more,
        }
    )


def scored(functions: Sequence[Any], samples: Sequence[GRPOSample]) -> torch.Tensor:
    return score_completions(list(samples), list(functions), None, False, torch.device("cpu"))


class Asked:
    """A reward of ms-swift that keeps what it said, since the trainer holds 32-bit floats."""

    def __init__(self, reward: Any) -> None:
        self.reward, self.said = reward, []

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:
        self.said = self.reward(completions, **columns)
        return self.said


class TestMsSwift(AdapterContract):
    def build(self, **settings: Any) -> Any:
        ms_swift.register(**settings)
        [function], [name] = resolve_reward_funcs(["editr1"], args=object())
        assert name == "EditReward"
        return function

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        asked = Asked(adapter)
        values = scored([asked], [sample_of(edit) for edit in edits])
        assert values[:, 0].tolist() == torch.tensor(asked.said).tolist()
        return asked.said


def edit(red: int = 255, instruction: str = "make it red") -> Edit:
    side = (16, 16)
    return Edit(source=Image.new("RGB", side), edited=Image.new("RGB", side, (red, 1, 1)), instruction=instruction)


def settings() -> dict[str, Any]:
    return {"verifier": ShadeVerifier(), "decomposer": OneQuestion(), "guards": ()}


def test_the_plug_in_file_by_its_own_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITR1_SCORER", '{"verifier": "measure", "guards": []}')
    import_external_file(str(HERE / "editr1.py"))
    names = ["editr1", "editr1_async", "editr1_missing", "editr1_judge"]
    assert set(names) <= set(orms)
    _, shown = resolve_reward_funcs(names, args=object())
    assert shown == ["EditReward", "EditRewardAsync", "MissingShare", "JudgeReward"]


def test_all_of_them_together_and_what_only_stands_in_is_counted() -> None:
    ms_swift.register(**settings())
    functions, _ = resolve_reward_funcs(["editr1", "editr1_missing", "editr1_async"], args=object())
    values = scored(functions, [sample_of(edit(255, "refuse")), sample_of(edit(1, "refuse"))])
    assert values.tolist() == [[10.0, 0.0, 10.0], [10.0, 1.0, 10.0]]


def test_why_a_missing_score_is_filled() -> None:
    """ms-swift makes a NaN of None and sums over the rest: a row without a score would get the reward 0."""
    values = scored([lambda completions, **columns: [None, 5.0]], [sample_of(edit()), sample_of(edit())])
    assert values.nansum(dim=1).tolist() == [0.0, 5.0]


def test_an_edit_of_the_rollout_counts() -> None:
    made = sample_of(edit(0), rollout_infos={"edited": edit(255).edited, "num_turns": 2})
    ms_swift.register(**settings())
    [function], _ = resolve_reward_funcs(["editr1"], args=object())
    assert scored([function], [made]).tolist() == [[10.0]]


def save_job(folder: Path) -> None:
    """Rows of MiniEdit, and a policy of a few thousand weights that can say three plans and nothing else."""
    from editr1_plugins.miniedit.pairs import sample_tasks
    from editr1_plugins.miniedit.world import draw
    from editr1_plugins.testing import language

    tasks = [task for task in sample_tasks(60, seed=3) if task.instruction == "make the background white"][:2]
    with (folder / "rows.jsonl").open("w") as file:
        for number, task in enumerate(tasks):
            draw(task.scene).save(folder / f"{number}.png")
            ask = {"role": "user", "content": "Write what an image editor must be told: " + task.instruction}
            row = {"messages": [ask], "source": f"{number}.png", "instruction": task.instruction}
            file.write(json.dumps(row) + "\n")
    plans = ["make the background white", "make the background black", "add a red circle in the top left"]
    tokenizer = language.tiny_tokenizer(plans)
    model = language.tiny_language_model(tokenizer)
    model.generation_config.suppress_tokens = language.all_but(tokenizer, plans)
    model.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")


@pytest.mark.slow
def test_a_job_of_one_step(tmp_path: Path) -> None:
    """`swift rlhf grpo.yaml` on a CPU: the policy writes plans, the tiny Kontext follows them, `measure` judges."""
    pytest.importorskip("diffusers", reason="diffusers, which makes the edits, is not installed")
    save_job(tmp_path)
    options = {
        "model": "policy",
        "model_type": "qwen2",
        "template": "qwen2_5",
        "torch_dtype": "float32",
        "tuner_type": "full",
        "dataset": "rows.jsonl",
        "external_plugins": HERE / "editr1.py",
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "max_completion_length": 2,
        "max_steps": 1,
        "use_vllm": "false",
        "use_cpu": "true",
        "gradient_checkpointing": "false",
        "report_to": "none",
        "save_strategy": "no",
    }
    command = [sys.executable, "-m", "swift.cli.main", "rlhf", str(HERE / "grpo.yaml")]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    scorer = {
        "verifier": "measure",
        "guards": [],
        "source_key": "source",
        "image_folder": str(tmp_path),
        "editor": "editr1_plugins.adapters.policy_rows.environment_editor",
    }
    editor = {"model": "miniedit", "call": {"num_inference_steps": 2}}
    given = {"EDITR1_SCORER": json.dumps(scorer), "EDITR1_EDITOR": json.dumps(editor)}
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **given}, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [logged] = (tmp_path / "output").rglob("logging.jsonl")
    first = json.loads(logged.read_text().splitlines()[0])
    # What the random policy says is chance; that every edit was made and judged is not.
    assert first["rewards/MissingShare/mean"] == 0.0
    assert 0.0 <= first["rewards/EditReward/mean"] <= 10.0
    assert first["reward"] == pytest.approx(first["rewards/EditReward/mean"])  # what is only counted adds nothing
    assert first["global_step/max_steps"] == "1/1"
