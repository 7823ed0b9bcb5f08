"""`POST /mode/...`: PKU Edit-R1's `mllm_score_continue`, whose bodies are pickles; scores in 0..1. Off by default.

    pickle {"ref_images": [JPEG], "images": [JPEG], "prompts": [INSTRUCTION], "metadatas": [...]}
    -> pickle {"scores": [0.75]}

The body is read by `data_pickle.read_data`, as data. The client unpickles whatever comes back, hence trusts this server
with its process; it waits where 500 or Retry-After tells it to, and fails on everything else.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from editr1_plugins.adapters.missing import Filling
from editr1_plugins.adapters.server.calls import Answer, Call, EncodedEdit, ImageReader, list_of, problem
from editr1_plugins.adapters.server.data_pickle import read_data
from editr1_plugins.adapters.server.filling import filled_rewards
from editr1_plugins.errors import DataError
from editr1_plugins.types import MAX_SCORE, Verification

__all__ = ["ModeForm"]


class ModeForm:
    """PKU Edit-R1's `mllm_score_continue`.

    Args:
        images: reads them.
        filling: what stands in for missing scores.
    """

    route = "/mode/{mode}"

    def __init__(self, images: ImageReader, filling: Filling) -> None:
        self._images, self._filling = images, filling

    def read(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            DataError: a pickle with more than data in it, or lists that do not fit each other.
        """
        payload = read_data(body)
        if not isinstance(payload, dict):
            raise DataError(f"the pickle must hold a dict, got {type(payload).__name__}")
        edited = list_of(payload, "images")
        sources = list_of(payload, "ref_images", len(edited))
        prompts = payload.get("prompts")
        if not isinstance(prompts, (list, tuple)) or len(prompts) != len(edited):
            # The client sends images in parts of 64, and all prompts with each part.
            raise DataError("'prompts' must be one per image; the stock client manages that up to 64 images a process")
        edits = [
            self._images.edit(source, image, prompt)
            for source, image, prompt in zip(sources, edited, prompts, strict=True)
        ]

        def answer(outcomes: Sequence[Verification]) -> Answer:
            return self._answer(edits, outcomes)

        return Call(edits=edits, answer=answer)

    def problem(self, status: int, message: str, request_id: str) -> Answer:
        """As HTTP says it, in JSON: the client cannot unpickle that, and stops."""
        return problem(status, message, request_id)

    def _answer(self, edits: Sequence[EncodedEdit | str], outcomes: Sequence[Verification]) -> Answer:
        rewards, filled = filled_rewards(self._filling, edits, outcomes)
        body = pickle.dumps({"scores": [reward / MAX_SCORE for reward in rewards]}, protocol=4)
        return Answer(status=200, body=body, media_type="application/octet-stream", filled=filled)
