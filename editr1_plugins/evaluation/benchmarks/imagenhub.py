"""ImagenHub, text-guided (or mask-guided) editing: 179 sources x 8 (4) editors, three raters, SC and PQ in {0, 0.5, 1}.

The folder is that of the Imagen Museum: dataset_lookup.json ({image name: {"instruction"}}), input/NAME, EDITOR/NAME,
and the raters' tables, TASK_rater1.tsv and so on, anywhere below it. Official code: TIGER-AI-Lab/VIEScore,
analyze_json.ipynb: Spearman's correlation of scores with the mean rating per editor, then an average over editors.

Traps: what is called Fisher's average there is tanh(mean(r)), which is always nearer to 0 (the human-human row has it
twice); decimals of a judge are cut off by int(); means of ratings are compared as floats, so that equal ratings may get
different ranks, depending on the order in which raters' files are found.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.items import Item, Judged, JudgedRating, as_ratings
from editr1_plugins.evaluation.sources import load_json, require_place
from editr1_plugins.evaluation.statistics import spearman, tanh_of_mean
from editr1_plugins.images import read_image
from editr1_plugins.reward.edit_rows import file_below

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImagenHubBenchmark"]

_TASKS: Final = {
    "Text-Guided_IE": (
        "CycleDiffusion",
        "DiffEdit",
        "InstructPix2Pix",
        "MagicBrush",
        "Pix2PixZero",
        "Prompt2prompt",
        "SDEdit",
        "Text2Live",
    ),
    "Mask-Guided_IE": ("BlendedDiffusion", "Glide", "SDInpaint", "SDXLInpaint"),
}
#: The order of the raters that gives the published digits; see the traps.
_ORDER: Final = (0, 2, 1)
_PARTS: Final = ("SC", "PQ", "O")
_Ratings = tuple[tuple[float, ...], ...]


class ImagenHubBenchmark:
    """See the module's text; `task` is Text-Guided_IE or Mask-Guided_IE."""

    name = "imagenhub"
    source = "a folder of the Imagen Museum with the raters' tables"
    headline = ""
    ranked = False

    def __init__(self, task: str = "Text-Guided_IE") -> None:
        if task not in _TASKS:
            raise DataError(f"imagenhub:TASK must be one of {', '.join(_TASKS)}, not {task!r}")
        self.task = task

    def items(self, place: str | None) -> Iterator[Item]:
        folder = Path(require_place(place, self.source))
        lookup = load_json(folder / "dataset_lookup.json")
        if not isinstance(lookup, dict):
            raise DataError(f"{folder / 'dataset_lookup.json'} must hold an object of instructions by image name")
        for (editor, name), ratings in self._ratings(folder).items():
            about = lookup.get(name)
            if not isinstance(about, dict) or not isinstance(about.get("instruction"), str):
                raise DataError(f"dataset_lookup.json has no 'instruction' for {name!r}")
            yield Item(
                blank=_blank(editor, name, ratings),
                instruction=about["instruction"],
                edits=(f"{editor}/{name}",),
                read=_Reader(folder, editor, name),
            )

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        rows = as_ratings(judged, self.name)
        found: dict[str, Any] = {"correlation": {}, "human": {}}
        missing = sum(not row.scores for row in rows)
        known = [row for row in rows if row.scores]
        for part in _PARTS:
            if any(part in row.scores or (part == "O" and "SC" in row.scores) for row in known):
                found["correlation"][part] = _average(known, partial(_editor_correlation, part))
            if all(len(row.ratings) == 3 and len(row.ratings[0]) == 2 for row in rows) and rows:
                found["human"][part] = _average(rows, partial(_human_correlation, part))
        if missing:
            found["note"] = f"{missing} rows without scores are left out"
        return found

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        """{TASK: {editor: {"SC" | "PQ": {image name: number or numbers}}}}, as VIEScore's answers compacted.

        `place` is a folder with the raters' tables; default: the folder of the file.
        """
        data = load_json(path)
        task = next((data[name] for name in (f"ImagenHub_{self.task}", self.task) if name in data), None)
        if not isinstance(task, dict):
            raise DataError(f"{path} has no scores of {self.task}")
        ratings = self._ratings(Path(place) if place is not None else path.parent)
        found: list[Judged] = []
        for editor, parts in task.items():
            answers = {part: parts.get(part, {}) for part in ("SC", "PQ")}
            names = [name for rated, name in ratings if rated == editor]
            if not answers["SC"].keys() | answers["PQ"].keys() <= set(names):
                raise DataError(f"{path}: nobody rated some of the images of {editor}")
            for name in names:
                both = all(name in answers[part] for part in answers)
                scores = {part: _numbers(answers[part][name], f"{editor}, {name}") for part in answers} if both else {}
                failure = None if both else "no_answer"
                found.append(_blank(editor, name, ratings[editor, name], scores=scores, failure=failure))
        return sorted(found, key=lambda row: row.key)

    def _ratings(self, folder: Path) -> dict[tuple[str, str], _Ratings]:
        files = sorted(folder.rglob(f"{self.task}_rater*.tsv"))
        if not files:
            raise DataError(f"{folder} holds no tables {self.task}_rater1.tsv, ...")
        tables = [_read_table(file) for file in files]
        editors = [name for name in _TASKS[self.task] if all(name in table.columns for table in tables)]
        if not editors:
            raise DataError(f"{files[0]} has no column {_TASKS[self.task][0]!r}, nor of another known editor")
        return {
            (editor, name): tuple(table.rating(editor, name) for table in tables)
            for editor in editors
            for name in tables[0].rows
        }


class _Reader:
    def __init__(self, folder: Path, editor: str, name: str) -> None:
        self._folder, self._names = folder, (f"input/{name}", f"{editor}/{name}")

    def __call__(self) -> Sequence[Image]:
        return [read_image(file_below(self._folder, name)) for name in self._names]


class _Table:
    def __init__(self, file: Path, columns: Sequence[str], rows: dict[str, dict[str, str]]) -> None:
        self.file, self.columns, self.rows = file, columns, rows

    def rating(self, editor: str, name: str) -> tuple[float, ...]:
        """SC and PQ of one edit.

        Raises:
            DataError: the rater gave none, or something else than two numbers.
        """
        cell = self.rows.get(name, {}).get(editor)
        if cell is None:
            raise DataError(f"{self.file.name} has no row {name!r}")
        try:
            numbers = json.loads(cell)
        except ValueError:
            numbers = None
        if (
            not isinstance(numbers, list)
            or len(numbers) != 2
            or any(type(each) not in (int, float) for each in numbers)
        ):
            raise DataError(f"{self.file.name}, row {name!r}: column {editor!r} must be [SC, PQ], not {cell[:50]!r}")
        return tuple(float(each) for each in numbers)


def _read_table(file: Path) -> _Table:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t")
            columns = list(reader.fieldnames or ())
            if "uid" not in columns:
                raise DataError(f"{file} has no column 'uid'; it has: {', '.join(columns)}"[:300])
            return _Table(file, columns, {row["uid"]: row for row in reader})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read: {error}") from None


def _blank(editor: str, name: str, ratings: _Ratings, **answer: Any) -> JudgedRating:
    return JudgedRating(key=f"{editor}/{name}", category=editor, group=name, ratings=ratings, **answer)


def _numbers(value: Any, where: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or any(type(each) not in (int, float) for each in numbers):
        raise DataError(f"{where}: a score must be a number or a list of numbers, not {value!r}")
    return tuple(numbers)


def _average(rows: Sequence[JudgedRating], correlation: Callable[[Sequence[JudgedRating]], float]) -> float | None:
    editors: dict[str, list[JudgedRating]] = {}
    for row in rows:
        editors.setdefault(row.category, []).append(row)
    value = tanh_of_mean([correlation(some) for some in editors.values()])
    return None if math.isnan(value) else value


def _editor_correlation(part: str, rows: Sequence[JudgedRating]) -> float:
    said = [_official_score(row.scores, part) for row in rows]
    return spearman(said, [_mean_rating([row.ratings[at] for at in _order(row)], part) for row in rows])


def _human_correlation(part: str, rows: Sequence[JudgedRating]) -> float:
    """Each rater against the mean of the others, averaged (and squeezed by tanh, for the first of two times)."""
    found = []
    for rater in range(3):
        others = [at for at in range(3) if at != rater]
        own = [_mean_rating([row.ratings[rater]], part) for row in rows]
        found.append(spearman(own, [_mean_rating([row.ratings[at] for at in others], part) for row in rows]))
    return tanh_of_mean(found)


def _order(row: JudgedRating) -> Sequence[int]:
    return _ORDER if len(row.ratings) == 3 else range(len(row.ratings))


def _official_score(scores: Mapping[str, tuple[float, ...]], part: str) -> float:
    """In 0..1, from a lowest number that has lost its decimals."""
    if part != "O":
        numbers = scores[part]
        lowest = min(int(each) for each in numbers) if len(numbers) > 1 else numbers[0]
        return min(max(lowest / 10.0, 0.0), 1.0)
    if "SC" in scores and "PQ" in scores:
        return math.sqrt(_official_score(scores, "SC") * _official_score(scores, "PQ"))
    return min(scores["O"]) / 10.0


def _mean_rating(ratings: Sequence[tuple[float, ...]], part: str) -> float:
    if part == "O":
        numbers = [math.sqrt(each[0] * each[1]) for each in ratings]
    else:
        numbers = [each[_PARTS.index(part)] for each in ratings]
    return sum(numbers) / len(numbers)
