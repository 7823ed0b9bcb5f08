"""The scripts that make the miniature judge and its tables, from data to tables, with a few steps of everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent.parent / "examples/miniature"


def script(name: str, *arguments: object) -> str:
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_data_to_tables_and_a_rerun_makes_nothing_anew(tmp_path: Path) -> None:
    data, output = tmp_path / "data", tmp_path / "tables"
    script("make_data.py", "--output", data, "--tasks", 40, "--pairs", 16, "--held-out", 40)
    short = ("--base-steps", 4, "--sft-steps", 2, "--gcpo-steps", 1, "--pairs", 4, "--traces", 3)
    tables = ("tables.py", "--data", data, "--output", output, "--seeds", 1, *short, "--updates", 1)
    judges = script(*tables, "judges", "--size", "small")
    assert judges.count("CPU s") == 6
    made = {path: path.stat().st_mtime_ns for path in output.glob("judges/small/*.json")}
    assert len(made) == 6
    for path in made:
        record = json.loads(path.read_text())
        assert record["cpu_seconds"] > 0
        if record["stage"] != "base":
            assert set(record["metrics"]) == {"sampled", "greedy", "expected"}
    assert script(*tables, "judges", "--size", "small") == ""
    assert {path: path.stat().st_mtime_ns for path in made} == made
    script(*tables, "editors")
    shown = script(*tables, "show")
    assert shown.count("| small |") >= 5
    assert "GCPO above equally long SFT" in shown
    assert (output / "curve.png").stat().st_size > 5000
