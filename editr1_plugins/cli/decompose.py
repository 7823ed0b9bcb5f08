"""Write the principles of one edit, or fill a cache with those of many ahead of a run.

  editr1 decompose photo.jpg "make the sky pink"
  editr1 decompose --input edits.jsonl --cache principles.sqlite --decomposer vlm:MODEL@URL

Each line of the input is a JSON object with "source" (an image file below the folder of the input, or of --images) and
"instruction". What the cache holds already is not asked again, so a fill that was stopped goes on where it was.

Exit status: 0 all done, 2 usage or bad input, 3 some have no principles.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError, ImageError
from . import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..principles.fill import Filled
    from ..types import Principle

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "write principles, or fill a cache with them ahead of a run"

_NOT_ALL = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="image file before the edit")
    parser.add_argument("instruction", metavar="INSTRUCTION", nargs="?", help="what is asked for, in quotes")
    parser.add_argument("--decomposer", metavar="SPEC", help="who writes them; default: $EDITR1_DECOMPOSER, else rules")
    parser.add_argument("--cache", metavar="FILE", help="sqlite file to keep principles in")
    parser.add_argument("--input", metavar="FILE", help="JSON lines with source and instruction")
    parser.add_argument("--images", metavar="DIR", help="folder of the sources; default: that of --input")
    parser.add_argument("--batch-size", metavar="N", type=int, default=32, help="requests at a time; default: 32")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    import os

    from ..plugins import resolve
    from ..reward.record import identity_of
    from ..reward.rrm import DECOMPOSER_VARIABLE

    spec = args.decomposer or os.environ.get(DECOMPOSER_VARIABLE) or "rules"
    if (args.input is None) == (args.source is None) or (args.source is None) != (args.instruction is None):
        raise ConfigError("give either SOURCE and INSTRUCTION, or --input FILE")
    if args.input is not None and args.cache is None:
        raise ConfigError("--input needs --cache FILE, where the principles go")
    decomposer = resolve("decomposer", spec)
    identity = identity_of(decomposer, spec)
    return _one(args, decomposer, identity) if args.input is None else _many(args, decomposer, identity)


def _one(args: argparse.Namespace, decomposer: Any, identity: str) -> int:
    from ..images import read_image
    from ..principles.cache import SqliteCache, principle_key
    from ..principles.chain import decompose_contained

    source = read_image(args.source)
    cache = None if args.cache is None else SqliteCache(args.cache)
    key = principle_key(source, args.instruction, identity)
    principles = None if cache is None else cache.get(key)
    if principles is None:
        [principles] = decompose_contained(decomposer, [(source, args.instruction)])
        if cache is not None:
            cache.put(key, principles)
            cache.close()
    _show_one(principles, args.json)
    return 0 if principles else _NOT_ALL


def _show_one(principles: tuple[Principle, ...], as_json: bool) -> None:
    failure = None if principles else str(getattr(principles, "failure", "no principles"))
    if as_json:
        rows = [{"question": each.question, "category": each.category} for each in principles]
        print(json.dumps({"principles": rows, "failure": failure}, indent=2))
        return
    for each in principles:
        print(f"{each.category:<23}{printable(each.question)}")
    if failure is not None:
        print(f"no principles: {printable(failure)}")


def _many(args: argparse.Namespace, decomposer: Any, identity: str) -> int:
    from ..principles.cache import SqliteCache
    from ..principles.fill import fill_cache

    path = Path(args.input)
    folder = Path(args.images) if args.images is not None else path.parent
    unreadable: Counter[str] = Counter()
    cache = SqliteCache(args.cache)
    progress = None if args.json or not sys.stderr.isatty() else _show_progress
    try:
        filled = fill_cache(
            _requests(path, folder, unreadable),
            decomposer,
            cache,
            identity=identity,
            batch_size=args.batch_size,
            progress=progress,
        )
    finally:
        cache.close()
    if progress is not None:
        print(file=sys.stderr)
    _show_many(filled, unreadable, cache.stats.errors, args.json)
    return _NOT_ALL if filled.failed or unreadable else 0


def _show_progress(filled: Filled) -> None:
    print(f"\r{filled.seen} seen, {filled.made} made, {filled.failed} failed", end="", file=sys.stderr, flush=True)


def _show_many(filled: Filled, unreadable: Counter[str], cache_errors: int, as_json: bool) -> None:
    counts = {"seen": filled.seen, "found": filled.found, "made": filled.made, "failed": filled.failed}
    if as_json:
        more = {"failures": dict(filled.failures), "unreadable": dict(unreadable), "cache_errors": cache_errors}
        print(json.dumps({**counts, **more}, indent=2))
        return
    print(", ".join(f"{count} {name}" for name, count in counts.items()) + f", {unreadable.total()} unreadable")
    for reason, count in Counter({**filled.failures, **unreadable}).most_common(10):
        print(f"{count:>8}  {printable(reason)}")
    if cache_errors:
        print(f"{cache_errors} writes or reads of the cache failed; see the log")


def _requests(path: Path, folder: Path, unreadable: Counter[str]) -> Iterator[tuple[Image, str]]:
    from ..images import read_image

    try:
        lines = path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    with lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            name, instruction = _row(line, f"{path}, line {number}")
            try:
                yield read_image(_inside(folder, name)), instruction
            except ImageError as error:
                unreadable[str(error)] += 1


def _row(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
        name, instruction = row["source"], row["instruction"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise DataError(f'{where}: not a JSON object with "source" and "instruction"') from None
    if not isinstance(name, str) or not isinstance(instruction, str):
        raise DataError(f'{where}: "source" and "instruction" must be texts')
    return name, instruction


def _inside(folder: Path, name: str) -> Path:
    """The file `name` below `folder`; what a data file names must not lead anywhere else."""
    try:
        path = (folder / name).resolve()
        if path.is_relative_to(folder.resolve()):
            return path
    except (OSError, ValueError):
        pass
    raise ImageError(f"image {name[:200]!r} does not lie below the folder {folder}")
