"""Judging while the accelerator works: edits go to the reward functions in threads as soon as their group is sampled.

    judging = judge.begin(rows, trainer_state)   # the rows that will be sampled
    judging.submit(slice(0, 8), edits)           # their edits, as they come
    judging.finish()                             # no more of them
    judging.rewards(slice(0, 8))                 # waits for these rows only
    judging.result()                             # waits for all

Who is called when (`judge_calls`): TRL calls a reward once per process and batch, and a reward written for it may
compare the rows of its call. So "auto" calls a function group by group only if it says `row_wise` (`EditRRMReward`
does), and every other one once, with all rows of the rollout on this process, when the last is sampled; that call is
made by the main thread, so nothing differs from TRL. "group" calls all functions group by group, "rollout" all of them
once. A call's content never depends on timing, and rewards, logged columns and metrics are put together in the order of
the rows: overlap changes no result.

A judge that nobody can reach (`RewardOutcome.unavailable`) is asked again after 1, 2, 4, ... 60 s, while everything
that needs no reward goes on, and given up after `patience` seconds.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from ..errors import JudgeUnavailableError
from .reward_call import RewardFunctions, RewardOutcome

__all__ = ["CALLS_AT_ONCE", "FIRST_WAIT", "JUDGE_CALLS", "LAST_WAIT", "Judge", "Judgement", "Judging"]

#: Values of `judge_calls`.
JUDGE_CALLS: Final = ("auto", "group", "rollout")
#: Most reward calls of a process at a time.
CALLS_AT_ONCE: Final = 8
#: Seconds before an unreachable judge is first asked again; the wait doubles up to the last one.
FIRST_WAIT = 1.0
LAST_WAIT = 60.0

_log = logging.getLogger(__name__)


@dataclass
class Judgement:
    """All that came of judging some rows.

    Attributes:
        rewards: (rows, functions) fp32, NaN where not judged.
        extra: columns that functions logged, one value per row; None where a call logged none.
        metrics: by name, the mean of what was logged, each call counting by its rows.
    """

    rewards: Tensor
    extra: dict[str, list[Any]]
    metrics: dict[str, float]

    def lines(self, prompts: Sequence[str], names: Sequence[str]) -> list[str]:
        """A line of text for each row: what was asked for, what each function gave, and what was logged of it."""
        lines = []
        for index, (prompt, rewards) in enumerate(zip(prompts, self.rewards.tolist(), strict=True)):
            scores = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, rewards, strict=True))
            notes = "; ".join(f"{column}: {values[index]}" for column, values in self.extra.items())
            lines.append(f"  {prompt} | {scores}" + (f" | {notes}" if notes else ""))
        return lines


@dataclass
class _Task:
    """A call of some functions for adjacent rows."""

    rows: slice
    functions: list[int]
    edits: list[Any]
    outcomes: dict[int, RewardOutcome] = field(default_factory=dict)
    done: bool = False


class _Stopped(Exception):  # noqa: N818  no error: the judging was closed
    pass


class Judge:
    """Reward functions with a way of calling them.

    Args:
        functions: whom to call.
        calls: one of `JUDGE_CALLS`.
        patience: seconds for which an unreachable judge is waited for, counted anew in each rollout. 0 gives up at
            once; None never waits nor gives up: such rows are unscored like others, and errors are raised as they are.
        device: made the current device of the calling threads, as it is of the main thread.
    """

    def __init__(
        self,
        functions: RewardFunctions,
        *,
        calls: str = "auto",
        patience: float | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.functions, self.patience, self.device = functions, patience, device
        streamed = [calls == "group" or (calls == "auto" and row_wise) for row_wise in functions.row_wise]
        self.streamed = [index for index, alone in enumerate(streamed) if alone]
        self.together = [index for index, alone in enumerate(streamed) if not alone]

    def begin(self, rows: Sequence[dict[str, Any]], trainer_state: Any) -> Judging:
        """Start judging `rows`, whose edits will follow."""
        return Judging(self, rows, trainer_state)


class Judging:
    """The judging of one batch of rows; close it unless `result` has returned.

    At most `CALLS_AT_ONCE` calls run and the rest waits in a queue that `rows` bounds. Threads are daemons: neither an
    exception in the main thread nor the end of the process waits for a judge.
    """

    def __init__(self, judge: Judge, rows: Sequence[dict[str, Any]], trainer_state: Any) -> None:
        self._judge, self._rows, self._state = judge, rows, trainer_state
        self._streamed, self._together = judge.streamed, judge.together
        self._edits: list[Any] = [None] * len(rows)
        self._tasks: list[_Task] = []
        self._queue: queue.Queue[_Task | None] = queue.Queue(maxsize=len(rows) + 1 + CALLS_AT_ONCE)
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._outages = [_Outage(name, judge.patience, self._stop) for name in judge.functions.names]
        self._finished = False
        self.waited = 0.0  #: seconds that callers of `rewards` and `result` waited

    @property
    def all_rows(self) -> slice:
        """Every row, for `submit` and `rewards`."""
        return slice(0, len(self._rows))

    def submit(self, rows: slice, edits: Sequence[Any]) -> None:
        """The edits of `rows`, which nobody has seen yet; never waits."""
        if self._together:
            self._edits[rows] = edits
        if self._streamed:
            self._start(_Task(rows, self._streamed, list(edits)))

    def finish(self) -> None:
        """All rows were submitted; calls the functions that get them all at once, here, as TRL would."""
        self._finished = True
        self._dismiss()
        if self._together:
            started = time.monotonic()
            task = _Task(self.all_rows, self._together, self._edits)
            self._tasks.append(task)
            self._perform(task)
            self.waited += time.monotonic() - started

    def known(self, rows: slice) -> bool:
        """Whether `rewards(rows)` would return at once."""
        return self._error is not None or (self._finished and all(task.done for task in self._covering(rows)))

    def rewards(self, rows: slice) -> Tensor | None:
        """Rewards of these rows, (rows, functions), as soon as they are known; None where judging has failed.

        The failure itself is raised by `result`.
        """
        self._wait(rows)
        return None if self._error is not None else self._table()[rows]

    def result(self) -> Judgement:
        """Everything, once all is judged.

        Raises:
            JudgeUnavailableError: nobody could be reached for `patience` seconds.
            Exception: what a reward function raised.
        """
        self._wait(self.all_rows)
        if self._error is not None:
            raise self._error
        return Judgement(self._table(), self._extra(), self._metrics())

    def close(self) -> None:
        """Let go of calls that have not begun and of waits; a call that runs is left alone, and its answer ignored."""
        self._fail(_Stopped())
        self._dismiss()

    # Threads

    def _start(self, task: _Task) -> None:
        self._tasks.append(task)
        self._queue.put_nowait(task)
        if len(self._threads) < min(CALLS_AT_ONCE, len(self._tasks)):
            thread = threading.Thread(target=self._work, name="editr1-judge", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _dismiss(self) -> None:
        for _ in self._threads:
            self._queue.put_nowait(None)
        self._threads = []

    def _work(self) -> None:
        if self._judge.device is not None and self._judge.device.type == "cuda":
            torch.cuda.set_device(self._judge.device)  # a new thread begins with the first device
        while (task := self._queue.get()) is not None:
            self._perform(task)

    def _perform(self, task: _Task) -> None:
        try:
            if self._error is None:
                self._ask(task)
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):  # Ctrl-C
                raise
        finally:
            task.edits = []
            with self._changed:
                task.done = True
                self._changed.notify_all()

    def _ask(self, task: _Task) -> None:
        """Call the task's functions; those whose judge nobody could reach again, until it answers or patience ends."""
        rows, missing = list(self._rows[task.rows]), list(task.functions)
        while missing:
            found = dict(zip(missing, self._judge.functions.call(missing, rows, task.edits, self._state), strict=True))
            lost = [] if self._judge.patience is None else [i for i in missing if found[i].unavailable is not None]
            for index in missing:
                outcome = found[index]
                if self._judge.patience is None and outcome.error is not None:
                    raise outcome.error
                if index not in lost:
                    task.outcomes[index] = outcome
                    self._outages[index].over()
            missing = lost
            if lost:
                self._outages[lost[0]].wait(found[lost[0]])

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._stop.set()
            self._changed.notify_all()

    def _wait(self, rows: slice) -> None:
        started = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self.known(rows))
        self.waited += time.monotonic() - started

    def _covering(self, rows: slice) -> list[_Task]:
        return [task for task in self._tasks if task.rows.start < rows.stop and rows.start < task.rows.stop]

    # Putting together, in the order of rows and functions

    def _ordered(self) -> list[tuple[slice, RewardOutcome]]:
        found = [(task.rows, index, task.outcomes[index]) for task in self._tasks for index in sorted(task.outcomes)]
        found.sort(key=lambda each: (each[1], each[0].start))
        return [(rows, outcome) for rows, _, outcome in found]

    def _table(self) -> Tensor:
        table = torch.full((len(self._rows), len(self._judge.functions.names)), torch.nan)
        for task in self._tasks:
            if task.done:
                for index, outcome in task.outcomes.items():
                    table[task.rows, index] = outcome.rewards
        return table

    def _extra(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {}
        for rows, outcome in self._ordered():
            for name, values in outcome.extra.items():
                column = columns.setdefault(name, [None] * len(self._rows))
                count = min(len(values), rows.stop - rows.start)
                column[rows.start : rows.start + count] = values[:count]
        return columns

    def _metrics(self) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for rows, outcome in self._ordered():
            logged: dict[str, list[float]] = {}
            for name, value in outcome.metrics:
                logged.setdefault(name, []).append(float(value))
            for name, values in logged.items():
                total, weight = sums.setdefault(name, [0.0, 0.0])
                share = rows.stop - rows.start
                sums[name] = [total + share * sum(values) / len(values), weight + share]
        return {name: total / weight for name, (total, weight) in sums.items()}


class _Outage:
    """The time for which a reward's judge has been out of reach, as all threads of a judging see it."""

    def __init__(self, name: str, patience: float | None, stop: threading.Event) -> None:
        self._name, self._patience, self._stop = name, patience or 0.0, stop
        self._lock = threading.Lock()
        self._since: float | None = None
        self._told = 0.0

    def over(self) -> None:
        with self._lock:
            if self._since is not None:
                _log.warning("reward %r: its judge answers again after %.0f s", self._name, self._elapsed())
            self._since, self._told = None, 0.0

    def _elapsed(self) -> float:
        now = time.monotonic()
        self._since = self._since if self._since is not None else now
        return now - self._since

    def wait(self, outcome: RewardOutcome) -> None:
        """Wait before another try.

        Raises:
            JudgeUnavailableError: patience is at an end.
        """
        with self._lock:
            elapsed = self._elapsed()
            if elapsed >= self._patience:
                raise JudgeUnavailableError(
                    f"reward {self._name!r}: its judge could not be reached for {elapsed:.0f} s (judge_patience="
                    f"{self._patience:g}): {outcome.unavailable}"
                ) from outcome.error
            # Each wait as long as all before it, so that they double.
            wait = min(max(elapsed, FIRST_WAIT), LAST_WAIT, self._patience - elapsed)
            if elapsed >= self._told:
                self._told = elapsed + 0.9 * wait
                _log.warning(
                    "reward %r: its judge cannot be reached (%s). Training pauses; next try in %.0f s, given up in %.0f"
                    " s (judge_patience). Is the server up, its address right, and the key valid?",
                    self._name,
                    outcome.unavailable,
                    wait,
                    self._patience - elapsed,
                )
        if self._stop.wait(wait):
            raise _Stopped
