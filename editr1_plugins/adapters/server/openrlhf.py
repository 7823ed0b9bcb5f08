"""`POST /get_reward`: OpenRLHF's remote reward model (`--reward.remote_url`); rewards in 0..10, `scores` in 0..1.

    {"query": [...], "prompts": [...], "labels": [LABEL]}, LABEL = '{"source": B64, "edited": B64, "instruction": ...}'
    -> {"rewards": [7.5], "scores": [0.75], "extra_logs": {"editr1_filled": [0.0]}}

Its trainer sends one sample a request. An instruction that the label lacks is taken from `prompts`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from editr1_plugins.adapters.missing import Filling
from editr1_plugins.adapters.server.calls import Answer, Call, EncodedEdit, ImageReader, json_object, list_of, problem
from editr1_plugins.adapters.server.filling import filled_rewards
from editr1_plugins.types import MAX_SCORE, Verification

__all__ = ["GetRewardForm"]


class GetRewardForm:
    """OpenRLHF's `SingleTurnAgentExecutor`.

    Args:
        images: reads them.
        filling: what stands in for missing scores.
    """

    route = "/get_reward"

    def __init__(self, images: ImageReader, filling: Filling) -> None:
        self._images, self._filling = images, filling

    def read(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            DataError: no list of labels, or prompts that do not fit them.
        """
        payload = json_object(body)
        labels = list_of(payload, "labels")
        prompts = [None] * len(labels) if payload.get("prompts") is None else list_of(payload, "prompts", len(labels))
        edits = [self._edit(label, prompt) for label, prompt in zip(labels, prompts, strict=True)]

        def answer(outcomes: Sequence[Verification]) -> Answer:
            return self._answer(edits, outcomes)

        return Call(edits=edits, answer=answer)

    def problem(self, status: int, message: str, request_id: str) -> Answer:
        """As HTTP says it: the client repeats any error five times, a second apart, then goes on without a reward."""
        return problem(status, message, request_id)

    def _edit(self, label: object, prompt: object) -> EncodedEdit | str:
        try:
            found = json.loads(label) if isinstance(label, str) else label
        except (ValueError, RecursionError) as error:
            return f"bad_request: the label is not JSON: {error}"
        if not isinstance(found, dict):
            return 'bad_request: a label must be a JSON object {"source", "edited", "instruction"} with base64 images'
        return self._images.edit(found.get("source"), found.get("edited"), found.get("instruction", prompt))

    def _answer(self, edits: Sequence[EncodedEdit | str], outcomes: Sequence[Verification]) -> Answer:
        rewards, filled = filled_rewards(self._filling, edits, outcomes)
        scores = [reward / MAX_SCORE for reward in rewards]
        logs = {"editr1_filled": [float(outcome.score is None) for outcome in outcomes]}
        return Answer.json({"rewards": rewards, "scores": scores, "extra_logs": logs}, filled=filled)
