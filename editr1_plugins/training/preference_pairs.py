"""Human preference pairs as the rows that `GCPOTrainer` trains on: the winner's prompt, then the loser's.

A pair is a dataset row with `source`, `winner`, `loser` (images) and `instruction`; `principles` (a list of `question`
and `category`) where they were made before. Both sides get the same principles and the same prompt, which is the one
that the judge is asked with later. Images are read when a row is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..errors import DataError
from ..images import read_image_cell
from ..principles.chain import decompose_contained
from ..types import Decomposer, Edit, Principle
from ..verifiers.prompting import Mode, judge_request

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "SIDES",
    "add_principles",
    "judge_messages",
    "missing_principles",
    "pair_rows",
    "synthetic_count",
    "with_principles",
]

_log = logging.getLogger(__name__)

#: In this order the sides of a pair follow each other.
SIDES: Final = ("winner", "loser")
_COLUMNS: Final = ("source", *SIDES, "instruction")
_SHOWN: Final = 20
_BATCH: Final = 32


def judge_messages(
    edit: Edit, principles: Sequence[Principle], mode: Mode = "think+verify"
) -> tuple[list[dict[str, Any]], list[Any]]:
    """The judge's request for one edit as chat messages with image places, and the two images that go there.

    Raises:
        DataError: a blank or overlong instruction, or no principles.
    """
    request = judge_request(edit, principles, mode)
    content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in request.parts]
    system = {"role": "system", "content": [{"type": "text", "text": request.system}]}
    return [system, {"role": "user", "content": content}], [part for part in request.parts if not isinstance(part, str)]


def with_principles(pairs: Dataset, decomposer: Decomposer) -> Dataset:
    """The pairs with a column `principles`, made by `decomposer` where it is missing or empty.

    Raises:
        DataError: a column is missing, or no pair is left (see `add_principles`).
    """
    return add_principles(pairs, missing_principles(pairs, decomposer))


def missing_principles(pairs: Dataset, decomposer: Decomposer) -> dict[int, tuple[Principle, ...]]:
    """By number of the pair, what `decomposer` makes for those without principles; `NoPrinciples` where it cannot.

    Raises:
        DataError: a column is missing, or a source cannot be read.
    """
    _check_columns(pairs)
    given: list[Any] = list(pairs["principles"]) if "principles" in pairs.column_names else [None] * len(pairs)
    missing = [index for index, principles in enumerate(given) if not principles]
    made: dict[int, tuple[Principle, ...]] = {}
    for first in range(0, len(missing), _BATCH):
        indices = missing[first : first + _BATCH]
        rows = pairs.select_columns(["source", "instruction"]).select(indices)
        requests = [
            (read_image_cell(row["source"], "source", f"pair {index}: "), str(row["instruction"]))
            for index, row in zip(indices, rows, strict=True)
        ]
        made |= zip(indices, decompose_contained(decomposer, requests), strict=True)
    return made


def add_principles(pairs: Dataset, made: Mapping[int, tuple[Principle, ...]]) -> Dataset:
    """The pairs with what `missing_principles` made; those it made none for are left out, counted and logged.

    Raises:
        DataError: no pair is left.
    """
    problems = {index: each for index, each in made.items() if not each}
    reasons = {index: getattr(each, "failure", "no principles") for index, each in problems.items()}
    if problems:
        told = "; ".join(f"pair {index}: {reason}" for index, reason in list(reasons.items())[:_SHOWN])
        _log.warning("%d of %d pairs have no principles and are left out: %s", len(problems), len(pairs), told)
    kept = [index for index in range(len(pairs)) if index not in problems]
    if not kept:
        raise DataError(f"no pair has principles; pair 0: {reasons.get(0, 'there are no pairs')}")
    if not made:
        return pairs
    found: list[Any] = list(pairs["principles"]) if "principles" in pairs.column_names else [None] * len(pairs)
    for index, principles in made.items():
        found[index] = [{"question": each.question, "category": each.category} for each in principles]
    bare = pairs.remove_columns("principles") if "principles" in pairs.column_names else pairs
    kept_pairs = bare.select(kept) if problems else bare
    return kept_pairs.add_column("principles", [found[index] for index in kept])


def synthetic_count(pairs: Dataset) -> int:
    """How many pairs a judge chose, not a human: those whose column `synthetic` is true."""
    return sum(map(bool, pairs["synthetic"])) if "synthetic" in pairs.column_names else 0


def pair_rows(pairs: Dataset, mode: Mode = "think+verify") -> Dataset:
    """Two rows per pair, the winner's and then the loser's, with `prompt`, `images`, `pair`, `side` and `questions`.

    Args:
        pairs: with `source`, `winner`, `loser`, `instruction` and `principles`.
        mode: how the judge answers.

    Raises:
        DataError: a column is missing. When a row is taken: its images, instruction or principles are wrong.
    """
    from datasets import Dataset

    _check_columns(pairs, "principles")
    numbers = [number for number in range(len(pairs)) for _ in SIDES]
    rows = Dataset.from_dict({"pair": numbers, "side": [*SIDES] * len(pairs)})
    return rows.with_transform(_PairRows(pairs.select_columns([*_COLUMNS, "principles"]), mode))


@dataclass(frozen=True)
class _PairRows:
    """Turns (pair, side) into a row; of equal pairs in a batch, as a group has them, the images are read once."""

    pairs: Dataset
    mode: Mode

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        taken = {number: self.pairs[number] for number in dict.fromkeys(batch["pair"])}
        rows = [self._row(taken[pair], pair, side) for pair, side in zip(batch["pair"], batch["side"], strict=True)]
        return {**batch, **{name: [row[name] for row in rows] for name in ("prompt", "images", "questions")}}

    def _row(self, pair: Mapping[str, Any], number: int, side: str) -> dict[str, Any]:
        try:
            principles = [
                Principle(question=each["question"], category=each["category"]) for each in pair["principles"]
            ]
            source, edited = (read_image_cell(pair[name], name) for name in ("source", side))
            edit = Edit(source=source, edited=edited, instruction=pair["instruction"])
            prompt, images = judge_messages(edit, principles, self.mode)
        except (DataError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"pair {number}, {side}: {error}") from error
        return {"prompt": prompt, "images": images, "questions": [each.question for each in principles]}


def _check_columns(pairs: Any, *more: str) -> None:
    missing = [name for name in (*_COLUMNS, *more) if name not in pairs.column_names]
    if missing:
        raise DataError(
            f"the pairs have no column {' and no '.join(missing)}; they have {', '.join(pairs.column_names)}"
        )
