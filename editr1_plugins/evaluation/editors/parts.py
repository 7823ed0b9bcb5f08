"""Numbers of the public benchmarks from what our judges say, on the benchmarks' scales.

A judge that answers questions gives, besides its score, the share of met questions per category: follow, keep and
quality, here in 0..10. VIEScore-style judges give the same parts by themselves. Nothing is made up: a part that no
question was about stays missing, and so does what needs it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from editr1_plugins.types import FOLLOW, KEEP, MAX_SCORE, QUALITY

__all__ = ["five_point", "parts_of_record", "semantic_numbers"]

_CATEGORIES: Final = {FOLLOW: "follow", KEEP: "keep", QUALITY: "quality"}
#: What `VIEScoreVerifier` writes as the last line of its trace.
_STATED: Final = re.compile(r"\[follow (\d+\.\d+), keep (\d+\.\d+), quality (\d+\.\d+)\]$")


def parts_of_record(record: Mapping[str, Any]) -> dict[str, float]:
    """ "follow", "keep" and "quality" in 0..10, as far as a record of a judged edit tells them."""
    if str(record.get("prompt_version") or "").startswith("viescore-"):
        stated = _STATED.search(str(record.get("trace") or "")[-120:])
        if stated:
            return dict(zip(_CATEGORIES.values(), map(float, stated.groups()), strict=True))
    answers: dict[str, list[bool]] = {}
    for verdict in record.get("verdicts") or ():
        name = _CATEGORIES.get(verdict.get("category"))
        if name is not None and isinstance(verdict.get("passed"), bool):
            answers.setdefault(name, []).append(verdict["passed"])
    return {
        name: MAX_SCORE * sum(answers[name]) / len(answers[name]) for name in _CATEGORIES.values() if name in answers
    }


def semantic_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """SC, PQ and O in 0..10 as VIEScore and GEdit-Bench have them: SC = min(follow, keep), PQ, O = sqrt(SC x PQ).

    Recorded numbers that are called SC and PQ already are taken as they are.
    """
    found = {name: numbers[name] for name in ("SC", "PQ") if name in numbers}
    if "follow" in numbers and "keep" in numbers:
        found.setdefault("SC", min(numbers["follow"], numbers["keep"]))
    if "quality" in numbers:
        found.setdefault("PQ", numbers["quality"])
    if len(found) == 2:
        found["O"] = math.sqrt(found["SC"] * found["PQ"])
    return found


def five_point(part: float) -> float:
    """0..10 on the scale 1..5 of ImgEdit, KRIS and RISE; not rounded."""
    return 1.0 + 4.0 * part / MAX_SCORE
