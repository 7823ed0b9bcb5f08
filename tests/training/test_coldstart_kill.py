"""kill -9 at several points: nothing that has an outcome is asked for again, and the data set stays the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from editr1_plugins.testing.judge_server import JudgeServer, Received
from editr1_plugins.training.coldstart.config import DataConfig
from editr1_plugins.training.coldstart.rows import InputRows
from editr1_plugins.training.coldstart.running import seed_of

sys.path.insert(0, str(Path(__file__).parent))
from coldstart_kit import answer, config, files_below, lines_of, write_rows

SEED = 3
#: When to kill, in shares of all requests: while the filter is asked, the judges, and the strong judge.
POINTS = (0.06, 0.5, 1.0)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

#: What a request is about: the model, and its seed; for the filter, which has one seed, the row's instruction.
Asked = tuple[str, object]


def about(request: Received) -> Asked:
    model = request.body["model"]
    return (model, json.loads(request.texts[-1].splitlines()[-1]) if model == "filter" else request.body["seed"])


def finished(output: Path, instructions: dict[str, str]) -> set[Asked]:
    """What has an outcome on the disk, in the same terms."""
    found: set[Asked] = {("filter", instructions[line["key"]]) for line in lines_of(output, "filter")}
    for line in lines_of(output, "traces"):
        candidate, _, judge = line["key"].rpartition("/")
        found.add((f"judge-{judge}", seed_of(SEED, "trace", candidate, judge)))
    return found | {("gold", seed_of(SEED, "gold", line["key"])) for line in lines_of(output, "verify")}


def command(output: Path, data: Path, url: str) -> list[str]:
    select = {"random": 5, "hard": 4, "traits": [], "filter": {"spec": f"openai:filter@{url}"}}
    settings = config(output, url, select=select, data={"name": str(data)}, seed=SEED)
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "editr1_plugins", "coldstart", "--config", str(path)]


def killed(arguments: list[str], server: JudgeServer, after: int) -> None:
    """Start a run and kill it when `after` different requests were made, by this run or those before."""
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len({about(each) for each in list(server.requests)}) < after:
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it was to be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.1)  # what was on its way


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", 12)
    instructions = {row.key: row.instruction for row in InputRows(DataConfig(name=str(data)), ["edited"])}
    assert len(set(instructions.values())) == 12  # so that a request of the filter tells its row
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    with JudgeServer(answer) as server:
        subprocess.run(command(whole, data, server.url), check=True, env=ENVIRONMENT, capture_output=True)
        total = len(server.requests)
        assert {about(each) for each in server.requests} == finished(whole, instructions)
    kills: list[tuple[set[Asked], int]] = []
    with JudgeServer(answer, latency=0.03) as server:
        arguments = command(pieces, data, server.url)
        for share in POINTS:
            killed(arguments, server, round(share * total))
            kills.append((finished(pieces, instructions), len(server.requests)))
        subprocess.run(arguments, check=True, env=ENVIRONMENT, capture_output=True)
        made = [about(each) for each in server.requests]
    assert len({len(done) for done, _ in kills}) == len(POINTS)  # each run got further
    for done, at in kills:
        assert not done.intersection(made[at:])
    assert set(made) == finished(whole, instructions)
    assert files_below(whole / "dataset") == files_below(pieces / "dataset")


def test_an_interrupt_keeps_what_was_asked_for(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", 4)
    output = tmp_path / "out"
    with JudgeServer(answer, latency=1.0) as server:
        process = subprocess.Popen(
            command(output, data, server.url), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not any(each.body["model"] != "filter" for each in list(server.requests)):
            time.sleep(0.01)
        time.sleep(0.3)  # the others of the first few
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
        asked = {about(each) for each in server.requests}
    instructions = {row.key: row.instruction for row in InputRows(DataConfig(name=str(data)), ["edited"])}
    assert asked == finished(output, instructions)
