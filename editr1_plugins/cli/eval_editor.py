"""How good is an editor? A benchmark's pictures edited, judged and counted, officially and honestly.

  editr1 eval editor --bench gedit --model black-forest-labs/FLUX.1-Kontext-dev --verifier openai:MODEL@URL --output DIR
  editr1 eval editor --bench miniedit --model miniedit --lora outputs/lora --before --output DIR
  editr1 eval editor --bench gedit --images edits/ --verifier viescore:MODEL@URL --output DIR
  editr1 eval editor --bench kris --predictions results/ --json

`editr1 plugins` lists the benchmarks. --data is a local folder or file, or a hub id; without it the benchmark's own hub
data set is loaded. Edits come from a diffusers pipeline (--model, with --lora), or were made already (--images: a
folder of KEY.png). An edit's seed follows from its key: it is the same in any order, number and share. DIR keeps every
edit and answer: the same command goes on where it was stopped, even by kill -9. --predictions counts what the
benchmark's own judge answered before, in its raw format.

--before evaluates the pipeline without the LoRA as well, in DIR/before; --compare DIR2 takes another run. Both are
compared edit by edit, with intervals. `editr1 report DIR -o page.html` shows it all.

Many processes: run each with --shard 0/8 ... --shard 7/8 and the same --output (or start one command with
`accelerate launch`, which says so by itself); these only make edits. Then the command without --shard judges them.

Exit status: 0 done; 2 usage or bad input; 3 done, and some edits failed; 1 anything else; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError
from ..evaluation.editors.loading import DTYPES
from . import printable
from .eval_judge import numbers_as_text

if TYPE_CHECKING:
    from ..evaluation.editors.generating import Progress
    from ..evaluation.editors.items import EditorBenchmark
    from ..evaluation.editors.sampling import Editor
    from ..reward.bulk_rows import BulkSummary
    from ..types import Verifier

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "quality of an editor's edits on a benchmark, before and after training"

_SOME_FAILED: Final = 3
_BEFORE: Final = "before"
_COLUMNS: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bench", metavar="NAME", required=True, help="the benchmark")
    parser.add_argument("--data", metavar="PLACE", help="its folder, file or hub id; default: its own hub data set")
    parser.add_argument("--output", metavar="DIR", help="where edits and answers are kept")
    parser.add_argument("--limit", metavar="N", type=int, help="the first N edits")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--retry-failed", action="store_true", help="try again where there is no edit or answer so far")
    editor = parser.add_argument_group("editor")
    editor.add_argument("--model", metavar="ID", help="id or folder of a diffusers pipeline, or miniedit")
    editor.add_argument("--lora", metavar="PATH", help="LoRA that `pipe.load_lora_weights` takes, e.g. what grpo saved")
    editor.add_argument("--images", metavar="FOLDER", help="edits that were made already, KEY.png, of any editor")
    editor.add_argument("--seed", metavar="S", type=int, default=0, help="of all edits; default: 0")
    editor.add_argument("--steps", metavar="T", type=int, help="num_inference_steps; default: the pipeline's own")
    editor.add_argument(
        "--call", metavar="JSON", help="further arguments of its call, e.g. '{\"guidance_scale\": 3.5}'"
    )
    editor.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on an accelerator, float32 on a CPU")
    editor.add_argument("--device", metavar="NAME", help="default: an accelerator where there is one, by local rank")
    editor.add_argument("--shard", metavar="I/N", help="only make every N-th edit from the I-th, from 0")
    judge = parser.add_argument_group("judge")
    judge.add_argument("--verifier", metavar="SPEC", help="default: $EDITR1_VERIFIER, else gold where there is one")
    judge.add_argument("--samples", metavar="K", type=int, default=1, help="times that each edit is judged; default: 1")
    judge.add_argument("--mode", metavar="MODE", help="of a VLM that judges by principles: think, verify, think+verify")
    judge.add_argument("--decomposer", metavar="SPEC", help="default: $EDITR1_DECOMPOSER, else rules")
    judge.add_argument("--cache", metavar="FILE", help="sqlite file of principles, as `editr1 decompose` fills it")
    judge.add_argument("--guards", action="store_true", help="let the reward's guards object, as in training")
    judge.add_argument("--batch-size", metavar="N", type=int, default=32, help="edits judged at a time; default: 32")
    judge.add_argument("--predictions", metavar="FILE", help="recorded answers (a file or folder); edits nothing")
    other = parser.add_argument_group("comparison")
    other.add_argument("--before", action="store_true", help="also evaluate the pipeline without the LoRA")
    other.add_argument("--compare", metavar="DIR", help="an earlier run on the same benchmark, to compare with")


def run(args: argparse.Namespace) -> int:
    from ..evaluation.editors.catalogue import find_editor_benchmark, read_recorded_edits
    from ..evaluation.editors.running import compare_with, write_summary
    from ..evaluation.editors.summary import evaluate_edits

    _check(args)
    benchmark = find_editor_benchmark(args.bench)
    if args.predictions is not None:
        rows = read_recorded_edits(benchmark, Path(args.predictions), args.data)[: args.limit]
        found = evaluate_edits(benchmark, rows)
        directory = None
    else:
        directory = Path(args.output)
        found = _evaluated(args, benchmark, directory)
        if found["kind"] == "shard":
            print(json.dumps(found) if args.json else f"{found['made']} edits made, {found['failed']} failed")
            return _SOME_FAILED if found["failed"] else 0
        rows = read_recorded_edits(benchmark, directory, None)
    other = directory / _BEFORE if args.before and directory is not None else args.compare
    if other is not None:
        found["comparison"] = compare_with(benchmark, rows, directory, Path(other), args.data)
        if directory is not None:
            write_summary(directory, found)
    print(json.dumps(found, indent=2, allow_nan=False) if args.json else "\n".join(_as_text(found)))
    return _SOME_FAILED if found["sane"]["failure_rate"] else 0


def _check(args: argparse.Namespace) -> None:
    ways = [name for name in ("model", "images", "predictions") if getattr(args, name) is not None]
    if len(ways) != 1:
        raise ConfigError("give one of --model ID, --images FOLDER and --predictions FILE")
    if args.predictions is None and args.output is None:
        raise ConfigError("give --output DIR, where edits and answers are kept")
    if args.lora is not None and args.model is None:
        raise ConfigError("--lora needs --model")
    if args.before and (args.lora is None or args.compare is not None):
        raise ConfigError("--before compares a LoRA with the pipeline without it: give --lora, and no --compare")
    if args.predictions is not None and (args.verifier is not None or args.shard is not None):
        raise ConfigError("--predictions asks no judge and makes no edits; leave --verifier and --shard out")
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}")


def _evaluated(args: argparse.Namespace, benchmark: EditorBenchmark, directory: Path) -> dict[str, Any]:
    """Make, judge and count; with `--before`, first without the LoRA, in a folder of its own."""
    from ..evaluation.editors.running import evaluate_editor, first_edits, only_make

    judge, items = _judge(args), first_edits(benchmark, args.data, args.limit)
    shard, shown = _shard(args.shard), not args.json and sys.stderr.isatty()
    making = _show_edits if shown else None
    for place, editor in _editors(args, directory):
        if shard is not None:
            retry = args.retry_failed
            found = only_make(
                items, place, editor, benchmark=benchmark, shard=shard, retry_failed=retry, progress=making
            )
            continue
        found = evaluate_editor(
            benchmark,
            items,
            editor,
            judge,
            place,
            reward=_reward(args),
            batch_size=args.batch_size,
            retry_failed=args.retry_failed,
            making=making,
            judging=_show_answers if shown else None,
        )
        if shown:
            print(file=sys.stderr)
    return found


def _editors(args: argparse.Namespace, directory: Path) -> Any:
    """(directory, editor), one after the other; the last is what was asked for."""
    from ..evaluation.editors.loading import load_lora, load_pipeline_of, lora_digest, pipeline_call
    from ..evaluation.editors.sampling import FolderEditor, PipelineEditor

    if args.images is not None:
        yield directory, FolderEditor(Path(args.images))
        return
    pipe = load_pipeline_of(args.model, dtype=args.dtype, device=args.device)
    call = pipeline_call(args.model, _call(args))

    def editor(lora: str | None) -> Editor:
        told = {"model": args.model, "lora": lora, "lora_digest": None if lora is None else lora_digest(lora)}
        return PipelineEditor(pipe, call=call, seed=args.seed, told={**told, "dtype": args.dtype})

    if args.before:
        yield directory / _BEFORE, editor(None)
    if args.lora is not None:
        load_lora(pipe, args.lora)
    yield directory, editor(args.lora)


def _judge(args: argparse.Namespace) -> Verifier | None:
    from ..evaluation.judges import resolve_judge
    from ..reward.rrm import VERIFIER_VARIABLE
    from ..types import Verifier

    spec = args.verifier or os.environ.get(VERIFIER_VARIABLE, "").strip()
    if not spec:
        return None
    judge = resolve_judge(spec, mode=args.mode)
    if not isinstance(judge, Verifier):
        raise ConfigError(f"judge {spec!r} compares pairs; edits are judged one by one")
    return judge


def _reward(args: argparse.Namespace) -> dict[str, Any]:
    from ..reward.rrm import DEFAULT_GUARD_NAMES

    given = {"decomposer": args.decomposer, "cache": args.cache, "samples": args.samples}
    found: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return {**found, "guards": DEFAULT_GUARD_NAMES} if args.guards else found


def _call(args: argparse.Namespace) -> dict[str, Any]:
    try:
        call = {} if args.call is None else json.loads(args.call)
    except ValueError as error:
        raise ConfigError(f"--call is not JSON: {error}") from None
    if not isinstance(call, dict):
        raise ConfigError(f"--call must be a JSON object, got {args.call!r}")
    return call if args.steps is None else {**call, "num_inference_steps": args.steps}


def _shard(text: str | None) -> tuple[int, int] | None:
    """(i, n) as given, else as `accelerate launch` or `torchrun` says; None for a process of its own."""
    if text is None:
        world = os.environ.get("WORLD_SIZE", "1")
        if not world.isdigit() or int(world) < 2:
            return None
        text = f"{os.environ.get('RANK', '0')}/{world}"
    index, slash, count = text.partition("/")
    if not slash or not index.isdigit() or not count.isdigit() or not int(index) < int(count):
        raise ConfigError(f"--shard is I/N with I in 0..N-1, got {text!r}")
    return int(index), int(count)


def _show_edits(told: Progress) -> None:
    before = f", {told.resumed} of them before" if told.resumed else ""
    print(f"\r{told.made} edits, {told.failed} failed{before}", end="", file=sys.stderr, flush=True)


def _show_answers(summary: BulkSummary) -> None:
    before = f", {summary.resumed} of them before" if summary.resumed else ""
    print(f"\r{summary.rows} judged, {summary.failed} failed{before}", end="", file=sys.stderr, flush=True)


def _as_text(found: dict[str, Any]) -> list[str]:
    """What a person wants first; --json has everything."""
    overall, sane = found["overall"], found["sane"]
    lines = [f"{printable(found['benchmark'])}, {found['items']} edits, {sane['failure_rate']:g} % failed"]
    lines += [f"  {count} x {printable(kind)}" for kind, count in sane["failures"].items()]
    lines += ["", "official", *numbers_as_text(found["official"])]
    columns = sorted(sane["mean"], key=lambda name: name != overall)[:_COLUMNS]
    lines += ["", "sane (a failed edit has no number)", _line("", [*columns, f"95 % of {overall}"])]
    lines.append(_line("all", [*_cells(sane["mean"], columns), _limits(sane["interval"].get(overall))]))
    if "by_category" in sane:
        limits = _limits(sane["macro_interval"].get(overall))
        lines.append(_line("mean of categories", [*_cells(sane["macro"], columns), limits]))
        for name, row in sane["by_category"].items():
            lines.append(_line(name, [*_cells(row, columns), _limits(row.get("interval"))]))
    return [*lines, *_comparison(found.get("comparison"), overall)]


def _comparison(found: dict[str, Any] | None, overall: str) -> list[str]:
    if found is None:
        return []
    head = ["items", "before", "after", "difference", "95 %"]
    lines = ["", "comparison on the same edits", _line("", head)]
    rows = [*found["numbers"].items()]
    rows += [(f"{overall}, {name}", table[overall]) for name, table in found.get("by_category", {}).items()]
    for name, row in rows:
        cells = [str(row["items"]), *_cells(row, ["before", "after", "difference"]), _limits(row["interval"])]
        lines.append(_line(name, cells))
    failed = found["only_before_failed"], found["only_after_failed"]
    return [*lines, f"  failed only before: {failed[0]}, only after: {failed[1]}"]


def _line(name: str, cells: list[str]) -> str:
    return f"  {printable(name)[:27]:<28}" + "".join(f"{printable(cell):>14}" for cell in cells)


def _cells(row: dict[str, Any], names: list[str]) -> list[str]:
    return ["-" if row.get(name) is None else f"{row[name]:.2f}" for name in names]


def _limits(limits: list[float] | None) -> str:
    return "-" if limits is None else f"{limits[0]:.2f}..{limits[1]:.2f}"
