"""What the seam has to know of a pipeline, found in it; where that is not enough, a plugin registers the rest.

Found are: the arguments of its call (also a modular pipeline's, whose signature tells none), the one that makes several
rows, the one that takes the source image, and its body, entered with gradients on. Nothing of a pipeline is changed but
its scheduler, a few methods of its instances and the classes of a modular pipeline's blocks, all put back afterwards.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ModularPipeline
from torch import Tensor

from ..errors import ConfigError, PluginError, ReplayError
from ..plugins import registry
from .tape import DENOISERS, patched

if TYPE_CHECKING:
    from .tape import EncoderTape

__all__ = [
    "PipelineFacts",
    "accepted_arguments",
    "body_with_grad",
    "exchanged",
    "facts_of",
    "image_argument",
    "images_of",
    "index_of_first_latents",
    "latents_begin_at",
    "latents_watched",
    "on_denoisers_device",
    "rows_argument",
]

_ROWS = ("num_images_per_prompt", "num_videos_per_prompt")
_IMAGES = ("image", "images", "input_images", "reference_images", "control_image", "video")


@dataclass(frozen=True, kw_only=True)
class PipelineFacts:
    """What cannot be found in a pipeline; registered with `register_pipelines` under the name of its class.

    A subclass of that class has the same facts. Every field is an exception to a rule that holds for nearly all.

    Attributes:
        encoders: methods of the pipeline itself that are encoders, e.g. one that reads a network through hooks.
        rows: the argument that makes several rows of one prompt; None: `num_images_per_prompt` or its video twin.
        image: the argument that takes the source; None: `image`, or another usual name.
        refused: why this pipeline cannot be trained through the seam; empty: it can.
    """

    encoders: tuple[str, ...] = ()
    rows: str | None = None
    image: str | None = None
    refused: str = ""


def facts_of(pipe: Any) -> PipelineFacts:
    """The facts registered for the pipeline's class, or for the nearest class that it inherits from.

    Raises:
        ReplayError: the facts say that the pipeline cannot be trained.
        PluginError: several packages register the class, or what is registered is no `PipelineFacts`.
    """
    known = {entry.name for entry in registry().of("pipeline")}
    name = next((cls.__name__ for cls in type(pipe).__mro__ if cls.__name__ in known), None)
    if name is None:
        return PipelineFacts()
    facts = registry().resolve("pipeline", name)
    if not isinstance(facts, PipelineFacts):
        raise PluginError(f"pipeline {name!r} is registered with a {type(facts).__name__}, not with PipelineFacts")
    if facts.refused:
        raise ReplayError(f"{type(pipe).__name__} cannot be trained exactly: {facts.refused}")
    if missing := [method for method in facts.encoders if not callable(getattr(pipe, method, None))]:
        raise PluginError(f"pipeline {name!r} is registered with encoders that it does not have: {', '.join(missing)}")
    return facts


def accepted_arguments(pipe: Any) -> dict[str, Any]:
    """The arguments of the pipeline's call with their defaults (None where there is none)."""
    if isinstance(pipe, ModularPipeline):
        return {item.name: item.default for item in pipe._blocks.inputs if item.name is not None}
    found = inspect.signature(type(pipe).__call__).parameters.values()
    return {item.name: None if item.default is item.empty else item.default for item in found if item.name != "self"}


def rows_argument(pipe: Any, rows: int) -> dict[str, int]:
    """The argument that makes the pipeline return `rows` edits of one prompt.

    Raises:
        ReplayError: there is none, and more than one row is wanted.
    """
    accepted, own = accepted_arguments(pipe), facts_of(pipe).rows
    for name in _ROWS if own is None else (own,):
        if name in accepted:
            return {name: rows}
    if rows > 1:
        raise ReplayError(
            f"{type(pipe).__name__} has no num_images_per_prompt: it makes one row a call; sample and replay one row "
            "at a time (per_device_train_batch_size=1)"
        )
    return {}


def image_argument(pipe: Any) -> str:
    """The argument that takes the source image.

    Raises:
        ConfigError: there is none: the pipeline makes images from text alone.
    """
    accepted, own = accepted_arguments(pipe), facts_of(pipe).image
    for name in _IMAGES if own is None else (own,):
        if name in accepted:
            return name
    raise ConfigError(
        f"{type(pipe).__name__} takes no source image (its call has none of: {', '.join(_IMAGES)}), so it edits nothing"
    )


def images_of(pipe: Any, output: Any) -> Any:
    """The images in what a call returned: one per row, as a list, an array or a tensor."""
    if not isinstance(pipe, ModularPipeline):
        return output[0]
    if not hasattr(output, "get"):
        return output
    found = next((value for name in ("images", "videos") if (value := output.get(name)) is not None), None)
    if found is None:
        raise ReplayError(f"{type(pipe).__name__} ends without images: its blocks do not decode")
    return found


@contextmanager
def body_with_grad(pipe: Any) -> Iterator[Callable[..., Any]]:
    """The pipeline's call without its `torch.no_grad`, so that the grad mode set within its loop stays."""
    if not isinstance(pipe, ModularPipeline):
        whole = inspect.unwrap(type(pipe).__call__)
        yield lambda **arguments: whole(pipe, **arguments)
        return
    with ExitStack() as stack:
        for block in _blocks(pipe._blocks):
            stack.enter_context(_unguarded(block))
        yield pipe


def _blocks(block: Any) -> Iterator[Any]:
    yield block
    for inner in (block.sub_blocks or {}).values():
        yield from _blocks(inner)


@contextmanager
def _unguarded(block: Any) -> Iterator[None]:
    """Python looks `__call__` up on the class: for a while, the block is of a subclass whose call is undecorated."""
    own = type(block)
    block.__class__ = type(
        own.__name__, (own,), {"__call__": inspect.unwrap(own.__call__), "__module__": own.__module__}
    )
    try:
        yield
    finally:
        block.__class__ = own


@contextmanager
def on_denoisers_device(pipe: Any) -> Iterator[torch.device]:
    """The pipeline takes its denoiser's device for its own, wherever its other networks are.

    A pipeline's own answer is the device of its first network, which may be an encoder that waits on the CPU.
    """
    device: torch.device = pipe._execution_device
    network = next((part for name in DENOISERS if (part := getattr(pipe, name, None)) is not None), None)
    if network is None or hasattr(network, "_hf_hook") or (home := network.device) == device:
        yield device
        return
    own = type(pipe)
    here = property(lambda _: home)
    pipe.__class__ = type(
        own.__name__, (own,), {"_execution_device": here, "device": here, "__module__": own.__module__}
    )
    try:
        yield home
    finally:
        pipe.__class__ = own


@contextmanager
def exchanged(pipe: Any, scheduler: Any, tape: EncoderTape) -> Iterator[ExitStack]:
    """Our scheduler and tape in the pipeline's place of its own, no progress bar; everything put back on leaving."""
    encoders = facts_of(pipe).encoders
    with _call_state_kept(pipe), ExitStack() as stack:
        stack.enter_context(patched(pipe, "scheduler", scheduler))
        for part in [pipe, *(_blocks(pipe._blocks) if isinstance(pipe, ModularPipeline) else ())]:
            stack.enter_context(patched(part, "_progress_bar_config", {"disable": True}))
        stack.enter_context(tape.attached(pipe, encoders))
        yield stack


@contextmanager
def _call_state_kept(pipe: Any) -> Iterator[None]:
    """A call leaves its arguments behind on the pipeline (`_guidance_scale`, ...): put back what was there."""
    before = dict(vars(pipe))
    try:
        yield
    finally:
        for name, value in list(vars(pipe).items()):
            changed = name not in before or value is not before[name]
            if changed and _is_call_state(value) and _is_call_state(before.get(name)):
                if name in before:
                    object.__setattr__(pipe, name, before[name])
                else:
                    object.__delattr__(pipe, name)
        for name in before.keys() - vars(pipe).keys():
            object.__setattr__(pipe, name, before[name])


def _is_call_state(value: Any) -> bool:
    # Lists (offloading hooks), devices and modules are the pipeline's own business.
    return value is None or isinstance(value, (bool, int, float, str, dict, Tensor))


@contextmanager
def latents_watched(pipe: Any, seen: Callable[[Any], None]) -> Iterator[None]:
    """Hand what the pipeline's `prepare_latents` returns to `seen`, where it has such a method."""
    original = getattr(pipe, "prepare_latents", None)
    if original is None:
        yield
        return

    def watching(*args: Any, **kwargs: Any) -> Any:
        prepared = original(*args, **kwargs)
        seen(prepared)
        return prepared

    with patched(pipe, "prepare_latents", watching):
        yield


def index_of_first_latents(prepared: Sequence[Any], first: Tensor) -> int | None:
    """Which item of what `prepare_latents` returned is `first`, the latents that the loop began with."""
    for items in prepared:
        for position, item in enumerate(items if isinstance(items, tuple) else (items,)):
            if isinstance(item, Tensor) and item.shape == first.shape and torch.equal(item, first):
                return position
    return None


@contextmanager
def latents_begin_at(pipe: Any, position: int, latents: Tensor) -> Iterator[None]:
    """`prepare_latents` returns `latents` at `position`, so that the loop begins there."""
    original = pipe.prepare_latents

    def beginning(*args: Any, **kwargs: Any) -> Any:
        prepared = original(*args, **kwargs)
        items = list(prepared) if isinstance(prepared, tuple) else [prepared]
        if position < len(items) and isinstance(items[position], Tensor) and items[position].shape == latents.shape:
            items[position] = latents.clone()
        return tuple(items) if isinstance(prepared, tuple) else items[0]

    with patched(pipe, "prepare_latents", beginning):
        yield
