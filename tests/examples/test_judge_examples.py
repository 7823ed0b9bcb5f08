"""The YAML files that train judges at full size: read by the real parsers, and started with a tiny model."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from editr1_plugins.cli import gcpo, main, sft
from editr1_plugins.cli.trl_arguments import parse_dataclasses
from editr1_plugins.testing.judges import save_tiny_judge, tiny_pairs, tiny_traces, write_rows

ROOT = Path(__file__).parent.parent.parent
JUDGE = ROOT / "examples/judge"
SFT = sorted(JUDGE.glob("*_sft.yaml"))
GCPO = sorted(JUDGE.glob("*_gcpo.yaml"))
LAUNCH = ("ddp", "fsdp", "zero2", "zero3")


def parsed(path: Path) -> tuple[Any, Any, Any]:
    module, command = (sft, "sft") if path in SFT else (gcpo, "gcpo")
    script, model, config = parse_dataclasses(
        module.option_types(), ["--config", str(path), "--use_cpu", "true"], command
    )
    return script, model, config


def test_there_are_two_sizes_of_each() -> None:
    assert [path.name for path in SFT] == ["qwen2_5_vl_3b_sft.yaml", "qwen2_5_vl_7b_sft.yaml"]
    assert [path.name for path in GCPO] == ["qwen2_5_vl_3b_gcpo.yaml", "qwen2_5_vl_7b_gcpo.yaml"]


@pytest.mark.parametrize("path", [*SFT, *GCPO], ids=lambda path: path.stem)
def test_the_parser_takes_every_key(path: Path) -> None:
    script, model, config = parsed(path)
    values = yaml.safe_load(path.read_text())
    merged = {**vars(model), **vars(config), **vars(script)}
    for name in values.keys() - {"eval_strategy", "save_strategy", "report_to", "lr_scheduler_type"}:
        wanted = float(values[name]) if name == "learning_rate" else values[name]
        assert merged[name] == wanted, name
    assert config.mode == "think+verify"
    assert config.output_dir == values["output_dir"]


@pytest.mark.parametrize("path", SFT, ids=lambda path: path.stem)
def test_the_traces_per_update_are_those_of_the_comment(path: Path) -> None:
    _, _, config = parsed(path)
    count = config.per_device_train_batch_size * config.gradient_accumulation_steps * 8
    assert f" 8 = {count}.\n" in path.read_text()


@pytest.mark.parametrize("path", GCPO, ids=lambda path: path.stem)
def test_gcpo_goes_on_from_sft(path: Path) -> None:
    _, model, _ = parsed(path)
    _, _, before = parsed(path.with_name(path.name.replace("_gcpo", "_sft")))
    assert model.model_name_or_path == before.output_dir


@pytest.mark.parametrize("path", SFT, ids=lambda path: path.stem)
def test_sft_starts_with_a_tiny_model_of_the_same_classes(path: Path, tmp_path: Path) -> None:
    judge = save_tiny_judge(tmp_path / "judge", ["It is brighter.", "It is darker."])
    changed = {
        "model_name_or_path": judge,
        "traces": write_rows(tiny_traces(8), tmp_path / "traces"),
        "eval_traces": write_rows(tiny_traces(2), tmp_path / "held-out"),
        "eval_pairs": write_rows(tiny_pairs(1), tmp_path / "pairs"),
        "output_dir": tmp_path / "out",
        "gradient_accumulation_steps": 1,
        "max_steps": 2,
        "eval_steps": 2,
        "save_steps": 2,
        "eval_max_tokens": 8,
        "max_pixels": 4096,
        "dataset_num_proc": 2,
        "dataloader_num_workers": 1,
        "report_to": "none",
        "use_cpu": "true",
    }
    flags = [part for name, value in changed.items() for part in (f"--{name}", str(value))]
    assert main(["sft", "--config", str(path), *flags]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert (tmp_path / "out" / "README.md").is_file()
    state = (tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text()
    assert '"eval_judge/pair_accuracy"' in state
    assert '"eval_loss"' in state


@pytest.mark.parametrize("name", LAUNCH)
def test_accelerate_reads_how_to_start(name: str) -> None:
    config = load_config_from_file(str(JUDGE / f"{name}.yaml"))
    assert config.num_processes == 8
    assert config.mixed_precision == "bf16"
    if name.startswith("zero"):
        assert config.deepspeed_config["zero_stage"] == int(name[-1])


def planned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *flags: str) -> str:
    monkeypatch.setattr("sys.argv", ["plan.py", *flags])
    runpy.run_path(str(JUDGE / "plan.py"), run_name="__main__")
    return capsys.readouterr().out


def test_the_runbook_shows_what_the_script_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = planned(capsys, monkeypatch)
    assert printed.startswith("arithmetic, not measured")
    assert "3.75 G parameters" in printed, "the published size of Qwen2.5-VL-3B"
    assert "8.29 G parameters" in printed, "the published size of Qwen2.5-VL-7B"
    assert printed[printed.index("tokens per example") :].strip() in (JUDGE / "README.md").read_text()
    assert "does NOT fit" in planned(capsys, monkeypatch, "--gpus", "1", "--memory", "24")
