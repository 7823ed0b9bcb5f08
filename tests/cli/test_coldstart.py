"""`editr1 coldstart`: a configuration in, a data set out, and the estimate before it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1_plugins.cli import main
from editr1_plugins.testing.judge_server import JudgeServer

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from coldstart_kit import answer, config, files_below, write_rows

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*argv: object) -> tuple[int, str, str]:
        status = main(["coldstart", *(str(each) for each in argv)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def yaml_file(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / "coldstart.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def measured(folder: Path, **more: Any) -> dict[str, Any]:
    """A cold start without any model."""
    data = write_rows(folder / "data", 5)
    traces = {"judges": [{"name": "measure", "spec": "measure"}]}
    verify = {"spec": "measure"}
    return config(folder / "out", data={"name": str(data)}, traces=traces, verify=verify, **more)


def test_a_data_set_in_three_commands(command: Command, tmp_path: Path) -> None:
    path = yaml_file(tmp_path, measured(tmp_path))
    status, out, _ = command("--config", path, "--dry-run")
    assert status == 0
    assert "5 rows" in out
    assert not (tmp_path / "out").exists()
    status, out, _ = command("--config", path, "--limit", 2)
    assert status == 0
    assert "in " in out
    assert "examples" in out
    status, out, _ = command("--config", path, "--json")
    report = json.loads(out)
    assert status == 0
    assert report["stages"]["select"]["items"] == 5
    assert report["accuracy"] == 1.0
    assert (tmp_path / "out" / "dataset" / "README.md").exists()
    status, out, _ = command("--config", path, "--dry-run", "--json")
    assert {line["calls"] for line in json.loads(out)["lines"]} == {0}


def test_stages_one_by_one(command: Command, tmp_path: Path) -> None:
    path = yaml_file(tmp_path, measured(tmp_path))
    for stage in ("select,decompose", "candidates", "traces,verify"):
        assert command("--config", path, "--stages", stage)[0] == 0
        assert not (tmp_path / "out" / "dataset").exists()
    assert command("--config", path, "--stages", "choose,dataset")[0] == 0
    assert command("--config", path, "--output", tmp_path / "other")[0] == 0
    assert files_below(tmp_path / "out" / "dataset") == files_below(tmp_path / "other" / "dataset")


def test_the_estimate_counts_calls_that_are_then_made(command: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", 6)
    with JudgeServer(answer) as server:
        path = yaml_file(tmp_path, config(tmp_path / "out", server.url, data={"name": str(data)}))
        status, _out, _ = command("--config", path, "--dry-run", "--json")
        assert status == 0
        assert not server.requests
        command("--config", path, "--stages", "select,decompose,candidates")
        estimate = json.loads(command("--config", path, "--dry-run", "--json")[1])
        calls = {line["who"]: line["calls"] for line in estimate["lines"]}
        assert all(line["prompt"] > 2000 for line in estimate["lines"] if line["stage"] in ("traces", "verify"))
        priced = [line for line in estimate["lines"] if line["cost"] is not None]
        assert estimate["cost"] == pytest.approx(
            sum((line["prompt"] * 1.0 + line["completion"] * 4.0) / 1e6 for line in priced)
        )
        command("--config", path, "--stages", "traces")
        asked = [request.body["model"] for request in server.requests]
        assert calls["traces.plain"] == asked.count("judge-plain") == estimate["candidates"]
        assert calls["traces.strict"] == asked.count("judge-strict")
        # With what was measured, and for what is left.
        later = json.loads(command("--config", path, "--dry-run", "--json")[1])
        left = next(line for line in later["lines"] if line["who"] == "verify")
        status, _, _ = command("--config", path)
        assert left["calls"] >= sum(request.body["model"] == "gold" for request in server.requests) > 0


def test_no_examples_has_a_status_of_its_own(command: Command, tmp_path: Path) -> None:
    with JudgeServer("I would rather not.") as server:
        data = write_rows(tmp_path / "data", 2)
        path = yaml_file(tmp_path, config(tmp_path / "out", server.url, data={"name": str(data)}))
        status, out, _ = command("--config", path)
    assert status == 3
    assert "0 examples" in out
    assert "no_score" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "must hold keys and values"),
        ("a: [", "is no YAML"),
        ("outptu: x", "unknown key 'outptu'; there are: output, seed"),
        ("seed: 1", "output is missing"),
        ("output: x\nseed: yes", "seed=True: must be a whole number"),
        ("output: x\nselect: {rando: 3}", "select: unknown key 'rando'"),
        ("output: x\nselect: {random: -3}", "select.random must be at least 0"),
        ("output: x\nselect: {traits: [tricky]}", "no trait 'tricky'"),
        ("output: x\ncandidates: [{column: a}]", r"candidates\[0\]: name is missing"),
        ("output: x\ncandidates: [{name: a, column: b, folder: c}]", "give one of pipeline, column and folder"),
        ("output: x\ncandidates: [{name: a/b, column: b}]", "the name 'a/b' is malformed"),
        ("output: x\ntraces: {judges: [{name: a, spec: m}, {name: a, spec: m}]}", "two are named 'a'"),
        ("output: x\ntraces: {judges: [{name: a, mode: loud}]}", r"judges\[0\].mode='loud': one of think"),
        ("output: x\ntraces: {judges: [{name: a, price: {prompt: 1e-1x}}]}", "completion is missing"),
        ("output: x\nverify: {temperature: '1'}", "verify.temperature='1': must be a number"),
        ("output: x", "data.name is missing"),
        ("output: x\ndata: {name: nowhere.jsonl}", "no file or folder"),
    ],
)
def test_a_wrong_configuration_is_one_line(
    command: Command, tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    status, _, err = command("--config", "c.yaml")
    assert status == 2
    assert err.count("\n") == 1
    assert re.search(said, err)


def test_a_changed_configuration_and_wrong_stages_are_one_line(command: Command, tmp_path: Path) -> None:
    settings = measured(tmp_path)
    path = yaml_file(tmp_path, settings)
    assert command("--config", path)[0] == 0
    yaml_file(tmp_path, {**settings, "seed": 9})
    for flags in ((), ("--dry-run",)):
        status, _, err = command("--config", path, *flags)
        assert status == 2
        assert "seed was 3, is 9" in err
        assert "another output folder" in err
    status, _, err = command("--config", path, "--stages", "select,judge")
    assert status == 2
    assert "no stage 'judge'" in err


def test_the_example_is_estimated_from_the_repositorys_root(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parent.parent.parent
    monkeypatch.chdir(root)
    status, out, _ = command("--config", "examples/judge/coldstart.yaml", "--dry-run", "--json")
    assert status == 0
    estimate = json.loads(out)
    assert estimate["rows"] == 36
    assert estimate["candidates"] == 36 * 4
    assert estimate["cost"] > 0
    assert not (root / "coldstart").exists()
