"""Parts that the tiny pipelines share: a tokenizer that needs no files, a scheduler, small text encoders and VAEs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["END", "VOCABULARY", "ByteTokenizer", "clip_config", "flow_scheduler", "small_vae", "t5_encoder"]

VOCABULARY = 260
END = 2


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
        rows = [(row[: (max_length or len(row) + 1) - 1] if truncation else row) + [END] for row in rows]
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


def flow_scheduler(**overrides: Any) -> Any:
    """The flow-matching Euler scheduler with the resolution-dependent shift of Flux and Qwen-Image."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    shifting = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    return FlowMatchEulerDiscreteScheduler(**{**shifting, **overrides})


def clip_config() -> Any:
    """Configuration of a one-layer CLIP text encoder."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=16,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=END,
    )


def t5_encoder(width: int = 16) -> Any:
    """A one-layer T5 encoder."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=VOCABULARY, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def small_vae(latent_channels: int = 4) -> Any:
    """A VAE that halves height and width."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=latent_channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        shift_factor=0.0,
        scaling_factor=1.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
