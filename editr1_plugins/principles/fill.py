"""Filling a cache with principles ahead of a run, so that the run itself never waits for a decomposer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from editr1_plugins.errors import ConfigError
from editr1_plugins.principles.cache import PrincipleCache, principle_key
from editr1_plugins.principles.chain import decompose_contained
from editr1_plugins.types import Decomposer, Principle

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Filled", "fill_cache"]

_MAX_REASON: Final = 200
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What a fill did: requests seen; of these found in the cache or seen before, made now, and failed, by reason."""

    seen: int = 0
    found: int = 0
    made: int = 0
    failed: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)


def fill_cache(
    requests: Iterable[tuple[Image, str]],
    decomposer: Decomposer,
    cache: PrincipleCache,
    *,
    identity: str,
    batch_size: int = 32,
    progress: Callable[[Filled], None] | None = None,
) -> Filled:
    """Make the principles of all (source image, instruction) pairs that the cache lacks, batch by batch.

    Every batch is kept before the next is asked for, so a fill that was killed goes on where it was: run it again.
    Failures are counted and not kept. `requests` is read as it goes and may be larger than memory.

    Args:
        requests: RGB source images as the run will have them, with their instructions.
        decomposer: who makes principles; one that raises fails its batch, not the fill.
        cache: where they go.
        identity: of the decomposer, as the run will name it (see `principle_key`).
        batch_size: requests per call of the decomposer.
        progress: called after each batch with the counts so far.

    Raises:
        ConfigError: `batch_size` below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    done: set[str] = set()
    counts, failures = Counter[str](), Counter[str]()
    for batch in _batches(requests, batch_size):
        missing: dict[str, tuple[Image, str]] = {}
        for source, instruction in batch:
            key = principle_key(source, instruction, identity)
            if key not in done and cache.get(key) is None:
                missing[key] = (source, instruction)
            done.add(key)
        for key, principles in zip(missing, decompose_contained(decomposer, list(missing.values())), strict=True):
            cache.put(key, principles)
            counts["made" if principles else "failed"] += 1
            if not principles:
                failures[_reason(principles)] += 1
        counts["seen"] += len(batch)
        counts["found"] += len(batch) - len(missing)
        if progress is not None:
            progress(Filled(**counts, failures=dict(failures)))
    return Filled(**counts, failures=dict(failures))


def _reason(none: tuple[Principle, ...]) -> str:
    reason = str(getattr(none, "failure", "")) or "no principles, and no reason given"
    return reason if len(reason) <= _MAX_REASON else reason[: _MAX_REASON - 3] + "..."


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
