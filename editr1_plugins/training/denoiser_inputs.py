"""What a pipeline gives its denoisers, kept for comparing two walks through its loop."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .rollout import denoisers

__all__ = ["DenoiserInputs", "differing"]


class DenoiserInputs:
    """Keeps, while `kept()` is open, a copy of the arguments of each call of each denoiser of a pipeline."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self._latest: dict[nn.Module, Mapping[str, Any]] = {}

    @contextmanager
    def kept(self) -> Iterator[list[Mapping[str, Any]]]:
        """The list that the calls' arguments are appended to, by name."""
        calls: list[Mapping[str, Any]] = []

        def keep(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            named = inspect.signature(type(network).forward).bind_partial(network, *args, **kwargs).arguments
            named = {name: value for name, value in named.items() if name != "self"}
            calls.append(tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, named))
            self._latest[network] = calls[-1]

        with ExitStack() as stack:
            for network in denoisers(self.pipe):
                stack.callback(network.register_forward_pre_hook(keep, with_kwargs=True).remove)
            yield calls

    def parameters_used(self, among: Iterable[nn.Parameter]) -> set[int]:
        """Ids of those parameters that a denoiser uses, found by calling each with what it was given last.

        A network that was not called counts as using all of its own.
        """
        wanted, used = list(among), set()
        for parameter in wanted:
            parameter.grad = None
        for network in denoisers(self.pipe):
            if network not in self._latest:
                used |= {id(p) for p in network.parameters()}
                continue
            given = dict(self._latest[network])
            more = given.pop("kwargs", {})  # what went into **kwargs
            with torch.enable_grad():
                leaves = [x for x in tree_leaves(_plain(network(**given, **more))) if isinstance(x, Tensor)]
                losses = [leaf.float().square().sum() for leaf in leaves if leaf.requires_grad]
                if losses:
                    torch.autograd.backward(torch.stack(losses).sum())
        return used & {id(p) for p in wanted} | {id(p) for p in wanted if p.grad is not None}


def _plain(output: Any) -> Any:
    return dict(output) if isinstance(output, Mapping) else output


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the arguments whose tensors differ."""
    return [name for name in sorted(one.keys() | other.keys()) if not _same(one.get(name), other.get(name))]


def _same(one: Any, other: Any) -> bool:
    leaves, others = ([x for x in tree_leaves(part) if isinstance(x, Tensor)] for part in (one, other))
    if len(leaves) != len(others):
        return False
    return all(
        a.shape == b.shape and torch.allclose(a.float(), b.float(), atol=1e-6)
        for a, b in zip(leaves, others, strict=True)
    )
