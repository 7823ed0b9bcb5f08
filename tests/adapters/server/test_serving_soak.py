"""A shortened soak; `tests/performance/serve_soak.py --seconds 3600` is the long one."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "performance"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_mixed_faults_lose_nothing_and_leave_memory_flat() -> None:
    from serve_soak import soak

    wrong, told = soak(seconds=45, clients=6)
    assert not wrong, (wrong, told)
    assert sum(told["requests"].values()) > 100, told
    assert {"score", "compute", "get_reward", "mode", "left", "broken image", "too large"} <= told["requests"].keys()
