from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from editr1_plugins import builtin, plugins, rewards
from editr1_plugins.hookspecs import hookimpl
from editr1_plugins.plugins import Origin, Registry
from editr1_plugins.reward import parts
from editr1_plugins.types import Edit, Principle, Verification


class Judge:
    def __init__(self, argument: str = "") -> None:
        self.argument = argument

    def verify(self, edits: list[Edit], principles: list[tuple[Principle, ...]]) -> list[Verification]:
        return [Verification(score=1.0) for _ in edits]


def needs_argument(argument: str) -> Judge:
    return Judge(argument)


class Plugin:
    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def register_verifiers(self, register: plugins.hookspecs.Register) -> None:
        for name in self.names:
            register(name, needs_argument if name == "remote" else Judge)


def broken() -> object:
    raise ImportError("no module named 'acme_core'")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    registry = Registry(core := Origin(plugin="builtin", dist="editr1-plugins"))
    registry.load(core, lambda: builtin)
    registry.load(Origin(plugin="one", dist="acme"), lambda: Plugin("acme-judge", "v1.5", "remote", "twin"))
    registry.load(Origin(plugin="two", dist="other"), lambda: Plugin("twin"))
    registry.load(Origin(plugin="three", dist="broken"), broken)
    for module in (plugins, parts):
        monkeypatch.setattr(module, "registry", lambda: registry)
    rewards._reward.cache_clear()
    yield registry
    rewards._reward.cache_clear()


def test_every_registered_verifier_is_an_attribute(known: Registry) -> None:
    assert rewards.acme_judge.__name__ == "edit_rrm_acme_judge"
    assert rewards.v1_5.__name__ == "edit_rrm_v1_5"
    assert rewards.acme_judge is rewards.acme_judge
    assert {"acme_judge", "edit_rrm", "v1_5"} <= set(dir(rewards))


def test_an_unknown_name_lists_what_there_is(known: Registry) -> None:
    with pytest.raises(
        AttributeError, match=r"no reward 'acme'.*there are: acme_judge, edit_rrm, measure, .*'three'.*acme_core"
    ):
        rewards.acme  # noqa: B018


def test_an_ambiguous_name_is_an_error(known: Registry) -> None:
    with pytest.raises(AttributeError, match=r"may mean any of: acme/twin, other/twin; set EDITR1_VERIFIER"):
        rewards.twin  # noqa: B018


def test_a_verifier_with_an_argument_says_how_to_give_it(known: Registry) -> None:
    with pytest.raises(
        AttributeError, match=r"'remote' needs an argument; set EDITR1_VERIFIER=remote:ARGUMENT and use"
    ):
        rewards.remote  # noqa: B018


def test_edit_rrm_takes_the_verifier_of_the_environment(known: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITR1_VERIFIER", "remote:here")
    assert rewards.edit_rrm.__name__ == "edit_rrm"
    assert "remote" in repr(rewards.edit_rrm)


def test_private_names_load_no_plugin() -> None:
    code = (
        "import sys, editr1_plugins.rewards as rewards\n"
        "for name in ('__path__', '__wrapped__', '_x'):\n"
        "    assert not hasattr(rewards, name)\n"
        "loaded = {'torch', 'editr1_plugins.plugins', 'editr1_plugins.reward.rrm'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_embedded_verifier_is_there() -> None:
    assert rewards.measure.__name__ == "edit_rrm_measure"
