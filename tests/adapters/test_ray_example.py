"""The script of integrations/ray judges a file with real workers of Ray, and judges nothing twice."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="extra [ray]")

from editr1_plugins.images import keep_image
from editr1_plugins.miniedit.pairs import split_tasks
from editr1_plugins.miniedit.world import draw
from editr1_plugins.reward.bulk import score_file

# Two workers start in about ten seconds: Ray's own time on two cores.
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "integrations" / "ray" / "judge_many.py"


def test_it_judges_a_file_as_one_process_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    spec = importlib.util.spec_from_file_location("judge_many", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = tmp_path / "edits.jsonl"
    names = [
        (keep_image(draw(task.scene), tmp_path), keep_image(draw(task.goal), tmp_path), task.instruction)
        for task in split_tasks(6, seed=2, held_out=False)
    ]
    lines = [json.dumps({"source": source, "edited": edited, "instruction": text}) for source, edited, text in names]
    broken = json.dumps({"source": "gone.png", "edited": names[0][1], "instruction": names[0][2]})
    rows.write_text("\n".join([*lines, broken]) + "\n")
    alone = score_file(rows, tmp_path / "alone", verifier="measure")
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
        assert script.main([str(rows), "--output", str(tmp_path / "many")]) == 0
        first = capsys.readouterr().out.strip()
        assert script.main([str(rows), "--output", str(tmp_path / "many")]) == 0
        second = capsys.readouterr().out.strip()
    finally:
        ray.shutdown()
    assert first == script.line(alone)
    assert (
        first
        == f"7 rows: {alone.scored} scored (mean {alone.mean:.2f}), {alone.failed} without a score, 0 judged before"
    )
    assert alone.scored >= 5
    assert second.endswith("7 judged before")
