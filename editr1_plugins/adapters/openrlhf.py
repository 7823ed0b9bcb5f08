"""OpenRLHF: the function that `--reward.remote_url FILE.py` loads; `integrations/openrlhf/editr1.py` is such a file.

OpenRLHF hands over one sample a call, in threads: the prompt, the prompt with the answer, and the label, which is all
else that it knows of a row. Here the label is JSON: {"source": image, "edited": image, "instruction": text}. Whatever
the function raises, OpenRLHF swallows: it writes a line at level INFO and goes on with no reward, on which its trainer
later fails and says that it lacks a reward model. Hence wrong settings are raised when the file is loaded, and the
reason for a sample without a reward is logged as an error before it is raised.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from editr1_plugins.adapters.judge_policy import judge_label, judge_reward
from editr1_plugins.adapters.policy_rows import PolicyRows
from editr1_plugins.adapters.scorer import HostScorer, environment_settings
from editr1_plugins.errors import DataError
from editr1_plugins.types import MAX_SCORE

__all__ = ["EditReward", "JudgeReward", "answer_in"]

#: What a tokenizer leaves at the end of an answer that is decoded with its control tokens.
_CONTROL_TOKENS: Final = re.compile(r"(?:\s*(?:<\|[^<>|\s]{1,40}\|>|</s>|<eos>|<pad>|<end_of_turn>))+\s*\Z")
_MARK: Final = 48  # characters at the end of a prompt by which its end is found

_log = logging.getLogger(__name__)


class _Logged:
    """Says why a sample has no reward, since OpenRLHF does not."""

    def __call__(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        """Reward a batch.

        Args:
            queries: each prompt with its answer, as tokens are decoded, control tokens included.
            prompts: without the answers.
            labels: see the class.

        Returns:
            Float tensors with one number per sample: `rewards`, `scores` in 0..1, and figures in `extra_logs`.

        Raises:
            Editr1Error: see the class; it is logged.
        """
        try:
            return self._rewards(queries, prompts, labels)
        except Exception as error:
            _log.error("no reward, and OpenRLHF will not say why: %s: %s", type(error).__name__, error)
            raise

    def _rewards(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        raise NotImplementedError


class EditReward(_Logged):
    """`reward_func`: the scores of edits; a missing one gets a mean, see `Filling`.

    Args:
        settings: of `PolicyRows` and `HostScorer`, over those in `$EDITR1_SCORER`. A label is what `PolicyRows` calls a
            row; the instruction it lacks is taken from the prompt.

    A call raises UnscoredError where too many scores are missing, and DataError for a label that is none.

    Raises:
        ConfigError: wrong settings.
    """

    def __init__(self, **settings: Any) -> None:
        self._rows, others = PolicyRows.split({**environment_settings(), **settings})
        self._scorer = HostScorer(**{"one_by_one": True, **others})
        # Reading the settings builds the judge's parts: here, where OpenRLHF swallows nothing.
        _log.info("reward: %s", self._scorer.reward.settings)

    def _rewards(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        edits = [
            self._rows.edit(_row(label), self._answer(query, prompt), number=number, instruction=prompt)
            for number, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True))
        ]
        scored = self._scorer.score(edits)
        filled = [float(outcome.score is None) for outcome in scored.outcomes]
        top = self._scorer.scaled(MAX_SCORE)
        return _tensors(scored.values, [value / top for value in scored.values], {"editr1_filled": filled})

    def _answer(self, query: str, prompt: str) -> str:
        return answer_in(query, prompt) if self._rows.editor is not None else ""


class JudgeReward(_Logged):
    """`reward_func` for a policy that is a judge: rewards in 0..1, see `judge_reward`; the label is `judge_label`'s.

    A call raises DataError where a label is none.
    """

    def _rewards(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        rewards = [
            judge_reward(answer_in(query, prompt), *judge_label(label))
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
        scores = [reward["score"] for reward in rewards]
        logs = {
            "editr1_error": [reward["editr1/error"] for reward in rewards],
            "editr1_unread": [reward["editr1/unread"] for reward in rewards],
        }
        return _tensors(scores, scores, logs)


def answer_in(query: str, prompt: str) -> str:
    """What the policy wrote, without the control tokens at its end.

    Args:
        query: the prompt, in which the marks of images may have grown, and the answer.
        prompt: as it was before it was made tokens.

    Raises:
        DataError: the query does not hold the end of the prompt.
    """
    if query.startswith(prompt):
        answer = query[len(prompt) :]
    else:
        _, found, answer = query.partition(prompt[-_MARK:])
        if not found:
            raise DataError(
                f"the prompt's end, {prompt[-_MARK:]!r}, is not in what was decoded; a tokenizer that changes its text "
                "or a prompt cut to --data.max_len hides where the answer starts"
            )
    return _CONTROL_TOKENS.sub("", answer)


def _row(label: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(label) if isinstance(label, str) else label
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping):
        raise DataError(
            'a label must be a JSON object {"source": image, "edited": image, "instruction": text} '
            f"(--data.label_key names its column), got {str(label)[:80]!r}"
        )
    return found


def _tensors(rewards: Sequence[float], scores: Sequence[float], logs: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    import torch

    tensor: Callable[[Sequence[float]], Any] = torch.tensor
    return {
        "rewards": tensor(rewards),
        "scores": tensor(scores),
        "extra_logs": {name: tensor(values) for name, values in logs.items()},
    }
