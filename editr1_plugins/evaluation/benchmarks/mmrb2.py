"""MMRB2 (Multimodal RewardBench 2), image editing: 1,000 pairs, CC BY-NC.

Hub: rl-research/multimodal-rewardbench-2, config edit, split test.

Official code: facebookresearch/MMRB2, evaluate/compute_scores/compute_accuracy.py: each pair is judged in both
orders, and the accuracy is micro over all judgements.

Traps: a missing judgement leaves the denominator; any word but the chosen letter, "tie" too, is wrong. A prompt may
hold several images; the first is the source here, since an edit has one source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair, as_pairs
from editr1_plugins.evaluation.sources import Row, load_json, read_rows

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MMRB2Benchmark"]

_COLUMNS: Final = {
    "pair_id": "text",
    "prompt_text": "text",
    "prompt_images": "images",
    "response_a_images": "images",
    "response_b_images": "images",
    "chosen": "text",
}
_FLIPPED: Final = {"A": "B", "B": "A"}


class MMRB2Benchmark:
    """See the module's text."""

    name = "mmrb2"
    source = "rl-research/multimodal-rewardbench-2"
    headline = ""
    ranked = False

    def items(self, place: str | None) -> Iterator[Item]:
        for row in read_rows(place or self.source, _COLUMNS, config="edit", split="test"):
            key = row.text("pair_id")
            yield Item(
                blank=_pair(key, row.text("chosen").upper(), row.text("prompt_source", ""), row.where),
                instruction=_without_marks(row.text("prompt_text"), len(row.cells["prompt_images"] or ())),
                edits=(f"{key}/A", f"{key}/B"),
                read=_Reader(row),
            )

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        right = total = 0
        for pair in as_pairs(judged, self.name):
            # One score for an edit says the same in both orders.
            votes = pair.votes or (pair.outcome(tolerance=0.0),) * 2
            total += sum(vote is not None for vote in votes)
            right += sum(vote == pair.preference for vote in votes)
        return {"accuracy": 100 * right / total if total else None, "judgements": total}

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        """The official judgements, {pair id: {"forward": [{"judgement": "A"}], "reverse": [...]}}.

        They hold no labels: `place` is the benchmark's edit.json (or its folder), an object with "pairs".
        """
        if place is None:
            raise DataError("MMRB2's judgements hold no labels; give the benchmark's edit.json as --data")
        said = load_json(path)
        if not isinstance(said, dict):
            raise DataError(f"{path} must hold an object of judgements by pair id")
        found: list[Judged] = []
        for number, pair in enumerate(_pairs_of(Path(place))):
            key, chosen = pair.get("id", pair.get("pair_id")), pair.get("chosen", pair.get("human_preference"))
            if not isinstance(key, str) or not isinstance(chosen, str):
                raise DataError(f"{place}, pair {number} has no 'id' and 'chosen'")
            votes = _votes(said.get(key), f"{path.name}, {key!r}")
            failure = None if len(votes) == 2 and None not in votes else "no_judgement"
            blank = _pair(key, chosen.upper(), str(pair.get("prompt_source") or ""), f"{place}, pair {number}")
            found.append(replace(blank, votes=votes or (None,), failure=failure))
        return found


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sequence[Image]:
        images = [
            self._row.image_list(name)[:1] for name in ("prompt_images", "response_a_images", "response_b_images")
        ]
        if not all(images):
            raise DataError(f"{self._row.where}: the prompt or a response holds no image")
        return [image for some in images for image in some]


def _pair(key: str, chosen: str, source: str, where: str) -> JudgedPair:
    if chosen not in _FLIPPED:
        raise DataError(f"{where}: column 'chosen' must be A or B, not {chosen!r}")
    return JudgedPair(key=key, preference=1 if chosen == "A" else -1, category=source, group=key, label=chosen)


def _without_marks(text: str, images: int) -> str:
    """The instruction; a mark "<image_N>" is taken out where there is one image only, which is the source."""
    return " ".join(text.replace("<image_1>", " ").split()) if images == 1 else text


def _pairs_of(place: Path) -> list[dict[str, Any]]:
    data = load_json(place / "edit.json" if place.is_dir() else place)
    pairs = data.get("pairs") if isinstance(data, dict) else None
    if not isinstance(pairs, list) or not all(isinstance(each, dict) for each in pairs):
        raise DataError(f"{place} must hold an object with 'pairs'")
    return pairs


def _votes(judgements: Any, where: str) -> tuple[int | None, ...]:
    """Of the edits, first edit first and then last; empty where nothing is recorded."""
    if judgements is None:
        return ()
    found = []
    for order in ("forward", "reverse"):
        some = judgements.get(order) if isinstance(judgements, dict) else None
        if some is not None and not (isinstance(some, list) and all(isinstance(each, dict) for each in some)):
            raise DataError(f"{where}: {order!r} must be a list of judgements")
        said = some[0].get("judgement") if some else None
        shown = _FLIPPED.get(str(said), said) if order == "reverse" else said
        # Any other word than A and B is wrong, as a tie is.
        found.append(None if not said else {"A": 1, "B": -1}.get(str(shown), 0))
    return tuple(found)
