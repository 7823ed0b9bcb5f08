"""Rows for a policy that is a judge, from edits that people scored: one parquet file for verl, or for EasyR1.

    python integrations/verl/judge_rows.py edits.jsonl judge.parquet [--host easyr1] [--mode verify]

A line: {"source": "a.png", "edited": "b.png", "instruction": "make it red", "score": 7.5}, with images below the file's
folder (or --images) and scores in 0..10. The prompt is what every judge of this package is asked. A line that cannot be
used is left out and said; exit status 1 when none is left.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from editr1_plugins.adapters.judge_policy import judge_label
from editr1_plugins.errors import DataError
from editr1_plugins.images import encode_png, read_image
from editr1_plugins.plugins import resolve
from editr1_plugins.reward.edit_rows import file_below, numbered_lines
from editr1_plugins.types import Decomposer, Edit
from editr1_plugins.verifiers.prompting import MODES, Mode, judge_request

IMAGE = "<image>"


def rows(path: Path, images: Path, host: str, decomposer: Decomposer, mode: Mode) -> Iterator[dict[str, Any]]:
    """The rows of the lines that can be used; the others are told to stderr."""
    for number, line in numbered_lines(path):
        try:
            yield row(json.loads(line or b"null"), images, host, decomposer, mode)
        except (DataError, ValueError, KeyError, TypeError) as error:
            print(f"line {number} is left out: {type(error).__name__}: {error}", file=sys.stderr)


def row(given: dict[str, Any], images: Path, host: str, decomposer: Decomposer, mode: Mode) -> dict[str, Any]:
    """One line as the host's row.

    Raises:
        DataError, KeyError, TypeError: the line is no scored edit, or no principles can be made for it.
    """
    source, edited = (read_image(file_below(images, given[name])) for name in ("source", "edited"))
    score, _ = judge_label(given["score"])
    edit = Edit(source=source, edited=edited, instruction=given["instruction"])
    (principles,) = decomposer.decompose([(source, edit.instruction)])
    if not principles:
        raise DataError(getattr(principles, "failure", "no principles"))
    request = judge_request(edit, principles, mode)
    text = "".join(part if isinstance(part, str) else IMAGE for part in request.parts)
    if text.count(IMAGE) != 2 or IMAGE in request.system:
        raise DataError(f"the instruction holds {IMAGE}, which hosts take for a picture")
    label = json.dumps({"score": score, "questions": [each.question for each in principles]})
    pictures = [{"bytes": encode_png(source)}, {"bytes": encode_png(edited)}]
    if host == "easyr1":  # its prompts have no system message
        return {"problem": f"{request.system}\n\n{text}", "images": pictures, "answer": label}
    return {
        "data_source": "editr1_judge",
        "prompt": [{"role": "system", "content": request.system}, {"role": "user", "content": text}],
        "images": pictures,
        "reward_model": {"style": "rule", "ground_truth": label},
        "extra_info": {"instruction": edit.instruction},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edits", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--images", type=Path, help="default: the folder of the edits")
    parser.add_argument("--host", choices=("verl", "easyr1"), default="verl")
    parser.add_argument("--decomposer", default="rules")
    parser.add_argument("--mode", choices=MODES, default="think+verify")
    options = parser.parse_args(arguments)
    from datasets import Dataset

    images = options.images or options.edits.parent
    made = list(rows(options.edits, images, options.host, resolve("decomposer", options.decomposer), options.mode))
    if made:
        Dataset.from_list(made).to_parquet(options.output)
    print(f"{len(made)} rows")
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
