"""Judge many edits with Ray Data: each worker holds a reward of its own; what is done stays done.

    python integrations/ray/judge_many.py edits.jsonl --output judged --workers 8

Started again, it judges only what has no record. Input, images and output lie where every machine sees them.
RAY_ADDRESS names a cluster, else Ray is started here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from editr1_plugins.reward.bulk_rows import BulkSummary
from editr1_plugins.reward.ray_bulk import score_file_with_ray


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", help="JSONL with source, edited, instruction; images below its folder")
    parser.add_argument("--output", required=True, help="directory of the records")
    parser.add_argument("--verifier", default="measure", help="the judge; default: %(default)s")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=float, help="of each worker, for a judge that runs in it")
    parser.add_argument("--retry-failed", action="store_true")
    args = parser.parse_args(arguments)
    summary = score_file_with_ray(
        args.rows,
        args.output,
        workers=args.workers,
        resources=None if args.gpus is None else {"num_gpus": args.gpus},
        retry_failed=args.retry_failed,
        progress=lambda so_far: print(line(so_far), file=sys.stderr),
        verifier=args.verifier,
    )
    print(line(summary))
    return 0 if summary.scored or not summary.rows else 1


def line(summary: BulkSummary) -> str:
    mean = "none" if summary.mean is None else f"{summary.mean:.2f}"
    counts = f"{summary.rows} rows: {summary.scored} scored (mean {mean}), {summary.failed} without a score"
    return f"{counts}, {summary.resumed} judged before"


if __name__ == "__main__":
    raise SystemExit(main())
