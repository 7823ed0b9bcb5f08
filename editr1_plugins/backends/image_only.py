"""Processors of VLMs; for the Qwen-VL families one that reads images only, where torchvision is not installed.

The stock processors of these families also read videos, and that half cannot even be built without torchvision (extra
`[qwen-vl]`). A judge looks at images, so the other half is enough.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

from transformers import AutoProcessor, ProcessorMixin

from editr1_plugins.errors import ConfigError, MissingExtraError

__all__ = ["QWEN_VL", "ImageOnlyProcessor", "load_processor"]

#: Model types whose processors differ, for images, in nothing that matters here.
QWEN_VL: Final = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"})


class ImageOnlyProcessor(ProcessorMixin):
    """The image half of the processors of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

    Each `<|image_pad|>` of the text becomes as many as the image has tokens; `mm_token_type_ids` is 1 there, else 0.
    """

    return_mm_token_type_ids = True

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token: str = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        patches = int(image_inputs["image_grid_thw"][image_idx].prod())
        tokens = patches // int(self.image_processor.merge_size) ** 2
        return self.image_token * tokens


def load_processor(folder: Path, model_type: str) -> Any:
    """The processor that a model's folder describes: the stock one, or `ImageOnlyProcessor` where that needs videos.

    Raises:
        ConfigError: the folder describes none that reads images.
        MissingExtraError: the processor needs a package that is not installed.
    """
    stock: type[Any] = AutoProcessor
    if model_type in QWEN_VL and importlib.util.find_spec("torchvision") is None:
        stock = ImageOnlyProcessor
    try:
        processor = stock.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        reason = " ".join(str(error).split())[:200]
        raise MissingExtraError(
            f"the processor of this model needs a package that is not installed ({reason}). "
            "For torchvision: pip install 'editr1-plugins[qwen-vl]'"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"cannot load the processor in {folder}: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ConfigError(f"{folder} describes no processor that reads images and text (see preprocessor_config.json)")
    return processor
