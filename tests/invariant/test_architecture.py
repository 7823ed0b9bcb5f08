"""Imports flow one way, and every module says what is public."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import editr1_plugins

ROOT = Path(editr1_plugins.__file__).parent
PACKAGE = ROOT.name

#: A room may import from itself and from rooms before it. `editr1_plugins/README.md` gives the same order.
ROOMS = (
    "types",
    "errors",
    "images",
    "hookspecs",
    "plugins",
    "backends",
    "principles",
    "verifiers",
    "guards",
    "reward",
    "rewards",
    "training",
    "miniedit",
    "evaluation",
    "report",
    "adapters",
    "cli",
    "testing",
    "builtin",
)
# These hold the lazy names of the whole package, and the command: they stand for the house, not for a room.
FACADES = ("__init__", "__main__")

MODULES = sorted(path for path in ROOT.rglob("*.py"))


def room_of(path: Path, root: Path = ROOT) -> str:
    return path.relative_to(root).parts[0].removesuffix(".py")


def imported_rooms(path: Path, root: Path = ROOT) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of our own package: absolute or relative, lazy or for type checkers only."""
    inside = (root.name, *path.relative_to(root).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(inside[: len(inside) - node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for parts in names:
            if parts[0] == root.name and len(parts) > 1:
                yield node.lineno, parts[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_to_earlier_rooms(path: Path) -> None:
    room = room_of(path)
    if room in FACADES:
        return
    assert room in ROOMS, f"the room {room!r} has no place in the order yet: add it to ROOMS and to the README"
    names = ROOMS.index(room)
    wrong = [
        f"line {line}: {room} may not know {other}"
        for line, other in imported_rooms(path)
        if other != room and (other not in ROOMS or ROOMS.index(other) > names) and other != "__version__"
    ]
    assert not wrong, "; ".join(wrong)


class TestTheImportReader:
    """The test above is only as good as what it reads."""

    @pytest.mark.parametrize(
        ("where", "source", "rooms"),
        [
            ("verifiers/measure.py", "from ..types import Edit", ["types"]),
            ("verifiers/measure.py", "from .. import errors, types", ["errors", "types"]),
            ("verifiers/measure.py", "from .parsing import x", ["verifiers"]),
            ("verifiers/measure.py", "from . import parsing", ["verifiers"]),
            ("training/algorithms/nft.py", "from ...reward.rrm import X", ["reward"]),
            ("training/algorithms/__init__.py", "from ..sde import x", ["training"]),
            ("types.py", "from .errors import X", ["errors"]),
            ("types.py", "from editr1_plugins.reward import rrm", ["reward"]),
            ("types.py", "import editr1_plugins.cli.score as s", ["cli"]),
            ("types.py", "from editr1_plugins import resolve", ["resolve"]),
            ("types.py", "def f():\n    from .cli import main", ["cli"]),
            ("types.py", "if TYPE_CHECKING:\n    from .cli import main", ["cli"]),
            ("types.py", "import torch\nfrom editr1_plugins_other import x", []),
        ],
    )
    def test_it_finds(self, tmp_path: Path, where: str, source: str, rooms: list[str]) -> None:
        path = tmp_path / PACKAGE / where
        path.parent.mkdir(parents=True)
        path.write_text(source)
        assert [room for _, room in imported_rooms(path, tmp_path / PACKAGE)] == rooms


def test_the_house_plan_gives_the_same_order() -> None:
    plan = (ROOT / "README.md").read_text()
    section = plan.split("## Import order")[1].split("\n## ")[0]
    block = section.split("```")[1]
    assert tuple(re.findall(r"[a-z]+", block.removeprefix("text"))) == ROOMS


def defined_names(tree: ast.Module) -> set[str]:
    """Public names that a module defines at top level, also inside `if`, `try` and `with` (but not TYPE_CHECKING)."""
    names: set[str] = set()

    def visit(statements: list[ast.stmt]) -> None:
        for node in statements:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Assign) and not _is_type_variable(node.value):
                names.update(
                    leaf.id for target in node.targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)
                )
            elif isinstance(node, (ast.AnnAssign, ast.AugAssign)) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
            elif isinstance(node, (ast.If, ast.Try, ast.With)):
                if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                    continue
                for field in ("body", "orelse", "finalbody"):
                    visit(getattr(node, field, []))

    visit(tree.body)
    return {name for name in names if not name.startswith("_")}


def _is_type_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in ("TypeVar", "ParamSpec")


def declared(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def sort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as ruff's RUF022 sorts."""
    bare = name.strip("_")
    return (0 if bare.isupper() and len(bare) > 1 else 1 if bare[:1].isupper() else 2), name


PUBLIC_MODULES = [path for path in MODULES if path.name.startswith("__") or not path.name.startswith("_")]


@pytest.mark.parametrize("path", PUBLIC_MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_is_sorted_and_is_what_is_public(path: Path) -> None:
    tree = ast.parse(path.read_text())
    public, names = defined_names(tree), declared(tree)
    if names is None:
        assert not public, f"no __all__, yet public: {', '.join(sorted(public))}; list them or begin them with '_'"
        return
    assert names == sorted(names, key=sort_key)
    assert len(set(names)) == len(names)
    lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith(PACKAGE))
        for alias in node.names
    }
    assert public <= set(names), f"public, but not in __all__: {', '.join(sorted(public - set(names)))}"
    unknown = set(names) - public - imported
    assert lazy or not unknown, f"in __all__, but not defined here: {', '.join(sorted(unknown))}"


def test_the_lazy_names_of_the_package_exist() -> None:
    for name in editr1_plugins.__all__:
        assert getattr(editr1_plugins, name) is not None
    assert set(editr1_plugins.__all__) <= set(dir(editr1_plugins))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = editr1_plugins.nonsense


def test_files_and_functions_stay_readable() -> None:
    """Soft limits of the house: 400 lines a file, 60 lines a function; a fifth more is the hard stop."""
    long = []
    for path in MODULES:
        source = path.read_text()
        if len(source.splitlines()) > 480:
            long.append(f"{path.relative_to(ROOT)}: {len(source.splitlines())} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 72:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert not long, "; ".join(long)
