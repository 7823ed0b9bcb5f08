"""verl-omni's reward function for images, and its reward managers with the source image the policy was shown.

    reward.custom_reward_function.path=pkg://editr1_plugins.adapters.verl_omni
    reward.custom_reward_function.name=compute_score
    reward.reward_manager.module.path=pkg://editr1_plugins.adapters.verl_omni
    reward.reward_manager.name=EditRewardManager

A reward function of verl-omni does not get the source image. `EditRewardManager` and `MultiEditRewardManager` are
its `VisualRewardManager` and `MultiVisualRewardManager`, and put the prompt's first image into `extra_info` as `source`
where that has none. With the stock managers the data must hold it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.adapters.policy_rows import PolicyRows, plain_settings
from editr1_plugins.adapters.verl import score_one
from editr1_plugins.errors import ConfigError, DataError, MissingExtraError

if TYPE_CHECKING:
    EditRewardManager: type
    MultiEditRewardManager: type

__all__ = ["EditRewardManager", "MultiEditRewardManager", "compute_score", "compute_score_async"]

_MANAGERS: Final = {
    "EditRewardManager": "VisualRewardManager",
    "MultiEditRewardManager": "MultiVisualRewardManager",
}


def compute_score(
    data_source: Any,
    solution_image: Any,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    model_name: str | None = None,
    **settings: Any,
) -> dict[str, float]:
    """The score of one image that the policy made.

    Args:
        data_source: not used.
        solution_image: a uint8 tensor (3, height, width), or with a first axis of one.
        ground_truth: the instruction, where `extra_info` holds none.
        extra_info: the source image, see `PolicyRows`.
        reward_router_address, reward_model_tokenizer, model_name: verl-omni's own, with `reward.reward_model.enable`.
        settings: of `PolicyRows` and `HostScorer`: verl's `reward_kwargs`, or further keys of a `reward_functions`.

    Returns:
        As `adapters.verl.compute_score`.

    Raises:
        UnscoredError: too many scores are missing.
        DataError, ConfigError: the job is wrongly set up; also for latents and videos.
    """
    shape, kind = tuple(getattr(solution_image, "shape", ())), str(getattr(solution_image, "dtype", None))
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] != 1) or not kind.endswith("uint8"):
        raise DataError(
            f"solution_image must be one image, uint8 (3, height, width), got {kind} {shape}; videos and latents "
            "(actor_rollout_ref.rollout.pipeline.output_type) cannot be judged"
        )
    rows, others = PolicyRows.split(plain_settings(settings))
    if rows.editor is not None:
        raise ConfigError("verl-omni's policy makes the edit itself; it takes no editor")
    row = {**(extra_info or {}), rows.edited_key: solution_image}
    return score_one(rows.edit(row, "", instruction=ground_truth), others, reward_router_address)


async def compute_score_async(
    data_source: Any, solution_image: Any, ground_truth: Any, extra_info: Any = None, **kwargs: Any
) -> dict[str, float]:
    """`compute_score` for a host that awaits its reward; images are decoded and judged beside its event loop."""
    return await asyncio.to_thread(compute_score, data_source, solution_image, ground_truth, extra_info, **kwargs)


def __getattr__(name: str) -> Any:
    if name in _MANAGERS:
        return _manager(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _manager(name: str) -> type:
    try:
        reward_manager = import_module("verl_omni.reward_loop.reward_manager")
    except ImportError as error:
        raise MissingExtraError(
            f"{name} needs verl-omni, which is not on PyPI; install it from its repository as its documentation says "
            f"({error})"
        ) from error
    base: Any = getattr(reward_manager, _MANAGERS[name])

    class WithSource(base):
        """Its base, with the source image that the policy was shown."""

        async def run_single(self, data: Any) -> Any:
            row = data[0].non_tensor_batch
            info = row.get("extra_info")
            source = _first_image_of(row.get("raw_prompt"))
            if info is not None and source is not None:
                info.setdefault("source", source)
            return await super().run_single(data)

    WithSource.__name__ = WithSource.__qualname__ = name
    return WithSource


def _first_image_of(messages: Any) -> Any:
    """The first image of chat messages, as `as_image` takes it; None without one."""
    for message in messages if messages is not None else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, (list, tuple)) else ():
            if isinstance(part, Mapping) and part.get("type") == "image":
                return part.get("image") or part.get("bytes")
    return None
