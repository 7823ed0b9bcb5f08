"""Calling reward functions as TRL's GRPOTrainer does, with edited images for completions.

Keyword-only `prompts`, `completions`, every other dataset column, `trainer_state`, `log_extra`, `log_metric`; one float
or None per edit comes back. `async def` functions run concurrently. So a reward written for TRL works here unchanged.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from editr1_plugins.errors import ConfigError

__all__ = ["RewardFunction", "RewardFunctions"]

RewardFunction = Callable[..., "Sequence[float | None] | Awaitable[Sequence[float | None]]"]


class RewardFunctions:
    """One or several reward functions under their names.

    Raises:
        ConfigError: no function, a reward model (`nn.Module`) or a string in a function's place, two of one name.
    """

    def __init__(self, functions: RewardFunction | Sequence[RewardFunction]) -> None:
        self.functions: list[Any] = list(functions) if isinstance(functions, (list, tuple)) else [functions]
        if not self.functions:
            raise ConfigError("reward_funcs is empty: give at least one callable, e.g. EditRRMReward()")
        for function in self.functions:
            if isinstance(function, nn.Module) or not callable(function):
                raise ConfigError(f"reward_funcs takes callables with TRL's reward signature, got {function!r:.80}")
        self.names = [getattr(f, "__name__", type(f).__name__) for f in self.functions]
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"two reward functions have the same name: {', '.join(self.names)}; set __name__")

    def __call__(self, rows: Sequence[dict[str, Any]], edits: Sequence[Any], **context: Any) -> Tensor:
        """Rewards of shape (rows, functions) in fp32, NaN where a function returned None.

        `context` (trainer_state, log_extra, log_metric) is passed on.
        """
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
        arguments = {"prompts": [row["prompt"] for row in rows], "completions": list(edits), **columns, **context}
        asynchronous = [i for i, f in enumerate(self.functions) if _is_async(f)]
        pending = _in_own_loop([self.functions[i] for i in asynchronous], arguments) if asynchronous else []
        found = dict(zip(asynchronous, pending, strict=True))
        results = [found[i] if i in found else f(**arguments) for i, f in enumerate(self.functions)]
        return torch.stack([self._column(i, r, len(rows)) for i, r in enumerate(results)], dim=1)

    def _column(self, index: int, rewards: Any, count: int) -> Tensor:
        if len(rewards) != count:
            raise ValueError(f"reward {self.names[index]!r} returned {len(rewards)} rewards for {count} edits")
        return torch.tensor([math.nan if r is None else float(r) for r in rewards], dtype=torch.float32)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _in_own_loop(functions: Sequence[Any], arguments: dict[str, Any]) -> list[Any]:
    """Await all at once; in a thread, since a notebook's thread already runs a loop."""

    async def gathered() -> list[Any]:
        return await asyncio.gather(*(function(**arguments) for function in functions))

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, gathered()).result()
