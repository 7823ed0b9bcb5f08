"""List what is registered, which package it comes from, and the plugins that failed to load."""

from __future__ import annotations

import argparse
import json
import traceback
from typing import Any

from ..plugins import KINDS, Registry, registry

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "list verifiers, decomposers, ... and who provides them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a plugin failed to load")


def run(args: argparse.Namespace) -> int:
    found = registry()
    if args.json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        print("\n".join(_as_text(found)))
        if args.debug:
            for failure in found.failures:
                print("".join(traceback.format_exception(failure.error)))
    return 1 if args.strict and found.failures else 0


def _as_text(found: Registry) -> list[str]:
    rows = [
        (entry.kind, found.spec(entry), entry.origin.dist, entry.summary) for kind in KINDS for entry in found.of(kind)
    ]
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:<{wide[2]}}  {summary}".rstrip() for a, b, c, summary in rows]
    lines += [f"FAILED  {failure.origin}: {failure.reason}" for failure in found.failures]
    lines += [f"left out by EDITR1_LOAD_PLUGINS  {origin}" for origin in found.left_out]
    return lines


def _as_json(found: Registry) -> dict[str, Any]:
    entries = [entry for kind in KINDS for entry in found.of(kind)]
    return {
        "entries": [
            {
                "kind": entry.kind,
                "name": entry.name,
                "spec": found.spec(entry),
                "distribution": entry.origin.dist,
                "version": entry.origin.version,
                "plugin": entry.origin.plugin,
                "summary": entry.summary,
                "requires": list(entry.requires),
            }
            for entry in entries
        ],
        "failures": [
            {
                "plugin": failure.origin.plugin,
                "distribution": failure.origin.dist,
                "version": failure.origin.version,
                "error": failure.reason,
            }
            for failure in found.failures
        ],
        "left_out": [{"plugin": origin.plugin, "distribution": origin.dist} for origin in found.left_out],
    }
