"""From a decomposer model's words to principles, or to the reason why they cannot be used."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from editr1_plugins.types import CATEGORIES, FOLLOW, KEEP, QUALITY, Category, Principle

__all__ = ["COUNTS", "MAX_QUESTION", "is_yes_no", "read_principles"]

#: How many questions each category gets, fewest and most (Edit-R1, section 3.1).
COUNTS: Final[Mapping[Category, tuple[int, int]]] = {FOLLOW: (3, 4), KEEP: (3, 4), QUALITY: (2, 3)}
#: Longest question, in characters.
MAX_QUESTION: Final = 400

_MAX_TEXT: Final = 100_000
_MAX_ARRAYS: Final = 20
_BY_NAME: Final[Mapping[str, Category]] = {name.casefold(): name for name in CATEGORIES}
_OPENERS: Final = (
    "am are aren't can could did didn't do does doesn't don't had has hasn't have haven't is isn't may might must "
    "shall should was wasn't were weren't will would"
)
#: A verb that asks, at the beginning or after a clause that ends in a comma or colon.
_ASKS: Final = re.compile(rf"(?:^|[,:;]\s)\W*(?:{'|'.join(_OPENERS.split())})\b", re.IGNORECASE)
_OPEN_QUESTION: Final = re.compile(r"^\W*(?:what|which|who|whose|whom|where|when|why|how)\b", re.IGNORECASE)
_NUMBERING: Final = re.compile(r"^\s*(?:[Qq]?\d{1,2}\s?[.):]|[-*\u2022])\s+")


def read_principles(
    text: str, finish_reason: str = "stop", counts: Mapping[Category, tuple[int, int]] = COUNTS
) -> tuple[Principle, ...] | str:
    """The principles in a model's answer, or one sentence that says why there are none.

    The last complete JSON array of objects counts, outside of `<think>`; fences and prose around it are ignored. Every
    question must be a yes/no question, asked once, in a known category, and each category must have its number of
    questions (`counts`). Nothing is repaired but white space, numbering and the case of a category.
    """
    array = _last_array(_without_thought(text[:_MAX_TEXT]))
    if array is None:
        return "it was cut at the limit of tokens" if finish_reason == "length" else "it held no complete JSON array"
    principles: list[Principle] = []
    for number, row in enumerate(array, start=1):
        made = _principle(row)
        if isinstance(made, str):
            return f"entry {number} {made}"
        principles.append(made)
    return _objection(principles, counts) or tuple(principles)


def is_yes_no(question: str) -> bool:
    """Whether a question can be answered by yes or no, as far as its form tells.

    English is told by its verb; of a question in another script only the question mark is asked.
    """
    if not question.rstrip("\"'\u201d\u2019)").endswith(("?", "\uff1f", "\u061f")):
        return False
    if _OPEN_QUESTION.match(question):
        return False
    first = next((letter for letter in question if letter.isalpha()), "")
    return bool(_ASKS.search(question)) or not first.isascii()


def _without_thought(text: str) -> str:
    _, closed, answer = text.rpartition("</think>")
    if closed:
        return answer
    return text.partition("<think>")[0]


def _last_array(text: str) -> list[Any] | None:
    decoder, found, begin = json.JSONDecoder(), None, 0
    for _ in range(_MAX_ARRAYS):
        match = re.compile(r"\[\s*\{").search(text, begin)
        if match is None:
            break
        try:
            found, begin = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            begin = match.end()
    return found


def _principle(row: Any) -> Principle | str:
    if not isinstance(row, dict):
        return "is no object"
    question, category = row.get("question"), row.get("category")
    if not isinstance(question, str) or not question.strip():
        return 'has no "question"'
    if not isinstance(category, str) or _category(category) is None:
        return f'has no known "category"; the three are: {", ".join(CATEGORIES)}'
    question = _NUMBERING.sub("", " ".join(question.split()))
    if len(question) > MAX_QUESTION:
        return f"is longer than {MAX_QUESTION} characters"
    if not is_yes_no(question):
        return "is no yes/no question"
    return Principle(question=question, category=_category(category) or FOLLOW)


def _category(name: str) -> Category | None:
    return _BY_NAME.get(" ".join(name.replace("_", " ").replace("-", " ").split()).casefold())


def _objection(principles: list[Principle], counts: Mapping[Category, tuple[int, int]]) -> str | None:
    asked = Counter(re.sub(r"\W+", " ", each.question).strip().casefold() for each in principles)
    if asked and max(asked.values()) > 1:
        return "the same question was asked twice"
    given = Counter(each.category for each in principles)
    for category, (fewest, most) in counts.items():
        if not fewest <= given[category] <= most:
            return f'it has {given[category]} questions in "{category}", not {fewest} to {most}'
    return None
