"""GPUs, hours and memory of training a judge at full size: arithmetic, nothing here was measured.

    python examples/judge/plan.py
    python examples/judge/plan.py --gpus 4 --memory 96 --peak 148 --utilisation 0.3

Parameters are counted on the model's own classes (no weights are made); tokens come from the image size and from the
length of our prompts. What is assumed stands in `ASSUMED` and is printed with the result; change it by flags.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

#: Flags and their defaults. The first three are the hardware; counts of tokens are guesses until `--check` was run.
ASSUMED = {
    "gpus": (8, "GPUs"),
    "memory": (80, "GB of memory per GPU"),
    "peak": (989, "dense bf16 TFLOP/s per GPU (H100 SXM)"),
    "utilisation": (0.3, "share of the peak that training reaches"),
    "generated": (2500, "tokens per second and GPU that vLLM generates, whole batch"),
    "side": (512, "pixels of an image's side"),
    "characters": (4.0, "characters of English per token"),
    "principles": (10, "principles per edit, of 60 characters"),
    "trace": (900, "tokens of a trace"),
    "traces": (200_000, "traces of the cold start (the paper)"),
    "pairs": (10_000, "pairs of GCPO (the paper)"),
    "generations": (8, "traces per image in GCPO"),
    "lora_rank": (64, "rank of the LoRA in GCPO"),
}

#: The published configurations of Qwen2.5-VL.
TEXT = {
    "3B": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
           "num_key_value_heads": 2, "vocab_size": 151936},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064},
}  # fmt: skip
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
MERGED = 28  # pixels of the side of one image token: patches of 14, merged two by two
PIXELS_PER_PATCH = 14
QUESTION = 60  # characters
GB = 1e9


@dataclass(frozen=True)
class Model:
    """Numbers of one size of Qwen2.5-VL: parameters of each part, and what the memory of a token depends on."""

    name: str
    text: int
    vision: int
    lora: int
    layers: int
    hidden: int
    cached: int  # bytes of keys and values per token, in bf16
    vision_layers: int
    vision_hidden: int

    @property
    def parameters(self) -> int:
        return self.text + self.vision


def load(name: str, rank: int) -> Model:
    """Count parameters on the classes that are trained, on torch's meta device."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = TEXT[name]
    size = text["hidden_size"] // text["num_attention_heads"]
    # Above 4B the output layer has weights of its own.
    config = Qwen2_5_VLConfig(
        text_config={**text, "tie_word_embeddings": name == "3B"},
        vision_config={**VISION, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=name == "3B",
    )
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    counted = {part: each.numel() for part, each in model.named_parameters()}
    vision = sum(count for part, count in counted.items() if ".visual." in part)
    linear = [each for part, each in model.named_modules() if "language_model" in part and part.endswith("_proj")]
    return Model(
        name=name,
        text=sum(counted.values()) - vision,
        vision=vision,
        lora=sum(rank * (each.in_features + each.out_features) for each in linear),
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        cached=2 * 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * size,
        vision_layers=VISION["depth"],
        vision_hidden=VISION["hidden_size"],
    )


def tokens(assumed: argparse.Namespace) -> dict[str, int]:
    """Tokens of one example, by part."""
    from editr1_plugins.principles.prompt_text import load_prompt

    names = ("judge_rules", "judge_task", "judge_edited", "answer_think_verify")
    written = sum(len(load_prompt("editr1_plugins.verifiers", name).text) for name in names)
    asked = assumed.principles * (QUESTION + 70)  # with number and category
    return {
        "prompt": round((written + asked) / assumed.characters),
        "images": 2 * round(assumed.side / MERGED) ** 2,
        "trace": assumed.trace,
    }


def forward(model: Model, length: int, patches: int) -> float:
    """Floating-point operations of one forward pass: two per weight and token, and causal attention."""
    text = 2 * (model.text - model.hidden * TEXT[model.name]["vocab_size"] * (model.name == "7B")) * length
    attention = 2 * model.layers * model.hidden * length**2
    return text + attention + 2 * model.vision * patches


def activations(model: Model, length: int, patches: int) -> float:
    """Bytes with checkpointing: each layer's input in bf16, and one layer whole (about 34 values per hidden unit)."""
    text = 2 * model.layers * model.hidden * length + 2 * 34 * model.hidden * length
    return text + 2 * model.vision_layers * model.vision_hidden * patches


def training_memory(model: Model, trained: int, zero: int, gpus: int) -> float:
    """Bytes per GPU: weights in bf16; gradients in bf16, master copy and two moments in float32 of what is trained."""
    shared = gpus if zero else 1
    weights = 2 * model.parameters / (gpus if zero == 3 else 1)
    return weights + 14 * trained / shared


def plan_sft(model: Model, assumed: argparse.Namespace, zero: int, batch: int) -> dict[str, float]:
    parts = tokens(assumed)
    length, patches = sum(parts.values()), 4 * parts["images"]
    work = 4 * forward(model, length, patches) * assumed.traces  # forward, again for the backward pass, backward twice
    memory = training_memory(model, model.parameters, zero, assumed.gpus)
    return {
        "tokens per example": length,
        "hours": work / _speed(assumed) / 3600,
        "memory": (memory + batch * activations(model, length, patches)) / GB,
    }


def plan_gcpo(model: Model, assumed: argparse.Namespace, batch: int, vllm_share: float) -> dict[str, float]:
    parts = tokens(assumed)
    length, patches = sum(parts.values()), 4 * parts["images"]
    traces = 2 * assumed.pairs * assumed.generations
    # Old log-probabilities once; then forward, again, and backward, which with a LoRA needs no gradients of weights.
    learning = (1 + 3) * forward(model, length, patches) * traces / _speed(assumed) / 3600
    generating = traces * parts["trace"] / (assumed.generated * assumed.gpus) / 3600
    memory = training_memory(model, model.lora, 0, assumed.gpus)
    vllm = vllm_share * assumed.memory * GB
    return {
        "tokens per example": length,
        "hours": learning + generating,
        "hours generating": generating,
        "memory": (memory + batch * activations(model, length, patches) + vllm) / GB,
        "traces that fit vLLM at once": math.floor(
            (vllm - 2 * model.parameters) / (length * model.cached) if vllm > 2 * model.parameters else 0
        ),
    }


def _speed(assumed: argparse.Namespace) -> float:
    return float(assumed.gpus * assumed.peak * 1e12 * assumed.utilisation)


#: The YAML files beside this one: size, ZeRO stage and batch of SFT, batch and vLLM's share of GCPO.
RUNS = (("3B", 2, 4, 2, 0.35), ("7B", 3, 2, 2, 0.35))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, text) in ASSUMED.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=text)
    assumed = parser.parse_args()
    print("arithmetic, not measured; assumed:")
    for name, (_, text) in ASSUMED.items():
        print(f"  {getattr(assumed, name):>10,} {text}")
    print("tokens per example: " + ", ".join(f"{part} {count:,}" for part, count in tokens(assumed).items()))
    for size, zero, sft_batch, gcpo_batch, share in RUNS:
        model = load(size, assumed.lora_rank)
        print(
            f"\n{size}: {model.parameters / 1e9:.2f} G parameters ({model.vision / 1e9:.2f} G vision), "
            f"LoRA {model.lora / 1e6:.0f} M"
        )
        for stage, found in (
            (f"SFT, all weights, ZeRO-{zero}", plan_sft(model, assumed, zero, sft_batch)),
            ("GCPO, LoRA, vLLM colocate", plan_gcpo(model, assumed, gcpo_batch, share)),
        ):
            fits = "fits" if found["memory"] < 0.9 * assumed.memory else "does NOT fit"
            print(
                f"  {stage}: {found['hours']:.1f} h on {assumed.gpus} GPUs, {found['memory']:.0f} GB of "
                f"{assumed.memory} GB per GPU ({fits})"
            )
            for name in ("hours generating", "traces that fit vLLM at once"):
                if name in found:
                    print(f"    {name}: {found[name]:,.1f}")


if __name__ == "__main__":
    main()
