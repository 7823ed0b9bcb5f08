"""The tiny FLUX.1 Kontext of MiniEdit: stock diffusers and transformers classes, 1.7 M parameters.

Two sets of weights ship with the package, as ordinary pipeline folders. "clean" was trained on right pairs only.
"start" went on for a while on pairs of which half are wrong, as mined editing data are; it sometimes does right, which
gives RL something to choose from. `examples/miniedit/train_kontext.py` makes both.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import ConfigError
from editr1_plugins.miniedit.world import SIZE, WORDS

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxKontextPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel, PreTrainedTokenizerFast, T5EncoderModel

__all__ = ["CALL", "WEIGHTS", "build_pipeline", "load_pipeline", "weights_path"]

WEIGHTS: Final = ("clean", "start")
_TOKENS: Final = 10  # the longest instruction and its end mark
_SPECIAL: Final = ("<pad>", "</s>", "<unk>")
_VOCABULARY: Final = (*_SPECIAL, *WORDS)
_LATENT_CHANNELS: Final = 16
_TEXT_WIDTH: Final = 64
#: Arguments with which the pipeline is called on 32x32 images; steps, image and prompt are the caller's.
CALL: Final[dict[str, Any]] = {
    "height": SIZE,
    "width": SIZE,
    "max_area": SIZE * SIZE,
    "_auto_resize": False,
    "max_sequence_length": _TOKENS,
    "guidance_scale": 2.5,
}


def weights_path(weights: str = "start") -> Path:
    """The folder of a set of weights, as `from_pretrained` takes it.

    Raises:
        ConfigError: no such weights.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"no MiniEdit weights {weights!r}; one of: {', '.join(WEIGHTS)}")
    return Path(str(files("editr1_plugins.miniedit") / "weights" / weights))


def load_pipeline(weights: str = "start") -> FluxKontextPipeline:
    """The trained pipeline, in fp32 on the CPU, with its progress bar off."""
    import torch
    from diffusers import FluxKontextPipeline

    pipe = FluxKontextPipeline.from_pretrained(weights_path(weights), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_pipeline() -> FluxKontextPipeline:
    """The same pipeline with random weights."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline

    clip, t5 = _text_encoders()
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=_autoencoder(),
        text_encoder=clip,
        tokenizer=_tokenizer(),
        text_encoder_2=t5,
        tokenizer_2=_tokenizer(),
        transformer=_transformer(),
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_VOCABULARY)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=_TOKENS
    )


def _autoencoder() -> AutoencoderKL:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        latent_channels=_LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def _text_encoders() -> tuple[CLIPTextModel, T5EncoderModel]:
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip = CLIPTextConfig(
        vocab_size=len(_VOCABULARY),
        hidden_size=_TEXT_WIDTH,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=_TOKENS,
        projection_dim=_TEXT_WIDTH,
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=1,
        attention_dropout=0.0,
    )
    t5 = T5Config(
        vocab_size=len(_VOCABULARY),
        d_model=_TEXT_WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=1,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=16,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return CLIPTextModel(clip), T5EncoderModel(t5)


def _transformer() -> FluxTransformer2DModel:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=4 * _LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=_TEXT_WIDTH,
        pooled_projection_dim=_TEXT_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
