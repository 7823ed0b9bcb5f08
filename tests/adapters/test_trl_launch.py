"""The files a user points at: they run as they stand, by TRL's own commands and by our launcher."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from trl_jobs import FOLDER, make_tiny

from editr1_plugins.adapters import trl as paths
from editr1_plugins.adapters import trl_launch
from editr1_plugins.errors import ConfigError

BY_TRL = ("plans_grpo", "plans_rloo")
BY_US = {"rollout_grpo": "grpo", "agent_grpo": "grpo", "async_grpo": "async-grpo"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    make_tiny().main(folder / "tiny")
    return folder


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDITR1_EDITOR", "EDITR1_VERIFIER"):
        monkeypatch.setenv(name, "")  # TRL's parser sets what a file's `env` says; this takes it back
    for made in (paths._editor, paths._reward, paths._planned_edit_reward, paths._rollout):
        made.cache_clear()


def test_every_file_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*BY_TRL, *BY_US}


@pytest.mark.parametrize("name", BY_TRL)
def test_trl_takes_every_option(name: str) -> None:
    script = import_module(f"trl.scripts.{name.removeprefix('plans_')}")
    given, config, model, _, *left = script.make_parser().parse_args_and_config(
        ["--config", str(FOLDER / f"{name}.yaml")], return_remaining_strings=True, separate_remaining_strings=True
    )
    assert left == [[], []]
    assert given.reward_funcs == ["editr1_plugins.adapters.trl.planned_edit"]
    assert (model.model_name_or_path, config.num_generations) == ("tiny/text", 4)


@pytest.mark.parametrize(("name", "command"), BY_US.items())
def test_the_launcher_takes_every_option(name: str, command: str) -> None:
    hooks, script, config, model = trl_launch.parse(
        command, ["--config", str(FOLDER / f"{name}.yaml"), "--max_steps", "7", "--use_cpu", "true", "--bf16", "false"]
    )
    written = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert script.dataset_name == written["dataset_name"]
    assert (config.max_steps, config.num_generations) == (7, written["num_generations"])
    assert model.model_name_or_path == written["model_name_or_path"]
    named = [*(hooks.reward_funcs or []), hooks.rollout_func, hooks.environment_factory]
    assert all(callable(trl_launch._imported(path, "option")) for path in named if path)


@pytest.mark.parametrize("name", [pytest.param("rollout_grpo", marks=pytest.mark.slow), "agent_grpo"])
def test_the_launcher_trains(name: str, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    logs: list[dict[str, Any]] = []
    monkeypatch.setattr(trl_launch, "_finish", lambda trainer, script: logs.extend(trainer.state.log_history))
    more = ["--max_steps", "1", "--logging_steps", "1", "--disable_tqdm", "true"]
    assert trl_launch.main([BY_US[name], "--config", str(FOLDER / f"{name}.yaml"), *more]) == 0
    (step,) = [entry for entry in logs if "loss" in entry]
    # MiniEdit's tiny Kontext made every edit, and `measure` judged every one.
    assert 0 <= step["rewards/edit_rrm_measure/mean"] <= 10
    assert step["edit_rrm_measure/failure_rate"] == 0.0
    assert name != "agent_grpo" or step["tools/call_frequency"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BY_TRL, "rollout_grpo", "agent_grpo"])
def test_the_commands_of_the_readme(name: str, tiny: Path) -> None:
    command = (
        [str(Path(sys.executable).with_name("trl")), name.removeprefix("plans_")]
        if name in BY_TRL
        else [sys.executable, "-m", "editr1_plugins.adapters.trl_launch", BY_US[name]]
    )
    done = subprocess.run(
        [*command, "--config", str(FOLDER / f"{name}.yaml"), "--disable_tqdm", "true"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tiny / "hf")},
        cwd=tiny,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    reward = "planned_edit" if name in BY_TRL else "edit_rrm_measure"
    means = [float(each) for each in re.findall(rf"'rewards/{reward}/mean': '?([\d.e+-]+)", done.stdout)]
    assert len(means) == 6
    # Of the sentences that a policy knows, one is right; an agent that goes on editing has more to learn.
    assert name == "agent_grpo" or means[-1] > means[0] + 2, means
    output = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["output_dir"]
    assert (tiny / output / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("command", "options", "told"),
    [
        ("grpo", [], "give model_name_or_path and dataset_name"),
        ("rloo", ["--rollout_func", "a.b"], "planned_edit"),
        ("rloo", ["--environment_factory", "a.b"], "takes no environment_factory"),
        ("grpo", ["--rollout_func", "no.such"], "rollout_func: 'no.such' cannot be imported"),
        ("grpo", ["--environment_factory", "plain"], "environment_factory: 'plain' cannot be imported"),
        ("grpo", ["--dataset_train_split", "nothing"], "has no split 'nothing'; it has train"),
    ],
)
def test_errors_say_what_to_do(
    command: str, options: list[str], told: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (
        ["--model_name_or_path", str(tiny / "tiny/text"), "--dataset_name", str(tiny / "tiny/data")] if options else []
    )
    output = ["--output_dir", str(tiny / "out"), "--bf16", "false", "--use_cpu", "true"]
    assert trl_launch.main([command, *output, *data, *options]) == 2
    assert told in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert trl_launch.main(["sft"]) == 2
    assert trl_launch.main(["--help"]) == 0
    assert capsys.readouterr().err.count("{grpo,rloo,async-grpo}") == 2


def test_an_unknown_option_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("rolout_func: a.b\n")
    with pytest.raises(ConfigError, match="rolout_func"):
        trl_launch.parse("grpo", ["--config", str(tmp_path / "job.yaml"), "--use_cpu", "true", "--bf16", "false"])
