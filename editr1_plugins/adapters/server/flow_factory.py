"""`POST /compute`: Flow-Factory's remote reward; rewards in 0..10, one per prompt.

    {"prompt": [INSTRUCTION], "image": [EDITED], "condition_images": [[SOURCE, ...]]} -> {"rewards": [7.5]}

Its client repeats whatever is no 2xx three times without a pause and then drops the reason, but raises what `error`
says at once. Hence what no repetition can cure is answered with status 200 and `error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from editr1_plugins.adapters.missing import Filling
from editr1_plugins.adapters.server.calls import Answer, Call, EncodedEdit, ImageReader, json_object, list_of, problem
from editr1_plugins.adapters.server.filling import filled_rewards
from editr1_plugins.errors import DataError
from editr1_plugins.types import Verification

__all__ = ["ComputeForm"]


class ComputeForm:
    """Flow-Factory's `RemoteRewardClient`.

    Args:
        images: reads them.
        filling: what stands in for missing scores.
    """

    route = "/compute"

    def __init__(self, images: ImageReader, filling: Filling) -> None:
        self._images, self._filling = images, filling

    def read(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            DataError: lists that do not fit each other, or no source images.
        """
        payload = json_object(body)
        prompts = list_of(payload, "prompt")
        if not payload.get("condition_images"):
            raise DataError(
                "there are no condition_images: an edit is judged with its source; use a reward model whose "
                "required_fields are ('prompt', 'image', 'condition_images')"
            )
        edited = list_of(payload, "image", len(prompts))
        sources = list_of(payload, "condition_images", len(prompts))
        edits = [
            self._images.edit(_first(source), image, prompt)
            for source, image, prompt in zip(sources, edited, prompts, strict=True)
        ]

        def answer(outcomes: Sequence[Verification]) -> Answer:
            return self._answer(edits, outcomes)

        return Call(edits=edits, answer=answer)

    def problem(self, status: int, message: str, request_id: str) -> Answer:
        """What a repetition cannot cure (400, 413, 422) as 200 with `error`; the rest as HTTP says it."""
        if status in (400, 413, 422):
            return Answer.json({"error": message, "request_id": request_id, "rewards": []})
        return problem(status, message, request_id)

    def _answer(self, edits: Sequence[EncodedEdit | str], outcomes: Sequence[Verification]) -> Answer:
        rewards, filled = filled_rewards(self._filling, edits, outcomes)
        return Answer.json({"rewards": rewards, "failures": [outcome.failure for outcome in outcomes]}, filled=filled)


def _first(source: Any) -> object:
    """The condition image that was edited: the first of the sample's list."""
    if isinstance(source, list):
        return source[0] if source else None
    return source
