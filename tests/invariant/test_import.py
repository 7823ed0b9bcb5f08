"""Importing the package, or loading its plugins, costs no torch."""

import subprocess
import sys

import pytest

LIGHT = (
    "editr1_plugins",
    *(f"editr1_plugins.{room}" for room in ("types", "errors", "hookspecs", "plugins", "builtin")),
)
HEAVY = ("torch", "transformers", "diffusers", "trl", "datasets", "accelerate", "peft", "PIL", "numpy")


@pytest.mark.parametrize("module", LIGHT)
def test_a_fresh_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", ["editr1_plugins.cli", "editr1_plugins.rewards", "editr1_plugins.images"])
def test_a_fresh_import_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
