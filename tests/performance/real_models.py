"""FLUX.1 Kontext and Qwen-Image-Edit in numbers: their published architectures, and the work that follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from editr1_plugins.training.edit_config import EditGRPOConfig, KontextGRPOConfig, QwenImageEditGRPOConfig
from editr1_plugins.training.edit_grpo import KontextGRPOTrainer, QwenImageEditGRPOTrainer


@dataclass(frozen=True)
class Shape:
    """What decides the work of one forward pass of one row: tokens of latents and source images, and of text."""

    image: int
    text: int

    @property
    def all(self) -> int:
        return self.image + self.text


@dataclass(frozen=True)
class Architecture:
    """A transformer of double-stream and single-stream blocks (the numbers of its published configuration).

    A double block has, for image and text tokens each, 4 d^2 of attention and 8 d^2 of MLP weights, and 6 d^2 of
    modulation that runs once a row; a single block 12 d^2 for all tokens, and 3 d^2 of modulation.
    """

    build: Callable[[], nn.Module]
    width: int
    double: int
    single: int
    text_width: int
    channels: int = 64
    pooled: int = 0
    guidance: bool = False

    def forward_flops(self, shape: Shape) -> tuple[float, float]:
        """(FLOPs of the linear layers, of attention) for one row."""
        d, tokens = self.width, shape.all
        blocks = self.double * (12 * d * d * tokens + 12 * d * d) + self.single * (12 * d * d * tokens + 3 * d * d)
        ends = 2 * self.channels * d * shape.image + self.text_width * d * shape.text + 2 * d * d
        embedded = (1 + self.guidance) * (256 * d + d * d) + (self.pooled * d + d * d if self.pooled else 0)
        return 2.0 * (blocks + ends + embedded), 4.0 * (self.double + self.single) * tokens**2 * d

    def replay_flops(self, shape: Shape) -> float:
        """A trained step of one row with LoRA and checkpointing: forward, again in backward, gradient of activations.

        Frozen weights need no gradient, so backward costs what forward does; attention's costs 2.5 times (flash).
        The LoRA's own work (1 to 2 % at rank 64) is left out.
        """
        linear, attention = self.forward_flops(shape)
        return 3 * linear + 4.5 * attention


@dataclass(frozen=True)
class Family:
    """A model family as its trainer runs it. `forwards`: per step, 2 with true CFG."""

    name: str
    architecture: Architecture
    encoders: Callable[[], dict[str, nn.Module]]
    recipe: type[EditGRPOConfig]
    targets: tuple[str, ...]
    source_pixels: int | None
    text: int
    forwards: int

    def shape(self, side: int) -> Shape:
        """16 x 16 pixels a token; the source image's tokens come on top of the edit's."""
        source = self.source_pixels or side * side
        return Shape((side * side + source) // 256, self.text)


def flux_transformer() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(guidance_embeds=True)  # its defaults are FLUX.1's numbers


def flux_encoders() -> dict[str, nn.Module]:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    t5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128}
    clip = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return {
        "text encoders": nn.ModuleList(
            [
                T5EncoderModel(T5Config(**t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
                CLIPTextModel(CLIPTextConfig(**clip)),
            ]
        ),
        "VAE": AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=16,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
    }


def qwen_transformer() -> nn.Module:
    from diffusers import QwenImageTransformer2DModel

    return QwenImageTransformer2DModel()  # its defaults are Qwen-Image's numbers


def qwen_encoders() -> dict[str, nn.Module]:
    from diffusers import AutoencoderKLQwenImage
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    return {"text encoders": Qwen2_5_VLForConditionalGeneration(config), "VAE": AutoencoderKLQwenImage()}


FAMILIES = (
    Family(
        "FLUX.1 Kontext",
        Architecture(flux_transformer, 3072, 19, 38, 4096, pooled=768, guidance=True),
        flux_encoders,
        KontextGRPOConfig,
        KontextGRPOTrainer.lora_targets,
        None,  # the source at the edit's size
        512,
        1,
    ),
    Family(
        "Qwen-Image-Edit (2509)",
        Architecture(qwen_transformer, 3072, 60, 0, 3584),
        qwen_encoders,
        QwenImageEditGRPOConfig,
        QwenImageEditGRPOTrainer.lora_targets,
        1024 * 1024,  # the pipeline encodes the source at about this area whatever the edit's size
        256,  # 196 tokens of the source at 384 x 384, and the instruction
        2,
    ),
)
