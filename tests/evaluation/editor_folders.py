"""Small folders in exactly the forms of the editors' benchmarks, and an editor that paints what it is told."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from benchmark_folders import IMAGE, cell, picture, save, write_json_lines, write_parquet
from PIL import Image

from editr1_plugins.errors import ComponentError
from editr1_plugins.evaluation.editors.items import EditorItem, Sources

GEDIT = {
    "task_type": pa.string(),
    "key": pa.string(),
    "instruction": pa.string(),
    "instruction_language": pa.string(),
    "input_image": IMAGE,
    "input_image_raw": IMAGE,
    "Intersection_exist": pa.bool_(),
}


_SCORE_COLUMNS = (
    *("source_image", "edited_image", "instruction", "sementics_score", "quality_score"),
    *("intersection_exist", "instruction_language"),
)


def gedit_rows(specs: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """(task, key, language); the raw image is wider than the resized one."""
    return [
        {
            "task_type": task,
            "key": key,
            "instruction": "make it red" if language == "en" else "变红",
            "instruction_language": language,
            "input_image": cell(10),
            "input_image_raw": cell(10, (16, 8)),
            "Intersection_exist": key.endswith("1"),
        }
        for task, key, language in specs
    ]


def write_gedit(folder: Path, specs: Sequence[tuple[str, str, str]]) -> Path:
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", gedit_rows(specs), GEDIT)
    return folder


def write_gedit_scores(folder: Path, task: str, rows: Sequence[tuple[str, object, object, bool, str]]) -> None:
    """(key, SC, PQ, whether all editors have it, language) as the official script's CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"kontext_{task}_gpt_score.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(_SCORE_COLUMNS)
        for key, sc, pq, shared, language in rows:
            table.writerow([f"s/{key}.png", f"e/{key}.png", "make it red", sc, pq, shared, language])


def write_imgedit(folder: Path, rows: Mapping[str, str]) -> Path:
    """{key: type}."""
    save(folder / "animal" / "000000001.jpg", 10)
    table = {
        key: {"id": "animal/000000001.jpg", "prompt": f"edit {key}", "edit_type": kind} for key, kind in rows.items()
    }
    (folder / "basic_edit.json").write_text(json.dumps(table))
    return folder


def write_kris(folder: Path, rows: Mapping[str, Sequence[str]]) -> Path:
    """{category: ids}; the multi-element ones have two sources."""
    for category, identifiers in rows.items():
        table = {}
        for identifier in identifiers:
            names = (
                [f"{identifier}-1.png", f"{identifier}-2.png"] if "multi-element" in category else f"{identifier}.png"
            )
            for name in names if isinstance(names, list) else [names]:
                save(folder / category / name, 10)
            table[identifier] = {"ori_img": names, "gt_img": "", "ins_en": f"edit {identifier}", "explain_en": ""}
        (folder / category / "annotation.json").write_text(json.dumps(table))
    return folder


def write_rise(folder: Path, rows: Sequence[tuple[str, str, object]]) -> Path:
    """(index, category, consistency_free); None leaves that column out of the row."""
    table = []
    for index, category, free in rows:
        save(folder / f"{category}_images" / f"{index}.png", 10)
        row = {"index": index, "category": category, "instruction": f"edit {index}", "reference": "x"}
        row["image"] = f"{category}_images/{index}.png"
        table.append(row if free is None else {**row, "consistency_free": free})
    (folder / "data_total.json").write_text(json.dumps(table))
    return folder


def write_edits(folder: Path, levels: Sequence[int], **more: Any) -> Path:
    """One's own set; the instruction tells `Painter` which red to paint."""
    save(folder / "source.png", 10)
    rows = [
        {"source": "source.png", "instruction": f"paint {level}", "id": f"e{number}", "category": "ab"[number % 2]}
        | more
        for number, level in enumerate(levels)
    ]
    return write_json_lines(folder / "edits.jsonl", rows)


class Painter:
    """Paints the level that the instruction names, plus `more`; raises at level 99; remembers what it was asked."""

    def __init__(self, more: int = 0) -> None:
        self.more = more
        self.asked: list[str] = []

    @property
    def settings(self) -> dict[str, Any]:
        return {"painter": self.more}

    def stamp(self, item: EditorItem) -> list[int] | None:
        return None

    def edit(self, item: EditorItem, sources: Sources) -> Image.Image:
        self.asked.append(item.key)
        level = int(item.instruction.split()[-1])
        if level == 99:
            raise ComponentError("pipeline Painter raised ValueError: not this one")
        return picture(min(level + self.more, 250), sources.shown.size)
