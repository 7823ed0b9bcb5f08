"""Asking a chat backend that may break its promises: whatever it does, every request gets its own list of replies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from editr1_plugins.backends.chat import ChatBackend, ChatReply, ChatRequest, Sampling

__all__ = ["ask"]

#: Requests tried alone, all in vain, before the backend counts as down for this call.
_GIVE_UP_AFTER: Final = 3
_MAX_REASON: Final = 300
_log = logging.getLogger(__name__)


def ask(backend: ChatBackend, requests: Sequence[ChatRequest], sampling: Sampling) -> list[list[ChatReply]]:
    """Replies per request, in order: exactly `sampling.samples` each, the missing ones as replies with a failure.

    Never raises an `Exception` of the backend's. Where the whole batch raised or came back with the wrong length,
    nobody can tell which request is to blame, so each is asked alone; a dead backend costs a few tries, not one each.
    """
    if not requests:
        return []
    answers = _attempt(backend, requests, sampling)
    if isinstance(answers, str):
        _log.warning("asking %d requests at once failed: %s", len(requests), answers)
        answers = _one_by_one(backend, requests, sampling, answers)
    return [_completed(replies, sampling.samples) for replies in answers]


def _attempt(backend: ChatBackend, requests: Sequence[ChatRequest], sampling: Sampling) -> list[object] | str:
    try:
        answers: object = backend.complete(requests, sampling)
    except Exception as error:
        _log.debug("the backend raised", exc_info=True)
        return f"backend_error: {type(error).__name__}: {error}"[:_MAX_REASON]
    if not isinstance(answers, (list, tuple)):
        return f"backend_error: {type(answers).__name__} instead of a list of replies"
    if len(answers) != len(requests):
        return f"backend_error: {len(answers)} answers for {len(requests)} requests"
    return list(answers)


def _one_by_one(backend: ChatBackend, requests: Sequence[ChatRequest], sampling: Sampling, first: str) -> list[object]:
    answers: list[object] = [first] * len(requests)
    if len(requests) == 1:
        return answers
    served = failed = 0
    for row, request in enumerate(requests):
        answer = _attempt(backend, [request], sampling)
        if isinstance(answer, str):
            failed, answers[row] = failed + 1, answer
        else:
            served, answers[row] = served + 1, answer[0]
        if not served and failed == _GIVE_UP_AFTER:
            break
    return answers


def _completed(replies: object, samples: int) -> list[ChatReply]:
    if isinstance(replies, str):
        return [_failed(replies)] * samples
    if not isinstance(replies, (list, tuple)):
        return [_failed(f"backend_error: {type(replies).__name__} instead of replies")] * samples
    good = [
        reply if isinstance(reply, ChatReply) else _failed(f"backend_error: {type(reply).__name__} is no reply")
        for reply in replies[:samples]
    ]
    return good + [_failed(f"backend_error: {len(good)} replies of {samples}")] * (samples - len(good))


def _failed(reason: str) -> ChatReply:
    return ChatReply(failure=reason, finish_reason="error")
