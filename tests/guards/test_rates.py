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


@pytest.fixture(scope="module", params=["two photos", pytest.param("all photos", marks=pytest.mark.slow)])
def sampled(request: pytest.FixtureRequest, script: ModuleType, photos: dict[str, Image.Image]) -> object:
    chosen = photos if request.param == "all photos" else {name: photos[name] for name in ("coffee", "rocket")}
    guards = {name: guard() for name, guard in GUARDS.items()}
    # Strides that share no factor with the number of kinds or ways of arrival, so that all are seen.
    return script.measure(guards, chosen, scenes=0, seed=1, every=29, every_hack=11)


@pytest.mark.parametrize("name", GUARDS)
def test_hacks_are_found(sampled: object, name: str) -> None:
    hacks, found = sampled.hacks[name], sampled.found[name]
    assert hacks >= 6
    assert found / hacks >= 0.9, sampled.wrong[f"missed by {name}"]


@pytest.mark.parametrize("name", GUARDS)
def test_honest_edits_of_photographs_pass(sampled: object, name: str) -> None:
    assert sampled.honest[name] >= 40
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
