"""Encoded edits through the reward: decoded in the batch's own thread, judged by one call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from editr1_plugins.adapters.server.calls import EncodedEdit
from editr1_plugins.errors import ImageError
from editr1_plugins.images import read_image
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import Edit, Verification

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["RewardJudge", "scores_version"]


class RewardJudge:
    """A reward for encoded edits; callable from several threads.

    Args:
        reward: judges.
        max_pixels, max_bytes: of one image.
    """

    def __init__(self, reward: EditRRMReward, max_pixels: int, max_bytes: int) -> None:
        self._reward, self._max_pixels, self._max_bytes = reward, max_pixels, max_bytes

    def __call__(self, encoded: Sequence[EncodedEdit]) -> list[Verification]:
        """One verification per edit, in order; an image that cannot be decoded is a failure of its edit.

        Raises:
            ConfigError, MissingExtraError, ComponentError: a part of the reward cannot be built.
        """
        sources: dict[bytes, Image] = {}  # a group's source is decoded once, and is one object for the reward
        found = [self._decoded(each, sources) for each in encoded]
        judged = iter(self._reward.score([each for each in found if isinstance(each, Edit)]))
        return [next(judged) if isinstance(each, Edit) else each for each in found]

    def _decoded(self, encoded: EncodedEdit, sources: dict[bytes, Image]) -> Edit | Verification:
        try:
            if encoded.source not in sources:
                sources[encoded.source] = self._image(encoded.source)
            edited = self._image(encoded.edited)
        except ImageError as error:
            return Verification(score=None, failure=f"bad_request: {error}", samples=0)
        return Edit(source=sources[encoded.source], edited=edited, instruction=encoded.instruction)

    def _image(self, data: bytes) -> Image:
        return read_image(data, max_pixels=self._max_pixels, max_bytes=self._max_bytes)


def scores_version(reward: EditRRMReward) -> str:
    """Changes with whatever the scores depend on besides the edits: judge, principles, guards, sampling, this package.

    Raises:
        ConfigError, MissingExtraError, ComponentError: a part cannot be built.
    """
    depends = {"editr1-plugins": version("editr1-plugins"), **reward.settings}
    return hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()[:16]
