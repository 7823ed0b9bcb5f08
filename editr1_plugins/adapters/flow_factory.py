"""Flow-Factory: `EditRRMRewardModel`, which its YAML names by this module's dotted path.

Its reward models must inherit from a class of its own, so ours is made when it is first asked for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

from editr1_plugins.adapters.conversion import as_edit, first_image
from editr1_plugins.adapters.host_modules import checkout_module
from editr1_plugins.adapters.scorer import HostScorer
from editr1_plugins.errors import DataError

__all__ = ["EditRRMRewardModel"]

#: Made by `__getattr__`.
EditRRMRewardModel: type[Any]

_log = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    if name != "EditRRMRewardModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _reward_model()


@functools.cache
def _reward_model() -> type[Any]:
    host = checkout_module("flow_factory.rewards.abc", "Flow-Factory", "X-GenGroup/Flow-Factory")
    pointwise, output = host.PointwiseRewardModel, host.RewardModelOutput

    class EditRRMRewardModel(pointwise):  # type: ignore[misc, valid-type]
        """`EditRRMReward` as a pointwise reward of Flow-Factory, 0..10; a missing score gets a mean.

        Keys of the reward's YAML that Flow-Factory does not know are settings of `HostScorer`: `verifier`,
        `decomposer`, `guards`, `samples`, `record`, `missing`, `max_missing`, `top`. The last batch of a call may hold
        one edit, hence `one_by_one` is on by default.

        Raises:
            ConfigError: wrong settings, when the trainer loads its rewards.
        """

        required_fields = ("prompt", "image", "condition_images")
        use_tensor_inputs = True  # making PIL images, the host guesses the range of the pixels, and may guess wrong

        def __init__(self, config: Any, accelerator: Any) -> None:
            super().__init__(config, accelerator)
            settings = {"one_by_one": True, **config.extra_kwargs}
            self._scorer = HostScorer(**settings)
            # Reading the settings builds the judge's parts.
            _log.info("reward %r: %s", config.name, self._scorer.reward.settings)

        # The host hands over what the signature names, and moves every tensor of it to the device.
        def __call__(
            self,
            prompt: Sequence[str],
            image: Sequence[Any] | None = None,
            condition_images: Sequence[Any] | None = None,
        ) -> Any:
            """Judge a batch.

            Args:
                prompt: the instructions.
                image: the edits, tensors (channels, height, width) of floats in 0..1, or PIL images.
                condition_images: the source images of each edit in the same forms; the first is the one that was
                    edited.

            Raises:
                DataError: there are no edits or no source images.
                UnscoredError: too many scores are missing.
            """
            if image is None or condition_images is None:
                what = "no images" if image is None else "no source images (condition_images), at least for one sample"
                raise DataError(f"Flow-Factory handed over {what}; this reward judges edits of images")
            edits = [
                as_edit(_first(sources), edited, instruction, row=row)
                for row, (sources, edited, instruction) in enumerate(zip(condition_images, image, prompt, strict=True))
            ]
            scored = self._scorer.score(edits)
            return output(rewards=scored.values, extra_info=scored.metrics)

    # As if it stood in the module, where pickle and the host's log look for it.
    EditRRMRewardModel.__qualname__ = "EditRRMRewardModel"
    return EditRRMRewardModel


def _first(sources: Any) -> Any:
    """Of the source images, a list or a tensor with one more axis, the first."""
    return sources[0] if getattr(sources, "ndim", 0) == 4 else first_image(sources)
