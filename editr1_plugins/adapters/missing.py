"""What stands in for a missing score in hosts that know only numbers.

Most hosts make a crash, a 0 or NaN of None. A number that leaves a row's advantage near 0 does the least harm: the mean
of the scores of the same (source, instruction).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from typing import Any, Final, Literal, get_args

from editr1_plugins.errors import ConfigError, UnscoredError
from editr1_plugins.types import Verification

__all__ = ["FILL_POLICIES", "FillPolicy", "Filling", "unscored"]

FillPolicy = Literal["mean", "error"]
FILL_POLICIES: Final[tuple[FillPolicy, ...]] = get_args(FillPolicy)

_GROUPS: Final = 4096  # remembered, the least recently scored are forgotten first
_RECENT: Final = 64  # rows of hosts that ask one by one, in place of a batch


class Filling:
    """Numbers for a whole batch, some of which may stand in for missing scores.

    With "mean", a missing score becomes the mean of the scores of the same group in the batch, else of those that this
    object saw before (for hosts that ask for one sample a call), else of the whole batch: its advantage within the
    group is then about 0. There is no answer with "error", where nothing is known to fill from, and where more than
    `most` of a batch would be filled from itself.

    Args:
        policy: "mean" or "error".
        most: share of a batch that may be filled from the batch itself, 0..1.
        one_by_one: the host asks for one edit a call, so the last 64 rows stand for its batch: where a row's group is
            unknown it gets the mean of their scores, and there is no answer where more than `most` of 64 were missing.

    Thread-safe; it pickles without what it remembers.

    Raises:
        ConfigError: a wrong argument.
    """

    def __init__(self, policy: FillPolicy = "mean", most: float = 0.5, *, one_by_one: bool = False) -> None:
        if policy not in FILL_POLICIES:
            raise ConfigError(f"the policy must be one of {', '.join(FILL_POLICIES)}, got {policy!r}")
        if not 0 <= most <= 1:
            raise ConfigError(f"the share that may be filled must lie in 0..1, got {most}")
        self._policy: FillPolicy = policy
        self._most = most
        self._one_by_one = one_by_one
        self._forget()

    def numbers(self, groups: Sequence[Hashable], outcomes: Sequence[Verification]) -> tuple[list[float], int]:
        """One number in 0..10 per outcome, and how many of them stand in for missing scores.

        Args:
            groups: what has the same key was made from the same source by the same instruction.

        Raises:
            UnscoredError: see above; the message gives the first reason.
        """
        scores = [outcome.score for outcome in outcomes]
        known = [score for score in scores if score is not None]
        missing = [row for row, score in enumerate(scores) if score is None]
        if missing and self._policy == "error":
            raise unscored(missing, outcomes)
        self._remember(groups, scores)
        if self._one_by_one and missing:
            return self._from_earlier(groups, outcomes), len(missing)
        filled = list(scores)
        from_batch = 0
        for row in missing:
            own = [
                score for each, score in zip(groups, scores, strict=True) if each == groups[row] and score is not None
            ]
            before = self._before(groups[row])
            if own or before is None:
                from_batch += 1
                own = own or known
            filled[row] = sum(own) / len(own) if own else before
        if from_batch and (not known or from_batch > self._most * len(scores)):
            raise unscored(missing, outcomes)
        return [score for score in filled if score is not None], len(missing)

    def _from_earlier(self, groups: Sequence[Hashable], outcomes: Sequence[Verification]) -> list[float]:
        with self._lock:
            recent = list(self._recent)
        known = [score for score in recent if score is not None]
        if not known or len(recent) - len(known) > self._most * _RECENT:
            raise unscored([row for row, each in enumerate(outcomes) if each.score is None], outcomes)
        mean = sum(known) / len(known)
        values = []
        for group, outcome in zip(groups, outcomes, strict=True):
            before = self._before(group) if outcome.score is None else outcome.score
            values.append(mean if before is None else before)
        return values

    def _remember(self, groups: Sequence[Hashable], scores: Sequence[float | None]) -> None:
        with self._lock:
            self._recent.extend(scores)
            for group, score in zip(groups, scores, strict=True):
                if score is not None:
                    total, count = self._groups.pop(group, (0.0, 0))
                    self._groups[group] = total + score, count + 1
            while len(self._groups) > _GROUPS:
                self._groups.popitem(last=False)

    def _before(self, group: Hashable) -> float | None:
        with self._lock:
            total, count = self._groups.get(group, (0.0, 0))
        return total / count if count else None

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._recent: deque[float | None] = deque(maxlen=_RECENT)

    def __getstate__(self) -> dict[str, Any]:
        return {"policy": self._policy, "most": self._most, "one_by_one": self._one_by_one}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._policy, self._most, self._one_by_one = state["policy"], state["most"], state["one_by_one"]
        self._forget()


def unscored(rows: Sequence[int], outcomes: Sequence[Verification]) -> UnscoredError:
    """The error that says how many have no score, and why the first has none."""
    return UnscoredError(
        f"{len(rows)} of {len(outcomes)} edits have no score; edit {rows[0]}: {outcomes[rows[0]].failure}"
    )
