"""What stands in for a missing score on the routes whose clients know only numbers."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal, get_args

from editr1_plugins.adapters.server.calls import EncodedEdit
from editr1_plugins.errors import ConfigError
from editr1_plugins.types import Verification

__all__ = ["FILL_POLICIES", "FillPolicy", "Filling", "UnscoredError"]

FillPolicy = Literal["mean", "error"]
FILL_POLICIES: Final[tuple[FillPolicy, ...]] = get_args(FillPolicy)

_GROUPS: Final = 4096  # remembered, the least recently scored are forgotten first


class UnscoredError(Exception):
    """A request cannot be answered with numbers: too much of it has no score."""


class Filling:
    """Numbers for a whole request, some of which may stand in for missing scores.

    With "mean", a missing score becomes the mean of the scores of the same (source, instruction) in the request, else
    of those that this server gave before (for clients that send one sample a request), else of the whole request: its
    advantage within the group is then about 0. There is no answer with "error", where nothing is known to fill from,
    where more than `most` of a request would be filled from itself, and where a missing edit was malformed.

    Args:
        policy: "mean" or "error".
        most: share of a request that may be filled from the request itself, 0..1.

    Raises:
        ConfigError: a wrong argument.
    """

    def __init__(self, policy: FillPolicy = "mean", most: float = 0.5) -> None:
        if policy not in FILL_POLICIES:
            raise ConfigError(f"the policy must be one of {', '.join(FILL_POLICIES)}, got {policy!r}")
        if not 0 <= most <= 1:
            raise ConfigError(f"the share that may be filled must lie in 0..1, got {most}")
        self._policy, self._most = policy, most
        self._lock = threading.Lock()
        self._groups: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def rewards(self, edits: Sequence[EncodedEdit | str], outcomes: Sequence[Verification]) -> tuple[list[float], int]:
        """One number in 0..10 per edit, and how many of them stand in for missing scores.

        Raises:
            UnscoredError: see above; the message gives the first reason.
        """
        groups = [_group(edit) if isinstance(edit, EncodedEdit) else b"" for edit in edits]
        scores = [outcome.score for outcome in outcomes]
        known = [score for score in scores if score is not None]
        missing = [row for row, score in enumerate(scores) if score is None]
        self._check(missing, outcomes)
        self._remember(groups, scores)
        filled = list(scores)
        from_request = 0
        for row in missing:
            group = groups[row]
            own = [score for each, score in zip(groups, scores, strict=True) if each == group and score is not None]
            before = self._before(group)
            if own or before is None:
                from_request += 1
                own = own or known
            filled[row] = sum(own) / len(own) if own else before
        if from_request and (not known or from_request > self._most * len(scores)):
            raise UnscoredError(_told(missing, outcomes))
        return [score for score in filled if score is not None], len(missing)

    def _check(self, missing: Sequence[int], outcomes: Sequence[Verification]) -> None:
        malformed = [row for row in missing if str(outcomes[row].failure).startswith("bad_request")]
        if malformed:
            raise UnscoredError(_told(malformed, outcomes))
        if missing and self._policy == "error":
            raise UnscoredError(_told(missing, outcomes))

    def _remember(self, groups: Sequence[bytes], scores: Sequence[float | None]) -> None:
        with self._lock:
            for group, score in zip(groups, scores, strict=True):
                if score is not None:
                    total, count = self._groups.pop(group, (0.0, 0))
                    self._groups[group] = total + score, count + 1
            while len(self._groups) > _GROUPS:
                self._groups.popitem(last=False)

    def _before(self, group: bytes) -> float | None:
        with self._lock:
            total, count = self._groups.get(group, (0.0, 0))
        return total / count if count else None


def _group(edit: EncodedEdit) -> bytes:
    return hashlib.sha256(hashlib.sha256(edit.source).digest() + edit.instruction.encode()).digest()


def _told(rows: Sequence[int], outcomes: Sequence[Verification]) -> str:
    return f"{len(rows)} of {len(outcomes)} edits have no score; edit {rows[0]}: {outcomes[rows[0]].failure}"
