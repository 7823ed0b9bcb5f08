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

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

__all__ = ["TINY_PIPELINES", "ByteTokenizer", "lora_parameters", "picture", "tiny_pipeline"]

_VOCABULARY = 260
_END = 2
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
    call = {"image": picture(64), "prompt": "make the sky red", "num_inference_steps": steps, "output_type": "pt"}
    if recipe.masked:
        call["mask_image"] = _mask(64)
    return pipe, {**call, **recipe.call, **(recipe.guidance if guided else {})}


def lora_parameters(pipe: Any) -> dict[str, torch.nn.Parameter]:
    """The LoRA matrices of the pipeline's transformer, by name."""
    return {name: p for name, p in pipe.transformer.named_parameters() if "lora_" in name}


def picture(size: int, seed: int = 0) -> Image:
    """A square RGB image of uniform noise."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


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


class ByteTokenizer:
    """One token per byte (3..258): as much of a tokenizer or processor as the pipelines' prompt code needs."""

    model_max_length = 24
    added_tokens_encoder: Mapping[str, int] = MappingProxyType({})

    def __call__(
        self,
        text: str | list[str],
        padding: bool | str | None = None,
        max_length: int | None = None,
        truncation: bool = False,
        **_: Any,
    ) -> Any:
        import torch
        from transformers import BatchFeature

        rows = [[byte + 3 for byte in one.encode()] for one in ([text] if isinstance(text, str) else text)]
        rows = [(row[: (max_length or len(row) + 1) - 1] if truncation else row) + [_END] for row in rows]
        width = max_length if padding == "max_length" and max_length else max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return BatchFeature({"input_ids": ids, "attention_mask": mask})

    def tokenize(self, text: str) -> list[str]:
        return list(text)

    def apply_chat_template(self, messages: list[dict[str, Any]], **_: Any) -> str:
        content = messages[0]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    def batch_decode(self, ids: Any, **_: Any) -> list[str]:
        return ["" for _ in ids]


def _scheduler(**overrides: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    shifting = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    return FlowMatchEulerDiscreteScheduler(**{**shifting, **overrides})


def _flux(pipeline_class: str) -> Any:
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip = CLIPTextConfig(
        vocab_size=_VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=16,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=_END,
    )
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        shift_factor=0.0,
        scaling_factor=1.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return getattr(diffusers, pipeline_class)(
        scheduler=_scheduler(),
        vae=vae,
        text_encoder=CLIPTextModel(clip),
        tokenizer=ByteTokenizer(),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=_VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
        tokenizer_2=ByteTokenizer(),
        transformer=transformer,
    )


def _klein(pipeline_class: str) -> Any:
    import diffusers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    text = Qwen3Config(
        vocab_size=_VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=28,  # the pipeline reads layers 9, 18 and 27
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
        timestep_guidance_channels=16,
    )
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return getattr(diffusers, pipeline_class)(
        scheduler=_scheduler(),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(text),
        tokenizer=ByteTokenizer(),
        transformer=transformer,
    )


def _qwen(pipeline_class: str) -> Any:
    import diffusers
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": _VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_theta": 1e6,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    # Five halvings instead of three: these pipelines encode the source at about 1024 x 1024 whatever the output size.
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1] * 6,
        num_res_blocks=1,
        temperal_downsample=[False] * 5,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return getattr(diffusers, pipeline_class)(
        scheduler=_scheduler(shift_terminal=0.02),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        tokenizer=ByteTokenizer(),
        processor=ByteTokenizer(),
        transformer=transformer,
    )


@dataclass(frozen=True)
class _Recipe:
    """How to build a pipeline, the arguments of its call, and those that switch guidance on."""

    family: Callable[[str], Any]
    pipeline_class: str
    call: Mapping[str, Any]
    guidance: Mapping[str, Any] = field(default_factory=dict)
    masked: bool = False

    def build(self) -> Any:
        return self.family(self.pipeline_class)


_TRUE_CFG = {"true_cfg_scale": 4.0, "negative_prompt": "ugly"}
_FLUX_CALL = {"height": 32, "width": 32, "max_sequence_length": 24}
_KONTEXT_CALL = {**_FLUX_CALL, "max_area": 32 * 32, "_auto_resize": False}
_QWEN_CALL = {"height": 256, "width": 256, "true_cfg_scale": 1.0}
_KLEIN_CALL = {**_FLUX_CALL, "guidance_scale": 1.0}

_RECIPES: Mapping[str, _Recipe] = MappingProxyType(
    {
        "flux_img2img": _Recipe(_flux, "FluxImg2ImgPipeline", {**_FLUX_CALL, "strength": 0.75}, _TRUE_CFG),
        "flux_inpaint": _Recipe(_flux, "FluxInpaintPipeline", {**_FLUX_CALL, "strength": 0.75}, _TRUE_CFG, masked=True),
        "klein": _Recipe(_klein, "Flux2KleinPipeline", _KLEIN_CALL, {"guidance_scale": 4.0}),
        "klein_kv": _Recipe(_klein, "Flux2KleinKVPipeline", _FLUX_CALL),
        "kontext": _Recipe(_flux, "FluxKontextPipeline", _KONTEXT_CALL, _TRUE_CFG),
        "kontext_inpaint": _Recipe(
            _flux, "FluxKontextInpaintPipeline", {**_KONTEXT_CALL, "strength": 1.0}, _TRUE_CFG, masked=True
        ),
        "qwen_edit": _Recipe(_qwen, "QwenImageEditPipeline", _QWEN_CALL, _TRUE_CFG),
        "qwen_edit_plus": _Recipe(_qwen, "QwenImageEditPlusPipeline", _QWEN_CALL, _TRUE_CFG),
    }
)

#: The names that `tiny_pipeline` takes. "klein_kv" keeps a K/V cache between steps: made to be refused.
TINY_PIPELINES: tuple[str, ...] = tuple(_RECIPES)
