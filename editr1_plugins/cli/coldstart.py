"""Make the data that a judge of edits is first trained on: traces of edits, checked against a strong judge.

  editr1 coldstart --config coldstart.yaml --dry-run
  editr1 coldstart --config coldstart.yaml --limit 20
  editr1 coldstart --config coldstart.yaml

Stages: select rows, decompose them into principles, make candidates (or take images that are there), let a pool of
judges write traces, let a strong judge verify each principle, choose the trace that agrees best, write the data set
(OUTPUT/dataset: Parquet, images, a data card). Each goes on where it was when the command is run again, also after
kill -9; what fails is counted with its reason. Paths in the configuration are relative to the working directory.

Exit status: 0 done; 2 usage, bad input, or a configuration that differs from the one that the folder was made with;
3 no examples; 1 anything else, such as a full disk; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from . import printable

if TYPE_CHECKING:
    from ..training.coldstart.config import ColdStartConfig, Stage
    from ..training.coldstart.estimate import Estimate
    from ..training.coldstart.report import ColdStartReport
    from ..training.coldstart.run import Progress

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "make the data a judge is first trained on, in resumable stages"

_NO_EXAMPLES = 3
_SHOWN = 5  # kinds of failure listed for a stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", required=True, help="YAML; see examples/judge/coldstart.yaml")
    parser.add_argument("--output", metavar="DIR", help="in the place of the configuration's output")
    parser.add_argument("--stages", metavar="A,B", help="only these, such as select,decompose")
    parser.add_argument("--limit", metavar="N", type=int, help="take at most N of the selected rows")
    parser.add_argument("--retry-failed", action="store_true", help="try items again that failed before")
    parser.add_argument("--dry-run", action="store_true", help="only say how many calls, tokens and what cost are left")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ..training.coldstart.config_file import load_config

    config = load_config(args.config)
    if args.output is not None:
        config = replace(config, output=args.output)
    stages = _stages(args.stages)
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}")
    return _estimate(args, config, stages) if args.dry_run else _run(args, config, stages)


def _stages(text: str | None) -> tuple[Stage, ...]:
    from ..training.coldstart.config import STAGES

    if text is None:
        return STAGES
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in STAGES]:
        raise ConfigError(f"--stages: no stage {unknown[0]!r}; there are: {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in names)


def _run(args: argparse.Namespace, config: ColdStartConfig, stages: tuple[Stage, ...]) -> int:
    from ..training.coldstart import run_coldstart

    with _progress_bar(args.json) as progress:
        report = run_coldstart(
            config, stages=stages, limit=args.limit, retry_failed=args.retry_failed, progress=progress
        )
    if args.json:
        print(json.dumps(asdict(report), indent=2, allow_nan=False))
    else:
        print("\n".join(_report_text(report, config.output)))
    return _NO_EXAMPLES if "dataset" in stages and not report.examples else 0


@contextmanager
def _progress_bar(quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar for each stage on a terminal; logs and pipes get none."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def show(progress: Progress) -> None:
        if progress.stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[progress.stage] = tqdm(desc=progress.stage, initial=progress.resumed, dynamic_ncols=True)
        bar = bars[progress.stage]
        bar.total, bar.n = progress.total, progress.done
        bar.set_postfix_str(f"{progress.failed} failed", refresh=False)
        bar.refresh()

    yield show
    for bar in bars.values():
        bar.close()


def _report_text(report: ColdStartReport, output: str) -> list[str]:
    lines = []
    for name, stage in report.stages.items():
        lines.append(f"{name:<11}{stage.items:>9} items, {stage.failed} failed")
        lines += [f"{count:>20}  {printable(kind)}" for kind, count in list(stage.failures.items())[:_SHOWN]]
    for name, spent in report.spent.items():
        cost = "" if spent.cost is None else f", cost {spent.cost:.4f}"
        tokens = f"{spent.prompt:,} + {spent.completion:,} tokens"
        lines.append(f"{name:<20}{spent.requests:>9} requests, {tokens}{cost}")
    if report.cost is not None:
        lines.append(f"cost in all: {report.cost:.4f}")
    if report.accuracy is not None:
        lines.append(f"the chosen traces agree with {report.accuracy:.1%} of the gold verdicts")
    lines.append(f"{report.examples} examples" + (f" in {output}/dataset" if report.examples else ""))
    return lines


def _estimate(args: argparse.Namespace, config: ColdStartConfig, stages: tuple[Stage, ...]) -> int:
    from ..training.coldstart.estimate import estimate_coldstart

    estimate = estimate_coldstart(config, stages=stages, limit=args.limit)
    print(json.dumps(asdict(estimate), indent=2) if args.json else "\n".join(_estimate_text(estimate)))
    return 0


def _estimate_text(estimate: Estimate) -> list[str]:
    lines = [f"{estimate.rows} rows, {estimate.candidates} candidates (known or expected); still to do:"]
    lines.append(f"{'stage':<12}{'who':<28}{'calls':>10}{'prompt tokens':>16}{'completion':>14}{'cost':>12}")
    for line in estimate.lines:
        cost = "-" if line.cost is None else f"{line.cost:.2f}"
        mark = " (measured)" if line.measured else ""
        tokens = f"{line.prompt:>16,}{line.completion:>14,}"
        lines.append(f"{line.stage:<12}{printable(line.who):<28}{line.calls:>10,}{tokens}{cost:>12}{mark}")
    lines.append("no price in the configuration" if estimate.cost is None else f"cost in all: {estimate.cost:.2f}")
    return lines
