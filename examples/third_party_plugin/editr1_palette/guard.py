"""The hack that "use at most N colours" invites: a blank image has few colours too."""

from __future__ import annotations

from collections.abc import Sequence

from editr1_plugins.types import Alarm, Edit, Principle, Verification

from .colours import main_colours

__all__ = ["FewColoursGuard"]


class FewColoursGuard:
    """Caps at 0 an edit that was wiped to fewer than `least` colours while its source has at least as many.

    A colour counts when it covers at least 0.5 % of the pixels in the edited image.

    Raises:
        ValueError: `least` is below 2.
    """

    needs_judge = False  # it looks at pixels alone, so a wiped image costs no call to a judge

    def __init__(self, least: int = 2) -> None:
        if least < 2:
            raise ValueError(f"least must be 2 or more, got {least}")
        self.least = least

    def inspect(
        self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]], verifications: Sequence[Verification]
    ) -> list[Alarm | None]:
        return [self._alarm(edit) for edit in edits]

    def _alarm(self, edit: Edit) -> Alarm | None:
        left = int((main_colours(edit.edited, self.least)[1] >= 0.005).sum())
        if left >= self.least or len(main_colours(edit.source, self.least)[0]) < self.least:
            return None
        return Alarm(flag="few_colours", reason=f"only {left} colour(s) left, fewer than {self.least}")
