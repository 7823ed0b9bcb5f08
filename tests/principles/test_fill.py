"""Filling a cache ahead of a run: what is asked, kept, counted, and what a killed fill costs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.errors import ConfigError
from editr1_plugins.principles.cache import MemoryCache, SqliteCache, principle_key
from editr1_plugins.principles.fill import Filled, fill_cache
from editr1_plugins.types import FOLLOW, NoPrinciples, Principle

RED = Image.new("RGB", (4, 4), "red")


class Counting:
    identity = "counting/1"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> list[tuple[Principle, ...]]:
        texts = [text for _, text in requests]
        self.batches.append(texts)
        if "crash" in texts:
            raise RuntimeError("boom")
        return [
            NoPrinciples("too vague") if "vague" in text else (Principle(question=f"Is {text} done?", category=FOLLOW),)
            for text in texts
        ]


def queries(*texts: str) -> list[tuple[Image.Image, str]]:
    return [(RED, text) for text in texts]


def test_everything_missing_is_made_once_and_found_by_the_key_of_a_run() -> None:
    decomposer, cache = Counting(), MemoryCache()
    report = fill_cache(queries("a", "b", "a", "c"), decomposer, cache, identity="counting/1", batch_size=3)
    assert report == Filled(seen=4, found=1, made=3, failed=0, failures={})
    assert decomposer.batches == [["a", "b"], ["c"]]
    kept = cache.get(principle_key(RED, "b", "counting/1"))
    assert kept is not None
    assert kept[0].question == "Is b done?"
    again = fill_cache(queries("a", "b", "c"), decomposer, cache, identity="counting/1")
    assert again == Filled(seen=3, found=3)
    assert len(decomposer.batches) == 2


def test_another_identity_or_image_is_another_entry() -> None:
    decomposer, cache = Counting(), MemoryCache()
    fill_cache(queries("a"), decomposer, cache, identity="counting/1")
    assert fill_cache(queries("a"), decomposer, cache, identity="counting/2").made == 1
    green = [(Image.new("RGB", (4, 4), "green"), "a")]
    assert fill_cache(green, decomposer, cache, identity="counting/1").made == 1


def test_failures_are_counted_by_reason_and_tried_again_next_time() -> None:
    decomposer, cache = Counting(), MemoryCache()
    report = fill_cache(queries("vague 1", "a", "vague 2"), decomposer, cache, identity="i")
    assert report == Filled(seen=3, found=0, made=1, failed=2, failures={"too vague": 2})
    assert fill_cache(queries("vague 1", "a"), decomposer, cache, identity="i").failed == 1


def test_a_batch_that_crashes_is_counted_and_the_fill_goes_on() -> None:
    decomposer, cache = Counting(), MemoryCache()
    report = fill_cache(queries("a", "crash", "b", "c"), decomposer, cache, identity="i", batch_size=2)
    assert (report.made, report.failed) == (2, 2)
    assert list(report.failures) == ["raised RuntimeError: boom"]


def test_progress_is_told_after_each_batch_and_requests_are_read_as_it_goes() -> None:
    cache, read = MemoryCache(), []

    def requests() -> Iterator[tuple[Image.Image, str]]:
        for number in range(7):
            read.append(number)
            yield RED, str(number)

    seen = []
    fill_cache(
        requests(),
        Counting(),
        cache,
        identity="i",
        batch_size=3,
        progress=lambda now: seen.append((now.seen, len(read))),
    )
    assert seen == [(3, 3), (6, 6), (7, 7)]
    with pytest.raises(ConfigError):
        fill_cache([], Counting(), cache, identity="i", batch_size=0)


KILLED = """
import sys, time
from PIL import Image
from editr1_plugins.principles.cache import SqliteCache
from editr1_plugins.principles.fill import fill_cache
from editr1_plugins.types import FOLLOW, Principle
class Slow:
    def decompose(self, requests):
        time.sleep(0.02)
        return [(Principle(question=f"Is {text} done?", category=FOLLOW),) for _, text in requests]
image = Image.new("RGB", (4, 4), "red")
fill_cache([(image, str(n)) for n in range(1000)], Slow(), SqliteCache(sys.argv[1]), identity="i", batch_size=5,
           progress=lambda now: print(now.seen, flush=True))
"""


def test_a_killed_fill_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(6)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    begin = time.monotonic()
    report = fill_cache(queries(*map(str, range(1000))), Counting(), SqliteCache(path), identity="i", batch_size=100)
    assert report.found >= told == 30
    assert report.found + report.made == 1000
    assert time.monotonic() - begin < 60
