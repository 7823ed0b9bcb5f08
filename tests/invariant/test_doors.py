"""No door without its documentation and its test."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from editr1_plugins import hookspecs

ROOT = Path(__file__).parent.parent.parent
HOOKS = [hook for name, hook in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("register_")]


def signature(hook: Callable[..., object]) -> str:
    """`name(argument: Type) -> Type`, as it stands in the source."""
    [node] = ast.parse(inspect.getsource(hook)).body
    assert isinstance(node, ast.FunctionDef)
    assert node.returns is not None
    return f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_every_hook_has_a_heading_with_its_exact_signature(hook: Callable[..., object]) -> None:
    lines = (ROOT / "editr1_plugins" / "README.md").read_text().splitlines()
    heading = f"### `{signature(hook)}`"
    assert lines.count(heading) == 1, f"editr1_plugins/README.md has no heading {heading}"
    text = "".join(lines[lines.index(heading) + 1 :]).split("### ")[0]
    assert len(text) > 60, f"nothing is said about {hook.__name__}"


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_every_hook_has_a_test(hook: Callable[..., object]) -> None:
    tests = ast.parse((ROOT / "tests" / "test_plugins.py").read_text())
    assert f"test_{hook.__name__}" in {node.name for node in tests.body if isinstance(node, ast.FunctionDef)}


def test_register_is_documented_as_it_is() -> None:
    parameters = list(inspect.signature(hookspecs.Register.__call__).parameters.values())[1:]
    bare = inspect.Signature([parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters])
    documented = f"register{bare}".replace("''", '""')
    assert documented in (ROOT / "editr1_plugins" / "README.md").read_text()


def test_there_are_doors() -> None:
    assert len(HOOKS) >= 6
