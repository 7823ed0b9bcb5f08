"""Calling reward functions as TRL's GRPOTrainer does, with edited images for completions.

Keyword-only `prompts`, `completions`, every other dataset column, `trainer_state`, `log_extra`, `log_metric`; one float
or None per edit comes back. `async def` functions run concurrently. So a reward written for TRL works here unchanged.

Two things a reward may say of itself, both optional:

- The attribute `row_wise = True`: a row's reward depends on that row alone, and calls may come from several threads at
  once. `judging` then calls it group by group while others are sampled.
- The metric `NAME/unavailable_rate`, by `log_metric`: the share of rows, of those that the judge was asked for, whose
  judge could not be reached. 1.0 means that nobody answered: the call is repeated (`judge_patience`).
"""

from __future__ import annotations

import asyncio
import http.client
import inspect
import math
import socket
import threading
import urllib.error
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from editr1_plugins.errors import ConfigError

__all__ = ["RewardFunction", "RewardFunctions", "RewardOutcome"]

RewardFunction = Callable[..., "Sequence[float | None] | Awaitable[Sequence[float | None]]"]

_UNAVAILABLE: Final = "unavailable_rate"
_QUOTED: Final = 300  # characters of a reason
#: What a network client raises when there is nobody to talk to. Some clients have roots of their own for that.
_NETWORK_ERRORS: Final = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    asyncio.TimeoutError,
    http.client.HTTPException,
    urllib.error.URLError,
)
_NETWORK_CLIENTS: Final = frozenset({"aiohttp", "grpc", "httpcore", "httpx", "httpx2", "openai", "requests", "urllib3"})


@dataclass
class RewardOutcome:
    """What one call of one reward function came to.

    Attributes:
        rewards: (rows,) fp32, NaN where the function returned None or its judge could not be reached.
        extra: by column, what it gave to `log_extra`.
        metrics: (name, value) of each `log_metric`, in order.
        unavailable: why its judge could not be reached for any row; None where it could.
        error: what the function raised then, where it did.
    """

    rewards: Tensor
    extra: dict[str, list[Any]] = field(default_factory=dict)
    metrics: list[tuple[str, float]] = field(default_factory=list)
    unavailable: str | None = None
    error: Exception | None = None


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

    @property
    def row_wise(self) -> list[bool]:
        """Which functions say that they judge each row alone."""
        return [getattr(function, "row_wise", False) is True for function in self.functions]

    def checked_weights(self, weights: Sequence[float] | None) -> Tensor:
        """The weight of each function, (functions,); 1 where none are given.

        Raises:
            ConfigError: not as many weights as functions.
        """
        if not weights:
            return torch.ones(len(self.names))
        if len(weights) != len(self.names):
            told = ", ".join(self.names)
            raise ConfigError(f"{len(weights)} reward_weights for {len(self.names)} reward functions ({told})")
        return torch.tensor(weights)

    def call(
        self, indices: Sequence[int], rows: Sequence[dict[str, Any]], edits: Sequence[Any], trainer_state: Any
    ) -> list[RewardOutcome]:
        """Call the functions at `indices`, one outcome each; safe where an event loop runs (a notebook).

        Raises:
            ValueError: a function returned another number of rewards than there are edits.
            Exception: whatever a function raises, unless it says that nobody could be reached.
        """
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
        common = {"prompts": [row["prompt"] for row in rows], **columns, "trainer_state": trainer_state}
        calls = [_Call(self.functions[i], self.names[i], common, edits) for i in indices]
        asynchronous = [call for call in calls if call.is_async]
        if asynchronous:
            _run_async(asynchronous)
        for call in calls:
            if not call.is_async:
                call.run()
        return [call.outcome() for call in calls]


class _Call:
    """One call of one function: its arguments, what it logs, and what it returned or raised."""

    def __init__(self, function: Any, name: str, common: dict[str, Any], edits: Sequence[Any]) -> None:
        self.function, self.name, self.count = function, name, len(edits)
        self.extra: dict[str, list[Any]] = {}
        self.metrics: list[tuple[str, float]] = []
        self.arguments = {
            **common,
            "completions": list(edits),
            "log_extra": lambda column, values: self.extra.__setitem__(column, list(values)),
            "log_metric": lambda metric, value: self.metrics.append((metric, value)),
        }
        self.returned: Any = None
        self.error: Exception | None = None

    @property
    def is_async(self) -> bool:
        own = getattr(self.function, "__call__", None)  # noqa: B004
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(own)

    def run(self) -> None:
        try:
            self.returned = self.function(**self.arguments)
        except Exception as error:
            self._excuse(error)

    async def run_async(self) -> None:
        try:
            self.returned = await self.function(**self.arguments)
        except Exception as error:
            self._excuse(error)

    def _excuse(self, error: Exception) -> None:
        if not _is_network_error(error):
            raise error
        self.error = error

    def outcome(self) -> RewardOutcome:
        if self.error is not None:
            said = f"{type(self.error).__name__}: {self.error}"[:_QUOTED]
            return RewardOutcome(torch.full((self.count,), math.nan), unavailable=said, error=self.error)
        if len(self.returned) != self.count:
            raise ValueError(f"reward {self.name!r} returned {len(self.returned)} rewards for {self.count} edits")
        rewards = torch.tensor([math.nan if r is None else float(r) for r in self.returned], dtype=torch.float32)
        return RewardOutcome(rewards, self.extra, self.metrics, self._nobody_answered())

    def _nobody_answered(self) -> str | None:
        if not any(name.rpartition("/")[2] == _UNAVAILABLE and value >= 1.0 for name, value in self.metrics):
            return None
        said = next((str(value) for values in self.extra.values() for value in values if value), "no reason given")
        return said[:_QUOTED]


def _run_async(calls: Sequence[_Call]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(_together(calls))
        return
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(_together(calls))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="editr1-async-rewards", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


async def _together(calls: Sequence[_Call]) -> None:
    await asyncio.gather(*(call.run_async() for call in calls))


def _is_network_error(error: Exception) -> bool:
    roots = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, _NETWORK_ERRORS) or not roots.isdisjoint(_NETWORK_CLIENTS)
