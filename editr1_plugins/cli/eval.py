"""Evaluate judges and editors on public benchmarks, or on one's own data.

  editr1 eval judge --bench NAME ...
  editr1 eval editor --bench NAME ...

`editr1 eval judge --help` and `editr1 eval editor --help` say more.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Final

__all__ = ["KINDS", "SUMMARY", "add_arguments", "run"]

SUMMARY = "evaluate a judge or an editor on public benchmarks or one's own data"

#: What can be evaluated; each is a module `eval_NAME` of this folder, made like a subcommand.
KINDS: Final = ("judge", "editor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    for name in KINDS:
        module = import_module(f".eval_{name}", __package__)
        kind = kinds.add_parser(name, help=module.SUMMARY, description=module.__doc__)
        kind.formatter_class = argparse.RawDescriptionHelpFormatter
        # SUPPRESS: the default must not overwrite `editr1 --debug eval ...`.
        kind.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
        module.add_arguments(kind)
        kind.set_defaults(run_kind=module.run)


def run(args: argparse.Namespace) -> int:
    status: int = args.run_kind(args)
    return status
