"""Fixtures that tests of several rooms share."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode finds no helper modules by itself
from chromium import browser

__all__ = ["browser", "third_party_plugin"]

# A job in the background of a shell starts with interrupts ignored, and its children would too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every run, and no verdict on how long one took: a busy machine must not fail a test.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="session")
def third_party_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for sys.path or PYTHONPATH in which pip installed the example plugin `editr1-palette`."""
    folder = tmp_path_factory.mktemp("third_party_plugin")
    # A copy, since building leaves files in the source tree; no isolation, since tests must not need a network.
    source = shutil.copytree(EXAMPLES / "third_party_plugin", folder / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    target = folder / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return target
