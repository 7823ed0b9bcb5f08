"""Memory and time of a training step of FLUX.1 Kontext (12B) and Qwen-Image-Edit (20B), by arithmetic: Markdown tables.

    python tests/performance/memory_table.py [--peak 989] [--mfu 0.4] [--verify]

Nothing here is measured on a GPU. Parameters are counted on models built from the published architecture numbers on the
"meta" device, which holds shapes and no values. FLOPs are formulas of the architecture (2 per multiply and add); time
is FLOPs / (mfu x peak), so it is as good as the assumed share of the peak. What backward keeps is counted by autograd's
own hooks on one block of full width, with attention that keeps what flash attention keeps. Not counted: the allocator's
waste, working buffers of kernels, the judge.

`--verify` holds the arithmetic against a tiny model with values (parameter bytes exactly) and against torch's own FLOP
counter, on the tiny model and on both full-size ones (on "meta").
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers.utils import logging as quiet
from peft import LoraConfig
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from editr1_plugins.training.edit_grpo import KontextGRPOTrainer

sys.path.insert(0, str(Path(__file__).parent))

from real_models import FAMILIES, Architecture, Family, Shape
from replay_overhead import saved_bytes

BF16, FP32, RANK = 2, 4, 64
GB = 1e9


def on_meta(build: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        return build()


def count(module: nn.Module, *, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def with_lora(transformer: Any, targets: tuple[str, ...], rank: int = RANK) -> Any:
    transformer.requires_grad_(False)
    with torch.device("meta"):
        transformer.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets)))
    return transformer


class _FlashLike(torch.autograd.Function):
    """Attention that computes nothing and keeps for backward what flash attention keeps: q, k, v, output, row sums."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """Within: [bytes] that autograd keeps of meta tensors for backward, weights left out, each tensor once."""
    found, seen = [0], {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base  # meta tensors have no addresses to tell them apart
        if not isinstance(base, nn.Parameter) and id(base) not in seen:
            seen[id(base)] = base  # kept alive, so that its id stays its own
            found[0] += base.numel() * base.element_size()
        return tensor

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> Any:
        flash: Any = _FlashLike.apply
        return flash(query, key, value)

    replaced = patch.object(torch.nn.functional, "scaled_dot_product_attention", attention)
    with replaced, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found


def block_inputs(family: Family, shape: Shape) -> dict[str, Any]:
    d, head = family.architecture.width, 128
    states = {
        "hidden_states": torch.empty(1, shape.image, d, dtype=torch.bfloat16, device="meta", requires_grad=True),
        "encoder_hidden_states": torch.empty(1, shape.text, d, dtype=torch.bfloat16, device="meta", requires_grad=True),
        "temb": torch.empty(1, d, dtype=torch.bfloat16, device="meta"),
    }
    if family.architecture.single:
        rope: Any = tuple(torch.empty(shape.all, head, device="meta") for _ in range(2))
        return {**states, "image_rotary_emb": rope}
    rope = tuple(torch.empty(n, head // 2, dtype=torch.complex64, device="meta") for n in (shape.image, shape.text))
    return {**states, "image_rotary_emb": rope, "encoder_hidden_states_mask": None}


def largest_block(family: Family, transformer: Any, shape: Shape) -> int:
    """Bytes that autograd keeps inside of the largest block, one row, LoRA included."""
    blocks = [transformer.transformer_blocks[0], *list(getattr(transformer, "single_transformer_blocks", []))[:1]]
    sizes = []
    for block in blocks:
        with kept_bytes() as found:
            block(**block_inputs(family, shape))
        sizes.append(found[0])
    return max(sizes)


def decoder_work(vae: Any, side: int) -> tuple[float, int]:
    """(FLOPs, bytes of three times the largest feature map) of decoding one image."""
    largest = [0]
    hooks = [
        module.register_forward_hook(lambda _, __, out: largest.append(out.numel() if torch.is_tensor(out) else 0))
        for module in vae.modules()
    ]
    still = (1,) if type(vae).__name__ == "AutoencoderKLQwenImage" else ()
    latents = torch.empty(1, 16, *still, side // 8, side // 8, dtype=torch.bfloat16, device="meta")
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        vae.decode(latents)
    for hook in hooks:
        hook.remove()
    return flops.get_total_flops(), 3 * BF16 * max(largest)


@dataclass(frozen=True)
class Row:
    """A family at one image size; bytes unless said otherwise. `activations`, `decoding` and `tape` are of one row."""

    family: Family
    side: int
    parameters: dict[str, int]
    lora: int
    activations: int
    decoding: int
    decoder_flops: float
    tape: int

    def memory(self) -> dict[str, float]:
        """GB by part, as the recipe runs: a micro-batch of `per_device_train_batch_size` rows, one group's tape."""
        recipe = self.family.recipe
        batch, trained = recipe.per_device_train_batch_size, recipe.window or recipe.num_inference_steps - 1
        latents = recipe.num_generations * trained * 3 * FP32 * 64 * self.side**2 // 256  # x, x_next, velocity
        return {
            "transformer": BF16 * self.parameters["transformer"] / GB,
            "lora": 5 * FP32 * self.lora / GB,  # weights, gradients, AdamW's two moments, moving average
            "activations": batch * max(self.activations, self.decoding) / GB,
            "tape": (latents + self.tape) / GB,
            "encoders": BF16 * (self.parameters["text encoders"] + self.parameters["VAE"]) / GB,
        }

    def flops(self) -> dict[str, float]:
        """Of one update on one group: sampling, decoding, the reference policy's pass, replay."""
        architecture, shape, recipe = self.family.architecture, self.family.shape(self.side), self.family.recipe
        trained = recipe.window or recipe.num_inference_steps - 1
        rows, each = recipe.num_generations, self.family.forwards * sum(architecture.forward_flops(shape))
        return {
            "sampling": rows * recipe.num_inference_steps * each,
            "decoding": rows * self.decoder_flops,
            "reference": rows * trained * each if recipe.beta else 0.0,
            "replay": rows * trained * self.family.forwards * architecture.replay_flops(shape),
        }


def rows_of(family: Family, sides: tuple[int, ...]) -> list[Row]:
    parts = {"transformer": on_meta(family.architecture.build), **on_meta(family.encoders)}
    parameters = {name: count(part) for name, part in parts.items()}
    transformer = with_lora(parts["transformer"].to(torch.bfloat16), family.targets)
    rows = []
    for side in sides:
        shape = family.shape(side)
        decoder_flops, decoding = decoder_work(parts["VAE"].to(torch.bfloat16), side)
        blocks = family.architecture.double + family.architecture.single
        checkpoints = family.forwards * blocks * shape.all * family.architecture.width  # with CFG, of both branches
        row = Row(
            family=family,
            side=side,
            parameters=parameters,
            lora=count(transformer, trained=True),
            activations=BF16 * checkpoints + largest_block(family, transformer, shape),
            decoding=decoding,
            decoder_flops=decoder_flops,
            tape=BF16 * family.forwards * (shape.text * family.architecture.text_width + 64 * shape.image),
        )
        rows.append(row)
    return rows


def memory_table(rows: list[Row]) -> str:
    lines = [
        "| model | px | tokens | frozen transformer | LoRA, gradients, AdamW, EMA | micro-batch: rows, activations "
        "| tape of a group | text encoders and VAE | all | encoders offloaded |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        parts, shape = row.memory(), row.family.shape(row.side)
        whole = sum(parts.values())
        lines.append(
            f"| {row.family.name} | {row.side} | {shape.image} + {shape.text} | {parts['transformer']:.1f} "
            f"| {parts['lora']:.1f} ({row.lora / 1e6:.0f} M) | {row.family.recipe.per_device_train_batch_size}, "
            f"{parts['activations']:.1f} | {parts['tape']:.2f} | {parts['encoders']:.1f} | {whole:.1f} "
            f"| **{whole - parts['encoders']:.1f}** |"
        )
    return "\n".join(lines)


def time_table(rows: list[Row], peak: float, mfu: float) -> str:
    lines = [
        "| model | px | TFLOP of one forward | group x steps, trained | sampling, s | decoding, s | reference, s "
        "| replay, s | update on one group, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        recipe = row.family.recipe
        forward = sum(row.family.architecture.forward_flops(row.family.shape(row.side))) / 1e12
        seconds = {name: flops / (mfu * peak * 1e12) for name, flops in row.flops().items()}
        lines.append(
            f"| {row.family.name} | {row.side} | {forward:.1f}{' x 2 (CFG)' if row.family.forwards == 2 else ''} "
            f"| {recipe.num_generations} x {recipe.num_inference_steps}, "
            f"{recipe.window or recipe.num_inference_steps - 1} | "
            + " | ".join(f"{seconds[name]:.1f}" for name in ("sampling", "decoding", "reference", "replay"))
            + f" | **{sum(seconds.values()):.0f}** |"
        )
    return "\n".join(lines)


def full_table(rows: list[Row]) -> str:
    lines = [
        "| model | parameters | bf16 weights and gradients, bf16 AdamW | 8-bit AdamW | fp32 weights and AdamW |",
        "|---|---|---|---|---|",
    ]
    for row in {row.family.name: row for row in rows}.values():
        number = row.parameters["transformer"]
        cells = " | ".join(f"{number * each / GB:.0f}" for each in (8, 6, 16))
        lines.append(f"| {row.family.name} | {number / 1e9:.2f} B | {cells} |")
    return "\n".join(lines)


def counted_flops(transformer: Any, arguments: dict[str, Any]) -> float:
    # torch counts the plain form of attention; it knows no FLOPs of the CPU's fused kernel.
    with FlopCounterMode(display=False) as flops, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        transformer(**arguments)
    return float(flops.get_total_flops())


def forward_inputs(
    architecture: Architecture, shape: Shape, device: str, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    def values(*size: int) -> torch.Tensor:
        return torch.zeros(*size, device=device, dtype=dtype)

    arguments = {
        "hidden_states": values(1, shape.image, architecture.channels),
        "encoder_hidden_states": values(1, shape.text, architecture.text_width),
        "timestep": values(1),
    }
    if not architecture.pooled:
        return {**arguments, "img_shapes": [[(1, 1, shape.image)]]}
    ids = {"img_ids": values(shape.image, 3).float(), "txt_ids": values(shape.text, 3).float()}
    return {**arguments, **ids, "pooled_projections": values(1, architecture.pooled), "guidance": values(1).float()}


def verify() -> Iterator[str]:
    """Lines of comparisons between this file's arithmetic and what torch counts."""
    from diffusers import FluxTransformer2DModel

    from editr1_plugins.miniedit.model import load_pipeline

    tiny = load_pipeline("start").transformer
    predicted = FP32 * count(on_meta(lambda: FluxTransformer2DModel.from_config(tiny.config)))
    real = sum(p.untyped_storage().nbytes() for p in tiny.parameters())
    yield f"| MiniEdit's transformer, parameter bytes | {predicted} | {real} | {predicted - real:+d} bytes |"
    small = Architecture(lambda: tiny, 96, 2, 4, 64, pooled=64, guidance=True)
    cases = [("MiniEdit's transformer", small, tiny, Shape(128, 10), "cpu")]
    for family in FAMILIES:
        model = on_meta(family.architecture.build).to(torch.bfloat16)
        cases.append((family.name + ", 512 px", family.architecture, model, family.shape(512), "meta"))
    for name, architecture, model, shape, device in cases:
        formula = sum(architecture.forward_flops(shape))
        torchs = counted_flops(model, forward_inputs(architecture, shape, device, next(model.parameters()).dtype))
        off = formula / torchs - 1
        yield f"| {name}, FLOPs of a forward | {formula:.4g} | {torchs:.4g} | {100 * off:+.3f} % |"
    targets, shape = KontextGRPOTrainer.lora_targets, Shape(128, 10)
    hollow = with_lora(on_meta(lambda: FluxTransformer2DModel.from_config(tiny.config)), targets, 4)
    with kept_bytes() as guessed:
        hollow(**forward_inputs(small, shape, "meta"))
    tiny.requires_grad_(False).add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=list(targets)))
    with saved_bytes() as kept:
        output = tiny(**forward_inputs(small, shape, "cpu"))  # held: what is kept goes with it
        off = guessed[0] / kept[0] - 1
        del output
    yield f"| MiniEdit's transformer, bytes kept for backward | {guessed[0]} | {kept[0]} | {100 * off:+.3f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peak", type=float, default=989, help="dense bf16 TFLOP/s of the device (H200: 989)")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the peak that is assumed to be reached")
    parser.add_argument("--verify", action="store_true", help="also compare with torch's own counts")
    options = parser.parse_args()
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    if options.verify:
        print("| what | by formula | by torch | difference |\n|---|---|---|---|")
        for line in verify():
            print(line, flush=True)
        print()
    rows = [row for family in FAMILIES for row in rows_of(family, (512, 1024))]
    print(f"LoRA of rank {RANK}, GB\n\n{memory_table(rows)}\n")
    print(f"Full fine-tuning: weights, gradients and optimizer, GB, to be divided by FSDP2\n\n{full_table(rows)}\n")
    print(f"Time at {100 * options.mfu:.0f} % of {options.peak:.0f} TFLOP/s, one device\n")
    print(time_table(rows, options.peak, options.mfu))


if __name__ == "__main__":
    main()
