"""What a study found: GSB with intervals, agreement between raters, and the pairs that a majority prefers.

GSB = (G - B) / (G + S + B) in percent: G judgements prefer the first system, B the second, S neither.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.statistics import bootstrap_means, interval
from editr1_plugins.evaluation.study.agreement import alpha_interval, krippendorff_alpha
from editr1_plugins.evaluation.study.answers import Answers
from editr1_plugins.evaluation.study.key import StudyItem, StudyKey
from editr1_plugins.images import read_image
from editr1_plugins.reward.edit_rows import file_below

__all__ = [
    "Agreement",
    "Gsb",
    "Majority",
    "RaterFigures",
    "StudyFigures",
    "majority_votes",
    "save_majority",
    "score_study",
]

#: A judgement as a number: 1 the first system is better, 0 the same, -1 the second is.
_VALUES: Final = {"a": 1, "b": -1}


@dataclass(frozen=True, kw_only=True)
class Gsb:
    """Judgements for the first system, for neither and for the second, and what they make.

    Attributes:
        good, same, bad: judgements.
        gsb: in percent, -100..100; None without judgements.
        interval: 95 % bootstrap interval over items, all judgements of an item drawn together; None for fewer than
            two items.
    """

    good: int
    same: int
    bad: int
    gsb: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class RaterFigures:
    """One rater: judgements, items not answered, share of left among left and right (percent), median seconds."""

    gsb: Gsb
    answered: int
    unanswered: int
    left_share: float | None
    median_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Krippendorff's alpha over the items that two raters or more judged; None where it is not defined."""

    items: int
    nominal: float | None
    nominal_interval: tuple[float, float] | None
    ordinal: float | None
    ordinal_interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Majority:
    """Items by what more than half of their raters say; `undecided`: there is no such answer."""

    good: int
    same: int
    bad: int
    undecided: int
    unanswered: int


@dataclass(frozen=True, kw_only=True)
class StudyFigures:
    """The result of a study.

    Attributes:
        study: its identifier.
        systems: names of the first and the second.
        items: comparisons of the study.
        unanswered: judgements that are missing: items x raters less those given.
        gsb: over all judgements.
        categories: per category of edits.
        raters: per rater.
        majority: item by item.
        agreement: between raters.
        left_share: percent of left among left and right; far from 50 says that raters prefer a side.
    """

    study: str
    systems: tuple[str, str]
    items: int
    unanswered: int
    gsb: Gsb
    categories: Mapping[str, Gsb]
    raters: Mapping[str, RaterFigures]
    majority: Majority
    agreement: Agreement
    left_share: float | None


def score_study(key: StudyKey, exports: Sequence[Answers], *, seed: int = 0) -> StudyFigures:
    """The figures of a study; `seed` is that of the bootstraps."""
    items = {each.item: each for each in key.items}
    judged = _judged(items, exports)
    categories = sorted({each.category for each in key.items})
    units = list(_units(key, judged).values())
    return StudyFigures(
        study=key.study,
        systems=key.systems,
        items=len(items),
        unanswered=len(items) * len(exports) - len(judged),
        gsb=_gsb(judged, seed),
        categories={name: _gsb([one for one in judged if items[one[0]].category == name], seed) for name in categories},
        raters={one.rater: _rater(one, items, seed) for one in exports},
        majority=_majority(units),
        agreement=_agreement(units, seed),
        left_share=_left_share([answer.answer for one in exports for answer in one.answers]),
    )


def majority_votes(key: StudyKey, exports: Sequence[Answers]) -> dict[str, int | None]:
    """Per item, what more than half of its judgements say: 1, 0 or -1; None where nothing has so many."""
    judged = _judged({each.item: each for each in key.items}, exports)
    return {item: _vote(unit) for item, unit in _units(key, judged).items()}


def save_majority(
    key: StudyKey, exports: Sequence[Answers], folder: str | os.PathLike[str], output: str | os.PathLike[str]
) -> dict[str, int]:
    """Write the pairs with a winner as `training.preference_files.save_pairs` does, the originals at full size.

    Args:
        key, exports: of the study.
        folder: of the study; holds the originals.
        output: folder of the data set.

    Returns:
        Counts of `pairs` written, and of items dropped: `same` (a majority says so), `undecided`, `unanswered`.

    Raises:
        DataError: no item has a winner, or an original is missing.
    """
    from editr1_plugins.training.preference_files import save_pairs

    votes = majority_votes(key, exports)
    answered = {answer.item for one in exports for answer in one.answers}
    won = [each for each in key.items if votes[each.item]]
    if not won:
        raise DataError("no item has a winner by majority: there are no pairs to write")
    save_pairs(_pairs(won, votes, Path(folder)), output)
    return {
        "pairs": len(won),
        "same": sum(vote == 0 for vote in votes.values()),
        "undecided": sum(vote is None and item in answered for item, vote in votes.items()),
        "unanswered": len(votes) - len(answered),
    }


def _pairs(items: Sequence[StudyItem], votes: Mapping[str, int | None], folder: Path) -> Iterator[dict[str, Any]]:
    for each in items:
        better, worse = (each.a, each.b) if votes[each.item] == _VALUES["a"] else (each.b, each.a)
        names = {"source": each.source, "winner": better, "loser": worse}
        images = {name: read_image(file_below(folder, file)) for name, file in names.items()}
        yield {**images, "instruction": each.instruction, "synthetic": False}


def _judged(items: Mapping[str, StudyItem], exports: Sequence[Answers]) -> list[tuple[str, int]]:
    """All judgements as (item, value)."""
    return [(answer.item, _value(items[answer.item], answer.answer)) for one in exports for answer in one.answers]


def _value(item: StudyItem, answer: str) -> int:
    if answer == "same":
        return 0
    return _VALUES[item.left] if answer == "left" else -_VALUES[item.left]


def _units(key: StudyKey, judged: Sequence[tuple[str, int]]) -> dict[str, list[float]]:
    units: dict[str, list[float]] = {each.item: [] for each in key.items}
    for item, value in judged:
        units[item].append(value)
    return units


def _gsb(judged: Sequence[tuple[str, int]], seed: int) -> Gsb:
    values = np.array([value for _, value in judged], dtype=np.float64)
    drawn = bootstrap_means(100 * values, [item for item, _ in judged], seed=seed)
    return Gsb(
        good=int((values == 1).sum()),
        same=int((values == 0).sum()),
        bad=int((values == -1).sum()),
        gsb=float(100 * values.mean()) if values.size else None,
        interval=interval(drawn),
    )


def _rater(one: Answers, items: Mapping[str, StudyItem], seed: int) -> RaterFigures:
    judged = _judged(items, [one])
    seconds = [answer.milliseconds / 1000 for answer in one.answers]
    return RaterFigures(
        gsb=_gsb(judged, seed),
        answered=len(judged),
        unanswered=len(items) - len(judged),
        left_share=_left_share([answer.answer for answer in one.answers]),
        median_seconds=statistics.median(seconds) if seconds else None,
    )


def _left_share(answers: Sequence[str]) -> float | None:
    sides = [answer for answer in answers if answer != "same"]
    return 100 * sides.count("left") / len(sides) if sides else None


def _vote(unit: Sequence[float]) -> int | None:
    return next((value for value in (1, 0, -1) if 2 * unit.count(value) > len(unit)), None)


def _majority(units: Sequence[Sequence[float]]) -> Majority:
    votes = [_vote(unit) for unit in units if unit]
    return Majority(
        good=votes.count(1),
        same=votes.count(0),
        bad=votes.count(-1),
        undecided=votes.count(None),
        unanswered=len(units) - len(votes),
    )


def _agreement(units: Sequence[Sequence[float]], seed: int) -> Agreement:
    return Agreement(
        items=sum(len(unit) > 1 for unit in units),
        nominal=krippendorff_alpha(units, "nominal"),
        nominal_interval=alpha_interval(units, "nominal", seed=seed),
        ordinal=krippendorff_alpha(units, "ordinal"),
        ordinal_interval=alpha_interval(units, "ordinal", seed=seed),
    )
