"""Encoders run once: what they return is kept by the content of what they were given, and played back.

Nothing here is particular to a pipeline. Encoders are found among a pipeline's components (`encoder_sites`): every
network that is not the denoiser, with its outer submodules, since some pipelines call those directly. A network that
turns out to run inside the sampling loop (a controlnet, say) is recognised then and never taped.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..errors import ReplayError
from .tape_folder import TapeFolder
from .taped_output import HandedOut, forget, playable, tensors_of, with_tensors

__all__ = ["DENOISERS", "EncoderSite", "EncoderTape", "encoder_sites", "patched"]

#: Components that run in the sampling loop and may be trained; everything else that is a network may be taped.
DENOISERS = ("transformer", "transformer_2", "unet")

_DEPTH = 2  # a component, its children, their children: text_encoder.model.visual


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute on the instance; on leaving, restore exactly what was there, including nothing."""
    had, old = name in vars(owner), vars(owner).get(name)
    object.__setattr__(owner, name, value)  # past any __setattr__ that keeps books (nn.Module, DiffusionPipeline)
    try:
        yield
    finally:
        if had:
            object.__setattr__(owner, name, old)
        else:
            object.__delattr__(owner, name)


class EncoderSite(NamedTuple):
    """A method that may be an encoder: `getattr(owner, method)`, called `name` in messages and keys."""

    name: str
    owner: Any
    method: str


def encoder_sites(pipe: Any, methods: Sequence[str] = ()) -> list[EncoderSite]:
    """`methods` of the pipeline itself, then every method of its networks that may be an encoder, outermost first."""
    found = [EncoderSite(method, pipe, method) for method in methods]
    seen: set[int] = set()
    for name, component in pipe.components.items():
        if isinstance(component, torch.nn.Module) and name not in DENOISERS:
            found += _sites_within(name, component, seen)
    return found


def _sites_within(name: str, module: torch.nn.Module, seen: set[int], depth: int = 0) -> Iterator[EncoderSite]:
    if id(module) in seen:
        return
    seen.add(id(module))
    if depth == 0 and hasattr(module, "encode"):
        methods: tuple[str, ...] = ("encode",)
    elif isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict)):
        methods = ()
    else:
        methods = ("generate", "forward") if depth == 0 and hasattr(module, "generate") else ("forward",)
    yield from (EncoderSite(f"{name}.{method}", module, method) for method in methods)
    if depth < _DEPTH:
        for child_name, child in module.named_children():
            yield from _sites_within(f"{name}.{child_name}", child, seen, depth + 1)


@dataclass
class EncoderTape:
    """Encoder outputs by the content of their inputs; may serve any number of calls of one pipeline.

    Args:
        folder: where the outputs lie between calls; None: in host memory.

    Attributes:
        misses: how often an encoder really ran.
        plays: how often its output was played back instead.

    A posterior (what a VAE returns) gives its mode where the pipeline asks for a sample: a source latent that is drawn
    anew in replay would be another condition. Only what the pipeline read of an output is kept.
    """

    folder: TapeFolder | None = field(default=None, repr=False)
    misses: int = 0
    plays: int = 0
    _missed: list[str] = field(default_factory=list, repr=False)
    _entries: dict[tuple[str, str], _Entry] = field(default_factory=dict, repr=False)
    _in_loop: set[str] = field(default_factory=set, repr=False)
    _looping: bool = field(default=False, repr=False)
    _depth: int = field(default=0, repr=False)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the tensors that are kept for playing back."""
        return sum(entry.nbytes for entry in self._entries.values())

    def trim(self, limit: int) -> None:
        """Forget the outputs that were not used for longest, until no more than `limit` bytes are kept."""
        kept = self.kept_bytes
        for key in list(self._entries):
            if kept <= limit:
                return
            kept -= self._entries[key].nbytes
            self._drop(key)

    def missed_since(self, misses: int) -> list[str]:
        """Names of the encoders that really ran after the first `misses` of their runs."""
        return self._missed[misses:]

    def clear(self) -> None:
        """Forget every output (not the counters): for a run that has moved on to other images and instructions."""
        for key in list(self._entries):
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        del self._entries[key]
        if self.folder is not None:
            self.folder.drop("/".join(key))

    @contextmanager
    def attached(self, pipe: Any, methods: Sequence[str] = ()) -> Iterator[EncoderTape]:
        """While this is open, the pipeline's encoders are recorded and played back; its loop has not begun.

        `methods` of the pipeline itself are encoders, too.

        Raises:
            ReplayError: the pipeline wrote into what an encoder returned, so it cannot be played back.
        """
        self._looping = False
        try:
            with ExitStack() as stack:
                for site in encoder_sites(pipe, methods):
                    stack.enter_context(patched(site.owner, site.method, self._taped(site)))
                yield self
        finally:
            for entry in self._entries.values():
                forget(entry.output)
        for (name, _), entry in self._entries.items():
            if any(tensor._version != version for tensor, version in entry.handed_out):
                raise ReplayError(f"the pipeline writes into what {name} returned, so it cannot be played back")
        for key, entry in self._entries.items():
            entry.park("/".join(key), self.folder)

    def loop_begins(self) -> None:
        """Networks that are called from now on run in every step: they are no encoders."""
        self._looping = True

    def _taped(self, site: EncoderSite) -> Callable[..., Any]:
        original = getattr(site.owner, site.method)

        @functools.wraps(original)  # `generate` reads the signature of `forward`
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._looping and site.name not in self._in_loop:
                self._in_loop.add(site.name)
                for taped in [key for key in self._entries if key[0] == site.name]:
                    self._drop(taped)
            if self._depth or site.name in self._in_loop:  # depth: an encoder's own business
                return original(*args, **kwargs)
            digest = _digest(args, kwargs)
            key = None if digest is None else (site.name, digest)
            if key is not None and key in self._entries:
                self.plays += 1
                self._entries[key] = entry = self._entries.pop(key)  # the latest used lies last
                return entry.played()
            self.misses += 1
            self._missed.append(site.name)
            entry = self._run(original, args, kwargs)
            if key is not None:
                self._entries[key] = entry
            return entry.output

        return call

    def _run(self, original: Callable[..., Any], args: Any, kwargs: Any) -> _Entry:
        self._depth += 1
        try:
            with torch.no_grad():
                raw = original(*args, **kwargs)
        finally:
            self._depth -= 1
        handed_out: HandedOut = []
        return _Entry(playable(raw, handed_out), handed_out)


@dataclass
class _Entry:
    """An encoder's output; once parked, its tensors lie in host memory or in a file and are copied for each use."""

    output: Any
    handed_out: HandedOut
    device: torch.device | None = None

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in tensors_of(self.output))

    def played(self) -> Any:
        if self.device is None:
            return self.output
        return with_tensors(self.output, lambda tensor: tensor.to(self.device, copy=True))

    def park(self, key: str, folder: TapeFolder | None) -> None:
        """Move the tensors off the accelerator; without one and without a folder, they stay what they are."""
        tensors = list(tensors_of(self.output))
        if self.device is not None or not tensors or (folder is None and tensors[0].device.type == "cpu"):
            return
        self.device = tensors[0].device
        parked = iter([tensor.cpu() for tensor in tensors] if folder is None else folder.keep(key, tensors))
        self.output = with_tensors(self.output, lambda _: next(parked))
        self.handed_out.clear()


class _NoContentError(Exception):
    """An argument has no content to hash."""


def _digest(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """A hash of everything that goes in; None when something has no content to go by, so that nothing is taped."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        _feed(digest, [list(args), {name: value for name, value in kwargs.items() if name != "generator"}])
    except _NoContentError:
        return None
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    digest.update(f"|{type(value).__name__}:".encode())
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().flatten().contiguous().view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Image.Image):
        digest.update(f"{value.mode}{value.size}".encode())
        digest.update(value.tobytes())
    elif isinstance(value, (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)):
        digest.update(repr(value).encode())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _feed(digest, [key, item])
    elif isinstance(value, (list, tuple)):
        digest.update(str(len(value)).encode())
        for item in value:
            _feed(digest, item)
    else:
        raise _NoContentError
