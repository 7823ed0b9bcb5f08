"""An event loop in its own daemon thread, so that synchronous callers can share asynchronous clients."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["BackgroundLoop"]

T = TypeVar("T")
_THREADS = 4


class BackgroundLoop:
    """Runs coroutines for any thread, also for one whose own loop is running (which then waits).

    `close` stops the thread; an interpreter that exits does not wait for it.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="editr1-chat")
        self._loop.set_default_executor(self._executor)
        self._thread = threading.Thread(target=self._serve, name="editr1-chat-loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._executor.shutdown(wait=False)
            self._loop.close()

    @property
    def is_usable(self) -> bool:
        """False after `close`, and in a forked child, where the thread does not exist."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result; an interrupt (Ctrl-C) here cancels it there."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a chat backend cannot be called from its own event loop")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self, last: Callable[[], Awaitable[None]]) -> None:
        """Ask the loop to cancel what runs, await `last()` (closing clients) and end; does not wait for it."""
        if not self.is_usable:
            return

        def wind_down() -> None:
            task = self._loop.create_task(_wind_down(last))
            task.add_done_callback(lambda _: self._loop.stop())

        try:
            self._loop.call_soon_threadsafe(wind_down)
        except RuntimeError:  # stopped meanwhile
            return

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """`stop`, then wait for the thread (5 s at most)."""
        self.stop(last)
        if self.is_usable and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)


async def _wind_down(last: Callable[[], Awaitable[None]]) -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await last()
