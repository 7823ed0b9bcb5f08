"""TIGER-Lab's EditReward-Bench (hub: TIGER-Lab/EditReward-Bench, gated): 2-, 3- and 4-way rankings.

A row is a pair; the pairs of a 3- or 4-way ranking share what stands before the "_" of their id. Official code:
TIGER-AI-Lab/EditReward, evaluate/inference_2pair_hf.py (judges) and eval_bench.py (reward models).

- Judges: the label is compared as text; calls that failed leave the denominator, with the ranking they belong to. A
  ranking is right where all its pairs are. The headline is micro over rankings.
- Reward models: a 2-way tie is |difference| <= threshold, and the threshold is tuned on the same 2-way pairs; 3- and
  4-way compare argsort(scores) reversed, which gives equal scores to the later index.

Traps: ties are spelled "A=B", "A=B=Good", "A=B=Bad"; the judges' parser knows the first only, the reward models' script
the other two only ("A=B" is wrong whatever is said, and counts as A > B where the threshold is tuned). EditScore has
another benchmark of this name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair, as_pairs
from editr1_plugins.evaluation.sources import Row, load_json, read_rows
from editr1_plugins.evaluation.thresholds import best_threshold

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["TigerBenchmark"]

_COLUMNS: Final = {
    "id": "text",
    "dataset": "text",
    "instruction": "text",
    "source_image": "image",
    "candidate_1": "image",
    "candidate_2": "image",
    "ranking": "text",
}
_SIZES: Final = {"2pair": 2, "3pair": 3, "4pair": 4}
_LABELS: Final = {1: "A>B", -1: "B>A", 0: "A=B"}
_TIES: Final = ("A=B", "A=B=GOOD", "A=B=BAD")


class TigerBenchmark:
    """See the module's text."""

    name = "tiger-editreward"
    source = "TIGER-Lab/EditReward-Bench"
    headline = ""
    ranked = True

    def items(self, place: str | None) -> Iterator[Item]:
        for row in read_rows(place or self.source, _COLUMNS):
            size = row.text("dataset")
            if size not in _SIZES:
                raise DataError(f"{row.where}: column 'dataset' must be one of {', '.join(_SIZES)}, not {size!r}")
            blank = _pair(
                row.text("id"), size, row.text("ranking"), row.where, category=row.text("comparison_type", "")
            )
            yield Item(
                blank=blank,
                instruction=row.text("instruction"),
                edits=tuple(f"{blank.group}/{name}" for name in blank.names),
                read=_Reader(row),
            )

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        pairs = as_pairs(judged, self.name)
        scored = any(pair.scores for pair in pairs)
        right: dict[str, list[bool]] = {size: [] for size in _SIZES}
        threshold = _tuned_threshold(pairs) if scored else 0.0
        for size, group in _groups(pairs):
            complete = len(group) == _SIZES[size] * (_SIZES[size] - 1) // 2
            answer = None
            if complete:
                answer = _reward_right(group, size, threshold) if scored else _judge_right(group)
            if answer is not None:
                right[size].append(answer)
        every = [each for answers in right.values() for each in answers]
        found: dict[str, Any] = {"accuracy": _percent(every), "rankings": len(every)}
        found |= {f"accuracy_{size}": _percent(answers) for size, answers in right.items() if answers}
        if scored:
            found |= {"arithmetic": "reward model", "tie_threshold": threshold}
        else:
            found["arithmetic"] = "judge"
        return found

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        """The official result file: `results`, a list of rows with id, human_vote and model_vote (None: failed)."""
        data = load_json(path)
        rows = data.get("results") if isinstance(data, dict) else data
        if not isinstance(rows, list):
            raise DataError(f"{path} must hold a list of rows, or an object with 'results'")
        known = [row for row in rows if row is not None]
        for number, row in enumerate(known):
            for column in ("id", "human_vote", "model_vote"):
                if not isinstance(row, dict) or column not in row:
                    raise DataError(f"{path}, row {number} has no {column!r}")
        counts: dict[str, int] = {}
        for row in known:
            group = str(row["id"]).split("_")[0]
            counts[group] = counts.get(group, 0) + 1
        sizes = {1: "2pair", 3: "3pair", 6: "4pair"}
        found: list[Judged] = []
        for number, row in enumerate(known):
            identifier = str(row["id"])
            # A ranking that lost pairs cannot be told from the next smaller one but by its ids.
            size = sizes.get(
                counts[identifier.split("_")[0]], "4pair" if "D" in identifier.partition("_")[2] else "3pair"
            )
            if size == "2pair" and "_" in identifier:
                size = "3pair"
            found.append(_recorded(row, identifier, size, f"{path.name}, row {number}"))
        return found


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sequence[Image]:
        return [self._row.image(column) for column in ("source_image", "candidate_1", "candidate_2")]


def _recorded(row: dict[str, Any], identifier: str, size: str, where: str) -> JudgedPair:
    said = row["model_vote"]
    vote = {label: number for number, label in _LABELS.items()}.get(str(said))
    failure = None if vote is not None else "no_answer" if said is None else "no_label"
    category = str(row.get("comparison_type") or "")
    return _pair(
        identifier,
        size,
        str(row["human_vote"]),
        where,
        category=category,
        votes=(vote,),
        said=str(said or ""),
        failure=failure,
    )


def _pair(identifier: str, size: str, ranking: str, where: str, **more: Any) -> JudgedPair:
    group, _, suffix = identifier.partition("_")
    first, _, second = suffix.partition("v")
    names = (first, second) if first and second else ("A", "B")
    return JudgedPair(
        key=identifier,
        preference=_preference(ranking, names, where),
        dimension=size,
        group=f"{size}/{group}",
        label=ranking,
        names=names,
        **more,
    )


def _preference(ranking: str, names: tuple[str, str], where: str) -> int:
    label = ranking.replace(" ", "").upper()
    if label in _TIES or label in (f"{names[0]}={names[1]}", f"{names[1]}={names[0]}"):
        return 0
    for first, second in (names, ("A", "B")):
        if label in (f"{first}>{second}", f"{second}<{first}"):
            return 1
        if label in (f"{second}>{first}", f"{first}<{second}"):
            return -1
    raise DataError(f"{where}: column 'ranking' must be A>B, B>A or a tie, not {ranking!r}")


def _groups(pairs: Sequence[JudgedPair]) -> Iterator[tuple[str, list[JudgedPair]]]:
    found: dict[str, list[JudgedPair]] = {}
    for pair in pairs:
        found.setdefault(pair.group, []).append(pair)
    for group in found.values():
        yield group[0].dimension, group


def _judge_right(group: Sequence[JudgedPair]) -> bool | None:
    """All labels as people gave them; None where a call failed. What the parser could not read ("Unknown") is wrong."""
    if any(not pair.votes or (pair.votes[0] is None and pair.failure != "no_label") for pair in group):
        return None
    return all(_said(pair) == _normal(pair) for pair in group)


def _said(pair: JudgedPair) -> str:
    vote = pair.votes[0]
    return "Unknown" if vote is None else _LABELS[vote]


def _normal(pair: JudgedPair) -> str:
    """The human label as text; that of a pair "CvD" speaks of A and B here, since the judge saw two edits."""
    return pair.label if pair.preference == 0 and pair.names == ("A", "B") else _LABELS[pair.preference]


def _reward_right(group: Sequence[JudgedPair], size: str, threshold: float) -> bool | None:
    """Whether the scores give the ranking of people; None where a score is missing (the script has no such case)."""
    if any(pair.difference is None for pair in group):
        return None
    if size == "2pair":
        [pair] = group[:1]
        if pair.label in ("A=B=Good", "A=B=Bad"):
            return abs(pair.difference or 0.0) <= threshold
        if pair.preference == 0:
            return False  # "A=B" is no label that the script knows
        order = _descending([pair.scores[0], pair.scores[1]])
        return order == ([0, 1] if pair.preference == 1 else [1, 0])
    if any(pair.preference == 0 for pair in group):
        return False  # nor does it know a ranking with ties
    names = sorted({name for pair in group for name in pair.names})
    scores = {name: score for pair in group for name, score in zip(pair.names, pair.scores, strict=True)}
    wins = dict.fromkeys(names, 0)
    for pair in group:
        wins[pair.names[0] if pair.preference == 1 else pair.names[1]] += 1
    ranking = sorted(names, key=lambda name: -wins[name])
    return [names[at] for at in _descending([scores[name] for name in names])] == ranking


def _descending(scores: Sequence[float | None]) -> list[int]:
    return [int(at) for at in np.argsort(np.array(scores, dtype=np.float64))[::-1]]


def _tuned_threshold(pairs: Sequence[JudgedPair]) -> float:
    chosen = [pair for pair in pairs if pair.dimension == "2pair" and pair.difference is not None]
    # "A=B" counts as a preference for the first, as there.
    meant = [1 if pair.label == "A=B" else pair.preference for pair in chosen]
    return best_threshold(meant, [pair.difference or 0.0 for pair in chosen])[1]


def _percent(answers: Sequence[bool]) -> float | None:
    return 100 * sum(answers) / len(answers) if answers else None
