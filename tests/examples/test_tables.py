"""`examples/tables/`: the plans are whole, and the scripts fill tables and leave empty what is not there."""

from __future__ import annotations

import json
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from editr1_plugins.cli import COMMANDS

TABLES = Path(__file__).parent.parent.parent / "examples" / "tables"
PLANS = sorted(TABLES.glob("*.json"))
Script = Callable[..., str]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    """Runs a script with arguments; the table that it wrote."""

    def run(name: str, *arguments: object) -> str:
        told = [str(TABLES / name), *map(str, arguments), "--output", str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", told)
        monkeypatch.syspath_prepend(str(TABLES))
        runpy.run_path(str(TABLES / name), run_name="__main__")
        return (tmp_path / "out" / "table.md").read_text()

    return run


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plans_name_commands_that_exist(path: Path) -> None:
    plan = json.loads(path.read_text())
    rows = {cell["row"] for cell in plan}
    for cell in plan:
        assert cell.get("before", cell["row"]) in rows
        if "command" in cell:
            command = shlex.split(cell["command"].partition(",")[0])
            assert command[0] == "editr1"
            assert command[1] in COMMANDS
        else:
            assert cell.get("verifier") or cell.get("model")


@pytest.mark.slow
def test_accuracy_in_miniature(script: Script, tmp_path: Path) -> None:
    records = tmp_path / "results" / "judges" / "small"
    records.mkdir(parents=True)
    for seed, accuracy in enumerate((0.5, 0.7)):
        record = {"size": "small", "stage": "gcpo", "mode": "think+verify", "seed": seed}
        record["metrics"] = {"sampled": {"pair_accuracy": accuracy}}  # type: ignore[assignment]
        (records / f"gcpo-{seed}.json").write_text(json.dumps(record))
    plan = tmp_path / "plan.json"
    cells = [
        {"row": "API", "column": "T+V", "verifier": None, "command": "editr1 eval judge ..."},
        {"row": "measure", "column": "T+V", "verifier": "measure"},
        {"row": "absent", "column": "T+V", "verifier": "transformers:absent/folder/of/a/judge"},
    ]
    plan.write_text(json.dumps(cells))
    table = script("accuracy.py", plan, "--miniedit", 12, "--results", tmp_path / "results")
    lines = table.splitlines()
    assert lines[0] == "| accuracy, % | T+V | T (think) | V (verify) | T+V + GCPO |"
    assert lines[2] == "| API |  |  |  |  |"
    assert lines[3].startswith("| measure | ")
    assert float(lines[3].split()[3]) >= 50
    assert "| miniature, small (trained) |  |  |  | 60.00 (50.00 to 70.00), 2 seeds |" in lines
    assert "API, T+V: `editr1 eval judge ...`" in lines
    assert any(
        line.startswith("absent, T+V: `editr1 eval judge --bench BENCH --verifier transformers:") for line in lines
    )


@pytest.mark.slow
def test_editors_in_miniature(script: Script, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    cells = [
        {"row": "start", "model": "miniedit", "steps": 4},
        {"row": "clean", "model": "miniedit:clean", "steps": 4, "before": "start"},
        {"row": "trained", "model": "miniedit", "lora": "absent", "before": "start", "command": "editr1 grpo ..."},
    ]
    plan.write_text(json.dumps(cells))
    table = script("gedit.py", plan, "--bench", "miniedit:8")
    lines = table.splitlines()
    assert lines[0] == "| mean of categories | SC | PQ | O | gold | failed, % |"
    assert "| trained |  |  |  |  |  |" in lines
    assert "| clean: before / after | edits | SC | PQ | O | O, difference |" in lines
    assert "trained: `editr1 grpo ...`" in lines
