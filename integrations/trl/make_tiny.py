"""Write what a job needs to run here, in seconds and without a download: MiniEdit rows, policies with random weights.

  python integrations/trl/make_tiny.py tiny

`tiny/data/train.parquet` has 8 rows: `prompt` asks for a plan, `instruction` is what the edit is judged by, and the
source is in `source_image`. `tiny/data-vlm` has it in `image`, which TRL puts into the prompts, as vision-language
policies need it. `tiny/text`, `tiny/vlm` and `tiny/agent` are policies of a few thousand weights. They can only say a
handful of sentences, each one token: editing instructions, or calls of the tools of an environment. So they act from
the first step on, and what they learn is which sentence to say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from datasets import Dataset, Features, Image, Value
from trl.chat_template_utils import qwen3_chat_template

from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import Task, draw
from editr1_plugins.testing import language

ASK: Final = "Write what an image editor must be told to do this, and nothing else: "
USE: Final = "Edit the image with your tools: "
ROWS: Final = 8
OTHERS: Final = ("make the background black", "add a red circle in the top left")


def main(folder: Path) -> None:
    tasks = [task for task in sample_tasks(200, seed=3) if task.instruction == "make the background white"][:ROWS]
    sentences = [tasks[0].instruction, *OTHERS]
    write_rows(folder / "data", tasks, ASK, "source_image")
    write_rows(folder / "data-vlm", tasks, ASK, "image")
    write_rows(folder / "data-agent", tasks, USE, "source_image")
    save_policy(folder / "text", sentences)
    save_policy(folder / "vlm", sentences, sees=True)
    save_policy(folder / "agent", [call("edit", prompt=text) for text in sentences], template=qwen3_chat_template)


def write_rows(folder: Path, tasks: Sequence[Task], ask: str, column: str) -> None:
    folder.mkdir(parents=True)
    rows = {
        "prompt": [[{"role": "user", "content": ask + task.instruction}] for task in tasks],
        column: [draw(task.scene) for task in tasks],
        "instruction": [task.instruction for task in tasks],
    }
    message = {"role": Value("string"), "content": Value("string")}
    features = Features({"prompt": [message], column: Image(), "instruction": Value("string")})
    Dataset.from_dict(rows, features=features).to_parquet(folder / "train.parquet")


def save_policy(
    folder: Path, sentences: Sequence[str], *, sees: bool = False, template: str = language.CHAT_TEMPLATE
) -> None:
    """A policy whose own generation settings let it say `sentences` and nothing else."""
    tokenizer = language.tiny_tokenizer(sentences, chat_template=template)
    model = language.tiny_vision_language_model(tokenizer) if sees else language.tiny_language_model(tokenizer)
    others = language.all_but(tokenizer, sentences)
    model.generation_config.suppress_tokens = others
    model.generation_config.begin_suppress_tokens = others  # TRL sets the former itself for policies that see
    model.save_pretrained(folder)
    (language.tiny_vision_language_processor(tokenizer) if sees else tokenizer).save_pretrained(folder)


def call(tool: str, **arguments: Any) -> str:
    """A call of a tool in Qwen3's words."""
    return f"<tool_call>\n{json.dumps({'name': tool, 'arguments': arguments})}\n</tool_call>"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
