"""`POST /score`: the canonical form, which UniRL's reward service has; scores in 0..10, errors per item.

    {"requests": [{"history": [{"text": ..., "image_b64": SOURCE}, {"text": INSTRUCTION, "image_b64": EDITED}],
                   "required_rewards": ["editr1"], "metadata": ...}]}
    -> {"results": [{"editr1": {"score": 7.5}}], "errors": [{}], "scores": [7.5]}

What could not be judged has no result but an error that says why, and null in `scores`. Unknown fields are ignored.
Items that say who they are get `identities` back. Of these, `scorer_version` is not an echo but this server's own, so
that a client that expects another one notices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from editr1_plugins.adapters.server.calls import (
    Answer,
    Call,
    EncodedEdit,
    ImageReader,
    json_object,
    list_of,
    problem,
)
from editr1_plugins.errors import DataError
from editr1_plugins.types import Verification

__all__ = ["ScoreForm"]

_IDENTITY: Final = ("request_id", "sample_id", "group_id", "source_rank", "policy_version", "idempotency_key")
_PROTOCOL: Final = "1"


class ScoreForm:
    """UniRL's `RemoteRewardBackend` and its reward service's own `RewardClient`.

    Args:
        images: reads them.
        name: of the one reward served here.
        version: changes when scores may.
    """

    route = "/score"

    def __init__(self, images: ImageReader, name: str, version: str) -> None:
        self._images, self._name, self._version = images, name, version

    def read(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            DataError: no list of requests, or one of a protocol that is not known.
        """
        payload = json_object(body)
        if payload.get("protocol_version") not in (None, _PROTOCOL):
            raise DataError(f"protocol_version {payload['protocol_version']!r} is not known; there is {_PROTOCOL!r}")
        items = list_of(payload, "requests")
        asked = [_rewards_of(item) for item in items]
        edits = [self._edit(item, names) for item, names in zip(items, asked, strict=True)]

        def answer(outcomes: Sequence[Verification]) -> Answer:
            return Answer.json(self._content(payload, items, asked, outcomes))

        return Call(edits=edits, answer=answer)

    def problem(self, status: int, message: str, request_id: str) -> Answer:
        """As HTTP says it: the client raises at once at 4xx, and asks again at 429 (older ones at anything, thrice)."""
        return problem(status, message, request_id)

    def _edit(self, item: object, names: Sequence[str]) -> EncodedEdit | str:
        if not isinstance(item, dict):
            return f"bad_request: an item must be an object, got {type(item).__name__}"
        if self._name not in names:
            return f"bad_request: no reward that is served here is asked for; there is: {self._name}"
        history = item.get("history")
        if not isinstance(history, list) or len(history) < 2:
            return "bad_request: history needs two turns, the source image and the edited one"
        first, last = history[0], history[-1]
        if not isinstance(first, dict) or not isinstance(last, dict):
            return "bad_request: a turn of the history must be an object"
        return self._images.edit(first.get("image_b64"), last.get("image_b64"), last.get("text"))

    def _content(
        self,
        payload: Mapping[str, Any],
        items: Sequence[Any],
        asked: Sequence[Sequence[str]],
        outcomes: Sequence[Verification],
    ) -> dict[str, Any]:
        results: list[dict[str, Any]] = []
        errors: list[dict[str, str]] = []
        for names, outcome in zip(asked, outcomes, strict=True):
            wrong = {name: f"not served here; there is: {self._name}" for name in names if name != self._name}
            if outcome.score is None:
                results.append({})
                errors.append({self._name: str(outcome.failure), **wrong})
            else:
                results.append({self._name: {"score": outcome.score}})
                errors.append(wrong)
        content = {"results": results, "errors": errors, "scores": [outcome.score for outcome in outcomes]}
        if payload.get("protocol_version") is not None:
            content["protocol_version"] = _PROTOCOL
        if any(isinstance(item, dict) and "request_id" in item for item in items):
            content["identities"] = [self._identity(item) for item in items]
        return content

    def _identity(self, item: object) -> dict[str, Any]:
        known = item if isinstance(item, dict) else {}
        return {**{key: known.get(key) for key in _IDENTITY}, "scorer_version": self._version}


def _rewards_of(item: object) -> list[str]:
    names = item.get("required_rewards") if isinstance(item, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
