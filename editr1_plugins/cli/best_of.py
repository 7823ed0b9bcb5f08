"""Make several edits, judge them, and keep the best: the judge at work without any training.

  editr1 best-of
  editr1 best-of photo.jpg "make the sky pink" --model black-forest-labs/FLUX.1-Kontext-dev -n 8
  editr1 best-of photo.jpg "make the sky pink" --model DIR --lora out --until 8 --max-rounds 4

Without --model, MiniEdit's tiny Kontext edits 32x32 drawings, downloads nothing, and draws one of them if no SOURCE is
given. With --until, rounds of N further edits of the source are made until one reaches that score.

DIR gets best.png, source.png and best_of.json, which tells of all edits; with --save-all, also edit-NN.png of each.
Seeds are fixed: the same command makes the same edits.

Exit status: 0 done (and --until reached); 2 usage or bad input; 3 nothing could be judged; 4 --until was not reached,
the best so far is saved; 1 anything else; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..evaluation.editors.loading import DTYPES
from ..types import MAX_SCORE
from . import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..reward.best_of import BestOf

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "make several edits and keep the one that the judge likes best"

_NOT_JUDGED = 3
_NOT_REACHED = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="image file to edit; default: a drawing")
    parser.add_argument("instruction", metavar="INSTRUCTION", nargs="?", help="what is asked for, in quotes")
    parser.add_argument("-n", metavar="N", type=int, default=8, help="edits (per round); default: 8")
    parser.add_argument("--until", metavar="SCORE", type=float, help="go on until an edit has this score, 0..10")
    parser.add_argument("--max-rounds", metavar="R", type=int, help="rounds at most; default with --until: 4")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the first edit; default: 0")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("editr1-best-of"), help="default: %(default)s"
    )
    parser.add_argument("--save-all", action="store_true", help="keep every edit, not only the best")
    parser.add_argument("--json", action="store_true", help="print the record of all edits as JSON")
    editor = parser.add_argument_group("editor")
    editor.add_argument(
        "--model", metavar="ID", help="id or folder of a diffusers pipeline; default: MiniEdit's Kontext"
    )
    editor.add_argument("--lora", metavar="PATH", help="LoRA that `pipe.load_lora_weights` takes, e.g. what grpo saved")
    editor.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on an accelerator, float32 on a CPU")
    editor.add_argument("--device", metavar="NAME", help="default: an accelerator where there is one")
    editor.add_argument("--batch-size", metavar="B", type=int, default=1, help="edits per pipeline call; default: 1")
    editor.add_argument("--steps", metavar="T", type=int, help="num_inference_steps; default: the pipeline's own")
    editor.add_argument(
        "--call", metavar="JSON", help="further arguments of its call, e.g. '{\"guidance_scale\": 3.5}'"
    )
    judge = parser.add_argument_group("judge")
    judge.add_argument("--verifier", metavar="SPEC", help="default: $EDITR1_VERIFIER, else measure")
    judge.add_argument("--decomposer", metavar="SPEC", help="default: $EDITR1_DECOMPOSER, else rules")
    judge.add_argument("--samples", metavar="K", type=int, default=1, help="times that each edit is judged; default: 1")
    judge.add_argument("--record", metavar="DIR", help="records for `editr1 report DIR`")


def run(args: argparse.Namespace) -> int:
    from ..reward.best_of import best_of
    from ..reward.rrm import EditRRMReward

    if (args.source is None) != (args.instruction is None):
        raise ConfigError("give SOURCE and INSTRUCTION, or neither")
    if args.source is None and args.model is not None:
        raise ConfigError("--model needs SOURCE and INSTRUCTION; only MiniEdit draws its own")
    source, instruction = _request(args)
    reward = EditRRMReward(args.verifier, args.decomposer, samples=args.samples, record=args.record)
    _ = reward.settings  # a judge that cannot be built is found before the editor is loaded
    pipe, call = _editor(args)
    found = best_of(
        pipe,
        source,
        instruction,
        n=args.n,
        reward=reward,
        until=args.until,
        max_rounds=args.max_rounds,
        seed=args.seed,
        batch_size=args.batch_size,
        call=call,
    )
    record = _save(found, source, args)
    print(json.dumps(record, indent=2, allow_nan=False) if args.json else "\n".join(_as_text(found, args.output)))
    if found.best is None:
        return _NOT_JUDGED
    return 0 if found.reached else _NOT_REACHED


def _request(args: argparse.Namespace) -> tuple[Image, str]:
    from ..images import read_image
    from ..miniedit.pairs import sample_tasks
    from ..miniedit.world import SIZE, draw

    if args.source is None:
        [task] = sample_tasks(1, seed=args.seed)
        return draw(task.scene), task.instruction
    source = read_image(args.source)
    if args.model is None and source.size != (SIZE, SIZE):
        size = f"{source.width}x{source.height}"
        raise ConfigError(f"MiniEdit edits drawings of {SIZE}x{SIZE} pixels, got {size}; give --model for photographs")
    return source, args.instruction


def _editor(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The pipeline on its device, and the arguments of its call."""
    from ..evaluation.editors.loading import load_lora, load_pipeline_of, pipeline_call

    model, call = args.model or "miniedit", _call(args)
    pipe = load_pipeline_of(model, dtype=args.dtype, device=args.device)
    if args.model is not None:
        pipe.set_progress_bar_config(disable=args.json or None)
    if args.lora is not None:
        load_lora(pipe, args.lora)
    return pipe, pipeline_call(model, call)


def _call(args: argparse.Namespace) -> dict[str, Any]:
    try:
        call = {} if args.call is None else json.loads(args.call)
    except ValueError as error:
        raise ConfigError(f"--call is not JSON: {error}") from None
    if not isinstance(call, dict):
        raise ConfigError(f"--call must be a JSON object, got {args.call!r}")
    return call if args.steps is None else {**call, "num_inference_steps": args.steps}


def _save(found: BestOf, source: Image, args: argparse.Namespace) -> dict[str, Any]:
    """Write pictures and record; returns the record."""
    folder: Path = args.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}") from None
    for stale in (folder / "best.png", *folder.glob("edit-[0-9]*.png")):
        stale.unlink(missing_ok=True)  # a former run's must not be taken for this one's
    source.save(folder / "source.png")
    if found.best is not None and found.best.image is not None:
        found.best.image.save(folder / "best.png")
    record = {"model": args.model or "MiniEdit", "lora": args.lora, **found.as_dict()}
    for each, row in zip(found.candidates, record["candidates"], strict=True):
        if args.save_all and each.image is not None:
            row["file"] = f"edit-{each.index:02}.png"
            each.image.save(folder / row["file"])
    (folder / "best_of.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return record


def _as_text(found: BestOf, folder: Path) -> list[str]:
    lines = [printable(found.instruction)]
    for each in found.candidates:
        verification = each.verification
        score = "  none" if verification.score is None else f"{verification.score:6.2f}"
        notes = [*(["best"] if each is found.best else []), *verification.flags, verification.failure or ""]
        lines.append(f"{score}  seed {each.seed:<6}{printable('; '.join(filter(None, notes)))}".rstrip())
    if found.best is None:
        return [*lines, f"no best edit: {printable(str(found.failure))}"]
    scores = [each.verification.score for each in found.candidates if each.verification.score is not None]
    mean = sum(scores) / len(scores)
    best = found.best.verification.score
    lines.append(f"best {best:.2f} of {MAX_SCORE:g}, mean of {len(scores)} judged {mean:.2f}; {folder / 'best.png'}")
    if not found.reached:
        lines.append(f"{found.until:g} was not reached in {found.candidates[-1].round} round(s)")
    return lines
