"""Work on items, side by side, whose outcomes are written as they come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from .store import Line

__all__ = ["Lane", "batches", "drain", "seed_of"]

T = TypeVar("T")


@dataclass(frozen=True)
class Lane(Generic[T]):
    """Tasks for one worker, such as a judge: `work(task)` gives the lines of its items, in up to `threads` threads."""

    tasks: Iterator[T]
    work: Callable[[T], list[Line]]
    threads: int = 1


def drain(lanes: Sequence[Lane[T]], write: Callable[[list[Line]], None]) -> None:
    """Work all lanes off, next to each other; `write` gets lines as soon as they are there, in this thread.

    What a task raises, or an interrupt, ends the call; what was done or under way is written.
    """
    with ExitStack() as stack:
        pools = [ThreadPoolExecutor(lane.threads, thread_name_prefix="editr1-coldstart") for lane in lanes]
        for pool in pools:
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        running: dict[Future[list[Line]], int] = {}

        def refill(number: int) -> None:
            lane = lanes[number]
            # One more than the threads, so that none waits for this thread.
            free = lane.threads + 1 - sum(1 for each in running.values() if each == number)
            for task in islice(lane.tasks, free):
                running[pools[number].submit(lane.work, task)] = number

        for number in range(len(lanes)):
            refill(number)
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                numbers = {running.pop(each) for each in done}
                write(_lines(done))
                if problems := [error for each in done if (error := each.exception()) is not None]:
                    raise problems[0]
                for number in numbers:
                    refill(number)
        except BaseException:
            # What is under way was asked, and perhaps paid for; an interpreter that exits waits for it anyway.
            done, _ = wait([each for each in running if not each.cancel()])
            write(_lines(done))
            raise


def _lines(done: Iterable[Future[list[Line]]]) -> list[Line]:
    return [line for each in done if each.exception() is None for line in each.result()]


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in pieces of `size`."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def seed_of(*parts: int | str) -> int:
    """A seed in 0..2**31 - 1 that is a function of `parts` alone; every server and library takes it."""
    text = "\0".join(map(str, parts))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4, person=b"editr1 cold").digest()
    return int.from_bytes(digest, "little") >> 1
