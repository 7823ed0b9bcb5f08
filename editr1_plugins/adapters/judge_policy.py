"""A reward for a policy that is itself a judge: how near its score comes to the label of people.

It asks about one reply at a time, so it suits any host. Learning from pairs, which compares the replies to a winner
with those to a loser (GCPO, Edit-R1 section 3.3), needs both sides at once: that is `editr1_plugins.training.gcpo`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from editr1_plugins.errors import DataError
from editr1_plugins.types import MAX_SCORE
from editr1_plugins.verifiers.parsing import parse_trace

__all__ = ["judge_label", "judge_reward"]


def judge_reward(reply: str, label: float, questions: Sequence[str] = ()) -> dict[str, float]:
    """`score` in 0..1 for one reply, and figures for the host's logger.

        score = 1 - |tau - label| / 10, and 0 where no tau can be read, as in GCPO

    Args:
        reply: of a policy that was asked by `verifiers.prompting.judge_request`.
        label: 0..10.
        questions: the principles it was asked, by which an example within the reply is told from its answer.
    """
    tau = parse_trace(reply, questions).score
    error = MAX_SCORE if tau is None else abs(tau - label)
    return {"score": 1 - error / MAX_SCORE, "editr1/error": error, "editr1/unread": float(tau is None)}


def judge_label(value: Any) -> tuple[float, tuple[str, ...]]:
    """The label in 0..10 of a host's `ground_truth`, and the questions where they lie beside it.

    Args:
        value: a number, its text, or (the JSON text of) {"score": number, "questions": [text, ...]}.

    Raises:
        DataError: none of these.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise _wrong(value) from None
    questions = value.get("questions", ()) if isinstance(value, dict) else ()
    score = value.get("score") if isinstance(value, dict) else value
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= MAX_SCORE:
        raise _wrong(value)
    if math.isnan(score) or isinstance(questions, str) or not all(isinstance(each, str) for each in questions):
        raise _wrong(value)
    return float(score), tuple(questions)


def _wrong(value: Any) -> DataError:
    return DataError(
        f'a judge\'s label must be a number in 0..10, or {{"score": number, "questions": [text, ...]}}, '
        f"got {str(value)[:80]!r}"
    )
