"""Draw the data of the examples: MiniEdit's scenes of coloured shapes, as a folder that `editr1 grpo` reads.

    python examples/edits/draw.py

makes `train.jsonl` and `test.jsonl` beside this file, one JSON object a line, and the images that they name. The
held-out instructions are none of the training ones. `category` is an extra column: it goes to the rewards, and
evaluation reports by it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from editr1_plugins.miniedit.pairs import split_tasks
from editr1_plugins.miniedit.world import draw

SEED = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().output
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 48), ("test", 32)):
        lines = []
        for index, task in enumerate(split_tasks(count, seed=SEED, held_out=split == "test")):
            name = f"images/{split}-{index:02}.png"
            draw(task.scene).save(folder / name)
            lines.append(json.dumps({"image": name, "prompt": task.instruction, "category": task.operation}) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
