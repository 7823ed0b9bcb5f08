"""The caches of principles: content keys, bounds, and one file under many processes, kills, damage and strangers."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.principles.cache import (
    MAX_ENTRY_BYTES,
    CacheStats,
    MemoryCache,
    PrincipleCache,
    SqliteCache,
    content_key,
    principle_key,
)
from editr1_plugins.types import FOLLOW, KEEP, NoPrinciples, Principle

PRINCIPLES = (
    Principle(question='Is the "red" cup blue now?', category=FOLLOW),
    Principle(question="桌子和原来一样吗", category=KEEP),
)
FORK = sys.platform != "win32" and "fork" in multiprocessing.get_all_start_methods()


@pytest.fixture(params=["memory", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrincipleCache]:
    made = MemoryCache() if request.param == "memory" else SqliteCache(tmp_path / "c.sqlite")
    yield made
    made.close()


# --- keys ---------------------------------------------------------------------------------------------------------


def test_a_key_depends_on_every_part_and_on_nothing_else() -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    variants = [
        principle_key(red, "make it blue", "vlm/1"),
        principle_key(blue, "make it blue", "vlm/1"),
        principle_key(red, "make it red", "vlm/1"),
        principle_key(red, "make it blue", "vlm/2"),
        principle_key(red.resize((4, 16)), "make it blue", "vlm/1"),
        principle_key(b"png", "make it blue", "vlm/1"),
        principle_key(red, "make it bluevlm", "/1"),
    ]
    assert len(set(variants)) == len(variants)
    assert principle_key(red.copy(), "make it blue", "vlm/1") == variants[0]


def test_a_text_is_not_the_same_part_as_equal_bytes_and_parts_do_not_run_together() -> None:
    keys = {
        content_key("k", "ab", "c"),
        content_key("k", "a", "bc"),
        content_key("k", "abc"),
        content_key("k", b"abc"),
        content_key("kabc"),
        content_key("k", "text", "abc"),
        content_key("k", "\ud800"),  # a lone surrogate is odd text, not a crash
    }
    assert len(keys) == 7


def test_the_palette_counts_as_content() -> None:
    one = Image.new("P", (4, 4), 0)
    other = one.copy()
    one.putpalette([255, 0, 0])
    other.putpalette([0, 0, 255])
    assert content_key("k", one) != content_key("k", other)


# --- what every cache does ------------------------------------------------------------------------------------------


def test_principles_come_back_equal_and_in_order(cache: PrincipleCache) -> None:
    assert cache.get("k") is None
    cache.put("k", PRINCIPLES)
    assert cache.get("k") == PRINCIPLES
    assert len(cache) == 1
    assert cache.stats == CacheStats(hits=1, misses=1, writes=1, errors=0)


def test_a_failure_is_not_kept(cache: PrincipleCache) -> None:
    cache.put("k", NoPrinciples("the server is down"))
    cache.put("k", ())
    assert len(cache) == 0


def test_any_json_value_can_be_kept_and_is_a_copy(cache: PrincipleCache) -> None:
    value = {"score": 7.5, "trace": "line\nline \u2028 😀 \ud800", "flags": []}
    cache.put_json("v", value)
    value["score"] = 0.0
    assert cache.get_json("v") == {**value, "score": 7.5}


@pytest.mark.parametrize("value", [None, float("nan"), {1, 2}, b"bytes", object()])
def test_what_is_not_json_is_refused(cache: PrincipleCache, value: object) -> None:
    with pytest.raises(DataError, match="JSON"):
        cache.put_json("v", value)


@pytest.mark.parametrize(
    "value",
    [
        {"question": "?", "category": FOLLOW},
        [],
        ["text"],
        [{"question": "Is it?"}],
        [{"question": "Is it?", "category": "Vibes"}],
        [{"question": " ", "category": FOLLOW}],
        [{"question": 3, "category": FOLLOW}],
        [{"question": "Is it?", "category": [FOLLOW]}],
        7,
    ],
)
def test_a_value_that_is_no_list_of_principles_is_a_miss(cache: PrincipleCache, value: object) -> None:
    cache.put_json("k", value)
    assert cache.get("k") is None


def test_an_oversized_entry_is_not_kept(cache: PrincipleCache) -> None:
    cache.put_json("k", "x" * (MAX_ENTRY_BYTES + 1))
    assert cache.get_json("k") is None
    assert cache.stats.errors == 1


def test_threads_share_one_cache(cache: PrincipleCache) -> None:
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for step in range(40):
                cache.put(f"{name}-{step}", PRINCIPLES)
                assert cache.get(f"{name}-{step}") == PRINCIPLES
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(cache) == 240
    assert cache.stats.hits == 240


def test_a_pickled_cache_works_and_a_sqlite_one_finds_its_file_again(cache: PrincipleCache) -> None:
    cache.put("k", PRINCIPLES)
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.get("k") == (PRINCIPLES if isinstance(cache, SqliteCache) else None)
    copy.close()


def test_memory_drops_what_was_used_longest_ago() -> None:
    cache = MemoryCache(max_entries=2)
    cache.put("a", PRINCIPLES)
    cache.put("b", PRINCIPLES)
    cache.get("a")
    cache.put("c", PRINCIPLES)
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    with pytest.raises(ValueError, match="max_entries"):
        MemoryCache(0)


# --- the file: size -------------------------------------------------------------------------------------------------


def test_the_file_stays_within_its_bound_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    bound = 256 * 1024
    cache = SqliteCache(tmp_path / "c.sqlite", max_bytes=bound)
    noise = random.Random(0)
    cache.put_json("favourite", "kept because used")
    for step in range(600):
        cache.put_json(f"{step:05}", "x" * noise.randrange(100, 4000))
        assert cache.get_json("favourite") is not None
        assert cache.get_json(f"{step:05}") is not None
        assert os.path.getsize(cache.path) <= bound
    assert cache.get_json("00000") is None
    kept = [key for key in range(600) if cache.get_json(f"{key:05}") is not None]
    assert kept == list(range(kept[0], 600))
    assert len(kept) > 60  # the bound is used, not just obeyed
    cache.close()
    assert os.path.getsize(cache.path) <= bound


def test_a_smaller_bound_shrinks_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    cache = SqliteCache(path)
    for step in range(300):
        cache.put_json(str(step), "x" * 2000)
    cache.close()
    assert path.stat().st_size > 500_000
    smaller = SqliteCache(path, max_bytes=128 * 1024)
    assert smaller.get_json("299") is not None
    assert smaller.get_json("0") is None
    smaller.close()
    assert path.stat().st_size <= 128 * 1024


def test_an_entry_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = SqliteCache(tmp_path / "c.sqlite", max_bytes=sqlite_floor())
    cache.put("k", PRINCIPLES)
    cache.put_json("large", "x" * 60_000)
    assert cache.get_json("large") is None
    assert cache.get("k") == PRINCIPLES
    with pytest.raises(ConfigError, match="max_bytes"):
        SqliteCache(tmp_path / "d.sqlite", max_bytes=1000)


def sqlite_floor() -> int:
    from editr1_plugins.principles.sqlite_file import SMALLEST_FILE

    return SMALLEST_FILE


# --- the file: many processes ---------------------------------------------------------------------------------------

WRITER = """
import sys
from editr1_plugins.principles.cache import SqliteCache
from editr1_plugins.types import Principle
path, name, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
cache = SqliteCache(path)
for step in range(steps):
    key = f"{name}-{step}"
    cache.put(key, [Principle(question=f"Is {key} there?", category="Image Quality")])
    assert cache.get(key)[0].question == f"Is {key} there?"
    print(key, flush=True)
assert cache.stats.errors == 0, cache.stats
"""


def start_writer(path: Path, name: str, steps: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_many_processes_fill_one_new_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.sqlite"  # made by whoever comes first
    writers = [start_writer(path, f"w{number}", 60) for number in range(6)]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    cache = SqliteCache(path)
    assert len(cache) == 360
    assert all(cache.get(f"w{number}-{step}") is not None for number in range(6) for step in range(60))


def test_nothing_that_was_written_is_lost_by_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    written: list[str] = []
    for life in range(6):
        writers = [start_writer(path, f"life{life}-{number}", 100_000) for number in range(2)]
        assert writers[0].stdout is not None
        written += [writers[0].stdout.readline().strip() for _ in range(20 + 7 * life)]
        for writer in writers:
            writer.kill()
        for writer in writers:
            output, errors = writer.communicate(timeout=60)
            assert writer.returncode == -signal.SIGKILL, errors
            # The last line may have been cut by the kill; what it names was written before it was printed.
            written += [line for line in output.split("\n")[:-1] if line]
    cache = SqliteCache(path)
    assert len(written) > 150
    assert [key for key in written if cache.get(key) is None] == []
    cache.put("after", PRINCIPLES)
    assert cache.get("after") == PRINCIPLES
    cache.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert list(tmp_path.glob("*damaged*")) == []


def test_a_process_stopped_while_it_holds_the_lock_costs_one_timeout_not_the_run(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    cache = SqliteCache(path, timeout=0.3)
    cache.put("k", PRINCIPLES)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    for step in range(50):
        cache.put(f"lost-{step}", PRINCIPLES)
        assert cache.get("k") == PRINCIPLES
    assert time.monotonic() - begin < 10.0  # a timeout each would be 15 s
    assert cache.stats.errors == 1
    holder.execute("ROLLBACK")
    holder.close()


@pytest.mark.skipif(not FORK, reason="no fork here")
def test_forked_workers_and_their_parent_use_the_same_cache_object(tmp_path: Path) -> None:
    cache = SqliteCache(tmp_path / "c.sqlite")
    cache.put("parent", PRINCIPLES)
    stop = threading.Event()

    def keep_busy() -> None:
        step = 0
        while not stop.is_set():
            cache.put(f"busy-{step % 50}", PRINCIPLES)
            step += 1

    def child(number: int) -> None:
        for step in range(25):
            cache.put(f"child{number}-{step}", PRINCIPLES)
        os._exit(0 if cache.get("parent") == PRINCIPLES and cache.stats.errors == 0 else 1)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=child, args=(number,)) for number in range(4)]
        for process in children:
            process.start()
        for process in children:
            process.join(timeout=60)
    finally:
        stop.set()
        thread.join()
    assert [process.exitcode for process in children] == [0] * 4
    assert all(cache.get(f"child{number}-{step}") is not None for number in range(4) for step in range(25))
    assert cache.stats.errors == 0


# --- the file: damage and strangers ---------------------------------------------------------------------------------


def filled(path: Path) -> bytes:
    cache = SqliteCache(path)
    for step in range(200):
        cache.put(f"{step}", PRINCIPLES)
    cache.close()
    return path.read_bytes()


def test_a_damaged_file_is_set_aside_and_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.sqlite"
    sound = filled(path)
    path.write_bytes(sound[:4096] + os.urandom(len(sound) - 4096))
    damaged = path.read_bytes()
    cache = SqliteCache(path)
    assert cache.get("3") is None
    cache.put("3", PRINCIPLES)
    assert cache.get("3") == PRINCIPLES
    (aside,) = (found for found in tmp_path.glob("c.sqlite.damaged-*") if not found.name.endswith(("-wal", "-shm")))
    assert aside.read_bytes() == damaged
    assert "was damaged" in caplog.text


def test_random_damage_never_raises_and_never_stops_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    sound = filled(path)
    noise = random.Random(0)
    for _ in range(40):
        broken = bytearray(sound)
        if noise.random() < 0.3:
            del broken[noise.randrange(101, len(broken)) :]
        for _ in range(noise.choice((1, 30, 300))):
            # Not the first 100 bytes: without its name tag a file cannot be told from a stranger's.
            broken[noise.randrange(100, len(broken))] = noise.randrange(256)
        path.write_bytes(broken)
        cache = SqliteCache(path)
        for step in range(0, 200, 7):
            assert cache.get(str(step)) in (None, PRINCIPLES)
        cache.put("new", PRINCIPLES)
        cache.put("new", PRINCIPLES)
        assert cache.get("new") == PRINCIPLES
        cache.close()
        for leftover in tmp_path.iterdir():
            leftover.unlink()


def test_processes_that_meet_a_damaged_file_at_once_agree_on_one_new_file(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    sound = filled(path)
    path.write_bytes(sound[:4096] + bytes(len(sound) - 4096))
    script = WRITER.replace("assert cache.stats.errors == 0, cache.stats", "")
    commands = [[sys.executable, "-c", script, str(path), f"w{number}", "40"] for number in range(5)]
    writers = [subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in commands]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    assert len(SqliteCache(path)) == 200
    assert len([found for found in tmp_path.glob("*damaged-*") if found.name[-1].isdigit()]) == 1


@pytest.mark.parametrize("kind", ["text", "pickle", "other sqlite", "newer", "directory"])
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_was(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "precious"
    if kind == "text":
        path.write_text("my thesis")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "directory":
        path.mkdir()
    else:
        if kind == "newer":
            SqliteCache(path).close()
        connection = sqlite3.connect(path)
        connection.executescript("PRAGMA user_version = 99" if kind == "newer" else "CREATE TABLE entries (key, value)")
        connection.close()
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigError, match="precious"):
        SqliteCache(path)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_file_with_a_planted_trigger_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END")
    connection.close()
    cache = SqliteCache(path)
    cache.put("a", PRINCIPLES)
    cache.put("b", PRINCIPLES)
    assert cache.get("a") == PRINCIPLES
    assert len(cache) == 2


@pytest.mark.parametrize(
    "value", ["text", b"not json", b"\xff\xfe", b"[" * 200_000, b'"' + b"x" * MAX_ENTRY_BYTES + b'"', b'["wrong crc"]']
)
def test_a_planted_entry_is_a_miss(tmp_path: Path, value: str | bytes) -> None:
    path = tmp_path / "c.sqlite"
    SqliteCache(path).close()
    crc = 1 if value == b'["wrong crc"]' else zlib.crc32(value.encode() if isinstance(value, str) else value)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO entries VALUES (1, 'k', ?, ?, 1)", (value, crc))
    connection.close()
    cache = SqliteCache(path)
    assert cache.get_json("k") is None
    cache.put("k", PRINCIPLES)
    assert cache.get("k") == PRINCIPLES


def test_a_stranger_that_appears_during_a_run_is_a_miss_and_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    cache = SqliteCache(path)
    cache.close()
    path.write_text("something else")
    assert cache.get("k") is None
    cache.put("k", PRINCIPLES)
    assert len(cache) == 0
    assert path.read_text() == "something else"
    assert cache.stats.errors >= 2
