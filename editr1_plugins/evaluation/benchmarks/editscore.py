"""EditScore's EditReward-Bench (hub: EditScore/EditReward-Bench, Apache-2.0): 13 task types, three dimensions.

Official code: VectorSpaceLab/EditScore, evaluation.py and calculate_statistics.py. The edit is resized to the source's
size, index 0 is the preferred one, right means strictly greater, and the average is unweighted over task types.

Traps: a missing score ends the official script (KeyError), so scorers were made to guess where a judge's answer does
not parse; result files are opened to append, so a second run counts twice. TIGER-Lab has another benchmark of this
name.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedPair, as_pairs
from editr1_plugins.evaluation.sources import Row, read_rows
from editr1_plugins.reward.edit_rows import numbered_lines

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DIMENSIONS", "EditScoreBenchmark"]

DIMENSIONS: Final = ("prompt_following", "consistency", "overall")
_COLUMNS: Final = {
    "key": "texts",
    "instruction": "text",
    "input_image": "image",
    "output_images": "images",
    "task_type": "text",
    "dimension": "text",
}


class EditScoreBenchmark:
    """See the module's text."""

    name = "editscore"
    source = "EditScore/EditReward-Bench"
    headline = "overall"
    ranked = False

    def items(self, place: str | None) -> Iterator[Item]:
        for row in read_rows(place or self.source, _COLUMNS, split="train"):
            keys = row.cells["key"]
            if len(keys) != 2:
                raise DataError(f"{row.where}: column 'key' must hold 2 texts, not {len(keys)}")
            dimension, task = row.text("dimension"), row.text("task_type")
            if dimension not in DIMENSIONS:
                raise DataError(f"{row.where}: column 'dimension' must be one of {', '.join(DIMENSIONS)}")
            yield Item(
                blank=_pair(task, dimension, keys),
                instruction=row.text("instruction"),
                edits=tuple(keys),
                read=_Reader(row),
            )

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        missing = 0
        for pair in as_pairs(judged, self.name):
            outcome = pair.outcome(tolerance=0.0)
            missing += outcome is None
            if outcome is not None:
                right[pair.dimension][pair.category].append(outcome == 1)
        found: dict[str, Any] = {"accuracy": None, "by_dimension": {}}
        for dimension, tasks in right.items():
            shares = {task: 100 * sum(each) / len(each) for task, each in sorted(tasks.items())}
            average = sum(shares.values()) / len(shares)
            found["by_dimension"][dimension] = {"accuracy": average, "by_task": shares}
        overall = found["by_dimension"].get(self.headline, {}).get("accuracy")
        if missing:
            found["accuracy_of_answered"] = overall
            found["note"] = f"{missing} scores are missing, where the official script ends with a KeyError"
        else:
            found["accuracy"] = overall
        return found

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        """The official result folder: TASK/DIMENSION.jsonl, lines with `key` (2) and `score` (2)."""
        files = [file for file in sorted(path.rglob("*.jsonl")) if file.stem in DIMENSIONS] if path.is_dir() else []
        if not files:
            raise DataError(f"{path} is no result folder: TASK/{{{','.join(DIMENSIONS)}}}.jsonl are needed")
        return [pair for file in files for pair in _read_results(file)]


class _Reader:
    """Decodes a row; the edits get the source's size, as in the official script."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sequence[Image]:
        source = self._row.image("input_image")
        edits = self._row.image_list("output_images", 2)
        return [source, *(edit if edit.size == source.size else edit.resize(source.size) for edit in edits)]


def _pair(task: str, dimension: str, keys: Sequence[str], **answer: Any) -> JudgedPair:
    return JudgedPair(
        key=f"{task}/{dimension}/{keys[0]}|{keys[1]}",
        preference=1,
        category=task,
        dimension=dimension,
        group=f"{keys[0]}|{keys[1]}",
        **answer,
    )


def _read_results(file: Path) -> Iterator[JudgedPair]:
    for number, line in numbered_lines(file):
        where = f"{file}, line {number}"
        try:
            row = json.loads(line or b"")
            keys, scores = row["key"], row["score"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{where}: a JSON object with 'key' and 'score' is needed ({error!r})") from None
        if not all(isinstance(each, (list, tuple)) and len(each) == 2 for each in (keys, scores)):
            raise DataError(f"{where}: 'key' and 'score' must hold two each")
        failure = "no_score" if None in scores else None
        yield _pair(file.parent.name, file.stem, [str(key) for key in keys], scores=tuple(scores), failure=failure)
