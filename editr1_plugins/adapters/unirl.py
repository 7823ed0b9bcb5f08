"""UniRL: `EditBackend`, a judge within the process, which a recipe names by this module's dotted path (`_target_`).

Its backends inherit from a class of its own, so ours is made when it is first asked for. The other way is
`editr1 serve` and UniRL's stock `RemoteRewardBackend`, which has all ranks share one judge and its line.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from typing import Any

from editr1_plugins.adapters.conversion import EditOrReason, as_edit
from editr1_plugins.adapters.host_modules import checkout_module
from editr1_plugins.adapters.policy_rows import plain_settings
from editr1_plugins.adapters.scorer import HostScorer
from editr1_plugins.errors import DataError

__all__ = ["EditBackend"]

#: Made by `__getattr__`.
EditBackend: type[Any]

_log = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    if name != "EditBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _backend()


@functools.cache
def _backend() -> type[Any]:
    base = checkout_module("unirl.reward.base", "UniRL", "Tencent-Hunyuan/UniRL").RewardBackend
    response = checkout_module("unirl.types.reward", "UniRL", "Tencent-Hunyuan/UniRL").RewardResponse

    class EditBackend(base):  # type: ignore[misc, valid-type]
        """`EditRRMReward` as a local backend of UniRL's `RewardService`, 0..10.

        UniRL ends a step in which a sample failed. With `missing: mean`, the default, a missing score gets a mean
        instead and is counted in the component `editr1_missing`; with `missing: error` the step ends with the reason.

        Args:
            base_device: UniRL's; not used, a local judge's device is a setting of its own.
            settings: of `HostScorer`: `verifier`, `decomposer`, `guards`, `samples`, `top`, `missing`, ...

        Raises:
            ConfigError: wrong settings, when the recipe is instantiated.
        """

        input_kind = "image"

        def __init__(self, base_device: str = "cpu", **settings: Any) -> None:
            super().__init__(model_name="editr1")
            self._scorer = HostScorer(**plain_settings(settings))
            _log.info("reward: %s", self._scorer.reward.settings)  # reading the settings builds the judge's parts

        def is_available(self) -> bool:
            return True

        def compute_rewards(self, request: Any) -> Any:
            """Judge a batch.

            Args:
                request: `primitives` hold the source images ("image") and the instructions ("text"), `generated` the
                    edits ("image"); pixels (batch, channels, height, width), floats in 0..1.

            Raises:
                DataError: there are no source images, no instructions or no edits, or not as many of each.
                UnscoredError: too many scores are missing.
            """
            started = time.monotonic()
            scored = self._scorer.score(_edits(request))
            count = len(scored.values)
            return response(
                rewards=scored.values,
                component_rewards={
                    "editr1": scored.values,
                    "editr1_missing": [float(outcome.score is None) for outcome in scored.outcomes],
                },
                successes=[True] * count,
                errors=[None] * count,
                compute_time=time.monotonic() - started,
            )

    # As if it stood in the module, where pickle looks for it.
    EditBackend.__qualname__ = "EditBackend"
    return EditBackend


def _edits(request: Any) -> list[EditOrReason]:
    sources = _pixels(request.primitives, "source images (primitives['image']): its data set must give one per prompt")
    edited = _pixels(request.generated, "edits (generated['image']): this reward judges edited images")
    instructions: Sequence[str] = request.prompts
    if not len(sources) == len(edited) == len(instructions):
        raise DataError(
            f"UniRL handed over {len(sources)} source images, {len(edited)} edits and {len(instructions)} instructions"
        )
    return [as_edit(*parts, row=row) for row, parts in enumerate(zip(sources, edited, instructions, strict=True))]


def _pixels(held: Any, what: str) -> Any:
    images = held.get("image")
    if images is None or images.pixels is None:
        raise DataError(f"UniRL handed over no {what}")
    return images.pixels
