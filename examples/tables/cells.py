"""What the scripts of this folder share: plans of what stands in which cell, commands, Markdown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from editr1_plugins.cli import main

Plan = list[dict[str, Any]]


def read_plan(path: Path, needed: Sequence[str]) -> Plan:
    """A JSON list of objects, each with the keys in `needed`."""
    plan = json.loads(path.read_text())
    for number, each in enumerate(plan):
        missing = [name for name in needed if name not in each]
        if missing:
            raise SystemExit(f"{path.name}, cell {number}: no {', '.join(missing)}")
    return plan


def run(arguments: Sequence[str]) -> dict[str, Any] | None:
    """What `editr1 ARGUMENTS --json` prints; the command is shown. None where it ended with an error, which is shown.

    Failed rows of the data are in the numbers, not an error.
    """
    print(f"$ editr1 {shlex.join(arguments)}", flush=True)
    said = StringIO()
    with redirect_stdout(said):
        status = main([*arguments, "--json"])
    if status not in (0, 3):
        return None
    return json.loads(said.getvalue())


def slug(text: str) -> str:
    """A name for a folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")


def markdown(title: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, str]]) -> str:
    lines = [f"| {title} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(row.get(column, "") for column in columns) + " |")
    return "\n".join(lines)


def with_interval(value: float | None, limits: Sequence[float] | None) -> str:
    if value is None:
        return "none"
    return f"{value:.2f}" if limits is None else f"{value:.2f} ({limits[0]:.2f} to {limits[1]:.2f})"
