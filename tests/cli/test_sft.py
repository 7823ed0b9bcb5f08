"""`editr1 sft`: options, checks, a run and its resumption, and merging, with a tiny judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editr1_plugins.cli import main
from editr1_plugins.testing.judges import save_tiny_judge, tiny_pairs, tiny_traces, write_rows


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_judge(tmp_path_factory.mktemp("judge"), ["It is brighter.", "It is darker."])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_rows(tiny_traces(6), folder / "traces")
    write_rows(tiny_pairs(1), folder / "pairs")
    return folder


def flags(**values: Any) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def quick(judge: Path, data: Path, out: Path, **changed: Any) -> list[str]:
    values: dict[str, Any] = {
        "model_name_or_path": judge,
        "traces": data / "traces",
        "output_dir": out,
        "bf16": "false",
        "use_cpu": "true",
        "report_to": "none",
        "activation_checkpointing": "false",
        "per_device_train_batch_size": 2,
        "max_steps": 2,
    }
    return ["sft", *flags(**(values | changed))]


def test_check_counts_and_trains_nothing(
    judge: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    more = flags(model_name_or_path=judge, traces=data / "traces", output_dir=out)
    assert main(["sft", "--check", *more]) == 0
    text = capsys.readouterr().out
    assert "6 rows, 0 left out" in text
    assert "tokens   images: min 8, median 8, max 8 (of 6 rows)" in text
    assert main(["sft", "--check", "--json", "--check-rows", "2", *more, "--mode", "verify"]) == 0
    found = json.loads(capsys.readouterr().out)
    (counted,) = found["data"].values()
    assert counted["counted"] == 2
    assert counted["tokens"]["total"]["max"] > counted["tokens"]["trace"]["max"] > 1
    assert found["mode"] == "verify"
    assert not out.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"traces": ""}, "no data: give traces"),
        ({"traces": "nowhere.jsonl"}, "no file or folder 'nowhere.jsonl'"),
        ({"max_length": 1024}, "max_length=1024 would cut image tokens"),
        ({"eval_strategy": "steps"}, "eval_strategy needs eval_traces"),
        ({"eval_pairs": "pairs"}, "say when with eval_strategy"),
        ({"learning_rat": 1}, "no option 'learning_rat', did you mean 'learning_rate'?"),
        ({"model_name_or_path": "nowhere/at all"}, "neither a folder on this machine nor a hub id"),
    ],
)
def test_mistakes_are_one_line(
    judge: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: Any, message: str
) -> None:
    assert main(quick(judge, data, tmp_path, **changed)) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert message in error[0]


def test_options_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sft", "--options"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{name} " in text for name in ("traces", "eval_pairs", "mode", "max_pixels", "lora_r"))


def test_a_lora_is_trained_resumed_and_merged(
    judge: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, config = tmp_path / "out", tmp_path / "run.yaml"
    config.write_text(
        "use_peft: true\nlora_r: 4\nsave_steps: 1\nlogging_steps: 1\neval_strategy: steps\neval_steps: 2\n"
    )
    held_out = {"eval_traces": data / "traces", "eval_pairs": data / "pairs", "eval_max_tokens": 4}
    command = [*quick(judge, data, out, resume_from_checkpoint="latest", **held_out), "--config", str(config)]
    assert main(command) == 0, capsys.readouterr().err
    state = json.loads((out / "checkpoint-2" / "trainer_state.json").read_text())
    logged = {name for entry in state["log_history"] for name in entry}
    assert {"loss", "eval_loss", "eval_judge/pair_accuracy", "eval_judge/verdict_accuracy"} <= logged
    assert main([*command, "--max_steps", "3"]) == 0
    assert (out / "checkpoint-3").is_dir()
    assert "sft" in (out / "README.md").read_text()
    capsys.readouterr()
    assert main(["sft", "--merge", str(out), str(tmp_path / "merged")]) == 0
    assert "rounding changed the weights by 0.0% of what the adapter adds" in capsys.readouterr().out
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    assert main(["sft", "--merge", str(out), str(tmp_path / "merged")]) == 2
