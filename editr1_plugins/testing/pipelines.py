"""Tiny editing pipelines for tests: real diffusers and transformers classes with random weights, built offline.

    pipe, call = tiny_pipeline("kontext", guided=True, steps=4)
    images = pipe(**call).images

They edit nothing worth looking at; they have every moving part of the real ones (packing, guidance, two text encoders,
source latents, masks), in well under a second. Tokenizers are a byte-level stand-in: real ones need files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .more_pipeline_families import chroma, lumina2, sd3, z_image
from .pipeline_families import flux, klein, modular_kontext, qwen
from .pipeline_parts import ByteTokenizer

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

__all__ = ["TINY_PIPELINES", "ByteTokenizer", "lora_parameters", "picture", "tiny_pipeline"]

_LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj", "proj_out")


def tiny_pipeline(
    name: str = "kontext",
    *,
    guided: bool = False,
    steps: int = 4,
    dtype: torch.dtype | None = None,
    lora_rank: int = 4,
    seed: int = 0,
) -> tuple[Any, dict[str, Any]]:
    """A pipeline with a LoRA on its transformer, and the arguments of a call for one (image, instruction) pair.

    Args:
        name: one of `TINY_PIPELINES`.
        guided: with classifier-free guidance, where the pipeline has it.
        steps: `num_inference_steps` of the call.
        dtype: of all weights; default torch.float32.
        lora_rank: 0 leaves the LoRA out. Its B matrices are not zero, so that gradients reach A as well.
        seed: of the weights; the global random generator is left as it was.

    Raises:
        ValueError: an unknown name.
    """
    import torch

    if name not in _RECIPES:
        raise ValueError(f"unknown tiny pipeline {name!r}; one of: {', '.join(TINY_PIPELINES)}")
    recipe = _RECIPES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = recipe.build() if dtype in (None, torch.float32) else recipe.build().to(dtype)
        for component in pipe.components.values():
            if isinstance(component, torch.nn.Module):
                component.requires_grad_(False).eval()
        if lora_rank:
            _add_lora(pipe.transformer, lora_rank)
    pipe.set_progress_bar_config(disable=True)
    call = {**recipe.pictures(), "prompt": "make the sky red", "num_inference_steps": steps, "output_type": "pt"}
    return pipe, {**call, **recipe.call, **(recipe.guidance if guided else {})}


def lora_parameters(pipe: Any) -> dict[str, torch.nn.Parameter]:
    """The LoRA matrices of the pipeline's transformer, by name."""
    return {name: p for name, p in pipe.transformer.named_parameters() if "lora_" in name}


def picture(size: int | tuple[int, int], seed: int = 0) -> Image:
    """An RGB image of uniform noise; `size` is one side of a square, or (width, height)."""
    import numpy as np
    from PIL import Image

    width, height = (size, size) if isinstance(size, int) else size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def _mask(size: int) -> Image:
    """White (to be edited) in the left half."""
    from PIL import Image

    mask = Image.new("L", (size, size), 0)
    mask.paste(255, (0, 0, size // 2, size))
    return mask


def _add_lora(transformer: Any, rank: int) -> None:
    import torch
    from peft import LoraConfig

    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_LORA_TARGETS)))
    for name, parameter in transformer.named_parameters():
        if "lora_" in name:
            parameter.data = (torch.randn(parameter.shape) * 0.1).to(parameter.dtype)


@dataclass(frozen=True)
class _Recipe:
    """How to build a pipeline, the arguments of its call, and those that switch guidance on."""

    family: Callable[[str], Any]
    pipeline_class: str
    call: Mapping[str, Any]
    guidance: Mapping[str, Any] = field(default_factory=dict)
    sources: int = 1
    masked: bool = False
    controlled: bool = False
    side: int = 64

    def build(self) -> Any:
        return self.family(self.pipeline_class)

    def pictures(self) -> dict[str, Any]:
        found: dict[str, Any] = {"image": [picture(self.side, seed) for seed in range(self.sources)]}
        if self.sources == 1:
            found["image"] = found["image"][0]
        if not self.sources:
            del found["image"]
        if self.masked:
            found["mask_image"] = _mask(self.side)
        if self.controlled:
            found["control_image"] = picture(self.side, seed=7)
        return found


_TRUE_CFG = {"true_cfg_scale": 4.0, "negative_prompt": "ugly"}
_CFG = {"guidance_scale": 4.0, "negative_prompt": "ugly"}
_FLUX_CALL = {"height": 32, "width": 32, "max_sequence_length": 24}
_KONTEXT_CALL = {**_FLUX_CALL, "max_area": 32 * 32, "_auto_resize": False}
_QWEN_CALL = {"height": 256, "width": 256, "true_cfg_scale": 1.0}
_UNGUIDED = {**_FLUX_CALL, "guidance_scale": 1.0}
_PLAIN_Z_IMAGE = {**_FLUX_CALL, "guidance_scale": 0.0}
_PART = {"strength": 0.75}

_RECIPES: Mapping[str, _Recipe] = MappingProxyType(
    {
        "chroma": _Recipe(chroma, "ChromaPipeline", _FLUX_CALL, _CFG, sources=0),
        "chroma_img2img": _Recipe(chroma, "ChromaImg2ImgPipeline", {**_FLUX_CALL, **_PART}, _CFG),
        "flux": _Recipe(flux, "FluxPipeline", _FLUX_CALL, _TRUE_CFG, sources=0),
        "flux_control": _Recipe(flux, "FluxControlPipeline", _FLUX_CALL, sources=0, controlled=True),
        "flux_control_img2img": _Recipe(flux, "FluxControlImg2ImgPipeline", {**_FLUX_CALL, **_PART}, controlled=True),
        "flux_control_inpaint": _Recipe(
            flux, "FluxControlInpaintPipeline", {**_FLUX_CALL, **_PART}, masked=True, controlled=True
        ),
        "flux_fill": _Recipe(flux, "FluxFillPipeline", _FLUX_CALL, masked=True),
        "flux_img2img": _Recipe(flux, "FluxImg2ImgPipeline", {**_FLUX_CALL, **_PART}, _TRUE_CFG),
        "flux_inpaint": _Recipe(flux, "FluxInpaintPipeline", {**_FLUX_CALL, **_PART}, _TRUE_CFG, masked=True),
        "klein": _Recipe(klein, "Flux2KleinPipeline", _UNGUIDED, {"guidance_scale": 4.0}),
        "klein_inpaint": _Recipe(
            klein, "Flux2KleinInpaintPipeline", {**_UNGUIDED, **_PART}, {"guidance_scale": 4.0}, masked=True
        ),
        "klein_kv": _Recipe(klein, "Flux2KleinKVPipeline", _FLUX_CALL),
        "klein_two_sources": _Recipe(klein, "Flux2KleinPipeline", _UNGUIDED, {"guidance_scale": 4.0}, sources=2),
        "kontext": _Recipe(flux, "FluxKontextPipeline", _KONTEXT_CALL, _TRUE_CFG),
        "kontext_inpaint": _Recipe(
            flux, "FluxKontextInpaintPipeline", {**_KONTEXT_CALL, "strength": 1.0}, _TRUE_CFG, masked=True
        ),
        "kontext_modular": _Recipe(modular_kontext, "FluxKontextPipeline", _KONTEXT_CALL),
        "lumina2": _Recipe(lumina2, "Lumina2Pipeline", _UNGUIDED, _CFG, sources=0),
        "qwen": _Recipe(qwen, "QwenImagePipeline", _QWEN_CALL, _TRUE_CFG, sources=0),
        "qwen_edit": _Recipe(qwen, "QwenImageEditPipeline", _QWEN_CALL, _TRUE_CFG),
        "qwen_edit_inpaint": _Recipe(
            qwen, "QwenImageEditInpaintPipeline", {**_QWEN_CALL, **_PART}, _TRUE_CFG, masked=True
        ),
        "qwen_edit_plus": _Recipe(qwen, "QwenImageEditPlusPipeline", _QWEN_CALL, _TRUE_CFG),
        "qwen_edit_plus_two_sources": _Recipe(qwen, "QwenImageEditPlusPipeline", _QWEN_CALL, _TRUE_CFG, sources=2),
        "qwen_img2img": _Recipe(qwen, "QwenImageImg2ImgPipeline", {**_QWEN_CALL, **_PART}, _TRUE_CFG),
        "qwen_inpaint": _Recipe(qwen, "QwenImageInpaintPipeline", {**_QWEN_CALL, **_PART}, _TRUE_CFG, masked=True),
        "sd3": _Recipe(sd3, "StableDiffusion3Pipeline", _UNGUIDED, _CFG, sources=0),
        "sd3_img2img": _Recipe(sd3, "StableDiffusion3Img2ImgPipeline", {**_UNGUIDED, **_PART}, _CFG),
        "sd3_inpaint": _Recipe(sd3, "StableDiffusion3InpaintPipeline", {**_UNGUIDED, **_PART}, _CFG, masked=True),
        "z_image": _Recipe(z_image, "ZImagePipeline", _PLAIN_Z_IMAGE, _CFG, sources=0),
        "z_image_img2img": _Recipe(z_image, "ZImageImg2ImgPipeline", {**_PLAIN_Z_IMAGE, **_PART}, _CFG, side=32),
        "z_image_inpaint": _Recipe(
            z_image, "ZImageInpaintPipeline", {**_PLAIN_Z_IMAGE, **_PART}, _CFG, masked=True, side=32
        ),
    }
)

#: The names that `tiny_pipeline` takes. "klein_kv" keeps a K/V cache between steps and "flux_control_inpaint" blends
#: noise after the step, in another layout than the latents': made to be refused.
TINY_PIPELINES: tuple[str, ...] = tuple(_RECIPES)
