"""What the guards share: one look at each edit, with what its instruction asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from editr1_plugins.errors import ConfigError
from editr1_plugins.guards.asked import Asked, read_asked
from editr1_plugins.types import MAX_SCORE, Alarm, Edit, Principle, Verification

__all__ = ["PixelGuard", "check_caps", "check_positive"]


class PixelGuard(ABC):
    """A guard that looks at pixels and the instruction only, so it can run before the judge."""

    needs_judge: bool = False

    def inspect(
        self,
        edits: Sequence[Edit],
        principles: Sequence[Sequence[Principle]],
        verifications: Sequence[Verification] = (),
    ) -> list[Alarm | None]:
        """One alarm or None per edit, in order; `verifications` are not looked at.

        Raises:
            ValueError: `principles` is not one sequence per edit.
        """
        return [self.look(edit, read_asked(edit.instruction, of)) for edit, of in zip(edits, principles, strict=True)]

    @abstractmethod
    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        """The alarm for one edit, or None."""


def check_caps(**caps: float | None) -> None:
    """Refuse caps outside 0..10 (None voids the score).

    Raises:
        ConfigError: a cap lies outside that range.
    """
    for name, cap in caps.items():
        if cap is not None and not 0.0 <= cap <= MAX_SCORE:
            raise ConfigError(f"{name} must lie in 0..{MAX_SCORE:g} or be None, got {cap!r}")


def check_positive(**thresholds: float) -> None:
    """Refuse thresholds that are not positive numbers.

    Raises:
        ConfigError: a threshold is zero, negative or NaN.
    """
    for name, value in thresholds.items():
        if not value > 0:
            raise ConfigError(f"{name} must be a positive number, got {value!r}")
