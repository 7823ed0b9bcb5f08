"""Benchmarks of editors by name, and answers about edits that were recorded before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from editr1_plugins.errors import ComponentError, ConfigError, DataError
from editr1_plugins.evaluation.catalogue import JUDGED, resolve_benchmark
from editr1_plugins.evaluation.editors.items import EditorBenchmark, JudgedEdit, read_judged_edits
from editr1_plugins.evaluation.items import Benchmark
from editr1_plugins.reward.edit_rows import numbered_lines

__all__ = ["find_editor_benchmark", "read_recorded_edits"]

_PROTOCOL: Final = "name, source, overall, limits, edits, aspects, official and recorded"


def find_editor_benchmark(spec: str) -> EditorBenchmark:
    """The benchmark that `NAME` or `NAME:ARGUMENT` stands for; the beginning of a name will do where it is one's only.

    Raises:
        PluginError: the name stands for none, or for several; the message lists them.
        ConfigError, ComponentError: the spec is malformed, or the factory's object is no benchmark of editors.
    """
    name, made = resolve_benchmark(spec)
    if isinstance(made, EditorBenchmark):
        return made
    if isinstance(made, Benchmark):
        raise ConfigError(f"benchmark {name!r} is about judges; use `editr1 eval judge`")
    raise ComponentError(f"benchmark {name!r} broke its protocol: {type(made).__name__} needs {_PROTOCOL}")


def read_recorded_edits(benchmark: EditorBenchmark, path: Path, place: str | None) -> list[JudgedEdit]:
    """Rows of a file or folder: what `editr1 eval editor` wrote, or the raw answers of the benchmark's own judge.

    Raises:
        DataError: there is no such file, or it is neither.
    """
    if not path.exists():
        raise DataError(f"no file or folder {path}")
    if (path / JUDGED).is_file():
        return read_judged_edits(path / JUDGED)
    if path.is_file() and path.suffix == ".jsonl":
        _, line = next(numbered_lines(path), (0, None))
        try:
            row = json.loads(line or b"")
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and row.get("kind") == "edit":
            return read_judged_edits(path)
    return benchmark.recorded(path, place)
