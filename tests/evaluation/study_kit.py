"""Small studies, and exports as the page writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from editr1_plugins.evaluation.study.answers import Answer, answers_checksum
from editr1_plugins.evaluation.study.key import StudyItem, StudyKey, read_key
from editr1_plugins.evaluation.study.make import make_study
from editr1_plugins.evaluation.study.rows import from_rows

LEVELS = {"source": 0, "image_a": 100, "image_b": 200}  # green tells which picture of a row it is, red tells the row


def picture(number: int, level: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    return Image.new("RGB", size, (number, level, 50))


def write_rows(folder: Path, count: int, **more: Any) -> Path:
    """JSON lines with pictures; a value of `more` that is a function gets the row's number."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        row: dict[str, Any] = {"instruction": f"edit number {number}", "id": f"row-{number}"}
        for column, level in LEVELS.items():
            row[column] = f"{column}-{number}.png"
            picture(number, level).save(folder / row[column])
        row |= {name: value(number) if callable(value) else value for name, value in more.items()}
        lines.append(json.dumps(row) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    return folder / "rows.jsonl"


def study(
    folder: Path, count: int = 6, *, seed: str = "7", columns: Mapping[str, Any] | None = None, **more: Any
) -> Path:
    """The folder of a new study."""
    place = write_rows(folder / "rows", count, **columns or {})
    make_study(from_rows(str(place)), folder / "study", seed=seed, **more)
    return folder / "study"


def side(item: StudyItem, wanted: int) -> str:
    """The side that says: 1 the first system is better, 0 the same, -1 the second is."""
    if wanted == 0:
        return "same"
    return "left" if (item.left == "a") == (wanted == 1) else "right"


def by_name(key: StudyKey) -> dict[str, StudyItem]:
    return {each.name: each for each in key.items}


def export(
    folder: Path,
    rater: str,
    said: Mapping[str, int],
    path: Path | None = None,
    *,
    change: Mapping[str, Any] | None = None,
) -> Path:
    """An export that answers rows by name; `change` overwrites what the file holds, after the checksum."""
    key = read_key(folder)
    items = by_name(key)
    answers = [
        Answer(item=items[name].item, answer=side(items[name], wanted), milliseconds=1500, at=1_800_000_000_000)
        for name, wanted in said.items()
    ]
    rows = [
        {"item": each.item, "answer": each.answer, "milliseconds": each.milliseconds, "at": each.at} for each in answers
    ]
    made = {
        "format": "editr1-study-answers",
        "version": 1,
        "study": key.study,
        "rater": rater,
        "started": 1_700_000_000_000,
        "exported": 1_800_000_000_001,
        "items": len(key.items),
        "answers": rows,
        "checksum": answers_checksum(key.study, rater, 1_700_000_000_000, answers),
    }
    path = path or folder.parent / f"answers-{rater}.json"
    path.write_text(json.dumps(made | dict(change or {})))
    return path
