"""Edits of many requests wait in one bounded line and are judged in batches, off the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from editr1_plugins.adapters.server.calls import EncodedEdit
from editr1_plugins.types import Verification

__all__ = ["BusyError", "EditQueue"]

#: Decoded pixels in one batch (as RGB about 0.8 GB); a batch of one edit may have more.
_BATCH_PIXELS: Final = 2**28
_LONGEST_RETRY: Final = 60
#: A small batch waits for company, since a trainer's processes ask at the same moment: this many seconds; or, while
#: another batch is being judged anyway, this share of what one takes, up to a second.
_LINGER: Final = 0.02
_LINGER_SHARE: Final = 0.1
_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_Judge = Callable[[Sequence[EncodedEdit]], list[Verification]]


class BusyError(Exception):
    """There is no room for these edits; `retry_after` seconds from now there may be."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many edits are waiting; come again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class _Ticket:
    edit: EncodedEdit
    outcome: asyncio.Future[Verification]


class EditQueue:
    """First come, first served. Belongs to one event loop; `start` and `stop` are called there.

    A batch is whatever waits when a worker is free, up to its limits. Neighbours of one request stay neighbours, so a
    group shares its principles and a judge's prefix cache.

    Args:
        judge: called in a thread of its own, by `workers` threads at a time; one verification per edit.
        workers, max_batch, max_waiting, busy_wait: see `ServerSettings`.
        on_batch: told (edits, seconds) after each call of `judge`.
    """

    def __init__(
        self,
        judge: _Judge,
        *,
        workers: int,
        max_batch: int,
        max_waiting: int,
        busy_wait: float,
        on_batch: Callable[[int, float], None] = lambda edits, seconds: None,
    ) -> None:
        self._judge, self._on_batch = judge, on_batch
        self._workers, self._max_batch = workers, max_batch
        self._max_waiting, self._busy_wait = max_waiting, busy_wait
        self._waiting: deque[_Ticket] = deque()
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._held = self._judging = 0
        self._rate = self._pace = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def held(self) -> int:
        """Edits that wait or are being judged."""
        return self._held

    async def start(self) -> None:
        """Begin to judge."""
        self._ready = asyncio.Event()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]

    async def stop(self) -> None:
        """Take no more batches; edits still held are dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def judge(self, edits: Sequence[EncodedEdit]) -> list[Verification]:
        """One verification per edit, in order; when this is cancelled, edits that still wait are not judged.

        Raises:
            BusyError: no room was found within `busy_wait` seconds.
        """
        await self._enter(len(edits))
        loop = asyncio.get_running_loop()
        tickets = [_Ticket(edit, loop.create_future()) for edit in edits]
        try:
            self._waiting.extend(tickets)
            self._ready.set()
            return list(await asyncio.gather(*(ticket.outcome for ticket in tickets)))
        finally:
            for ticket in tickets:
                ticket.outcome.cancel()  # no effect on those that are done
            self._leave(len(edits))

    async def _enter(self, count: int) -> None:
        """Hold room for `count` edits; who came first gets room first."""
        if not self._line and self._held + count <= self._max_waiting:
            self._held += count
            return
        place = (count, asyncio.get_running_loop().create_future())
        self._line.append(place)
        try:
            # shield: a turn that is given at the last moment must be seen, else its room would be lost.
            await asyncio.wait_for(asyncio.shield(place[1]), self._busy_wait)
        except BaseException as error:
            if place[1].done():
                self._leave(count)
            else:
                place[1].cancel()
                self._line.remove(place)
                self._call_next()
            if isinstance(error, asyncio.TimeoutError):
                raise BusyError(self._retry_after()) from None
            raise

    def _leave(self, count: int) -> None:
        self._held -= count
        self._call_next()

    def _call_next(self) -> None:
        while self._line and self._held + self._line[0][0] <= self._max_waiting:
            count, turn = self._line.popleft()
            self._held += count
            turn.set_result(None)

    def _retry_after(self) -> int:
        """Seconds until what is held now will be judged, at the speed of the last batches."""
        return max(1, min(_LONGEST_RETRY, round(self._held / self._rate) if self._rate else 5))

    async def _work(self) -> None:
        while True:
            if not self._waiting:
                self._ready.clear()
                await self._ready.wait()
            if len(self._waiting) < self._max_batch:
                await asyncio.sleep(max(_LINGER, min(1.0, _LINGER_SHARE * self._pace)) if self._judging else _LINGER)
            batch = self._take()
            if not batch:
                continue
            self._judging += 1
            started = time.perf_counter()
            edits = [ticket.edit for ticket in batch]
            try:
                outcomes = await _in_thread(self._judge, edits)
                if len(outcomes) != len(edits):
                    raise ValueError(f"{len(outcomes)} verifications for {len(edits)} edits")
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # even SystemExit of a plugin must not cost a worker
                _log.exception("a batch of %d edits was not judged", len(edits))
                failure = f"server_error: {type(error).__name__}"
                outcomes = [Verification(score=None, failure=failure, samples=0) for _ in edits]
            finally:
                self._judging -= 1
            seconds = time.perf_counter() - started
            self._measure(len(batch), seconds)
            for ticket, outcome in zip(batch, outcomes, strict=True):
                if not ticket.outcome.done():
                    ticket.outcome.set_result(outcome)

    def _take(self) -> list[_Ticket]:
        """The next batch; those whose client is gone are left out."""
        batch: list[_Ticket] = []
        pixels = 0
        while self._waiting and len(batch) < self._max_batch:
            ticket = self._waiting[0]
            if not ticket.outcome.done():
                pixels += ticket.edit.pixels
                if batch and pixels > _BATCH_PIXELS:
                    break
                batch.append(ticket)
            self._waiting.popleft()
        return batch

    def _measure(self, edits: int, seconds: float) -> None:
        """Keep running means of the speed (edits per second, all workers) and of what a batch takes (seconds)."""
        rate = self._workers * edits / max(seconds, 1e-6)
        new = 0.2 if self._rate else 1.0
        self._rate += new * (rate - self._rate)
        self._pace += new * (seconds - self._pace)
        self._on_batch(edits, seconds)


async def _in_thread(function: Callable[..., _T], *arguments: Any) -> _T:
    """`function(*arguments)` in a daemon thread: one that never returns must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, raised = None, None
        try:
            result = function(*arguments)
        except BaseException as error:
            raised = error
        try:
            loop.call_soon_threadsafe(settle, result, raised)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    threading.Thread(target=work, name="editr1-judge", daemon=True).start()
    return await outcome
