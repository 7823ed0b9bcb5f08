"""ms-swift: rewards for `swift rlhf --rlhf_type grpo`, put into its table by `register()`.

Its plug-in file (`--external_plugins integrations/ms_swift/editr1.py`) calls `register()`; `--reward_funcs` then knows

- `editr1`, `editr1_async`: judge the edit that a policy's text leads to;
- `editr1_missing`: 1 for each row whose score only stood in for a missing one, for ms-swift's log (weight 0);
- `editr1_judge`: trains a policy that is itself a judge.

ms-swift hands over the completions and every column of the rows as a list, and no settings. These are the arguments of
`register`, over those in `$EDITR1_SCORER`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from editr1_plugins.adapters.conversion import EditOrReason
from editr1_plugins.adapters.judge_policy import judge_label, judge_reward
from editr1_plugins.adapters.policy_rows import PolicyRows
from editr1_plugins.adapters.scorer import HostScorer, Scored, environment_settings
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError

__all__ = ["EditReward", "EditRewardAsync", "JudgeReward", "LastBatch", "MissingShare", "register"]

_IMAGES: Final = "images"  # ms-swift's own column of a row's images, which the policy sees
_INFOS: Final = "rollout_infos"  # what a multi-turn scheduler or environment adds to a row
_PLACEHOLDER: Final = "<image>"

_log = logging.getLogger(__name__)


class LastBatch:
    """What the edit reward last said, for `MissingShare`, which ms-swift asks about the same completions."""

    def __init__(self) -> None:
        self._said: tuple[Sequence[str], list[float]] | None = None

    def keep(self, completions: Sequence[str], scored: Scored) -> None:
        """Keep which of a batch have no score."""
        self._said = completions, [float(outcome.score is None) for outcome in scored.outcomes]

    def missing(self, completions: Sequence[str]) -> list[float]:
        """1 for each row of this batch without a score.

        Raises:
            ConfigError: the edit reward was not asked about this very batch before.
        """
        if self._said is None or self._said[0] is not completions:
            raise ConfigError("editr1_missing counts for editr1: name both, editr1 first, in --reward_funcs")
        return self._said[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"_said": None}


class EditReward:
    """`orms["editr1"]`: the scores of a batch of edits, in its order.

    Args:
        args: ms-swift's; not used.
        last: see `LastBatch`.
        settings: of `PolicyRows` (its `source_key` is "images" here) and `HostScorer`, over those in `$EDITR1_SCORER`.

    Raises:
        ConfigError: wrong settings, when the trainer is made.
    """

    def __init__(self, args: Any = None, *, last: LastBatch | None = None, **settings: Any) -> None:
        self._rows, others = PolicyRows.split({"source_key": _IMAGES, **environment_settings(), **settings})
        self._scorer = HostScorer(**others)
        self._last = last or LastBatch()
        # Reading the settings builds the judge's parts, so a wrong one ends the job before it samples anything.
        _log.info("reward: %s", self._scorer.reward.settings)

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:
        """One number per completion; none is None, which ms-swift would count as 0.

        Args:
            completions: what the policy wrote; only an `editor` reads it.
            columns: a list each. The edited image may also lie in `rollout_infos`, which then counts. A row without an
                instruction is judged by the last user message.

        Raises:
            UnscoredError: too many scores are missing.
            DataError, ConfigError: the job is wrongly set up.
        """
        scored = self._scorer.score([self._edit(completions[row], columns, row) for row in range(len(completions))])
        self._last.keep(completions, scored)
        return scored.values

    def _edit(self, text: str, columns: Mapping[str, Any], number: int) -> EditOrReason:
        row = {name: cells[number] for name, cells in columns.items() if isinstance(cells, list)}
        infos = row.get(_INFOS)
        if isinstance(infos, Mapping) and infos.get(self._rows.edited_key) is not None:
            row[self._rows.edited_key] = infos[self._rows.edited_key]
        return self._rows.edit(row, text, number=number, instruction=_last_asked(row.get("messages")))


class EditRewardAsync(EditReward):
    """`orms["editr1_async"]`: the same, beside other asynchronous rewards of ms-swift."""

    async def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:  # type: ignore[override]
        """See `EditReward`; images are read and judged in a thread."""
        return await asyncio.to_thread(super().__call__, completions, **columns)


class MissingShare:
    """`orms["editr1_missing"]`: its mean in ms-swift's log is the share of edits without a score; give it weight 0."""

    def __init__(self, args: Any = None, *, last: LastBatch) -> None:
        self._last = last

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:
        """1 for each row without a score.

        Raises:
            ConfigError: see `LastBatch.missing`.
        """
        return self._last.missing(completions)


class JudgeReward:
    """`orms["editr1_judge"]`: rewards in 0..1 of a policy that is a judge, see `judge_reward`.

    Args:
        args: ms-swift's; not used.
        label_key: the column of labels, see `judge_label`.
    """

    def __init__(self, args: Any = None, *, label_key: str = "label") -> None:
        self._label_key = label_key

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:
        """One number per completion.

        Raises:
            DataError: there is no column of labels, or a label is none.
        """
        labels = columns.get(self._label_key)
        if not isinstance(labels, list):
            raise DataError(
                f"the rows have no column {self._label_key!r}; put the label there, or name it by label_key"
            )
        return [
            judge_reward(text, *judge_label(label))["score"] for text, label in zip(completions, labels, strict=True)
        ]


def register(*, label_key: str = "label", **settings: Any) -> None:
    """Put the rewards into ms-swift's table (`swift.rewards.orms`).

    Args:
        label_key: of `JudgeReward`.
        settings: of `EditReward`.

    Raises:
        MissingExtraError: ms-swift is not installed.
    """
    try:
        table = importlib.import_module("swift.rewards").orms
    except ImportError as error:
        raise MissingExtraError(
            f"ms-swift cannot be imported ({error}): pip install 'ms-swift>=4.6' msgspec"
        ) from error
    last = LastBatch()
    table["editr1"] = partial(EditReward, last=last, **settings)
    table["editr1_async"] = partial(EditRewardAsync, **settings)
    table["editr1_missing"] = partial(MissingShare, last=last)
    table["editr1_judge"] = partial(JudgeReward, label_key=label_key)


def _last_asked(messages: Any) -> str | None:
    """The text of the last user message, without the marks of images."""
    for message in reversed(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, Mapping) and message.get("role") == "user" else None
        if isinstance(content, str):
            return content.replace(_PLACEHOLDER, "").strip()
    return None
