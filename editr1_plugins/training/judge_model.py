"""The vision-language model that becomes a judge: its processor, its LoRA, and the LoRA merged for serving."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any, Final

from ..backends.image_only import load_processor
from ..backends.model_files import find_adapter, find_model
from ..errors import ConfigError

__all__ = ["LORA_TARGETS", "judge_processor", "limit_pixels", "merge_adapter"]

#: Every linear layer of Qwen-VL's language model and none of its vision tower, whose MLP has the same names. PEFT takes
#: a text for a regular expression over whole names.
LORA_TARGETS: Final = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

_LEAST_PIXELS: Final = 56 * 56  # Qwen-VL's default
#: What of a model's folder describes its processor.
_PROCESSOR_FILES: Final = (
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.jinja"),
    *("chat_template.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt"),
)


def judge_processor(model: str, revision: str | None = None, max_pixels: int | None = None) -> Any:
    """The processor of a model, which reads images without torchvision too.

    Args:
        model: a folder, or a hub id.
        revision: of a hub id.
        max_pixels: see `limit_pixels`; None: as the model has it.

    Raises:
        ConfigError: no such model, it has no processor for images, or as `limit_pixels`.
        MissingExtraError: the processor needs a package that is not installed.
    """
    folder = find_model(model, revision).path
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    processor = load_processor(folder, str(described.get("model_type")))
    if max_pixels is not None:
        limit_pixels(processor, max_pixels)
    return processor


def limit_pixels(processor: Any, max_pixels: int) -> None:
    """Scale images with more pixels than `max_pixels` down to it before the judge sees them.

    It is saved with the processor, so a trained judge goes on seeing images as it was trained on them.

    Raises:
        ConfigError: the processor has no such limit (Qwen-VL's have), or `max_pixels` is below its smallest image.
    """
    size = dict(processor.image_processor.size)
    least = size.get("shortest_edge")
    if least is None or "longest_edge" not in size:
        raise ConfigError(f"max_pixels={max_pixels}: {type(processor.image_processor).__name__} has no such limit")
    if max_pixels < least:
        raise ConfigError(f"max_pixels={max_pixels} is below {least}, the pixels of this model's smallest image")
    processor.image_processor.size = {"shortest_edge": least, "longest_edge": max_pixels}


def merge_adapter(
    model: str, adapter: str, out: str | os.PathLike[str], *, dtype: str | None = None
) -> dict[str, float]:
    """Write a model with a LoRA merged into its weights, as one folder that any server loads.

    Sums are made in float32 and then rounded to `dtype`. bfloat16 has eight significant bits, so rounding can swallow
    much of a small adapter: the returned shares say how much. Where it is too much, serve base and adapter unmerged
    (`vllm serve --enable-lora`, or `transformers:MODEL?adapter=ADAPTER`), or merge in float32.

    Args:
        model: the model that was trained on: a folder, or a hub id.
        adapter: the LoRA: a folder, or a hub id.
        out: a folder that is not there yet, or is empty.
        dtype: of the weights written, e.g. "float32"; None: that of the model.

    Returns:
        "adapter_norm", the length of all that the adapter adds, and "rounding_error", the length of what rounding
        changed, as a share of it.

    Raises:
        ConfigError: no such model or adapter, they do not fit, or `out` holds something.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    base, lora, folder = find_model(model), find_adapter(adapter), Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; merging writes a new folder")
    written = getattr(torch, dtype or str(AutoConfig.from_pretrained(base.path).dtype).removeprefix("torch."), None)
    if not (isinstance(written, torch.dtype) and written.is_floating_point):
        raise ConfigError(f"dtype {dtype!r} is none of torch's floating-point types; e.g. 'bfloat16'")
    loaded = AutoModelForImageTextToText.from_pretrained(
        base.path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    adapted = _adapted(loaded, lora.path)
    norms = _rounding(adapted, written)
    merged = adapted.merge_and_unload(safe_merge=True).to(written)
    merged.save_pretrained(folder)
    _copy_processor(base.path, lora.path, folder)
    return norms


def _adapted(model: Any, adapter: Path) -> Any:
    import warnings

    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            # Weights that find no place would leave the base model as it is.
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            return PeftModel.from_pretrained(model, adapter, is_trainable=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"adapter {adapter} does not fit the model: {type(error).__name__}: {reason}") from error


def _rounding(adapted: Any, dtype: Any) -> dict[str, float]:
    from peft.tuners.lora import LoraLayer

    added = lost = 0.0
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            delta = module.get_delta_weight(module.active_adapters[0]).float()
            total = module.get_base_layer().weight.float() + delta
            added += float(delta.square().sum())
            lost += float((total - total.to(dtype).float()).square().sum())
    return {"adapter_norm": math.sqrt(added), "rounding_error": math.sqrt(lost / added) if added else 0.0}


def _copy_processor(base: Path, adapter: Path, out: Path) -> None:
    """The base's own files, which every server knows, with the limit of pixels that training set."""
    for name in _PROCESSOR_FILES:
        if (base / name).is_file():
            shutil.copy2(base / name, out / name)
    largest = _largest_image(adapter)
    for name in ("preprocessor_config.json", "processor_config.json"):
        if largest is None or not (out / name).is_file():
            continue
        described = json.loads((out / name).read_text(encoding="utf-8"))
        images = described if name == "preprocessor_config.json" else described.get("image_processor")
        if images:
            size = images.get("size") or {}
            least = size.get("shortest_edge") or images.get("min_pixels") or _LEAST_PIXELS
            images["size"] = {"shortest_edge": least, "longest_edge": largest}
            if "max_pixels" in images:  # the older name, which older servers read
                images["max_pixels"] = largest
            (out / name).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _largest_image(folder: Path) -> int | None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            described = json.loads((folder / name).read_text(encoding="utf-8"))
            size = described.get("image_processor", described).get("size") or {}
            if "longest_edge" in size:
                return int(size["longest_edge"])
    return None
