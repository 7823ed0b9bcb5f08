"""What a pipeline gets to see in place of an encoder's output: only what it looks at is kept for playing back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch

from ..errors import ReplayError

__all__ = ["HandedOut", "forget", "playable", "tensors_of", "with_tensors"]

#: Tensors that the pipeline got, with their version counters then: a write in place raises the counter.
HandedOut: TypeAlias = list[tuple[torch.Tensor, int]]


def playable(output: Any, handed_out: HandedOut) -> Any:
    """The stand-in for an encoder's output; tensors that it gives away are added to `handed_out`."""
    if hasattr(output, "latent_dist"):
        return SimpleNamespace(latent_dist=_Mode(output.latent_dist, handed_out))
    if isinstance(output, (Mapping, tuple, list)):
        return _Glimpse(output, handed_out)
    if isinstance(output, torch.Tensor):
        handed_out.append((output, output._version))
        return output
    if hasattr(output, "sample") and hasattr(output, "mode"):
        return _Mode(output, handed_out)
    return output


def forget(output: Any) -> None:
    """Drop what nobody has looked at."""
    if isinstance(output, SimpleNamespace):
        forget(output.latent_dist)
    elif isinstance(output, _Looked):
        output._value = None
        for kept in output._kept.values():
            forget(kept)


def tensors_of(output: Any) -> Iterator[torch.Tensor]:
    """The tensors that are kept, in an order that does not change."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, SimpleNamespace):
        yield from tensors_of(output.latent_dist)
    elif isinstance(output, _Looked):
        for kept in output._kept.values():
            yield from tensors_of(kept)


def with_tensors(output: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy of a stand-in whose kept tensors are what `change` makes of them, called in the order of `tensors_of`."""
    if isinstance(output, torch.Tensor):
        return change(output)
    if isinstance(output, SimpleNamespace):
        return SimpleNamespace(latent_dist=with_tensors(output.latent_dist, change))
    if isinstance(output, _Looked):
        copy = type(output)(None, [])
        copy._kept = {key: with_tensors(kept, change) for key, kept in output._kept.items()}
        return copy
    return output


class _Looked:
    """Remembers what is looked up in a value; after `forget`, it knows that only."""

    def __init__(self, value: Any, handed_out: HandedOut) -> None:
        self._value: Any = value
        self._handed_out = handed_out
        self._kept: dict[tuple[str, str], Any] = {}

    def _look(self, how: str, key: Any) -> Any:
        name = (how, repr(key))
        if name not in self._kept:
            if self._value is None:
                raise ReplayError(
                    f"the pipeline now reads {key!r} of an encoder's output, which it did not in sampling"
                )
            self._kept[name] = _looked_up(self._value, how, key, self._handed_out)
        found = self._kept[name]
        if isinstance(found, AttributeError):
            raise found
        return found

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):  # protocols such as copy and pickle look these up; they are not the output's
            raise AttributeError(key)
        return self._look("attribute", key)


class _Glimpse(_Looked):
    """Stands for an output that is a mapping or a sequence."""

    def __getitem__(self, key: Any) -> Any:
        return self._look("item", key)

    def __len__(self) -> int:
        return int(self._look("length", None))

    def __iter__(self) -> Iterator[Any]:
        return iter([self[index] for index in range(len(self))])


class _Mode(_Looked):
    """A posterior whose sample is its mode."""

    def sample(self, generator: Any = None) -> torch.Tensor:
        return self.mode()

    def mode(self) -> torch.Tensor:
        found: torch.Tensor = self._look("mode", None)
        return found.clone()  # some pipelines scale it in place


def _looked_up(value: Any, how: str, key: Any, handed_out: HandedOut) -> Any:
    if how == "length":
        return len(value)
    if how == "mode":
        return value.mode()
    try:
        return playable(getattr(value, key) if how == "attribute" else value[key], handed_out)
    except AttributeError as error:
        return error
