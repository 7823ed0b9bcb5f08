"""verl's reward functions, one sample a call (verl 0.9: the reward managers `naive` and `dapo`).

    reward.custom_reward_function.path=pkg://editr1_plugins.adapters.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.verifier="openai:MODEL@http://HOST:8000/v1"

`compute_score` judges the edit of a policy that writes text and calls tools; `compute_judge_score` trains a judge.
Each reward worker builds its scorer when it is first asked. A judge that verl itself serves (`reward.reward_model`)
is named "openai:MODEL@router". verl's manager `rate_limited` makes a silent 0 of every error: do not use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from editr1_plugins.adapters.conversion import EditOrReason
from editr1_plugins.adapters.judge_policy import judge_label, judge_reward
from editr1_plugins.adapters.policy_rows import PolicyRows, plain_settings
from editr1_plugins.adapters.scorer import shared_scorer
from editr1_plugins.errors import ConfigError

__all__ = ["compute_judge_score", "compute_score", "compute_score_async", "score_one"]

_ROUTER: Final = "@router"


def compute_score(
    data_source: Any,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **settings: Any,
) -> dict[str, float]:
    """The score of one sample's edit.

    Args:
        data_source: not used.
        solution_str: what the policy wrote; only an `editor` reads it.
        ground_truth: the instruction, where `extra_info` holds none.
        extra_info: the source and the edited image, see `PolicyRows`. A tool of verl's agent loop puts the edited image
            there by `agent_data.extra_fields["edited"] = image`.
        reward_router_address, reward_model_tokenizer: verl's own, with `reward.reward_model.enable`.
        settings: of `PolicyRows` and `HostScorer`: verl's `reward_kwargs`.

    Returns:
        `score`, and `editr1/missing`, which is 1 where the score only stands in for a missing one. The keys are always
        the same: verl fails on a batch where they differ.

    Raises:
        UnscoredError: too many scores are missing.
        DataError, ConfigError: the job is wrongly set up.
    """
    rows, others = PolicyRows.split(plain_settings(settings))
    edit = rows.edit(extra_info or {}, solution_str, instruction=ground_truth)
    return score_one(edit, others, reward_router_address)


async def compute_score_async(*args: Any, **kwargs: Any) -> dict[str, float]:
    """`compute_score` for a host that awaits its reward; images are decoded and judged beside its event loop."""
    return await asyncio.to_thread(compute_score, *args, **kwargs)


def compute_judge_score(
    data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any = None, **_: Any
) -> dict[str, float]:
    """The reward of a policy that is a judge, see `judge_reward`.

    Args:
        data_source, extra_info: not used.
        solution_str: the policy's reply.
        ground_truth: the label, see `judge_label`.

    Raises:
        DataError: the label is none.
    """
    label, questions = judge_label(ground_truth)
    return judge_reward(solution_str, label, questions)


def score_one(edit: EditOrReason, settings: Mapping[str, Any], router: str | None) -> dict[str, float]:
    """What verl's managers take for one edit, by the scorer of this process.

    Args:
        settings: of `HostScorer`.
        router: host and port of the model that verl serves.

    Raises:
        UnscoredError, ConfigError: see `compute_score`.
    """
    settings = dict(settings)
    verifier = settings.get("verifier")
    if isinstance(verifier, str) and verifier.endswith(_ROUTER):
        if router is None:
            raise ConfigError(f"verifier={verifier!r}: verl serves no model; set reward.reward_model.enable=True")
        settings["verifier"] = f"{verifier.removesuffix(_ROUTER)}@http://{router}/v1"
    scored = shared_scorer(one_by_one=True, **settings).score([edit])
    return {"score": scored.values[0], "editr1/missing": float(scored.missing)}
