"""Tiny members of further families: Stable Diffusion 3, Z-Image, Chroma, Lumina 2, Wan."""

from __future__ import annotations

from typing import Any

from .pipeline_parts import VOCABULARY, ByteTokenizer, clip_config, flow_scheduler, small_vae, t5_encoder

__all__ = ["chroma", "lumina2", "sd3", "z_image"]


def sd3(pipeline_class: str) -> Any:
    """Stable Diffusion 3: three text encoders, guidance in one forward of twice the batch."""
    import diffusers
    from transformers import CLIPTextModelWithProjection

    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=16,  # the inpainting pipeline takes no other number
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
    )
    # The two CLIP encoders' outputs, 16 wide each, lie side by side; the T5 encoder's are as wide as both.
    return getattr(diffusers, pipeline_class)(
        scheduler=flow_scheduler(use_dynamic_shifting=False, shift=3.0),
        vae=small_vae(16),
        text_encoder=CLIPTextModelWithProjection(clip_config()),
        tokenizer=ByteTokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config()),
        tokenizer_2=ByteTokenizer(),
        text_encoder_3=t5_encoder(width=32),
        tokenizer_3=ByteTokenizer(),
        transformer=transformer,
    )


def z_image(pipeline_class: str) -> Any:
    """Z-Image: lists of single images in and out of the transformer, a velocity of the opposite sign."""
    import diffusers
    from transformers import Qwen3Config, Qwen3Model

    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=16,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    text = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    return getattr(diffusers, pipeline_class)(
        scheduler=flow_scheduler(use_dynamic_shifting=False, shift=3.0),
        vae=small_vae(),
        text_encoder=Qwen3Model(text),
        tokenizer=ByteTokenizer(),
        transformer=transformer,
    )


def chroma(pipeline_class: str) -> Any:
    """Chroma: Flux without CLIP and without embedded guidance, always guided by a second forward."""
    import diffusers

    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=16,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return getattr(diffusers, pipeline_class)(
        scheduler=flow_scheduler(),
        vae=small_vae(),
        text_encoder=t5_encoder(),
        tokenizer=ByteTokenizer(),
        transformer=transformer,
    )


def lumina2(pipeline_class: str) -> Any:
    """Lumina 2: from text alone; guidance may end before the last step (`cfg_trunc_ratio`)."""
    import diffusers
    from transformers import Gemma2Config, Gemma2Model

    text = Gemma2Config(
        vocab_size=VOCABULARY,
        head_dim=4,
        hidden_size=8,
        intermediate_size=8,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_key_value_heads=2,
    )
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=8,
        num_layers=2,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2],
        cap_feat_dim=8,
    )
    return getattr(diffusers, pipeline_class)(
        scheduler=flow_scheduler(use_dynamic_shifting=False, shift=3.0),
        vae=small_vae(),
        text_encoder=Gemma2Model(text),
        tokenizer=ByteTokenizer(),
        transformer=transformer,
    )
