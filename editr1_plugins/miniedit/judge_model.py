"""The tiny Qwen2.5-VL of MiniEdit's judge: stock transformers classes, a tokenizer of its own, random weights.

The tokenizer knows every byte, so any text survives. What prompts and answers repeat (the rules, the wording of the
questions, the glue of the verdicts) is one token a piece, so that a request which a 7B judge reads as 2,000 tokens
takes this one fewer than 100. The pieces come from `judge_texts`; other wording still works, a byte at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from editr1_plugins.miniedit.world import SIZE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

    from editr1_plugins.backends.image_only import ImageOnlyProcessor

__all__ = ["SIZES", "JudgeSize", "build_judge_model", "build_judge_processor", "build_judge_tokenizer"]

_VISION: Final = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_START, _END, _PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
_ROLES: Final = ("system\n", "user\n", "assistant\n")
_MERGE: Final = 2  # patches a side that become one token

#: As Qwen2.5-VL's, for texts and images.
_CHAT_TEMPLATE: Final = """{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}{{- message.content -}}
{%- else -%}{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


@dataclass(frozen=True, kw_only=True)
class JudgeSize:
    """Widths and depths of text model and vision tower; `patch` in pixels."""

    width: int
    layers: int
    heads: int
    vision_width: int
    vision_layers: int
    patch: int = 8


#: "small" has about 0.2 M parameters, "base" 0.4 M.
SIZES: Final = {
    "small": JudgeSize(width=48, layers=3, heads=2, vision_width=32, vision_layers=1),
    "base": JudgeSize(width=64, layers=4, heads=4, vision_width=64, vision_layers=1),
}


def build_judge_tokenizer(pieces: Iterable[str]) -> PreTrainedTokenizerFast:
    """256 bytes, the control tokens, and one token per piece; of overlapping pieces the longest counts."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([_START, _END, _PAD, *_VISION])
    core.add_tokens([AddedToken(piece, normalized=False) for piece in sorted({*_ROLES, *pieces})])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=_END, pad_token=_PAD, padding_side="left")
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def build_judge_processor(tokenizer: PreTrainedTokenizerFast, *, patch: int = 8) -> ImageOnlyProcessor:
    """Text and images as the judge reads them; a 32x32 image keeps its size, larger ones are made smaller."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from editr1_plugins.backends.image_only import ImageOnlyProcessor

    area = SIZE * SIZE
    images = Qwen2VLImageProcessorPil(
        patch_size=patch,
        merge_size=_MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": area, "longest_edge": area},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return ImageOnlyProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


def build_judge_model(
    tokenizer: PreTrainedTokenizerFast, size: JudgeSize, *, seed: int = 0
) -> Qwen2_5_VLForConditionalGeneration:
    """The model with random fp32 weights, reproducible by `seed`.

    They are drawn as wide as 1/sqrt(width): with the default 0.02 so small a model does not look at the images for
    hundreds of steps.
    """
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    half = size.width // size.heads // 2  # dimensions of a head that turn, shared by time, height and width
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(_VISION))
    spread = size.width**-0.5
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "intermediate_size": size.width * 8 // 3,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "max_position_embeddings": 8192,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [half - 2 * (half // 3), half // 3, half // 3],
        },
        "initializer_range": spread,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_width,
        "intermediate_size": 2 * size.vision_width,
        "num_heads": max(2, size.vision_width // 16),
        "patch_size": size.patch,
        "spatial_merge_size": _MERGE,
        "temporal_patch_size": 2,
        "window_size": 2 * SIZE,
        "out_hidden_size": size.width,
        "fullatt_block_indexes": list(range(size.vision_layers)),
        "initializer_range": spread,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2_5_VLForConditionalGeneration(config)
