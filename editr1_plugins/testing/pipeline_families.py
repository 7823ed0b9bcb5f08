"""Tiny members of the editing families: FLUX.1 (Kontext, Fill, Control), FLUX.2 [klein], Qwen-Image."""

from __future__ import annotations

from typing import Any

from .pipeline_parts import VOCABULARY, ByteTokenizer, clip_config, flow_scheduler, small_vae, t5_encoder

__all__ = ["flux", "klein", "modular_kontext", "qwen"]

#: Channels beside the latents' 16 that the transformers of these take: masked source and mask, or a control image.
_MORE_CHANNELS = {"FluxFillPipeline": 32}
_CONTROLLED = 16


def flux(pipeline_class: str) -> Any:
    """FLUX.1 and its relatives, with embedded guidance."""
    import diffusers
    from transformers import CLIPTextModel

    more = _CONTROLLED if "FluxControl" in pipeline_class else _MORE_CHANNELS.get(pipeline_class, 0)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16 + more,
        out_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    return getattr(diffusers, pipeline_class)(
        scheduler=flow_scheduler(),
        vae=small_vae(),
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=ByteTokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=ByteTokenizer(),
        transformer=transformer,
    )


def modular_kontext(pipeline_class: str) -> Any:
    """Kontext put together of diffusers' modular blocks."""
    from diffusers.modular_pipelines import FluxKontextAutoBlocks

    pipe = FluxKontextAutoBlocks().init_pipeline()
    parts = flux(pipeline_class).components
    pipe.update_components(**{name: parts[name] for name in pipe.component_names if name in parts})
    return pipe


def klein(pipeline_class: str) -> Any:
    """FLUX.2 [klein] and its relatives."""
    import diffusers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    text = Qwen3Config(
        vocab_size=VOCABULARY,
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
        scheduler=flow_scheduler(),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(text),
        tokenizer=ByteTokenizer(),
        transformer=transformer,
    )


def qwen(pipeline_class: str) -> Any:
    """Qwen-Image and its editing relatives; those without a vision side take no `processor`."""
    import diffusers
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": VOCABULARY,
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
        base_dim=2,
        z_dim=4,
        dim_mult=[1] * 6,
        num_res_blocks=1,
        temperal_downsample=[False] * 5,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    reader = {"processor": ByteTokenizer()} if "Edit" in pipeline_class else {}
    return getattr(diffusers, pipeline_class)(
        scheduler=flow_scheduler(shift_terminal=0.02),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        tokenizer=ByteTokenizer(),
        transformer=transformer,
        **reader,
    )
