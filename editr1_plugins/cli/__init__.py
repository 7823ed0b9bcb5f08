"""The command `editr1`: thin subcommands over the package.

A subcommand is a module in this folder, named in `COMMANDS` (`-` is `_` in the module's name), with `SUMMARY` (one
line), `add_arguments(parser)` and `run(args) -> int` (the exit status). It imports nothing heavy outside `run`, so that
`editr1 --help` stays fast. One with `TAKES_MORE = True` gets the flags that it did not declare as `args.more`.
Errors are one line that says what to do; `--debug` shows the traceback. Exit status: 0 done, 1 failed, 2 usage or bad
input; a subcommand may add its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from ..errors import ConfigError, DataError, Editr1Error, MissingExtraError

__all__ = ["COMMANDS", "main", "printable"]

#: The subcommands, in the order of `editr1 --help`. To add one: its module in this folder, and its name here.
COMMANDS: Final = (
    "demo",
    "score",
    "decompose",
    "coldstart",
    "sft",
    "gcpo",
    "grpo",
    "best-of",
    "eval",
    "study",
    "report",
    "serve",
    "plugins",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status; never raises for what a user can cause."""
    parser = _parser()
    try:
        args, more = parser.parse_known_args(argv)
        if more and not args.takes_more:
            parser.error(f"unrecognized arguments: {' '.join(more)}")
        args.more = more
    except SystemExit as stop:  # argparse: 2 after a usage error, 0 after --help
        return int(stop.code or 0)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(args)


def printable(text: str) -> str:
    """`text` as one line without control characters: what a judge or a file says must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in " ".join(text.split()))


def _run(args: argparse.Namespace) -> int:
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) is gone; without this Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f"editr1: error: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, (ConfigError, DataError, MissingExtraError)) else 1
    return status


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    # SUPPRESS: the subcommand's own default must not overwrite `editr1 --debug COMMAND`.
    shared.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    parser = argparse.ArgumentParser(
        prog="editr1",
        description="Verified rewards and RL for image editing (Edit-R1).",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f".{name.replace('-', '_')}", __name__)
        takes_more = getattr(module, "TAKES_MORE", False)
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            parents=[shared],
            allow_abbrev=not takes_more,  # the beginning of a flag that is passed on must not be taken for one of ours
        )
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(command)
        command.set_defaults(run=module.run, takes_more=takes_more)
    return parser


class _Version(argparse.Action):
    # argparse's own action wants the version at once; reading it costs time that other commands need not spend.
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"editr1-plugins {version('editr1-plugins')}")
        parser.exit()


def _one_line(error: Exception) -> str:
    text = printable(str(error)) or "no message"
    return text if isinstance(error, Editr1Error) else f"{type(error).__name__}: {text} (--debug shows the traceback)"


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"editr1: note: {printable(str(message))}", file=sys.stderr)
