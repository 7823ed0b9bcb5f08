"""Small folders in exactly the forms of the public benchmarks, since none can be downloaded by the tests.

An edit's quality is its red level: 250 is a 10 for the judge `Redness`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from editr1_plugins.types import Edit, Principle, Verification

#: How `datasets` stores an image in Parquet and Arrow.
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(level: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, (level, 0, 0))


def cell(level: int, size: tuple[int, int] = (8, 8)) -> dict[str, Any]:
    buffer = BytesIO()
    picture(level, size).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def save(path: Path, level: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(level).save(path, "PNG")  # whatever the name says: exact levels
    return path.name


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.array([row[name] for row in rows], type=kind) for name, kind in types.items()}
    pq.write_table(pa.table(columns), path)


EDITSCORE = {
    "key": pa.list_(pa.string()),
    "instruction": pa.string(),
    "input_image": IMAGE,
    "output_images": pa.list_(IMAGE),
    "task_type": pa.string(),
    "dimension": pa.string(),
}


def editscore_rows(specs: Sequence[tuple[str, str, int, int]]) -> list[dict[str, Any]]:
    """(task, dimension, level of the preferred edit, of the other); equal pairs of levels are the same edits."""
    return [
        {
            "key": [f"{task}_{good}", f"{task}_{bad}_other"],
            "instruction": "make it red",
            "input_image": cell(0, (16, 8)),
            "output_images": [cell(good), cell(bad)],
            "task_type": task,
            "dimension": dimension,
        }
        for task, dimension, good, bad in specs
    ]


TIGER = {
    "id": pa.string(),
    "dataset": pa.string(),
    "comparison_type": pa.string(),
    "instruction": pa.string(),
    "source_image": IMAGE,
    "candidate_1": IMAGE,
    "candidate_2": IMAGE,
    "ranking": pa.string(),
    "score_1": pa.float64(),
    "score_2": pa.float64(),
    "model_1": pa.string(),
    "model_2": pa.string(),
}


def tiger_rows(specs: Sequence[tuple[str, str, int, int, str]]) -> list[dict[str, Any]]:
    """(id, dataset, level of candidate 1, of 2, ranking)."""
    return [
        {
            "id": identifier,
            "dataset": dataset,
            "comparison_type": "overall",
            "instruction": "make it red",
            "source_image": cell(0),
            "candidate_1": cell(first),
            "candidate_2": cell(second),
            "ranking": ranking,
            "score_1": 1.0,
            "score_2": 2.0,
            "model_1": "one",
            "model_2": "two",
        }
        for identifier, dataset, first, second, ranking in specs
    ]


GENAI = {
    "source_prompt": pa.string(),
    "target_prompt": pa.string(),
    "instruct_prompt": pa.string(),
    "source_image": IMAGE,
    "left_output_image": IMAGE,
    "right_output_image": IMAGE,
    "left_model": pa.string(),
    "right_model": pa.string(),
    "vote_type": pa.string(),
}


def genai_rows(specs: Sequence[tuple[int, int, str]]) -> list[dict[str, Any]]:
    """(level of the left edit, of the right one, vote)."""
    texts = {"source_prompt": "a wall", "target_prompt": "a red wall", "instruct_prompt": "make it red"}
    models = {"left_model": "one", "right_model": "two"}
    return [
        {**texts, **models, "source_image": cell(0), "left_output_image": cell(left)}
        | {"right_output_image": cell(right), "vote_type": vote}
        for left, right, vote in specs
    ]


MMRB2 = {
    "pair_id": pa.string(),
    "prompt_text": pa.string(),
    "prompt_images": pa.list_(IMAGE),
    "prompt_source": pa.string(),
    "response_a_text": pa.string(),
    "response_a_images": pa.list_(IMAGE),
    "response_a_model": pa.string(),
    "response_b_text": pa.string(),
    "response_b_images": pa.list_(IMAGE),
    "response_b_model": pa.string(),
    "chosen": pa.string(),
    "human_annotations": pa.string(),
}


def mmrb2_rows(specs: Sequence[tuple[str, int, int, str]]) -> list[dict[str, Any]]:
    """(id, level of A, of B, chosen)."""
    return [
        {
            "pair_id": identifier,
            "prompt_text": "<image_1> make it red",
            "prompt_images": [cell(0)],
            "prompt_source": "emu-edit",
            "response_a_text": "",
            "response_a_images": [cell(first)],
            "response_a_model": "one",
            "response_b_text": "",
            "response_b_images": [cell(second)],
            "response_b_model": "two",
            "chosen": chosen,
            "human_annotations": "[6, 6, 4]",
        }
        for identifier, first, second, chosen in specs
    ]


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_compass(folder: Path, specs: Sequence[tuple[str, str, int, int]]) -> Path:
    """(dimension, label, level of the winner, of the loser)."""
    rows = []
    for number, (dimension, label, winner, loser) in enumerate(specs):
        names = {
            "source_image": save(folder / "source.png", 0),
            "winner": save(folder / f"{number}-winner-{winner}.png", winner),
            "loser": save(folder / f"{number}-loser-{loser}.png", loser),
        }
        rows.append({**names, "dimension": dimension, "label": label, "prompt": "make it red"})
    (folder / "reward_eval.json").write_text(json.dumps(rows))
    return folder


def write_vcreward(folder: Path, specs: Sequence[tuple[str, int, int, str]]) -> Path:
    """(task, level of A, of B, winner)."""
    rows = []
    for number, (task, first, second, winner) in enumerate(specs):
        key = f"{task}_pair_{number:06d}"
        for level, kind in ((0, "source"), (first, "edited/image_A"), (second, "edited/image_B")):
            save(folder / "images" / kind / f"{key}.png", level)
        edited = [f"./images/edited/image_{letter}/{key}.png" for letter in "AB"]
        source = {"key": key, "instruction": "make it red", "source_image": f"./images/source/{key}.png"}
        rows.append({**source, "edited_images": edited, "winner": winner, "task": task})
    write_json_lines(folder / "metadata.jsonl", rows)
    return folder


def write_imagenhub(folder: Path, levels: Mapping[str, Sequence[int]], ratings: Mapping[str, Sequence[float]]) -> Path:
    """Per editor the level of each edit, and what all three raters give as SC; PQ is 1."""
    names = [f"sample_{number}_1.jpg" for number in range(len(next(iter(levels.values()))))]
    for name in names:
        save(folder / "input" / name, 0)
    for editor, some in levels.items():
        for name, level in zip(names, some, strict=True):
            save(folder / editor / name, level)
    (folder / "dataset_lookup.json").write_text(json.dumps({name: {"instruction": "make it red"} for name in names}))
    lines = ["\t".join(["uid", *levels])]
    for number, name in enumerate(names):
        lines.append("\t".join([name, *(json.dumps([ratings[editor][number], 1]) for editor in levels)]))
    for rater in (1, 2, 3):
        path = folder / "human" / f"Text-Guided_IE_rater{rater}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines))
    return folder


class Redness:
    """Scores by the red of the first pixel, 250 is a 10; fails at level 7; remembers what it was asked."""

    identity = "redness/1"
    needs_principles = False

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.sizes: set[tuple[int, int]] = set()

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        levels = [edit.edited.getpixel((0, 0))[0] for edit in edits]
        self.asked += levels
        self.sizes |= {edit.edited.size for edit in edits}
        return [
            Verification(score=None, failure="down: 503", samples=0) if level == 7 else Verification(score=level / 25)
            for level in levels
        ]
