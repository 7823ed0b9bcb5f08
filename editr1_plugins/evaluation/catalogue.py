"""Benchmarks by name, and answers that were recorded before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import ComponentError, ConfigError, DataError, PluginError
from editr1_plugins.evaluation.items import Benchmark, Judged, read_judged
from editr1_plugins.plugins import parse_spec, registry, resolve
from editr1_plugins.reward.edit_rows import numbered_lines

__all__ = ["JUDGED", "find_benchmark", "read_predictions", "resolve_benchmark"]

#: The file with the judged rows in an output directory.
JUDGED: Final = "judged.jsonl"


def find_benchmark(spec: str) -> Benchmark:
    """The benchmark that `NAME` or `NAME:ARGUMENT` stands for; the beginning of a name will do where it is one's only.

    Raises:
        PluginError: the name stands for none, or for several; the message lists them.
        ConfigError, ComponentError: the spec is malformed, or the factory's object is no benchmark.
    """
    name, made = resolve_benchmark(spec)
    if isinstance(made, Benchmark):
        return made
    if hasattr(type(made), "edits"):
        raise ConfigError(f"benchmark {name!r} is about editors; use `editr1 eval editor`")
    wanted = "name, source, headline, ranked, items, official and predictions"
    raise ComponentError(f"benchmark {name!r} broke its protocol: {type(made).__name__} needs {wanted}")


def resolve_benchmark(spec: str) -> tuple[str, Any]:
    """The full name and the object that a spec of a benchmark stands for, of judges or of editors.

    Raises:
        PluginError: the name stands for none, or for several; the message lists them.
        ConfigError, ComponentError: the spec is malformed, or the factory raised.
    """
    name, argument = parse_spec(spec)
    found = registry()
    try:
        found.find("benchmark", name)
    except PluginError:
        begun = [entry for entry in found.of("benchmark") if entry.name.startswith(name.lower().replace("_", "-"))]
        if len(begun) != 1:
            raise
        name = found.spec(begun[0])
    return name, resolve("benchmark", name if argument is None else f"{name}:{argument}")


def read_predictions(benchmark: Benchmark, path: Path, place: str | None) -> list[Judged]:
    """Judged rows of a file or folder: what `editr1 eval judge` wrote, or the benchmark's own raw format.

    Raises:
        DataError: there is no such file, or it is neither.
    """
    if not path.exists():
        raise DataError(f"no file or folder {path}")
    if (path / JUDGED).is_file():
        return read_judged(path / JUDGED)
    if path.is_file() and _is_ours(path):
        return read_judged(path)
    return benchmark.predictions(path, place)


def _is_ours(path: Path) -> bool:
    if path.suffix != ".jsonl":
        return False
    _, line = next(numbered_lines(path), (0, None))
    try:
        row = json.loads(line or b"")
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and row.get("kind") in ("pair", "rating")
