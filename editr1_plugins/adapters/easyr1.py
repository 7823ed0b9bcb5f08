"""EasyR1's reward functions, a batch a call; it loads them from a file, see `integrations/easyr1/editr1.py`.

`compute_score` judges the edit that a policy's text leads to; `compute_judge_score` trains a judge. EasyR1 hands over
the response and `ground_truth`, so all else lies there: {"source": ..., "instruction": ...}, as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from editr1_plugins.adapters.judge_policy import judge_label, judge_reward
from editr1_plugins.adapters.policy_rows import PolicyRows, plain_settings
from editr1_plugins.adapters.scorer import shared_scorer
from editr1_plugins.errors import DataError

__all__ = ["REWARD_NAME", "REWARD_TYPE", "compute_judge_score", "compute_score"]

#: Read by EasyR1.
REWARD_NAME: Final = "editr1"
REWARD_TYPE: Final = "batch"


def compute_score(reward_inputs: Sequence[Mapping[str, Any]], **settings: Any) -> list[dict[str, float]]:
    """The scores of a batch, in its order.

    Args:
        reward_inputs: `response`, which an `editor` follows, and `ground_truth`: a JSON object with the source image,
            the instruction and, without an `editor`, the edited image, see `PolicyRows`.
        settings: of `PolicyRows` and `HostScorer`: EasyR1's `reward_function_kwargs`.

    Returns:
        `overall`, and `editr1/missing`, which is 1 where the score only stands in for a missing one.

    Raises:
        UnscoredError: too many scores are missing.
        DataError, ConfigError: the job is wrongly set up.
    """
    rows, others = PolicyRows.split(plain_settings(settings))
    edits = [
        rows.edit(_row(given["ground_truth"], number), given["response"], number=number)
        for number, given in enumerate(reward_inputs)
    ]
    scored = shared_scorer(**others).score(edits)
    return [
        {"overall": value, "editr1/missing": float(outcome.score is None)}
        for value, outcome in zip(scored.values, scored.outcomes, strict=True)
    ]


def compute_judge_score(reward_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The rewards of a policy that is a judge, see `judge_reward`; `ground_truth` is a label, see `judge_label`.

    Raises:
        DataError: a label is none.
    """
    scores = []
    for given in reward_inputs:
        label, questions = judge_label(given["ground_truth"])
        reward = judge_reward(given["response"], label, questions)
        scores.append({"overall": reward.pop("score"), **reward})
    return scores


def _row(ground_truth: Any, number: int) -> Mapping[str, Any]:
    try:
        found = json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        raise DataError(
            f'row {number}: ground_truth must be a JSON object {{"source": image, "instruction": text, ...}}, '
            f"got {str(ground_truth)[:80]!r}"
        )
    return found
