"""A decomposer that asks others in turn: what the first cannot serve goes to the second, and so on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from editr1_plugins.errors import ConfigError
from editr1_plugins.types import Decomposer, NoPrinciples, Principle

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FallbackDecomposer", "decompose_contained"]

_log = logging.getLogger(__name__)


class FallbackDecomposer:
    """Serves each request by the first decomposer that has principles for it.

    A decomposer that raises, or returns the wrong number of answers, counts as having none. Where nobody has any, the
    answer is `NoPrinciples` with everybody's reason. A cache keeps whoever's answer came, under the chain's identity.

    Raises:
        ConfigError: no decomposers.
    """

    def __init__(self, decomposers: Sequence[Decomposer]) -> None:
        if not decomposers:
            raise ConfigError("a chain needs at least one decomposer")
        self.decomposers = tuple(decomposers)

    @classmethod
    def from_spec(cls, argument: str) -> FallbackDecomposer:
        """Build a chain from what follows `first:` in a spec string: decomposers' specs with "|" between them.

        Raises:
            ConfigError, PluginError, MissingExtraError, ComponentError: as `plugins.resolve`, for any of them.
        """
        from editr1_plugins.plugins import resolve

        return cls([resolve("decomposer", spec.strip()) for spec in argument.split("|")])

    @property
    def identity(self) -> str:
        """The decomposers' identities, in order."""
        return "first of: " + " | ".join(_name(each) for each in self.decomposers)

    def decompose(self, requests: Sequence[tuple[Image, str]]) -> list[tuple[Principle, ...]]:
        """Principles per (source image, instruction), in order."""
        served: dict[int, tuple[Principle, ...]] = {}
        reasons: dict[int, list[str]] = {row: [] for row in range(len(requests))}
        for decomposer in self.decomposers:
            rows = [row for row in reasons if row not in served]
            if not rows:
                break
            answers = decompose_contained(decomposer, [requests[row] for row in rows])
            for row, answer in zip(rows, answers, strict=True):
                if answer:
                    served[row] = answer
                else:
                    reasons[row].append(f"{_name(decomposer)}: {getattr(answer, 'failure', 'no principles')}")
        return [served.get(row) or NoPrinciples("; ".join(why)) for row, why in reasons.items()]


def decompose_contained(decomposer: Decomposer, requests: Sequence[tuple[Image, str]]) -> list[tuple[Principle, ...]]:
    """`decomposer.decompose(requests)`; what raises, or returns the wrong number, is `NoPrinciples` for each."""
    if not requests:
        return []
    try:
        answers = list(decomposer.decompose(requests))
        problem = f"returned {len(answers)} answers for {len(requests)} requests"
    except Exception as error:
        answers, problem = [], f"raised {type(error).__name__}: {error}"
    if len(answers) == len(requests):
        return answers
    _log.warning("decomposer %s %s", _name(decomposer), problem)
    return [NoPrinciples(problem)] * len(requests)


def _name(decomposer: Decomposer) -> str:
    identity = getattr(decomposer, "identity", None)
    return identity if isinstance(identity, str) and identity else type(decomposer).__name__
