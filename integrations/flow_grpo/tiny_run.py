"""flow_grpo's own scripts/train_flux_kontext.py with our reward, on two CPU processes and MiniEdit's tiny Kontext.

    cd FLOW_GRPO && python EDITR1/integrations/flow_grpo/tiny_run.py FOLDER [--epochs 2] [--verifier measure]

Writes data, model and `log.jsonl` (what the script logs) to FOLDER. It trains nothing of use: it shows that the script
runs with the configuration beside this file. Not the host's: `wandb`, which writes to that log; the CLIP text encoder,
which gets the 77 positions that the script asks for; the tokenizers' `batch_decode`, which the script calls with floats
as the transformers it pins allowed; the length of instructions, which is the tiny model's; and the end, since the
script has none.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).with_name("editr1.py")
OVERRIDES = {
    "resolution": 32,
    "mixed_precision": "no",
    "sample.num_steps": 6,
    "sample.eval_num_steps": 6,
    "sample.noise_level": 0.4,
    "sample.train_batch_size": 4,
    "sample.num_image_per_prompt": 4,
    "sample.num_batches_per_epoch": 2,
    "train.batch_size": 4,
    "train.gradient_accumulation_steps": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--verifier", default="measure")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.folder.resolve()
    if args.worker:
        return train(folder, args.epochs)
    prepare(folder)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "EDITR1_VERIFIER": args.verifier}
    told = [__file__, str(folder), "--epochs", str(args.epochs), "--worker"]
    sys.exit(subprocess.run([*launch, *told], env={**os.environ, **environment}, check=False).returncode)


def prepare(folder: Path) -> None:
    """Source images and instructions in the form of the host's counting_edit, and the model."""
    from editr1_plugins.miniedit.pairs import split_tasks
    from editr1_plugins.miniedit.world import draw

    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").unlink(missing_ok=True)
    for split, held_out in (("train", False), ("test", True)):
        rows = []
        for number, task in enumerate(split_tasks(8, seed=1, held_out=held_out)):
            name = f"images/{split}{number}.png"
            draw(task.scene).save(folder / name)
            rows.append(json.dumps({"prompt": task.instruction, "image": name}))
        (folder / f"{split}_metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    _model().save_pretrained(folder / "model")


def _model() -> Any:
    from transformers import CLIPTextModel

    from editr1_plugins.miniedit.model import load_pipeline

    pipe = load_pipeline("start")
    short = pipe.text_encoder
    longer = type(short.config).from_dict({**short.config.to_dict(), "max_position_embeddings": 77})
    pipe.text_encoder = CLIPTextModel(longer)
    weights = pipe.text_encoder.state_dict()
    for name, value in short.state_dict().items():
        # What follows the end of an instruction has no influence on CLIP's answer, so new positions may be random.
        weights[name][: len(value)] = value
    pipe.text_encoder.load_state_dict(weights)
    return pipe


def train(folder: Path, epochs: int) -> None:
    sys.path.insert(0, os.getcwd())
    sys.modules["wandb"] = _stand_in(folder / "log.jsonl")
    _decode_floats()
    _cut_instructions()
    _end_after(epochs)
    given = {"dataset": folder, "pretrained.model": folder / "model", "save_dir": folder / "saved", **OVERRIDES}
    script = "scripts/train_flux_kontext.py"
    sys.argv = [script, f"--config={CONFIG}:counting_flux_kontext", *(f"--config.{k}={v}" for k, v in given.items())]
    runpy.run_path(script, run_name="__main__")


def _stand_in(path: Path) -> types.ModuleType:
    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(each) for each in value]
        return value if isinstance(value, str) else float(value)

    def log(values: dict[str, Any], step: int | None = None) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **{name: plain(value) for name, value in values.items()}}) + "\n")

    wandb = types.ModuleType("wandb")
    wandb.__spec__ = ModuleSpec("wandb", None)  # accelerate asks for it
    vars(wandb).update(init=lambda **_: None, log=log, Image=lambda _, caption="": caption)
    return wandb


def _decode_floats() -> None:
    from transformers import PreTrainedTokenizerBase

    decode = PreTrainedTokenizerBase.batch_decode
    PreTrainedTokenizerBase.batch_decode = lambda self, ids, **more: decode(self, ids.astype("int64"), **more)


def _cut_instructions() -> None:
    from flow_grpo.diffusers_patch import train_dreambooth_lora_flux as texts

    from editr1_plugins.miniedit.model import CALL

    encode = texts.encode_prompt
    texts.encode_prompt = lambda encoders, tokenizers, prompt, _: encode(
        encoders, tokenizers, prompt, CALL["max_sequence_length"]
    )


def _end_after(epochs: int) -> None:
    from flow_grpo.stat_tracking import PerPromptStatTracker

    clear, calls = PerPromptStatTracker.clear, []

    # Every process calls it once an epoch, when the advantages are known; then comes the update.
    def counted(self: Any) -> None:
        clear(self)
        calls.append(1)
        if len(calls) > epochs:
            sys.exit(0)

    PerPromptStatTracker.clear = counted


if __name__ == "__main__":
    main()
