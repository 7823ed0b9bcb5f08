"""GenAI-Bench, image editing (hub: TIGER-Lab/GenAI-Bench, config image_edition, split test_v1, 919 pairs, MIT).

Official code: TIGER-AI-Lab/GenAI-Bench, inference.py: four labels, the right one or nothing; an answer without a
label is wrong. Its judges saw the pair in one order only. Reward models (TIGER-AI-Lab/EditReward, eval_bench.py) are
counted by `calc_accuracy_with_ties`.

Traps: the pattern for the label is greedy, so two labels on a line are read as one that is no label;
`calc_accuracy_with_ties` gives a constant scorer 45 %, see `evaluation.thresholds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair, as_pairs
from editr1_plugins.evaluation.sources import Row, load_json, read_rows
from editr1_plugins.evaluation.thresholds import best_threshold, running_accuracy_with_ties, untied_accuracy

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["GenAIBenchmark"]

_COLUMNS: Final = {
    "instruct_prompt": "text",
    "source_image": "image",
    "left_output_image": "image",
    "right_output_image": "image",
    "vote_type": "text",
}
#: People's labels: what is preferred, and the judge's labels that are right.
_VOTES: Final = {
    "leftvote": (1, ("[[A>>B]]", "[[A>B]]")),
    "rightvote": (-1, ("[[B>>A]]", "[[B>A]]")),
    "tievote": (0, ("[[A=B]]", "[[A=B=Good]]")),
    "bothbad_vote": (0, ("[[A=B]]", "[[A=B=Bad]]")),
}
_OUTCOMES: Final = {label: meant for meant, labels in _VOTES.values() for label in labels}
_LABELS: Final = {1: "[[A>B]]", -1: "[[B>A]]", 0: "[[A=B]]"}


class GenAIBenchmark:
    """See the module's text."""

    name = "genai-bench"
    source = "TIGER-Lab/GenAI-Bench"
    headline = ""
    ranked = False

    def items(self, place: str | None) -> Iterator[Item]:
        rows = read_rows(place or self.source, _COLUMNS, config="image_edition", split="test_v1")
        for number, row in enumerate(rows):
            yield Item(
                blank=_pair(str(number), row.text("vote_type"), row.where),
                instruction=row.text("instruct_prompt"),
                edits=(f"{number}/left", f"{number}/right"),
                read=_Reader(row),
            )

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        pairs = as_pairs(judged, self.name)
        if any(pair.scores for pair in pairs):
            return _of_scores(pairs)
        right = sum(_label(pair) in _VOTES[pair.label][1] for pair in pairs)
        return {"accuracy": 100 * right / len(pairs) if pairs else None, "arithmetic": "judge"}

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        """The official result file: a list of rows with idx, response or model_vote, and human_vote."""
        rows = load_json(path)
        if not isinstance(rows, list):
            raise DataError(f"{path} must hold a JSON list of rows")
        return [_recorded(row, f"{path.name}, row {number}") for number, row in enumerate(rows)]


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sequence[Image]:
        return [self._row.image(column) for column in ("source_image", "left_output_image", "right_output_image")]


def _pair(key: str, vote: str, where: str, **answer: Any) -> JudgedPair:
    if vote not in _VOTES:
        raise DataError(f"{where}: the vote must be one of {', '.join(_VOTES)}, not {vote!r}")
    return JudgedPair(key=key, preference=_VOTES[vote][0], label=vote, group=key, names=("left", "right"), **answer)


def _recorded(row: Any, where: str) -> JudgedPair:
    for column in ("idx", "human_vote"):
        if not isinstance(row, dict) or column not in row:
            raise DataError(f"{where} has no {column!r}")
    if not isinstance(row.get("response", row.get("model_vote", "")), (str, type(None))):
        raise DataError(f"{where}: 'response' must be text")
    if "response" not in row and "model_vote" not in row:
        raise DataError(f"{where} has neither 'response' nor 'model_vote'")
    said = _greedy_label(row.get("response") or row.get("model_vote") or "")
    vote = _OUTCOMES.get(said)
    failure = None if vote is not None else "ambiguous" if said else "no_label"
    return _pair(str(row["idx"]), row["human_vote"], where, votes=(vote,), said=said, failure=failure)


def _greedy_label(text: str) -> str:
    r"""What `\\[\\[.*\\]\\]` finds: on the first line that has both, from the first "[[" to the last "]]"; else ""."""
    for line in text.split("\n"):
        start, end = line.find("[["), line.rfind("]]")
        if start >= 0 and end >= start + 2:
            return line[start : end + 2]
    return ""


def _label(pair: JudgedPair) -> str:
    """The judge's label; one without four labels says "[[A=B]]" for a tie, which the official script accepts."""
    if pair.said or not pair.votes:
        return pair.said
    vote = pair.votes[0]
    return "" if vote is None else _LABELS[vote]


def _of_scores(pairs: Sequence[JudgedPair]) -> dict[str, Any]:
    known = [pair for pair in pairs if pair.difference is not None]
    meant = [pair.preference for pair in known]
    differences = [pair.difference or 0.0 for pair in known]
    found: dict[str, Any] = {
        "accuracy": 100 * running_accuracy_with_ties(meant, differences),
        "accuracy_without_ties": 100 * untied_accuracy(meant, differences),
        "best_threshold_accuracy": 100 * best_threshold(meant, differences)[0],
        "arithmetic": "reward model",
    }
    if len(known) < len(pairs):
        found["note"] = (
            f"{len(pairs) - len(known)} pairs without scores are left out; the official script has no such case"
        )
    return found
