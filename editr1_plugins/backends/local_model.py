"""A vision-language model loaded into this process, with what reading and writing its tokens needs.

Equal models are loaded once per process: a judge and a decomposer on the same model share it, and take turns.
"""

from __future__ import annotations

import inspect
import threading
import warnings
import weakref
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import AutoModelForImageTextToText, GenerationConfig

from editr1_plugins.backends.chat import ChatRequest
from editr1_plugins.backends.control_tokens import inert
from editr1_plugins.backends.image_only import load_processor
from editr1_plugins.backends.model_files import ModelFolder
from editr1_plugins.backends.shared_prefix import SHARING, EncodedPrompt
from editr1_plugins.errors import ConfigError
from editr1_plugins.images import read_image

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["LocalModel", "Recipe", "forbidden_tokens", "live_model"]

#: What a processor gives per token; the rest is about images.
_PER_TOKEN: Final = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
#: Names under which the families' configurations keep the ids around images.
_PLACEHOLDERS: Final = (
    "image_token_id",
    "image_token_index",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
)
_LIVE: weakref.WeakValueDictionary[Recipe, LocalModel] = weakref.WeakValueDictionary()
_LOADING = threading.Lock()


@dataclass(frozen=True)
class Recipe:
    """What to load: the model's folder, an adapter's, device and dtype ("auto" takes the checkpoint's)."""

    model: ModelFolder
    adapter: ModelFolder | None
    device: str
    dtype: str


def live_model(recipe: Recipe) -> LocalModel:
    """The loaded model; one object as long as anybody in this process holds it.

    Raises:
        ConfigError: it cannot be loaded whole.
        MissingExtraError: its processor needs a package that is not installed.
    """
    with _LOADING:
        model = _LIVE.get(recipe)
        if model is None:
            model = _LIVE[recipe] = _loaded(recipe)
        return model


class LocalModel:
    """Model, processor, and the ids that matter. Use it under `lock`: models and tokenizers keep state in calls.

    Args:
        model: loaded, without a PEFT wrapper around it. It is not changed.
        processor: reads its text and images.
        name: for messages.

    Attributes:
        ends: ids that end a reply.
        pad: id of the padding token.
        shares_prefixes: whether `shared_prefix` knows its family.
    """

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self.lock = threading.Lock()
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        self.ends = _ends(self.model, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        self.pad: int = pad if pad is not None else min(self.ends, default=0)
        text = self.model.config.get_text_config()
        self.max_length: int | None = getattr(text, "max_position_embeddings", None)
        self.shares_prefixes = self.model.config.model_type in SHARING and "sliding_attention" not in (
            getattr(text, "layer_types", None) or ()
        )
        # Of the class: trainers wrap the method of the object.
        self._accepted = frozenset(inspect.signature(type(self.model).forward).parameters)
        self._takes_system = _check_template(self.processor, name)

    @property
    def own_generation_config(self) -> GenerationConfig:
        """What a model's own file says on sampling must not mix with what is asked for here."""
        return GenerationConfig(eos_token_id=sorted(self.ends) or None, pad_token_id=self.pad)

    @cached_property
    def forbidden(self) -> Tensor:
        """Ids that no reply may hold, on the model's device: control tokens except the ends, and ids without a token.

        A reply may be shown to a model again, where an image placeholder would count as an image.
        """
        ids = forbidden_tokens(self.tokenizer, self.model.config, self.ends)
        return torch.tensor(ids, dtype=torch.long, device=self.model.device)

    def encode(self, request: ChatRequest) -> EncodedPrompt:
        """A request as the model reads it, on the CPU; no control token comes from the request's text.

        The chat template writes the control tokens. In the text, known spellings are made `inert`, as they are for a
        server; whatever else this tokenizer takes for control is encoded as the characters it consists of
        (`sanitize_control_tokens` of transformers, which uses `split_special_tokens`).

        Raises:
            ImageError: a broken image.
        """
        content = [_part(part) for part in request.parts]
        messages = [{"role": "user", "content": content}]
        if request.system and self._takes_system:
            messages.insert(0, {"role": "system", "content": [_part(request.system)]})
        elif request.system:
            content.insert(0, _part(request.system + "\n\n"))
        encoded = self.processor.apply_chat_template(
            messages,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,
        )
        return EncodedPrompt({name: value for name, value in encoded.items() if name in self._accepted})

    def collate(self, prompts: list[EncodedPrompt]) -> dict[str, Tensor]:
        """Prompts as one batch on the model's device, padded on the left."""
        length = max(len(prompt) for prompt in prompts)
        batch = {}
        for name in prompts[0].tensors:
            values = [prompt.tensors[name] for prompt in prompts]
            if name in _PER_TOKEN:
                fill = self.pad if name == "input_ids" else 0
                values = [torch.nn.functional.pad(value, (length - value.shape[-1], 0), value=fill) for value in values]
            batch[name] = torch.cat(values).to(self.model.device)
            if batch[name].is_floating_point():
                batch[name] = batch[name].to(self.model.dtype)
        return batch


def forbidden_tokens(tokenizer: Any, config: Any, ends: Collection[int]) -> list[int]:
    """Ids that no reply may hold, ascending: control tokens except `ends`, and ids that stand for no token."""
    ids = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids |= {*tokenizer.all_special_ids}
    ids |= {value for name in _PLACEHOLDERS if isinstance(value := getattr(config, name, None), int)}
    size = config.get_text_config().vocab_size
    ids = {number for number in ids if 0 <= number < size} | set(range(len(tokenizer), size))
    return sorted(ids - set(ends))


def _loaded(recipe: Recipe) -> LocalModel:
    model = _load(recipe)
    live = LocalModel(model, load_processor(recipe.model.path, model.config.model_type), recipe.model.name)
    model.generation_config = live.own_generation_config
    return live


def _load(recipe: Recipe) -> Any:
    dtype = recipe.dtype if recipe.dtype == "auto" else getattr(torch, recipe.dtype, None)
    if dtype != "auto" and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype {recipe.dtype!r} is none of torch's floating-point types; e.g. 'bfloat16'")
    try:
        placement = {} if recipe.device == "cpu" else {"device_map": recipe.device}
        model, loading = AutoModelForImageTextToText.from_pretrained(
            recipe.model.path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **placement,
        )
    except Exception as error:  # unknown architectures, broken files and missing kernels each raise their own kind
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"cannot load {recipe.model.name} as a vision-language model: {type(error).__name__}: {reason}"
        ) from error
    absent = sorted(loading["missing_keys"]) + sorted(map(str, loading.get("mismatched_keys", ())))
    if absent:
        raise ConfigError(
            f"{recipe.model.name} lacks {len(absent)} weights, {absent[0]} among them; it would judge at random"
        )
    if recipe.adapter is not None:
        model = _adapted(model, recipe.adapter)
    return model.eval().requires_grad_(False)


def _adapted(model: Any, adapter: ModelFolder) -> Any:
    from peft import PeftConfig, PeftModel

    try:
        kind = PeftConfig.from_pretrained(adapter.path).peft_type
        if kind != "LORA":
            raise ConfigError(f"adapter {adapter.name} is of type {kind}; only LoRA adapters are read")
        with warnings.catch_warnings():
            # Weights that find no place leave the base model as it is, which would judge under the adapter's name.
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            # Not merged: the sums of bfloat16 weights would round most of an adapter away.
            return PeftModel.from_pretrained(model, adapter.path, is_trainable=False).get_base_model()
    except ConfigError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"adapter {adapter.name} does not fit the model: {type(error).__name__}: {reason}") from error


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    named = model.generation_config.eos_token_id
    ends = {named} if isinstance(named, int) else set(named or ())
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)
    return frozenset(ends)


def _check_template(processor: Any, name: str) -> bool:
    """Whether the chat template shows a system text; a template that loses the user's turn is refused."""

    def shown(*messages: dict[str, Any]) -> str:
        return str(processor.apply_chat_template(list(messages), add_generation_prompt=True))

    user = {"role": "user", "content": [_part("firstword"), {"type": "image"}, _part("lastword")]}
    system = {"role": "system", "content": [_part("systemword")]}
    try:
        complete = 0 <= (text := shown(user)).find("firstword") < text.find("lastword")
    except Exception as error:  # templates are programs
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"the chat template of {name} does not work: {type(error).__name__}: {reason}") from error
    if not complete:
        raise ConfigError(f"the chat template of {name} leaves out texts of a turn with an image")
    try:
        return "systemword" in shown(system, user)
    except Exception:  # some templates refuse the role; the text then opens the user's turn
        return False


def _part(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": inert(part)}
    return {"type": "image", "image": read_image(part)}
