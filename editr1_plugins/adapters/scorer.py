"""`HostScorer`: one reward for hosts that want plain numbers, from whatever thread, loop or process they ask.

The judge itself stays `EditRRMReward`: its backends own their event loop, and it is thread-safe. What is added here is
the host's scale, the numbers that stand in for missing scores, and that nothing is built before it is needed, in each
process anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from editr1_plugins.adapters.conversion import EditOrReason
from editr1_plugins.adapters.missing import Filling, FillPolicy
from editr1_plugins.errors import ConfigError
from editr1_plugins.images import content_hash
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import MAX_SCORE, Edit, Verification

__all__ = ["SCORER_VARIABLE", "HostScorer", "Scored", "environment_settings", "shared_scorer"]

#: Settings of `shared_scorer()` as a JSON object, for hosts that hand over none.
SCORER_VARIABLE: Final = "EDITR1_SCORER"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a host gets for a batch.

    Attributes:
        values: one number per edit, in 0..`top`.
        outcomes: what the judge said, in the same order; `score` is None where a value only stands in.
        missing: how many values stand in for missing scores.
    """

    values: list[float]
    outcomes: list[Verification]
    missing: int

    @property
    def metrics(self) -> dict[str, float]:
        """For the host's logger: the share of the batch that could not be judged, and the mean of what could, 0..10."""
        known = [outcome.score for outcome in self.outcomes if outcome.score is not None]
        metrics = {"editr1/missing": self.missing / len(self.outcomes) if self.outcomes else 0.0}
        return {**metrics, "editr1/score": sum(known) / len(known)} if known else metrics


class HostScorer:
    """`EditRRMReward` in numbers.

    Args:
        reward: built already; else one is built from `settings` in each process when it is first asked.
        top: what a perfect edit gets; scores are scaled to 0..`top`.
        missing: "mean" or "error", see `Filling`.
        max_missing: share of a batch, 0..1, above which missing scores are an error.
        one_by_one: the host asks for one edit a call, see `Filling`.
        settings: of `EditRRMReward` (`verifier`, `decomposer`, `guards`, `samples`, `cache`, `record`, ...).

    Thread-safe; it pickles where the reward or the settings do.

    Raises:
        ConfigError: a wrong argument.
    """

    def __init__(
        self,
        reward: EditRRMReward | None = None,
        *,
        top: float = MAX_SCORE,
        missing: FillPolicy = "mean",
        max_missing: float = 0.5,
        one_by_one: bool = False,
        **settings: Any,
    ) -> None:
        if not 0 < top < float("inf"):
            raise ConfigError(f"top must be above 0 and finite, got {top!r}")
        if reward is not None and settings:
            raise ConfigError(f"a reward that is built takes no settings, got {', '.join(settings)}")
        self._given, self._top, self._settings = reward, float(top), settings
        self._filling = Filling(missing, max_missing, one_by_one=one_by_one)
        self._lock = threading.Lock()
        self._built: EditRRMReward | None = None

    @property
    def reward(self) -> EditRRMReward:
        """The reward, the same one each time within a process.

        Raises:
            ConfigError: settings that `EditRRMReward` does not take.
        """
        if self._given is not None:
            return self._given
        with self._lock:
            if self._built is None:
                try:
                    self._built = EditRRMReward(**self._settings)
                except TypeError as error:
                    raise ConfigError(f"settings of the reward: {error}") from error
            return self._built

    def score(self, edits: Sequence[EditOrReason]) -> Scored:
        """Judge a batch, also from a thread whose event loop is running (which then waits).

        Args:
            edits: in the host's order; a text is the reason why that row has no edit.

        Raises:
            UnscoredError: too many scores are missing.
        """
        outcomes = self.judge(edits)
        values, missing = self._filling.numbers([_group(edit) for edit in edits], outcomes)
        if missing:
            first = next(outcome.failure for outcome in outcomes if outcome.score is None)
            _log.warning("%d of %d edits have no score and get a mean; the first: %s", missing, len(edits), first)
        return Scored(values=[self.scaled(value) for value in values], outcomes=outcomes, missing=missing)

    def judge(self, edits: Sequence[EditOrReason]) -> list[Verification]:
        """`score` for hosts that can leave a row out: what the judge said, with nothing in place of missing scores."""
        return self.reward.score_rows(edits)

    def scaled(self, score: float) -> float:
        """A judge's score in 0..10 on the host's scale, 0..`top`."""
        return score * (self._top / MAX_SCORE)

    async def ascore(self, edits: Sequence[EditOrReason]) -> Scored:
        """`score` for a host with an event loop, which goes on meanwhile."""
        return await asyncio.to_thread(self.score, edits)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_built"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._built = threading.Lock(), None


def shared_scorer(**settings: Any) -> HostScorer:
    """The process's scorer with these settings, the same one each time: for hosts that call a plain function.

    Args:
        settings: of `HostScorer`, over those in `$EDITR1_SCORER`.

    Raises:
        ConfigError: wrong settings, or the variable holds no JSON object.
    """
    merged = {**environment_settings(), **settings}
    # Instances have no value to compare by; the same object is the same setting.
    key = tuple(sorted((name, value if isinstance(value, str) else repr(value)) for name, value in merged.items()))
    with _shared_lock:
        if key not in _shared:
            _shared[key] = HostScorer(**merged)
        return _shared[key]


_shared: dict[tuple[tuple[str, str], ...], HostScorer] = {}
_shared_lock = threading.Lock()


def _new_process() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_process)


def environment_settings() -> Mapping[str, Any]:
    """The settings in `$EDITR1_SCORER`; none where it is not set.

    Raises:
        ConfigError: it holds no JSON object.
    """
    text = os.environ.get(SCORER_VARIABLE, "").strip()
    if not text:
        return {}
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"${SCORER_VARIABLE} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"${SCORER_VARIABLE} must be a JSON object, got {type(settings).__name__}")
    return settings


def _group(edit: EditOrReason) -> bytes:
    if not isinstance(edit, Edit):
        return b""
    return hashlib.sha256(content_hash(edit.source).encode() + edit.instruction.encode("utf-8", "replace")).digest()
