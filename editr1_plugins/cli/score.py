"""Judge one edit, or many from a file, or ask whether the judge itself is fit.

  editr1 score photo.jpg edited.jpg "make the sky pink"
  editr1 score --input edits.jsonl --output DIR
  editr1 score --probe --verifier openai:MODEL@URL

One edit: its verdicts, and its score or the reason why there is none.

Many: each line of the input is a JSON object with "source" and "edited" (image files below the folder of the input, or
of --images) and "instruction"; an "id" is kept. DIR gets a record of each row and its images, for `editr1 report DIR`.
What was stopped, even by kill -9, goes on where it was when the same command is run again. A row that cannot be judged
is a record with the reason; --retry-failed tries such rows again. --ray judges with several workers, also of many
machines that see the same files.

The probe shows the judge unchanged pictures as if they were edits: each must get about 0, or the judge teaches an
editor to do nothing. Pictures and instructions are MiniEdit's, or those of --input.

Exit status: 0 all judged (the probe: passed); 2 usage or bad input; 3 some not judged (the probe: none judged);
4 the probe: the judge paid for an unchanged picture; 1 anything else, such as a full disk; 130 interrupted.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..types import MAX_SCORE, Verification
from . import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..guards.probe import ProbeReport
    from ..reward.bulk import BulkSummary

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "judge one edit, or many from a file; --probe tests the judge"

_NOT_JUDGED = 3
_PAID_FOR_NOTHING = 4
_PROBES = 8  # pictures of a probe, unless told otherwise
_PROBE_SIZE = 384  # pixels: MiniEdit's scenes are 32 pixels wide, too small for most judges


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(print_usage=parser.print_usage)
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="image file before the edit")
    parser.add_argument("edited", metavar="EDITED", nargs="?", help="image file after the edit")
    parser.add_argument("instruction", metavar="INSTRUCTION", nargs="?", help="what was asked for, in quotes")
    parser.add_argument("--verifier", metavar="SPEC", help="judge; default: $EDITR1_VERIFIER, else measure")
    parser.add_argument(
        "--decomposer", metavar="SPEC", help="who writes the principles; default: $EDITR1_DECOMPOSER, else rules"
    )
    parser.add_argument("--cache", metavar="FILE", help="sqlite file of principles, as `editr1 decompose` fills it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    many = parser.add_argument_group("many edits")
    many.add_argument("--input", metavar="FILE", help="JSON lines with source, edited and instruction")
    many.add_argument("--output", metavar="DIR", help="where records and images go")
    many.add_argument("--images", metavar="DIR", help="folder of the images; default: that of --input")
    many.add_argument("--batch-size", metavar="N", type=int, default=32, help="edits at a time; default: 32")
    many.add_argument(
        "--ray", metavar="N", type=int, help="judge with N workers of Ray (extra [ray]; $RAY_ADDRESS names a cluster)"
    )
    many.add_argument("--ray-gpus", metavar="N", type=float, help="GPUs that one such worker takes; default: none")
    many.add_argument("--retry-failed", action="store_true", help="judge rows again that have no score so far")
    probe = parser.add_argument_group("probe")
    probe.add_argument("--probe", action="store_true", help="ask the judge about unchanged pictures")
    probe.add_argument("--count", metavar="N", type=int, default=_PROBES, help=f"pictures; default: {_PROBES}")
    probe.add_argument(
        "--limit", metavar="SCORE", type=float, default=1.0, help="most that an unchanged picture may get; default: 1"
    )


def run(args: argparse.Namespace) -> int:
    single = [args.source, args.edited, args.instruction]
    if args.probe:
        _require(args, not any(single) and args.output is None, "--probe takes --input FILE, or no picture at all")
        return _probe(args)
    if args.input is not None or args.output is not None:
        both = args.input is not None and args.output is not None and not any(single)
        _require(args, both, "many edits need --input FILE and --output DIR, and no SOURCE EDITED INSTRUCTION")
        return _many(args)
    _require(args, None not in single, "give SOURCE EDITED INSTRUCTION, or --input FILE and --output DIR, or --probe")
    return _one(args)


def _require(args: argparse.Namespace, given: bool, message: str) -> None:
    if not given:
        args.print_usage(sys.stderr)
        raise ConfigError(message)


def _one(args: argparse.Namespace) -> int:
    from ..images import read_image
    from ..reward.rrm import EditRRMReward
    from ..types import Edit

    edit = Edit(source=read_image(args.source), edited=read_image(args.edited), instruction=args.instruction)
    reward = EditRRMReward(verifier=args.verifier, decomposer=args.decomposer, cache=args.cache)
    [verification] = reward.score([edit])
    if args.json:
        print(json.dumps(_as_json(verification), indent=2, allow_nan=False))
    else:
        print("\n".join(_as_text(verification)))
    return _NOT_JUDGED if verification.score is None else 0


def _as_text(verification: Verification) -> list[str]:
    marks = {True: "yes", False: "no", None: "?"}
    lines = []
    for verdict in verification.verdicts:
        reason = f"  ({printable(verdict.reason)})" if verdict.reason else ""
        question = printable(verdict.principle.question)
        lines.append(f"{marks[verdict.passed]:<5}{verdict.principle.category:<23}{question}{reason}")
    if verification.flags:
        lines.append(f"flags: {printable(', '.join(verification.flags))}")
    if verification.score is None:
        lines.append(f"not judged: {printable(str(verification.failure))}")
    else:
        lines.append(f"score: {verification.score:.2f} of {MAX_SCORE:g}")
    return lines


def _as_json(verification: Verification) -> dict[str, Any]:
    return {
        "score": verification.score,
        "failure": verification.failure,
        "average": verification.average,
        "verdicts": [
            {
                "question": verdict.principle.question,
                "category": verdict.principle.category,
                "passed": verdict.passed,
                "reason": verdict.reason,
            }
            for verdict in verification.verdicts
        ],
        "flags": list(verification.flags),
        "spread": verification.spread,
        "samples": verification.samples,
        "trace": verification.trace,
    }


def _many(args: argparse.Namespace) -> int:
    if args.ray is None:
        from ..reward.bulk import score_file as judge_all
    else:
        from ..reward.ray_bulk import score_file_with_ray

        resources = None if args.ray_gpus is None else {"num_gpus": args.ray_gpus}
        judge_all = functools.partial(score_file_with_ray, workers=args.ray, resources=resources)
    with _progress_bar(args) as progress:
        summary = judge_all(
            args.input,
            args.output,
            folder=args.images,
            batch_size=args.batch_size,
            retry_failed=args.retry_failed,
            progress=progress,
            verifier=args.verifier,
            decomposer=args.decomposer,
            cache=args.cache,
        )
    if args.json:
        print(json.dumps(asdict(summary), indent=2, allow_nan=False))
    else:
        print("\n".join(_summary_text(summary)))
    return _NOT_JUDGED if summary.failed else 0


@contextmanager
def _progress_bar(args: argparse.Namespace) -> Iterator[Callable[[BulkSummary], None] | None]:
    """A bar on a terminal; logs and pipes get none."""
    if args.json or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=_count_lines(args.input), unit=" edits", dynamic_ncols=True) as bar:

        def show(summary: BulkSummary) -> None:
            bar.initial = summary.resumed  # what was done before says nothing about the speed
            mean = "none" if summary.mean is None else f"{summary.mean:.2f}"
            bar.set_postfix_str(f"mean {mean}, {summary.failed} not judged", refresh=False)
            bar.n = summary.rows
            bar.refresh()

        yield show


def _count_lines(path: str) -> int | None:
    lines, last = 0, b"\n"
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    except OSError:
        return None  # the reader will say what is wrong
    return lines + (last != b"\n")


def _summary_text(summary: BulkSummary) -> list[str]:
    before = f" ({summary.resumed} of them before)" if summary.resumed else ""
    lines = [f"{summary.rows} edits: {summary.scored} scored, {summary.failed} not judged{before}"]
    lines += [f"{count:>8}  {printable(kind)}" for kind, count in summary.failures.items()]
    if summary.mean is not None:
        lines.append(f"mean score: {summary.mean:.2f} of {MAX_SCORE:g}")
    return lines


def _probe(args: argparse.Namespace) -> int:
    from ..guards.probe import probe
    from ..reward.rrm import EditRRMReward

    if args.count < 1:
        raise ConfigError(f"--count must be at least 1, got {args.count}")
    asked = _miniedit_pictures(args.count) if args.input is None else _own_pictures(args)
    # No guards: they would answer for the judge.
    judge = EditRRMReward(verifier=args.verifier, decomposer=args.decomposer, guards=(), cache=args.cache)
    report = probe(judge, [source for source, _ in asked], [instruction for _, instruction in asked], limit=args.limit)
    instructions = [instruction for _, instruction in asked]
    if args.json:
        print(json.dumps(_probe_json(report, instructions), indent=2, allow_nan=False))
    else:
        print("\n".join(_probe_text(report, instructions)))
    if report.above:
        return _PAID_FOR_NOTHING
    return 0 if report.scores else _NOT_JUDGED


def _miniedit_pictures(count: int) -> list[tuple[Image, str]]:
    from ..miniedit.pairs import sample_tasks
    from ..miniedit.world import draw

    return [
        (draw(task.scene).resize((_PROBE_SIZE, _PROBE_SIZE), 0), task.instruction)
        for task in sample_tasks(count, seed=0)
    ]


def _own_pictures(args: argparse.Namespace) -> list[tuple[Image, str]]:
    """The first sources of the input; here a bad row ends the command, since a probe is small and must be clean."""
    from itertools import islice
    from pathlib import Path

    from ..errors import DataError
    from ..images import read_image
    from ..reward.edit_rows import file_below, read_edit_rows

    folder = Path(args.images) if args.images is not None else Path(args.input).parent
    asked = []
    for row in islice(read_edit_rows(args.input), args.count):
        if not row.source.strip() or not row.instruction.strip():
            raise DataError(f"{args.input}, line {row.number}: {row.problem}")
        asked.append((read_image(file_below(folder, row.source)), row.instruction))
    if not asked:
        raise DataError(f"{args.input} holds no rows")
    return asked


def _probe_text(report: ProbeReport, instructions: list[str]) -> list[str]:
    lines = []
    for verification, instruction in zip(report.verifications, instructions, strict=True):
        score = "none" if verification.score is None else f"{verification.score:.2f}"
        failure = f"  ({printable(verification.failure)})" if verification.failure else ""
        lines.append(f"{score:>6}  {printable(instruction)}{failure}")
    if report.mean is None or report.worst is None:
        return [*lines, f"probe: none of {len(instructions)} unchanged pictures was judged"]
    judged = f"{len(report.scores)} of {len(instructions)} unchanged pictures judged"
    scores = f"mean {report.mean:.2f}, highest {report.worst:.2f} of {MAX_SCORE:g}"
    outcome = f"{len(report.above)} above {report.limit:g}: {'not passed' if report.above else 'passed'}"
    return [*lines, f"probe: {judged}, {scores}; {outcome}"]


def _probe_json(report: ProbeReport, instructions: list[str]) -> dict[str, Any]:
    return {
        "passed": bool(report.scores) and not report.above,
        "limit": report.limit,
        "mean": report.mean,
        "highest": report.worst,
        "unjudged": report.unjudged,
        "probes": [
            {"instruction": instruction, "score": verification.score, "failure": verification.failure}
            for verification, instruction in zip(report.verifications, instructions, strict=True)
        ],
    }
