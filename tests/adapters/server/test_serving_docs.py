"""What docs/serving.md shows is what the server does."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from serving_kit import Running

from editr1_plugins import EditRRMReward
from editr1_plugins.adapters.server.settings import ServerSettings
from editr1_plugins.cli import serve

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = (ROOT / "docs" / "serving.md").read_text()


def test_the_example_gets_the_answer_it_shows() -> None:
    [script] = re.findall(r"<<'PYTHON'[^\n]*\n(.*?)^PYTHON$", PAGE, re.MULTILINE | re.DOTALL)
    [shown] = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    made = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    with Running(EditRRMReward("measure"), ServerSettings(port=0)) as running:
        answer = requests.post(f"{running.url}/score", json=json.loads(made.stdout), timeout=60).json()
    expected = json.loads(shown)
    assert answer.keys() == expected.keys()
    assert answer["scores"] == pytest.approx(expected["scores"], abs=0.01)
    assert answer["results"] == [{"editr1": {"score": answer["scores"][0]}}]
    assert answer["errors"] == expected["errors"]


def test_the_flags_it_names_exist_with_the_defaults_it_names() -> None:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    known = {flag: action for action in parser._actions for flag in action.option_strings}
    ours = re.sub("--(reward.remote_url|clients|json|seconds)", "", PAGE)  # of others
    named = set(re.findall(r"`[^`\n]*?(--[a-z0-9-]+)", ours))
    assert len(named) > 12
    assert named <= known.keys()
    for flag, value in re.findall(r"\| `(--[a-z-]+) ([\d.]+)`", PAGE):
        assert known[flag].default == float(value), flag
    defaults = {action.dest: action.default for action in known.values()}
    mib = 2**20
    settings = ServerSettings()
    assert defaults["max_body"] * mib == settings.max_body
    assert defaults["max_bodies"] * mib == settings.max_bodies
    assert (defaults["max_edits"], defaults["max_waiting"]) == (settings.max_edits, settings.max_waiting)
    assert (defaults["busy_wait"], defaults["read_timeout"]) == (settings.busy_wait, settings.read_timeout)
    assert (defaults["batch_size"], defaults["workers"]) == (settings.max_batch, settings.workers)
