"""Detection and false alarms on the photographs and on flat scenes, from a sample of what `guard_rates.py` measures."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from editr1_plugins.guards import DEFAULT_GUARDS, PaintedTextGuard

SCRIPT = Path(__file__).parent.parent / "performance" / "guard_rates.py"
# The one that reads text takes 0.3 s per image; it has its own tests.
GUARDS = {name: guard for name, guard, _ in DEFAULT_GUARDS if guard is not PaintedTextGuard}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guard_rates", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Strides that share no factor with the number of kinds or ways of arrival, so that all are seen.
@pytest.fixture(
    scope="module", params=[61, pytest.param(29, marks=pytest.mark.slow)], ids=lambda every: f"every {every}"
)
def sampled(request: pytest.FixtureRequest, script: ModuleType, photos: dict[str, Image.Image]) -> object:
    guards = {name: guard() for name, guard in GUARDS.items()}
    every_hack = {61: 19, 29: 11}[request.param]
    return script.measure(guards, photos, scenes=0, seed=1, every=request.param, every_hack=every_hack)


@pytest.mark.parametrize("name", GUARDS)
def test_hacks_are_found(sampled: object, name: str) -> None:
    hacks, found = sampled.hacks[name], sampled.found[name]
    assert hacks >= 3
    assert found / hacks >= 0.9, sampled.wrong[f"missed by {name}"]


@pytest.mark.parametrize("name", GUARDS)
def test_honest_edits_of_photographs_pass(sampled: object, name: str) -> None:
    assert sampled.honest[name] >= 39
    assert sampled.false[name] / sampled.honest[name] <= 0.02, sampled.wrong[f"false alarm of {name}"]


@pytest.mark.parametrize("name", GUARDS)
def test_honest_edits_of_flat_scenes_pass(script: ModuleType, name: str) -> None:
    rates = script.measure({name: GUARDS[name]()}, {}, scenes=20, seed=2)
    assert rates.honest_scenes[name] == 200
    assert rates.false_scenes[name] <= 2, rates.wrong


def test_the_table_names_every_guard(script: ModuleType, sampled: object) -> None:
    lines = script.table(sampled, GUARDS).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(GUARDS)
    assert all(" % of " in line for line in lines[2:])
