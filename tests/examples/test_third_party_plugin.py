"""The example plugin, installed by pip in a folder of its own: found by its entry point, its own tests pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "third_party_plugin"


def run(site: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    environment.pop("EDITR1_LOAD_PLUGINS", None)
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def test_it_is_found_with_its_origin(third_party_plugin: Path) -> None:
    done = run(third_party_plugin, "-m", "editr1_plugins", "plugins", "--json", "--strict")
    assert done.returncode == 0, done.stderr
    ours = [entry for entry in json.loads(done.stdout)["entries"] if entry["distribution"] == "editr1-palette"]
    assert [(entry["kind"], entry["spec"], entry["version"]) for entry in ours] == [
        ("verifier", "palette", "0.1.0"),
        ("decomposer", "palette", "0.1.0"),
        ("guard", "few_colours", "0.1.0"),
    ]


def test_its_own_tests_pass(third_party_plugin: Path) -> None:
    done = run(third_party_plugin, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests"))
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_command_line_scores_with_it(third_party_plugin: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before.png", tmp_path / "after.png"
    Image.linear_gradient("L").convert("RGB").save(before)
    Image.open(before).quantize(8).convert("RGB").save(after)
    options = ["--verifier", "palette", "--decomposer", "editr1-palette/palette"]
    done = run(
        third_party_plugin, "-m", "editr1_plugins", "score", str(before), str(after), "use at most 8 colours", *options
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "score: 10.00 of 10"
