"""The training examples run with their tiny weights, and their YAML says what their scripts do."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1_plugins.cli.grpo_arguments import parse_arguments
from editr1_plugins.training.edit_data import load_edit_data

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
SCRIPTS = {"kontext": EXAMPLES / "kontext/train.py", "qwen": EXAMPLES / "qwen_image_edit/train.py"}
REAL = {"kontext": EXAMPLES / "kontext/kontext.yaml", "qwen": EXAMPLES / "qwen_image_edit/qwen_image_edit.yaml"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EDITR1_")}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture
def few_edits(tmp_path: Path) -> Path:
    """The examples' data with fewer rows."""
    folder = shutil.copytree(EXAMPLES / "edits", tmp_path / "edits")
    for split, count in (("train", 6), ("test", 2)):
        lines = (folder / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{split}.jsonl").write_text("".join(lines[:count]))
    return folder


@pytest.mark.slow
def test_kontext_trains_and_goes_on_where_it_was(tmp_path: Path, few_edits: Path) -> None:
    script = [str(SCRIPTS["kontext"]), "--output", str(tmp_path), "--data", str(few_edits), "--max-steps"]
    first = run(*script, "1")
    assert "held-out reward" in first.stdout
    assert (tmp_path / "pytorch_lora_weights.safetensors").is_file()
    assert list((tmp_path / "records").glob("records-*.jsonl"))
    second = run(*script, "2")
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    assert second.stdout.count("'grad_norm'") == 1


@pytest.mark.slow
def test_qwen_trains_with_a_reward_of_its_own(tmp_path: Path) -> None:
    done = run(str(SCRIPTS["qwen"]), "--output", str(tmp_path), "--max-steps", "1")
    assert "'rewards/darkness/mean'" in done.stdout
    assert "replay differed from sampling by 0\n" in done.stdout
    assert "guidance is not enabled" not in done.stderr
    assert (tmp_path / "pytorch_lora_weights.safetensors").is_file()


def test_the_tiny_yaml_passes_the_check(tmp_path: Path) -> None:
    flags = ["--output_dir", str(tmp_path / "out"), "--record", str(tmp_path / "records")]
    done = run("-m", "editr1_plugins", "grpo", "--config", "examples/kontext/tiny.yaml", "--check", *flags)
    assert done.stdout.splitlines()[-1] == "ready to train"
    assert "recipe kontext" in done.stdout


def settings_of(path: Path, *flags: str) -> dict[str, Any]:
    return vars(parse_arguments(["--config", str(path), *flags]).config)


@pytest.mark.parametrize("name", REAL)
def test_the_yaml_of_the_real_model_says_what_the_script_does(name: str, tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPTS[name]))
    # Not on this machine: the model is not looked at, since the file names the recipe, and bf16 may want a GPU.
    parsed = parse_arguments(["--config", str(REAL[name]), "--use_cpu", "--output_dir", str(tmp_path)])
    assert parsed.model.model_name_or_path == script["REAL_MODEL"]
    of_script = {key: value for key, value in script["REAL"].items() if key != "reward_weights"}
    guided = {"negative_prompt": " "} if name == "qwen" else {}
    for key, value in of_script.items():
        found = getattr(parsed.config, key)
        assert found == (guided | value if key == "pipeline_kwargs" else value), key
    assert parsed.lora().r == 64


def test_the_tiny_yaml_says_what_the_script_does() -> None:
    script, found = runpy.run_path(str(SCRIPTS["kontext"])), settings_of(EXAMPLES / "kontext/tiny.yaml")
    tiny = dict(script["TINY"])
    call = tiny.pop("pipeline_kwargs")
    assert {**found["pipeline_kwargs"], "guidance_scale": found["guidance_scale"]} == call
    assert {key: found[key] for key in tiny} == tiny


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_no_key_stands_twice(path: Path) -> None:
    lines = [line.split(":")[0] for line in path.read_text().splitlines() if line and line[0].isalpha()]
    assert len(set(lines)) == len(lines) == len(yaml.safe_load(path.read_text()))


def test_the_edits_are_those_that_the_script_draws(tmp_path: Path) -> None:
    run(str(EXAMPLES / "edits/draw.py"), "--output", str(tmp_path))
    for split, count in (("train", 48), ("test", 32)):
        assert (tmp_path / f"{split}.jsonl").read_text() == (EXAMPLES / "edits" / f"{split}.jsonl").read_text()
        drawn, kept = load_edit_data(tmp_path, split=split).usable(), load_edit_data(EXAMPLES / "edits", split=split)
        assert len(drawn) == count
        for one, other in zip(drawn, kept.usable(decode=True), strict=True):
            assert one["image"].tobytes() == other["image"].tobytes()
