"""Judge one edit: its verdicts, and its score or the reason why there is none.

Exit status: 0 judged, 2 usage or bad input, 3 not judged.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..types import MAX_SCORE, Verification
from . import printable

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "judge one edit against the principles of its instruction"

_NOT_JUDGED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="image file before the edit")
    parser.add_argument("edited", metavar="EDITED", help="image file after the edit")
    parser.add_argument("instruction", metavar="INSTRUCTION", help="what was asked for, in quotes")
    parser.add_argument("--verifier", metavar="SPEC", help="judge; default: $EDITR1_VERIFIER, else measure")
    parser.add_argument(
        "--decomposer", metavar="SPEC", help="who writes the principles; default: $EDITR1_DECOMPOSER, else rules"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ..images import read_image
    from ..reward.rrm import EditRRMReward
    from ..types import Edit

    edit = Edit(source=read_image(args.source), edited=read_image(args.edited), instruction=args.instruction)
    reward = EditRRMReward(verifier=args.verifier, decomposer=args.decomposer)
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
