"""Look-ups and writes per second in one shared principle cache, with one process and with several.

    python tests/performance/cache_speed.py [processes] [seconds]

Prints a line per number of processes and the ratio of the many to the one. Every look-up is checked.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from editr1_plugins.principles.cache import SqliteCache
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Principle

ENTRIES = 2000


def principles(number: int) -> tuple[Principle, ...]:
    return tuple(
        Principle(question=f"Is object {number} of kind {kind} where it was asked to be?", category=category)
        for kind, category in enumerate([FOLLOW] * 4 + [KEEP] * 3 + [QUALITY] * 3)
    )


def look_up(path: Path, seconds: float, seed: int) -> int:
    cache, done, number = SqliteCache(path), 0, seed
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        number = (number * 1103515245 + 12345) % 2**31
        key = number % ENTRIES
        if cache.get(f"key-{key}") != principles(key):
            raise SystemExit(f"entry {key} came back wrong")
        done += 1
    return done


def write(path: Path, seconds: float, seed: int) -> int:
    cache, done = SqliteCache(path), 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        cache.put(f"key-{seed}-{done}", principles(done))
        done += 1
    return done


def rate(work: object, path: Path, processes: int, seconds: float) -> float:
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return sum(pool.starmap(work, [(path, seconds, seed) for seed in range(1, processes + 1)])) / seconds  # type: ignore[arg-type]


def main() -> None:
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "principles.sqlite"
        cache = SqliteCache(path)
        for number in range(ENTRIES):
            cache.put(f"key-{number}", principles(number))
        for name, work in (("look-ups", look_up), ("writes", write)):
            one, many = rate(work, path, 1, seconds), rate(work, path, processes, seconds)
            print(f"{name}: 1 process {one:,.0f}/s, {processes} processes {many:,.0f}/s, ratio {many / one:.2f}")


if __name__ == "__main__":
    main()
