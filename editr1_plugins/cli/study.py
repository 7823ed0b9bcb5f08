"""Compare two editors by people: a blind page to answer, and the figures from what raters send back.

  editr1 study make --data pairs.jsonl --output study
  editr1 study make --edits edits.jsonl --a outputs/before --b outputs/after --output study
  editr1 study make --a runs/lora/before --b runs/lora --output study
  editr1 study score study answers/*.json

`editr1 study make --help` and `editr1 study score --help` say more.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError, DataError
from . import printable

if TYPE_CHECKING:
    from ..evaluation.study.score import Gsb, StudyFigures

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "compare two editors by people (GSB)"

_MAKE: Final = """Make a blind study of two editors: one page to answer, and the key of what it hides.

Rows of --data (JSONL, JSON or Parquet, a folder of them, or a hub id): `source`, `instruction`, `image_a`, `image_b`;
optional `id`, `category`, `system_a`, `system_b`. Or --edits with `id`, `source`, `instruction`, and two folders with
one image per id (ID.png, .jpg or .webp). Or two folders that `editr1 eval editor` wrote, --a and --b alone.

DIR gets `study.html`, which goes to the raters, and `key.json` and `images`, which do not: the key tells which side is
which. The page is one file, works without a network and sends nothing; raters answer by mouse or keyboard (1 or left,
2 or down, 3 or right), may stop and go on, and export a JSON file for `editr1 study score`.

Exit status: 0 written, 2 usage or bad input."""

_SCORE: Final = """Figures of a study from the raters' exported answers.

GSB = (G - B) / (G + S + B) in percent, G for the first system, with 95 % bootstrap intervals over items; per category
and rater; Krippendorff's alpha between raters. A changed file, one of another study, or two of one rater are errors.
--pairs writes the pairs that more than half of an item's raters decide, as `editr1 gcpo` reads them.

Exit status: 0 done, 2 usage or bad input."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    make = _kind(kinds, "make", "make a page for raters, and its key", _MAKE)
    make.add_argument("--data", metavar="PLACE", help="rows with both systems' images")
    make.add_argument("--edits", metavar="PLACE", help="rows without them; needs --a and --b")
    make.add_argument("--a", metavar="DIR", help="the first system's images, or its evaluation")
    make.add_argument("--b", metavar="DIR", help="the second system's images, or its evaluation")
    make.add_argument("--names", metavar="NAME", nargs=2, help="of the two systems; raters never see them")
    make.add_argument("--output", metavar="DIR", required=True, help="folder of the study; must not hold one")
    make.add_argument("--title", metavar="TEXT", default="Which edit is better?", help="of the page")
    make.add_argument("--guide", metavar="FILE", help="plain text that raters read first")
    make.add_argument("--size", metavar="PIXELS", type=int, default=768, help="largest side of an image; default: 768")
    make.add_argument("--limit", metavar="N", type=int, help="at most N rows, drawn at random")
    make.add_argument("--seed", metavar="TEXT", help="of order and sides, to be kept secret; default: a new one")
    make.add_argument("--json", action="store_true", help="print one JSON object")
    make.set_defaults(run_kind=_make)
    score = _kind(kinds, "score", "figures from exported answers", _SCORE)
    score.add_argument("study", metavar="DIR", help="folder of the study")
    score.add_argument("answers", metavar="FILE", nargs="+", help="exported answers, or folders of them")
    score.add_argument("--pairs", metavar="DIR", help="write the pairs with a winner as a data set")
    score.add_argument("--json", action="store_true", help="print one JSON object")
    score.set_defaults(run_kind=_score)


def run(args: argparse.Namespace) -> int:
    status: int = args.run_kind(args)
    return status


def _kind(
    kinds: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, text: str
) -> argparse.ArgumentParser:
    made = kinds.add_parser(name, help=summary, description=text)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    # SUPPRESS: the default must not overwrite `editr1 --debug study ...`.
    made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return made


def _make(args: argparse.Namespace) -> int:
    from ..evaluation.study.make import make_study
    from ..evaluation.study.rows import from_folders, from_rows, from_runs

    both, neither = None not in (args.a, args.b), (args.a, args.b) == (None, None)
    if not (both and args.data is None) and not (neither and args.data is not None and args.edits is None):
        raise ConfigError("give --data, or --edits with --a and --b, or two evaluations as --a and --b")
    named = tuple(args.names) if args.names else None
    if args.data is not None:
        rows = from_rows(args.data)
    else:
        rows = from_runs(args.a, args.b) if args.edits is None else from_folders(args.edits, args.a, args.b)
        named = named or (Path(args.a).resolve().name, Path(args.b).resolve().name)
    made = make_study(
        rows,
        args.output,
        systems=named,
        title=args.title,
        guide="" if args.guide is None else _text(Path(args.guide)),
        size=args.size,
        limit=args.limit,
        seed=args.seed,
    )
    if args.json:
        print(json.dumps(asdict(made), indent=2))
        return 0
    first, second = map(printable, made.systems)
    left_out = f", {made.left_out} left out" if made.left_out else ""
    print(f"{printable(made.page)}: {made.items} items{left_out}, {made.bytes / 1e6:.1f} MB; send it to the raters")
    print(f"{printable(made.key)}: which side is {first} and which {second}; keep it")
    if made.identical:
        print(f"of {made.identical} items both images are the same")
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text in UTF-8") from None


def _score(args: argparse.Namespace) -> int:
    from ..evaluation.study.answers import read_answers
    from ..evaluation.study.key import read_key
    from ..evaluation.study.score import save_majority, score_study

    folder = Path(args.study)
    key = read_key(folder)
    exports = read_answers(args.answers, key)
    figures = score_study(key, exports)
    pairs = None if args.pairs is None else save_majority(key, exports, folder, args.pairs)
    if args.json:
        found = asdict(figures) | ({} if pairs is None else {"pairs": pairs})
        print(json.dumps(found, indent=2, allow_nan=False))
        return 0
    print("\n".join(_as_text(figures)))
    if pairs is not None:
        dropped = ", ".join(f"{count} {name}" for name, count in pairs.items() if name != "pairs")
        print(f"\n{printable(args.pairs)}: {pairs['pairs']} pairs; dropped: {dropped}")
    return 0


def _as_text(figures: StudyFigures) -> list[str]:
    first, second = map(printable, figures.systems)
    raters = f"{len(figures.raters)} rater{'s' if len(figures.raters) > 1 else ''}"
    lines = [f"{first} against {second}: {figures.items} items, {raters}, {figures.unanswered} answers missing", ""]
    lines.append(f"GSB  {_gsb(figures.gsb)}   (above 0: {first} is better)")
    if list(figures.categories) != [""]:
        lines += ["", "by category", *_table({name or "none": gsb for name, gsb in figures.categories.items()})]
    lines += ["", "by rater", *_table({name: rater.gsb for name, rater in figures.raters.items()})]
    for name, rater in figures.raters.items():
        pace = "" if rater.median_seconds is None else f", {rater.median_seconds:.1f} s an item (median)"
        side = "" if rater.left_share is None else f", left preferred {rater.left_share:.0f} %"
        lines.append(f"  {printable(name)}: {rater.answered} answered, {rater.unanswered} not{pace}{side}")
    vote, agreed = figures.majority, figures.agreement
    counts = f"{vote.good} {first}, {vote.same} same, {vote.bad} {second}, {vote.undecided} undecided"
    lines += ["", f"majority by item: {counts}, {vote.unanswered} unanswered"]
    nominal = _alpha(agreed.nominal, agreed.nominal_interval)
    ordinal = _alpha(agreed.ordinal, agreed.ordinal_interval)
    lines.append(f"Krippendorff's alpha over {agreed.items} items: nominal {nominal}, ordinal {ordinal}")
    return lines


def _table(rows: dict[str, Gsb]) -> list[str]:
    width = min(32, max(len(printable(name)) for name in rows))
    return [f"  {printable(name).ljust(width)}  {_gsb(gsb)}" for name, gsb in rows.items()]


def _gsb(found: Gsb) -> str:
    if found.gsb is None:
        return "no answers"
    told = "" if found.interval is None else f" [{found.interval[0]:+.1f}, {found.interval[1]:+.1f}]"
    return f"{found.gsb:+.1f} %{told}  G {found.good}  S {found.same}  B {found.bad}"


def _alpha(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "not defined"
    return f"{value:.3f}" + ("" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]")
