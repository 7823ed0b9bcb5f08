"""GEdit-Bench (arXiv 2504.17761): 606 instructions in English and the same in Chinese, 11 task types.

Official arithmetic: per edit O = sqrt(SC x PQ); the mean per task type; the unweighted mean over the 11 types. Edits
without a score are skipped. The script's numbers come from VIEScore prompts to GPT-4.1; ours from the judge asked here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.editors.items import EditorItem, JudgedEdit, Sources
from editr1_plugins.evaluation.editors.parts import semantic_numbers
from editr1_plugins.evaluation.sources import Row, read_rows

__all__ = ["TASKS", "GEditBenchmark"]

TASKS: Final = (
    *("background_change", "color_alter", "material_alter", "motion_change", "ps_human", "style_change"),
    *("subject-add", "subject-remove", "subject-replace", "text_change", "tone_transfer"),
)
_LANGUAGES: Final = {"en": ("en",), "cn": ("cn",), "full": ("en", "cn")}
_COLUMNS: Final = {
    "task_type": "text",
    "key": "text",
    "instruction": "text",
    "instruction_language": "text",
    "input_image": "image",
    "input_image_raw": "image",
    "Intersection_exist": "any",
}
_SCORES: Final = ("edited_image", "sementics_score", "quality_score", "intersection_exist", "instruction_language")
_PARTS: Final = ("SC", "PQ", "O")


class GEditBenchmark:
    """See the module's text.

    Args:
        which: "en", "cn", or "full" for both.

    Raises:
        ConfigError: another language.
    """

    source = "stepfun-ai/GEdit-Bench"
    overall = "O"
    limits = (0.0, 10.0)

    def __init__(self, which: str = "en") -> None:
        if which not in _LANGUAGES:
            hint = " (Chinese is 'cn' in the data, not 'zh')" if which.startswith("zh") else ""
            raise ConfigError(f"gedit:{which}: one of {', '.join(_LANGUAGES)}{hint}")
        self.name = f"gedit:{which}"
        self._languages = _LANGUAGES[which]

    def edits(self, place: str | None) -> Iterator[EditorItem]:
        for row in read_rows(place or self.source, _COLUMNS, split="train"):
            language, task = row.text("instruction_language"), row.text("task_type")
            if language not in ("en", "cn"):
                raise DataError(f"{row.where}: column 'instruction_language' must be en or cn, not {language!r}")
            if language not in self._languages:
                continue
            key = row.text("key")
            names = (f"{language}/{key}", f"{task}/{language}/{key}", f"fullset/{task}/{language}/{key}")
            yield EditorItem(
                key=f"{language}/{key}",
                instruction=row.text("instruction"),
                category=task,
                tags={"language": language, "intersection": "yes" if row.cells["Intersection_exist"] else "no"},
                names=names if len(self._languages) > 1 else (key, *names),
                read=_Reader(row),
            )

    def aspects(self, row: JudgedEdit) -> dict[str, float]:
        return semantic_numbers(row.numbers)

    def official(self, rows: Sequence[JudgedEdit]) -> dict[str, Any]:
        found = {language: self._language(rows, language) for language in self._languages}
        return found if len(found) > 1 else found[self._languages[0]]

    def _language(self, rows: Sequence[JudgedEdit], language: str) -> dict[str, Any]:
        chosen = [row for row in rows if row.tags.get("language") == language]
        found = _averages([(row.category, self.aspects(row)) for row in chosen])
        shared = [row for row in chosen if row.tags.get("intersection") == "yes"]
        found["intersection"] = {
            name: value
            for name, value in _averages([(row.category, self.aspects(row)) for row in shared]).items()
            if name in _PARTS
        }
        return found

    def recorded(self, path: Path, place: str | None) -> list[JudgedEdit]:
        """The script's `MODEL_TASK_gpt_score.csv` files, or one of them."""
        files = sorted(path.glob("*_score.csv")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path} holds no *_score.csv")
        return [row for file in files for row in _scores(file) if row.tags["language"] in self._languages]


class _Reader:
    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self) -> Sources:
        # As the script has it: editors get the raw image, judges see the resized one.
        return Sources([self._row.image("input_image_raw")], self._row.image("input_image"))


def _averages(scored: Sequence[tuple[str, dict[str, float]]]) -> dict[str, Any]:
    by_task: dict[str, Any] = {}
    for task in sorted({task for task, _ in scored}):
        some = [numbers for each, numbers in scored if each == task and len(numbers) == len(_PARTS)]
        by_task[task] = {"items": len(some)}
        for part in _PARTS:
            by_task[task][part] = math.fsum(each[part] for each in some) / len(some) if some else None
    missing = [task for task in TASKS if not by_task.get(task, {}).get("items")]
    if missing:
        note = f"the script needs all 11 task types; no score for: {', '.join(missing)}"
        return {**dict.fromkeys(_PARTS), "note": note, "by_category": by_task}
    means = {part: math.fsum(by_task[task][part] for task in TASKS) / len(TASKS) for part in _PARTS}
    return {**means, "by_category": by_task}


def _scores(file: Path) -> Iterator[JudgedEdit]:
    task = next((task for task in TASKS if task in file.name), None)
    if task is None:
        raise DataError(f"{file.name}: no task type in the file's name; one of: {', '.join(TASKS)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.DictReader(lines)
            for column in _SCORES:
                if column not in (table.fieldnames or ()):
                    raise DataError(
                        f"{file.name} has no column {column!r}; it has: {', '.join(table.fieldnames or ())}"
                    )
            for number, row in enumerate(table, start=2):
                yield _score(row, task, f"{file.name}, line {number}")
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as CSV: {error}") from None


def _score(row: dict[str, Any], task: str, where: str) -> JudgedEdit:
    numbers, failure = {}, None
    for part, column in (("SC", "sementics_score"), ("PQ", "quality_score")):
        text = (row[column] or "").strip()
        try:
            numbers[part] = float(text)
        except ValueError:
            failure = f"no_score: {column} is {text[:40]!r}"
    language = str(row["instruction_language"])
    if failure is None and not all(0 <= number <= 10 for number in numbers.values()):
        raise DataError(f"{where}: scores must lie in 0..10")
    key = Path(str(row["edited_image"])).name.rpartition(".")[0]
    return JudgedEdit(
        key=f"{language}/{key}",
        instruction=str(row.get("instruction") or ""),
        category=task,
        tags={
            "language": language,
            "intersection": "yes" if str(row["intersection_exist"]).strip().lower() in ("true", "1", "1.0") else "no",
        },
        numbers={} if failure else numbers,
        failure=failure,
    )
