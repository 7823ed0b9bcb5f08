"""How good is a judge? Its agreement with people on a benchmark, in the official arithmetic and an honest one.

  editr1 eval judge --bench genai-bench --verifier openai:MODEL@URL --output DIR
  editr1 eval judge --bench imagenhub --predictions results.json --json
  editr1 eval judge --bench pairs --data pairs.jsonl --verifier measure --output DIR

`editr1 plugins` lists the benchmarks. --data is a local folder or file, or a hub id; without it the benchmark's own hub
data set is loaded. Judges: any verifier, `viescore:MODEL@URL`, and for pairs `pairwise:MODEL@URL`. DIR keeps every
answer: the same command goes on where it was stopped, even by kill -9. --predictions counts answers that were recorded
before, in the benchmark's own raw format or a DIR of this command; no judge is called.

Shares are in percent with 95 % bootstrap intervals; a failed answer is wrong, not left out, save where the official
script leaves it out. Of ratings there are correlations; what failed has no rank, and is counted. --compare also keeps
the difference in DIR, for `editr1 report DIR -o page.html`.

Exit status: 0 done; 2 usage or bad input; 3 done, and some answers failed; 1 anything else; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError
from . import printable

if TYPE_CHECKING:
    from ..evaluation.items import Benchmark
    from ..evaluation.judging import Prices
    from ..reward.bulk_rows import BulkSummary

__all__ = ["SUMMARY", "add_arguments", "numbers_as_text", "run"]

SUMMARY = "agreement of a judge with people"

_SOME_FAILED: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bench", metavar="NAME", required=True, help="the benchmark")
    parser.add_argument("--data", metavar="PLACE", help="its folder, file or hub id; default: its own hub data set")
    parser.add_argument("--predictions", metavar="FILE", help="recorded answers (a file or folder); asks no judge")
    parser.add_argument("--compare", metavar="FILE", help="recorded answers of another judge, for a paired comparison")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    judge = parser.add_argument_group("asking a judge")
    judge.add_argument("--verifier", metavar="SPEC", help="the judge; default: $EDITR1_VERIFIER, else measure")
    judge.add_argument("--output", metavar="DIR", help="where answers are kept")
    judge.add_argument("--limit", metavar="N", type=int, help="the first N rows")
    judge.add_argument("--samples", metavar="K", type=int, default=1, help="answers per edit; default: 1")
    judge.add_argument("--copies", metavar="N", type=int, default=0, help="judge N unchanged sources as edits, too")
    judge.add_argument("--one-order", action="store_true", help="show each pair to a pairwise judge once")
    judge.add_argument("--mode", metavar="MODE", help="of a VLM that judges by principles: think, verify, think+verify")
    judge.add_argument("--temperature", metavar="T", type=float, help="of a VLM")
    judge.add_argument("--max-tokens", metavar="N", type=int, help="of one answer of a VLM")
    judge.add_argument("--seed", metavar="N", type=int, help="of a VLM, where its server supports one")
    judge.add_argument(
        "--decomposer", metavar="SPEC", help="who writes principles; default: $EDITR1_DECOMPOSER, else rules"
    )
    judge.add_argument("--cache", metavar="FILE", help="sqlite file of principles, as `editr1 decompose` fills it")
    judge.add_argument("--guards", action="store_true", help="let the reward's guards object, as in training")
    judge.add_argument("--batch-size", metavar="N", type=int, default=32, help="edits at a time; default: 32")
    judge.add_argument("--retry-failed", action="store_true", help="ask again where there is no answer so far")
    judge.add_argument("--price-prompt", metavar="X", type=float, help="of a million prompt tokens, for the cost")
    judge.add_argument("--price-completion", metavar="X", type=float, help="of a million tokens of answers")
    judge.add_argument("--price-cached", metavar="X", type=float, help="of a million prompt tokens from a cache")


def run(args: argparse.Namespace) -> int:
    from ..evaluation.catalogue import find_benchmark, read_predictions
    from ..evaluation.items import first_rows
    from ..evaluation.judging import write_judge_summary
    from ..evaluation.summary import compare_judges, evaluate

    if (args.predictions is None) == (args.output is None):
        raise ConfigError("give --output DIR to ask a judge, or --predictions FILE to count recorded answers")
    benchmark = find_benchmark(args.bench)
    if args.predictions is not None:
        if args.verifier is not None:
            raise ConfigError("--predictions asks no judge; leave --verifier out")
        rows = read_predictions(benchmark, Path(args.predictions), args.data)
        judged = list(first_rows(rows, args.limit, ranked=benchmark.ranked))
        found = evaluate(benchmark, judged)
    else:
        found = _asked(args, benchmark)
        judged = read_predictions(benchmark, Path(args.output), None)
    if args.compare is not None:
        others = read_predictions(benchmark, Path(args.compare), args.data)
        found["comparison"] = compare_judges(judged, others, headline=benchmark.headline, ranked=benchmark.ranked)
        if args.output is not None:
            write_judge_summary(Path(args.output), found)
    print(json.dumps(found, indent=2, allow_nan=False) if args.json else "\n".join(_as_text(found)))
    return _SOME_FAILED if found["sane"].get("failure_rate") else 0


def _asked(args: argparse.Namespace, benchmark: Benchmark) -> dict[str, Any]:
    import os

    from ..evaluation.judges import resolve_judge
    from ..evaluation.judging import evaluate_judge
    from ..reward.rrm import DEFAULT_GUARD_NAMES, VERIFIER_VARIABLE

    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}")
    spec = args.verifier or os.environ.get(VERIFIER_VARIABLE, "").strip() or "measure"
    judge = resolve_judge(
        spec, mode=args.mode, temperature=args.temperature, max_tokens=args.max_tokens, seed=args.seed
    )
    reward = {"decomposer": args.decomposer, "cache": args.cache}
    reward = {name: value for name, value in reward.items() if value is not None}
    shown = not args.json and sys.stderr.isatty()
    found = evaluate_judge(
        benchmark,
        args.data,
        judge,
        Path(args.output),
        limit=args.limit,
        samples=args.samples,
        copies=args.copies,
        both_orders=not args.one_order,
        prices=_prices(args),
        reward={**reward, "guards": DEFAULT_GUARD_NAMES} if args.guards else reward,
        batch_size=args.batch_size,
        retry_failed=args.retry_failed,
        progress=_show_progress if shown else None,
    )
    if shown:
        print(file=sys.stderr)
    return found


def _prices(args: argparse.Namespace) -> Prices | None:
    from ..evaluation.judging import Prices

    given = [args.price_prompt, args.price_completion]
    if given == [None, None] and args.price_cached is None:
        return None
    if None in given:
        raise ConfigError("a cost needs --price-prompt and --price-completion")
    return Prices(prompt=args.price_prompt, completion=args.price_completion, cached=args.price_cached)


def _show_progress(summary: BulkSummary) -> None:
    before = f", {summary.resumed} of them before" if summary.resumed else ""
    line = f"\r{summary.rows} answers, {summary.failed} failed{before}"
    print(line, end="", file=sys.stderr, flush=True)


def _as_text(found: dict[str, Any]) -> list[str]:
    lines = [f"{printable(found['benchmark'])}, {found['items']} rows"]
    lines += ["", "official", *numbers_as_text(found["official"])]
    failure = "a failure is wrong" if "accuracy" in found["sane"] else "failures are left out, and counted"
    lines += ["", f"sane ({failure}; 95 % intervals)", *numbers_as_text(found["sane"])]
    for name in ("copies", "stability", "comparison", "taken"):
        if name in found:
            lines += ["", name, *numbers_as_text(found[name])]
    return lines


def numbers_as_text(table: dict[str, Any], depth: int = 1) -> list[str]:
    """A nested table as indented lines; what is not known is left out."""
    lines = []
    for name, value in table.items():
        lead = "  " * depth + printable(str(name)).ljust(max(2, 26 - 2 * depth))
        if isinstance(value, dict) and value and not any(isinstance(each, dict) for each in value.values()):
            cells = [f"{printable(str(key))} {_cell(each)}" for key, each in value.items()]
            lines += (
                [f"{lead}  {', '.join(cells)}"]
                if len(cells) <= 8
                else [lead.rstrip(), *numbers_as_text(value, depth + 1)]
            )
        elif isinstance(value, dict):
            lines += [lead.rstrip(), *numbers_as_text(value, depth + 1)] if value else []
        elif value is not None:
            lines.append(f"{lead}  {_cell(value)}")
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_cell(each) for each in value)}]"
    if isinstance(value, float):
        return "0" if value == 0 else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
    return printable(str(value))
