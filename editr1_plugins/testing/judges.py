"""A tiny judge with random weights, and edits to train it on: for tests, without a download."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .language import tiny_tokenizer, tiny_vision_language_model, tiny_vision_language_processor

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["prompt_words", "save_tiny_judge", "tiny_pairs", "tiny_traces", "write_rows"]

_PROMPTS: Final = ("judge_rules", "judge_task", "judge_edited", "answer_think", "answer_verify", "answer_think_verify")
_QUESTIONS: Final = (
    {"question": "Is it brighter?", "category": "Instruction Following"},
    {"question": "Is it still grey?", "category": "Feature Preservation"},
)


def prompt_words() -> list[str]:
    """The lines of the judge's prompts, and what answers are made of: as single tokens they keep tiny models fast."""
    from ..principles.prompt_text import load_prompt

    lines = [line for name in _PROMPTS for line in load_prompt("editr1_plugins.verifiers", name).text.splitlines()]
    answers = ['{"question": "', '", "score": ', '{"average_score": ', "<score>", "</score>"]
    asked = [part["question"] for part in _QUESTIONS]
    return sorted({line for line in lines if line and "$" not in line}) + answers + asked


def save_tiny_judge(
    directory: str | os.PathLike[str], words: Iterable[str] = (), *, seed: int = 0, initializer_range: float = 0.02
) -> Path:
    """Write a Qwen2.5-VL of one layer and its processor as `from_pretrained` reads them; `words` are tokens too.

    Args:
        initializer_range: standard deviation of the random weights; the usual 0.02 is too small to learn much from a
            model this narrow, 0.1 learns.
    """
    tokenizer = tiny_tokenizer(dict.fromkeys([*prompt_words(), *words]))
    path = Path(directory)
    model = tiny_vision_language_model(tokenizer, seed=seed)
    if initializer_range != 0.02:
        _scale(model, initializer_range / 0.02)
    model.save_pretrained(path)
    tiny_vision_language_processor(tokenizer).save_pretrained(path)
    return path


def _scale(model: Any, factor: float) -> None:
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(factor)


def tiny_traces(count: int) -> Dataset:
    """Traces as `load_traces` gives them, on grey squares of 16 pixels; even ones are good edits, odd ones bad."""
    from PIL import Image

    rows = []
    for i in range(count):
        good = i % 2 == 0
        rows.append(
            {
                "source": Image.new("RGB", (16, 16), (60, 60, 60)),
                "edited": Image.new("RGB", (16, 16), (200 + i, 200, 200) if good else (i, 0, 0)),
                "instruction": "make the image brighter",
                "principles": [dict(part) for part in _QUESTIONS],
                "gold": [int(good), 1],
                "reasons": ["seen", "seen"],
                "reasoning": "It is brighter." if good else "It is darker.",
                "verdicts": [int(good), 1],
                "average": 1.0 if good else 0.5,
                "score": 9.0 if good else 2.0,
                "judge": "teacher",
                "category": "tone transformation",
            }
        )
    return _with_images(rows, ("source", "edited"))


def tiny_pairs(count: int) -> Dataset:
    """Preference pairs with principles, on grey squares of 16 pixels; the winner is the brighter one."""
    from PIL import Image

    rows = [
        {
            "source": Image.new("RGB", (16, 16), (60, 60, 60)),
            "winner": Image.new("RGB", (16, 16), (200 + i, 200, 200)),
            "loser": Image.new("RGB", (16, 16), (i, 0, 0)),
            "instruction": "make the image brighter",
            "principles": [dict(part) for part in _QUESTIONS],
        }
        for i in range(count)
    ]
    return _with_images(rows, ("source", "winner", "loser"))


def _with_images(rows: list[dict[str, Any]], columns: Iterable[str]) -> Dataset:
    from datasets import Dataset, Image

    from ..images import encode_png

    stored = [{**row, **{name: {"bytes": encode_png(row[name]), "path": None} for name in columns}} for row in rows]
    dataset = Dataset.from_list(stored)
    for name in columns:
        dataset = dataset.cast_column(name, Image())
    return dataset


def write_rows(rows: Dataset, folder: str | os.PathLike[str]) -> Path:
    """Write rows as a folder with `rows.jsonl` and, below `images`, the images that its lines name."""
    import json

    from PIL.Image import Image

    from ..images import keep_image

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with (path / "rows.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            for column, value in row.items():
                if isinstance(value, Image):
                    row[column] = keep_image(value, path)
            file.write(json.dumps(row) + "\n")
    return path
