"""Traces by workers of Ray: the same data set as by one process."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="extra [ray]")

from editr1_plugins.errors import ConfigError
from editr1_plugins.training.coldstart import config_from_mapping, run_coldstart

sys.path.insert(0, str(Path(__file__).parent))
from coldstart_kit import config, files_below, rows

# Workers start in about ten seconds: Ray's own time on two cores.
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[None]:
    import ray

    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    except (OSError, RuntimeError) as error:
        pytest.skip(f"Ray does not start on this machine: {error}")
    yield
    ray.shutdown()


def test_workers_of_ray_write_the_same_traces(tmp_path: Path, cluster: None) -> None:
    measure = {"name": "measure", "spec": "measure"}
    for name, judge in (("one", measure), ("many", {**measure, "ray": 2})):
        settings = config(tmp_path / name, traces={"judges": [judge], "batch_size": 2}, verify={"spec": "measure"})
        assert run_coldstart(config_from_mapping(settings), rows=rows(6)).examples > 0
    assert files_below(tmp_path / "one" / "dataset") == files_below(tmp_path / "many" / "dataset")


def test_a_chat_model_is_refused(tmp_path: Path) -> None:
    made = config_from_mapping(config(tmp_path, "http://127.0.0.1:9/v1"))
    judges = tuple(replace(judge, ray=2) for judge in made.traces.judges)
    made = replace(made, traces=replace(made.traces, judges=judges))
    with pytest.raises(ConfigError, match="no work for Ray"):
        run_coldstart(made, rows=rows(1))
