"""The script that makes rows for a policy that judges, in verl and in EasyR1."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from editr1_plugins.adapters import easyr1, verl
from editr1_plugins.principles.rules import RulesDecomposer
from editr1_plugins.types import Edit
from editr1_plugins.verifiers.prompting import judge_request

TOLD = "make the image darker"
REPLY = '[{"question": "Is it?", "score": 1}]\n{"average_score": 1.0}\n<score>6</score>'


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "integrations" / "verl" / "judge_rows.py"
    spec = importlib.util.spec_from_file_location("judge_rows", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    for name, value in (("a.png", 200), ("b.png", 90)):
        Image.new("RGB", (12, 8), (value, value, value)).save(tmp_path / name)
    good = {"source": "a.png", "edited": "b.png", "instruction": TOLD, "score": 7}
    lines = [
        good,
        {**good, "score": 11},
        {**good, "edited": "../b.png"},
        {**good, "instruction": f"{TOLD} <image>"},
        {"source": "a.png"},
        [1],
    ]
    path = tmp_path / "edits.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _made(script: ModuleType, edits: Path, host: str) -> list[dict[str, Any]]:
    from datasets import load_dataset

    output = edits.parent / f"{host}.parquet"
    assert script.main([str(edits), str(output), "--host", host]) == 0
    return list(load_dataset("parquet", data_files=str(output), split="train", cache_dir=str(edits.parent / "cache")))


def test_rows_of_verl(script: ModuleType, edits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = _made(script, edits, "verl")
    told = capsys.readouterr()
    assert told.out == "1 rows\n"
    left_out = [line.split(" is left out")[0] for line in told.err.splitlines() if line.startswith("line")]
    assert left_out == [f"line {number}" for number in range(2, 7)]
    pictures = [Image.open(io.BytesIO(each["bytes"])) for each in row["images"]]
    edit = Edit(source=pictures[0].convert("RGB"), edited=pictures[1].convert("RGB"), instruction=TOLD)
    asked = judge_request(edit, RulesDecomposer().decompose([(edit.source, TOLD)])[0])
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][0]["content"] == asked.system
    texts = [part for part in asked.parts if isinstance(part, str)]
    assert row["prompt"][1]["content"].split("<image>") == [*texts, ""]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(200, 200, 200), (90, 90, 90)]
    label = row["reward_model"]["ground_truth"]
    assert verl.compute_judge_score(row["data_source"], REPLY, label)["score"] == 0.9


def test_rows_of_easyr1(script: ModuleType, edits: Path) -> None:
    (row,) = _made(script, edits, "easyr1")
    assert row["problem"].count("<image>") == 2
    assert len(row["images"]) == 2
    assert easyr1.compute_judge_score([{"response": REPLY, "ground_truth": row["answer"]}])[0]["overall"] == 0.9


def test_no_row_is_a_failure(script: ModuleType, edits: Path) -> None:
    edits.write_text("{}\n")
    assert script.main([str(edits), str(edits.parent / "none.parquet")]) == 1
    assert not (edits.parent / "none.parquet").exists()
