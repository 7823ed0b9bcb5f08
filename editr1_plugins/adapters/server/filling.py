"""Numbers for a request on the routes whose clients know only those."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from editr1_plugins.adapters.missing import Filling, unscored
from editr1_plugins.adapters.server.calls import EncodedEdit
from editr1_plugins.types import Verification

__all__ = ["filled_rewards"]


def filled_rewards(
    filling: Filling, edits: Sequence[EncodedEdit | str], outcomes: Sequence[Verification]
) -> tuple[list[float], int]:
    """One number in 0..10 per edit, and how many of them stand in for missing scores.

    Raises:
        UnscoredError: as `Filling.numbers`, and where an edit was malformed: that is no judge's fault.
    """
    malformed = [row for row, outcome in enumerate(outcomes) if str(outcome.failure).startswith("bad_request")]
    if malformed:
        raise unscored(malformed, outcomes)
    return filling.numbers([_group(edit) if isinstance(edit, EncodedEdit) else b"" for edit in edits], outcomes)


def _group(edit: EncodedEdit) -> bytes:
    return hashlib.sha256(hashlib.sha256(edit.source).digest() + edit.instruction.encode()).digest()
