"""`editr1 gcpo`: YAML and flags, --check, a run with LoRA and evaluation, resuming, and pairs made of judged edits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image as Pictures
from safetensors.torch import load_file

from editr1_plugins.cli import main
from editr1_plugins.testing.judges import save_tiny_judge, tiny_pairs, tiny_traces
from editr1_plugins.training.preference_files import load_pairs, save_pairs

WORDS = [f"<score>{score}</score>" for score in (2, 5, 8)]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_judge(tmp_path_factory.mktemp("judge"), WORDS)


def config_file(tmp_path: Path, judge: Path, **changes: Any) -> str:
    if not (tmp_path / "pairs").exists():
        save_pairs(tiny_pairs(6), tmp_path / "pairs")
        save_pairs(tiny_pairs(2), tmp_path / "held out")
    settings = {
        "model_name_or_path": str(judge),
        "pairs": str(tmp_path / "pairs"),
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 4,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        **changes,
    }
    path = tmp_path / "judge.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def log_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return found


class TestTraining:
    def test_a_lora_with_evaluation_and_a_card(self, tmp_path: Path, judge: Path) -> None:
        evaluation = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4, "eval_max_tokens": 4}
        changes = {"use_peft": True, "lora_r": 2, "save_steps": 2, "eval_pairs": str(tmp_path / "held out")}
        assert main(["gcpo", "--config", config_file(tmp_path, judge, **evaluation, **changes)]) == 0
        out = tmp_path / "out"
        assert (out / "adapter_model.safetensors").is_file()
        assert (out / "preprocessor_config.json").is_file() or (out / "processor_config.json").is_file()
        entries = log_of(out / "checkpoint-2")
        assert any("gcpo/pair_accuracy" in entry for entry in entries)
        assert any("eval_gcpo/pair_accuracy" in entry for entry in entries)
        assert any("eval_judge/pair_accuracy" in entry or "eval_judge/pair_failure_rate" in entry for entry in entries)
        card = (out / "README.md").read_text()
        assert "GCPO" in card
        assert "2604.27505" in card
        assert "synthetic" not in card

    def test_full_training_goes_on_from_the_last_checkpoint(self, tmp_path: Path, judge: Path) -> None:
        path = config_file(tmp_path, judge, save_steps=1, resume_from_checkpoint="latest")
        assert main(["gcpo", "--config", path]) == 0  # there is none yet: it begins
        whole = load_file(tmp_path / "out" / "model.safetensors")
        rows = [{**row, "synthetic": True, "judge": "j"} for row in tiny_pairs(6)]
        save_pairs(rows, tmp_path / "pairs")
        import shutil

        shutil.rmtree(tmp_path / "out" / "checkpoint-2")
        assert main(["gcpo", "--config", path]) == 0
        for name, value in load_file(tmp_path / "out" / "model.safetensors").items():
            assert torch.equal(value, whole[name]), name
        assert "6 of 6 training pairs are synthetic" in (tmp_path / "out" / "README.md").read_text()


class TestCheck:
    def test_it_tells_data_and_plan(self, tmp_path: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = config_file(tmp_path, judge, gradient_accumulation_steps=3, num_iterations=2)
        assert main(["gcpo", "--config", path, "--check", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        [data] = found["data"].values()
        assert (data["pairs"], data["synthetic"], data["without_principles"]) == (6, 0, 0)
        assert data["principles"] == {"min": 2, "median": 2, "max": 2}
        assert 50 < data["prompt_tokens"]["min"] <= data["prompt_tokens"]["max"] < 2000
        plan = found["plan"]
        assert (plan["pairs_per_rollout"], plan["traces_per_rollout"], plan["updates_per_rollout"]) == (3, 12, 2.0)
        assert main(["gcpo", "--config", path, "--check", "--max_steps", "-1", "--num_train_epochs", "5"]) == 0
        shown = capsys.readouterr().out
        assert "3 pairs x 2 x 2 = 12 traces of at most 4 tokens" in shown
        assert "updates  20, 2 per rollout" in shown
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--per_device_train_batch_size", "2"], "whole pairs"),
            (["--numgenerations", "2"], "did you mean 'num_generations'"),
            (["--eval_strategy", "steps"], "eval_strategy needs eval_pairs"),
            (["--eval_pairs", "x"], "say when with eval_strategy"),
            (["--mode", "guess"], "mode='guess'"),
            (["--pairs", "nowhere.jsonl"], "nowhere.jsonl"),
            (["--remove_unused_columns", "true"], "remove_unused_columns"),
        ],
    )
    def test_what_is_wrong_is_told(
        self, tmp_path: Path, judge: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["gcpo", "--config", config_file(tmp_path, judge), "--check", *flags]) == 2
        assert message in capsys.readouterr().err

    def test_a_broken_image_is_found(self, tmp_path: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = config_file(tmp_path, judge)
        for image in (tmp_path / "pairs" / "images").glob("*/*.png"):
            image.write_bytes(image.read_bytes()[:40])
        assert main(["gcpo", "--config", path, "--check"]) == 2
        assert "row 0, column" in capsys.readouterr().err

    def test_options_are_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["gcpo", "--options"]) == 0
        shown = capsys.readouterr().out
        for option in ("--pairs", "--num_generations", "--lora_r", "--vllm_mode", "--eval_samples"):
            assert option in shown


class TestMakePairs:
    def test_best_against_worst_of_what_score_judged(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, level in (("source", 60), ("dark", 60), ("bright", 150)):
            Pictures.new("RGB", (32, 32), (level,) * 3).save(tmp_path / f"{name}.png")
        same = {"source": "source.png", "instruction": "brighten it"}
        rows = [{**same, "edited": f"{name}.png"} for name in ("dark", "bright")]
        (tmp_path / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        judged, made = str(tmp_path / "judged"), str(tmp_path / "made")
        command = ["score", "--input", str(tmp_path / "edits.jsonl"), "--output", judged, "--verifier", "measure"]
        assert main(command) in (0, 3)
        capsys.readouterr()
        assert main(["gcpo", "--make-pairs", judged, made, "--min-gap", "0.5"]) == 0
        assert "1 synthetic pairs" in capsys.readouterr().out
        [pair] = load_pairs(made)
        assert pair["winner"].getpixel((0, 0)) == (150, 150, 150)
        assert pair["synthetic"] is True
        assert main(["gcpo", "--make-pairs", judged, made, "--min-gap", "11"]) == 2

    def test_rankings_become_pairs(self, tmp_path: Path) -> None:
        traces = tiny_traces(2)
        for index, row in enumerate(traces):
            row["edited"].save(tmp_path / f"{index}.png")
            row["source"].save(tmp_path / "source.png")
        ranking = {"source": "source.png", "instruction": "x", "images": ["0.png", "1.png"], "ranks": [2, 1]}
        (tmp_path / "rankings.jsonl").write_text(json.dumps(ranking) + "\n")
        assert main(["gcpo", "--make-pairs", str(tmp_path / "rankings.jsonl"), str(tmp_path / "made")]) == 0
        assert len(load_pairs(tmp_path / "made")) == 1
        assert main(["gcpo", "--make-pairs", "a", "b", "--pairs", "c"]) == 2
