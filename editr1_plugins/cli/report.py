"""Make one HTML page from a directory of records, to look at edits and at what their judge said.

  editr1 report DIR -o page.html

DIR is what `EditRRMReward(record="DIR")`, `editr1 score --input FILE --output DIR` or `editr1 eval ... --output DIR`
left. The page needs no network and no other file.

Of an evaluation it shows tables with intervals, curves, the worst cases, and what moved between two runs; --records
treats it as the directory of records that it is, too. Of records it shows the distribution of scores, failures, flags
and verdict rates, and every edit with its verdicts, reasons and trace; edits can be filtered and sorted, and the
address in the browser keeps the view.

Exit status: 0 written, 2 usage, no records, or a file that cannot be written.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from . import printable

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "make one HTML page from records or from an evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="directory of records")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the page to write")
    parser.add_argument("--title", metavar="TEXT", help="of the page; default: the directory's name")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=1000, help="edits to list, drawn evenly; default: 1000"
    )
    parser.add_argument(
        "--thumbnail", metavar="PIXELS", type=int, default=288, help="largest side of an image; default: 288"
    )
    parser.add_argument("--records", action="store_true", help="list the records of an evaluation one by one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ..report.evaluation import is_evaluation, write_evaluation_report
    from ..report.page import write_report

    if is_evaluation(args.directory) and not args.records:
        made = write_evaluation_report(args.directory, args.output, title=args.title, thumbnail=args.thumbnail)
    else:
        made = write_report(args.directory, args.output, title=args.title, limit=args.limit, thumbnail=args.thumbnail)
    if args.json:
        print(json.dumps({"page": args.output, **asdict(made)}, indent=2))
        return 0
    print(f"{printable(args.output)}: {made.records} edits, {made.listed} listed, {made.bytes / 1e6:.1f} MB")
    if made.missing:
        print(f"{made.missing} images are missing or broken")
    return 0
