"""Bulk judging by Ray Data's actors: the same records as one process makes, and nothing of a row is a crash."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("ray", reason="extra [ray]")

from editr1_plugins.cli import main
from editr1_plugins.errors import ConfigError
from editr1_plugins.reward.bulk import latest_records, score_file
from editr1_plugins.reward.ray_bulk import score_file_with_ray
from editr1_plugins.types import Edit, Principle, Verification

# Two workers start in about ten seconds: Ray's own time on two cores.
pytestmark = pytest.mark.slow


class Redness:
    """Scores by the red of the first pixel; notes what it was asked, and dies once when it sees `fatal`."""

    identity = "redness/1"

    def __init__(self, folder: Path, fatal: int = -1) -> None:
        self._folder, self._fatal = folder, fatal

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        levels = [edit.edited.getpixel((0, 0))[0] for edit in edits]
        for level in levels:
            with (self._folder / "asked").open("a") as file:
                file.write(f"{level}\n")
        dead = self._folder / "dead"
        if self._fatal in levels and not dead.exists():
            dead.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [Verification(score=level / 25) for level in levels]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    except (OSError, RuntimeError) as error:
        pytest.skip(f"Ray does not start on this machine: {error}")
    yield
    ray.shutdown()


def make_input(folder: Path, levels: list[int], *more: str) -> Path:
    Image.new("RGB", (8, 8)).save(folder / "source.png")
    lines = []
    for level in levels:
        Image.new("RGB", (8, 8), (level, 0, 0)).save(folder / f"{level}.png")
        lines.append(
            json.dumps({"source": "source.png", "edited": f"{level}.png", "instruction": "make the image brighter"})
        )
    path = folder / "edits.jsonl"
    path.write_text("\n".join([*lines, *more]) + "\n")
    return path


def scores(directory: Path) -> dict[int, Any]:
    return {record["row"]["line"]: record["score"] for record in latest_records(directory)}


def test_the_same_outcomes_as_one_process_and_a_bad_row_is_a_row(cluster: None, tmp_path: Path) -> None:
    outside = '{"source": "/etc/passwd", "edited": "x", "instruction": "i"}'
    path = make_input(tmp_path, [10, 50, 100, 200], "no json", outside)
    alone = score_file(path, tmp_path / "one", verifier="measure")
    many = score_file_with_ray(path, tmp_path / "many", verifier="measure", batch_size=2)
    assert many == alone
    assert many.failures == {"bad_row": 1, "bad_image": 1}
    assert scores(tmp_path / "many") == scores(tmp_path / "one")
    command = ["score", "--input", str(path), "--output", str(tmp_path / "command"), "--ray", "1", "--json"]
    assert main([*command, "--verifier", "measure", "--batch-size", "3"]) == 3  # two rows could not be judged
    assert scores(tmp_path / "command") == scores(tmp_path / "one")
    again = score_file_with_ray(path, tmp_path / "many", verifier="measure")
    assert (again.rows, again.resumed) == (6, 6)
    with pytest.raises(ConfigError, match="another judge"):
        score_file_with_ray(path, tmp_path / "many", verifier="measure", aggregate="average")


def test_a_worker_that_is_killed_costs_its_own_batch_again_and_nothing_else(cluster: None, tmp_path: Path) -> None:
    levels = [10, 20, 30, 40, 50, 60]
    path = make_input(tmp_path, levels)
    summary = score_file_with_ray(
        path, tmp_path / "out", verifier=Redness(tmp_path, fatal=40), guards=(), batch_size=2, workers=1
    )
    assert (summary.rows, summary.scored) == (6, 6)
    assert sorted(scores(tmp_path / "out").values()) == [level / 25 for level in levels]
    asked = Counter(map(int, (tmp_path / "asked").read_text().split()))
    assert asked == Counter(levels) + Counter([30, 40])  # in the air when the worker died
    assert len(list(latest_records(tmp_path / "out"))) == 6
