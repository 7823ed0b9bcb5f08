"""A running server with a judge whose scores are known; `serving_kit` is found beside this file."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode finds no helper modules by itself
from serving_kit import Running, Shade, reward_of

from editr1_plugins.adapters.server.settings import ServerSettings


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    """A server with default limits, which reads Edit-R1's pickles as well."""
    with Running(reward_of(Shade()), ServerSettings(port=0, edit_r1_pickle=True)) as running:
        yield running
