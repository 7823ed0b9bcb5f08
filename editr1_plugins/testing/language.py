"""Tiny language and vision-language models with random weights, built from nothing: for tests, without a download.

The tokenizer knows every byte, so any text survives a round trip, and a few whole words of the caller's choice, so a
random policy can be held to saying something (`generation_kwargs={"suppress_tokens": ...}`, see `all_but`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ..backends.image_only import ImageOnlyProcessor

__all__ = [
    "CHAT_TEMPLATE",
    "all_but",
    "save_tiny_language_model",
    "tiny_language_model",
    "tiny_tokenizer",
    "tiny_vision_language_model",
    "tiny_vision_language_processor",
]

_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_START, _END, _PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"

#: Roles and texts between `<|im_start|>` and `<|im_end|>`; an image part becomes Qwen's placeholder.
CHAT_TEMPLATE: Final = """{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}{{- message.content -}}
{%- else -%}{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def tiny_tokenizer(words: Iterable[str] = (), *, chat_template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: 256 bytes, control tokens, one token per entry of `words`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([_START, _END, _PAD, *_VISION])
    core.add_tokens([AddedToken(word, normalized=False) for word in words])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=_END, pad_token=_PAD, padding_side="left")
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_language_model(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> PreTrainedModel:
    """A Llama of one layer (about 6,000 parameters) with random fp32 weights, reproducible by `seed`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def tiny_vision_language_processor(tokenizer: PreTrainedTokenizerFast) -> ImageOnlyProcessor:
    """The image half of Qwen2.5-VL's processor, without torchvision. Eight pixels make one token."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from ..backends.image_only import ImageOnlyProcessor

    sizes = {"shortest_edge": 8 * 8, "longest_edge": 64 * 64}
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, temporal_patch_size=2, size=sizes)
    return ImageOnlyProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


def tiny_vision_language_model(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> PreTrainedModel:
    """A Qwen2.5-VL of one layer each for text and vision, with random fp32 weights, reproducible by `seed`."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    start, end, image, video = tokenizer.convert_tokens_to_ids(list(_VISION))
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        # The three sections share half a head's dimensions: time, height, width.
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 16,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [0],
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


def save_tiny_language_model(
    directory: str | os.PathLike[str], words: Iterable[str] = (), *, seed: int = 0, **settings: Any
) -> Path:
    """Write model and tokenizer as `from_pretrained` reads them; `settings` go to `tiny_tokenizer`."""
    tokenizer = tiny_tokenizer(words, **settings)
    path = Path(directory)
    tiny_language_model(tokenizer, seed=seed).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def all_but(tokenizer: PreTrainedTokenizerFast, words: Iterable[str]) -> list[int]:
    """Ids of every token except `words` and the end: as `suppress_tokens`, a random policy says nothing else."""
    said = set(tokenizer.convert_tokens_to_ids(list(words))) | {tokenizer.eos_token_id}
    return [i for i in range(len(tokenizer)) if i not in said]
