"""Judging beside sampling: same results in the same order, no lock-up, and an end when nobody answers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest
import torch

from editr1_plugins.errors import ConfigError, JudgeUnavailableError
from editr1_plugins.training import judging as judging_module
from editr1_plugins.training.judging import CALLS_AT_ONCE, Judge, Judgement, Judging
from editr1_plugins.training.reward_call import RewardFunctions

GROUP = 4
ROWS = [{"prompt": f"p{i // GROUP}", "image": None, "level": i} for i in range(3 * GROUP)]
EDITS = [f"edit {i}" for i in range(len(ROWS))]
GROUPS = [slice(start, start + GROUP) for start in range(0, len(ROWS), GROUP)]


def row_wise(function: Any) -> Any:
    function.row_wise = True
    return function


def begin(*functions: Any, **options: Any) -> Judging:
    return Judge(RewardFunctions(list(functions)), **options).begin(ROWS, "the state")


def judged(*functions: Any, **options: Any) -> Judgement:
    judging = begin(*functions, **options)
    for group in GROUPS:
        judging.submit(group, EDITS[group])
    judging.finish()
    return judging.result()


class Recording:
    """Scores each row by its level and keeps what it was called with."""

    def __init__(self, name: str = "recording", seconds: float = 0.0, alone: bool = True) -> None:
        self.__name__, self.seconds, self.row_wise = name, seconds, alone
        self.calls: list[dict[str, Any]] = []
        self.running = self.most = 0

    def __call__(
        self, *, prompts: Any, completions: Any, level: Any, log_extra: Any, log_metric: Any, **more: Any
    ) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        self.calls.append({"prompts": prompts, "completions": completions, "level": level, **more})
        time.sleep(self.seconds * (1 + 2 * (prompts[0] == "p0")))  # the first group is the slowest
        log_extra("seen", [f"{edit}!" for edit in completions])
        log_metric("mean_level", sum(level) / len(level))
        self.running -= 1
        return [float(value) if value % 5 else None for value in level]


def same(one: Judgement, other: Judgement) -> bool:
    equal = torch.equal(one.rewards.nan_to_num(-1.0), other.rewards.nan_to_num(-1.0))
    return equal and one.extra == other.extra and one.metrics == pytest.approx(other.metrics)


def test_calls_by_group_and_one_call_give_the_same(caplog: pytest.LogCaptureFixture) -> None:
    serial, by_group = Recording(), Recording(seconds=0.02)
    one, other = judged(serial, calls="rollout"), judged(by_group, calls="group")
    assert len(serial.calls) == 1
    assert sorted(tuple(call["level"]) for call in by_group.calls) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert same(one, other)
    assert other.rewards[:, 0].isnan().nonzero().flatten().tolist() == [0, 5, 10]
    assert other.extra["seen"] == [f"{edit}!" for edit in EDITS]
    assert other.metrics["mean_level"] == pytest.approx(5.5)
    assert not caplog.records


def test_a_call_has_trls_arguments() -> None:
    reward = Recording()
    judged(reward)
    first = min(reward.calls, key=lambda call: call["level"])
    assert first["prompts"] == ["p0"] * GROUP
    assert first["completions"] == EDITS[:GROUP]
    assert first["trainer_state"] == "the state"


def test_only_rewards_that_say_so_are_called_by_group() -> None:
    alone, together = Recording("alone"), Recording("together", alone=False)
    found = judged(alone, together)
    assert len(alone.calls) == 3
    assert [call["completions"] for call in together.calls] == [EDITS]
    assert torch.equal(found.rewards[:, 0].nan_to_num(-1), found.rewards[:, 1].nan_to_num(-1))


def test_a_reward_that_compares_the_whole_batch_sees_it() -> None:
    def normalised(level: Any, **_: Any) -> list[float]:
        return [value / max(level) for value in level]

    assert judged(normalised).rewards[:, 0].tolist() == pytest.approx([i / 11 for i in range(12)])


def test_a_group_is_judged_while_the_next_is_sampled() -> None:
    begun, release = threading.Event(), threading.Event()

    @row_wise
    def slow(completions: Any, **_: Any) -> list[float]:
        begun.set()
        assert release.wait(10)
        return [1.0] * len(completions)

    judging = begin(slow)
    judging.submit(GROUPS[0], EDITS[GROUPS[0]])
    assert begun.wait(10)  # before anything else was submitted
    for group in GROUPS[1:]:
        judging.submit(group, EDITS[group])
    judging.finish()
    assert not judging.known(GROUPS[0])
    release.set()
    assert judging.result().rewards.sum() == len(ROWS)


def test_an_early_group_need_not_wait_for_a_late_one() -> None:
    release = threading.Event()

    @row_wise
    def last_is_slow(completions: Any, **_: Any) -> list[float]:
        if EDITS[-1] in completions:
            assert release.wait(10)
        return [2.0] * len(completions)

    judging = begin(last_is_slow)
    for group in GROUPS:
        judging.submit(group, EDITS[group])
    judging.finish()
    first = judging.rewards(GROUPS[0])
    assert first is not None
    assert first.flatten().tolist() == [2.0] * GROUP
    assert not judging.known(GROUPS[2])
    release.set()
    judging.result()


def test_calls_run_at_the_same_time_but_not_too_many() -> None:
    rows = ROWS * 8
    reward = Recording(seconds=0.03)
    judging = Judge(RewardFunctions([reward])).begin(rows, None)
    for start in range(0, len(rows), GROUP):
        judging.submit(slice(start, start + GROUP), (EDITS * 8)[start : start + GROUP])
    judging.finish()
    judging.result()
    assert 1 < reward.most <= CALLS_AT_ONCE
    assert len(reward.calls) == 24


def test_async_rewards_run_together() -> None:
    import asyncio

    together = asyncio.Event

    def pair() -> tuple[Any, Any]:
        events: dict[str, asyncio.Event] = {}

        async def one(completions: Any, **_: Any) -> list[float]:
            events["one"] = together()
            while "two" not in events:
                await asyncio.sleep(0)
            return [1.0] * len(completions)

        async def two(completions: Any, **_: Any) -> list[float]:
            events["two"] = together()
            while "one" not in events:
                await asyncio.sleep(0)
            return [2.0] * len(completions)

        return one, two

    assert judged(*pair()).rewards.tolist() == [[1.0, 2.0]] * len(ROWS)


def test_async_rewards_run_where_a_loop_is_running() -> None:
    import asyncio

    async def one(completions: Any, **_: Any) -> list[float]:
        return [1.0] * len(completions)

    async def broken(**_: Any) -> list[float]:
        raise KeyError("what")

    async def notebook() -> Judgement:
        return judged(one)

    async def broken_notebook() -> Judgement:
        return judged(broken)

    assert asyncio.run(notebook()).rewards.sum() == len(ROWS)
    with pytest.raises(KeyError, match="what"):
        asyncio.run(broken_notebook())


def test_a_reward_that_says_nothing_is_called_by_the_main_thread() -> None:
    threads: list[Any] = []

    def of(name: str, alone: bool) -> Any:
        def reward(completions: Any, **_: Any) -> list[float]:
            threads.append((name, threading.current_thread() is threading.main_thread()))
            return [1.0] * len(completions)

        reward.__name__ = name
        reward.row_wise = alone  # type: ignore[attr-defined]
        return reward

    judged(of("plain", False), of("row_wise", True))
    assert sorted(threads) == [("plain", True)] + [("row_wise", False)] * 3


# What goes wrong


def test_an_error_of_a_reward_is_raised_with_its_own_traceback() -> None:
    def broken(**_: Any) -> list[float]:
        raise KeyError("level of what?")

    with pytest.raises(KeyError, match="level of what") as found:
        judged(broken, patience=60.0)
    assert "broken" in [entry.name for entry in found.traceback]


def test_a_wrong_number_of_rewards_is_an_error() -> None:
    with pytest.raises(ValueError, match="returned 1 rewards for 12 edits"):
        judged(lambda **_: [1.0])


def test_after_a_failure_nothing_more_is_asked_and_nobody_hangs() -> None:
    asked = []

    @row_wise
    def broken(prompts: Any, **_: Any) -> list[float]:
        asked.append(prompts[0])
        raise RuntimeError("no")

    judging = begin(broken)
    judging.submit(GROUPS[0], EDITS[GROUPS[0]])
    assert judging.rewards(GROUPS[0]) is None
    for group in GROUPS[1:]:
        judging.submit(group, EDITS[group])
    judging.finish()
    with pytest.raises(RuntimeError, match="no"):
        judging.result()
    assert asked == ["p0"]


class Server:
    """A judge that is down for its first calls, each thread's own."""

    row_wise = True
    __name__ = "server"

    def __init__(self, down: float, *, raises: bool = False) -> None:
        self.down, self.raises, self.calls = down, raises, 0

    def __call__(self, *, completions: Any, log_metric: Any, log_extra: Any, **_: Any) -> list[float | None]:
        self.calls += 1
        if self.calls > self.down:
            log_metric("server/unavailable_rate", 0.0)
            return [1.0] * len(completions)
        if self.raises:
            raise ConnectionRefusedError("nobody at port 9")
        log_metric("server/unavailable_rate", 1.0)
        log_extra("server_outcome", ["not judged: connection: refused"] * len(completions))
        return [None] * len(completions)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging_module, "FIRST_WAIT", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("raises", [False, True])
def test_a_judge_that_comes_back_is_asked_again(raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(down=6, raises=raises)
    found = judged(server, patience=30.0)
    assert found.rewards.flatten().tolist() == [1.0] * len(ROWS)
    assert found.metrics == {"server/unavailable_rate": 0.0}  # what failed calls logged is not kept
    assert "cannot be reached" in caplog.text
    assert "Training pauses" in caplog.text
    assert "answers again" in caplog.text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("raises", [False, True])
def test_patience_ends(raises: bool) -> None:
    started = time.monotonic()
    with pytest.raises(JudgeUnavailableError, match=r"'server'.*judge_patience=0.2.*(refused|port 9)"):
        judged(Server(down=10**9, raises=raises), patience=0.2)
    assert 0.2 <= time.monotonic() - started < 60


def test_no_patience_at_all_asks_once() -> None:
    server = Server(down=10**9)
    with pytest.raises(JudgeUnavailableError):
        judged(server, calls="rollout", patience=0.0)
    assert server.calls == 1


def test_without_patience_missing_rewards_are_missing_and_errors_are_errors() -> None:
    assert judged(Server(down=10**9), patience=None).rewards.isnan().all()
    with pytest.raises(ConnectionRefusedError):
        judged(Server(down=10**9, raises=True), patience=None)


def test_none_for_all_rows_alone_does_not_mean_a_dead_judge() -> None:
    assert judged(lambda completions, **_: [None] * len(completions), patience=30.0).rewards.isnan().all()


@pytest.mark.usefixtures("quick")
def test_only_the_reward_that_is_down_is_asked_again() -> None:
    up, down = Recording("up"), Server(down=3)
    found = judged(up, down, patience=30.0)
    assert len(up.calls) == 3
    assert found.rewards[:, 1].tolist() == [1.0] * len(ROWS)


def test_closing_ends_waits_and_does_not_wait_for_a_call() -> None:
    release = threading.Event()

    @row_wise
    def hangs(completions: Any, **_: Any) -> list[float]:
        release.wait(30)
        return [1.0] * len(completions)

    before = threading.active_count()
    waiting, hanging = begin(Server(down=10**9), patience=1000.0), begin(hangs)
    for judging in (waiting, hanging):
        judging.submit(GROUPS[0], EDITS[GROUPS[0]])
    started = time.monotonic()
    waiting.close()
    hanging.close()
    assert time.monotonic() - started < 20  # less than either waits
    release.set()
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "os.kill(os.getpid(), signal.SIGINT); judging.result()"])
def test_a_process_ends_while_its_judge_hangs(end: str) -> None:
    script = f"""
        import os, signal, time
        from editr1_plugins.training.judging import Judge
        from editr1_plugins.training.reward_call import RewardFunctions

        def hangs(**_):
            time.sleep(600)
        hangs.row_wise = True
        judging = Judge(RewardFunctions([hangs])).begin([{{"prompt": "p"}}], None)
        judging.submit(slice(0, 1), ["edit"])
        judging.finish()
        time.sleep(0.2)
        {end}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "Fatal" not in done.stderr


def test_no_function_is_an_error() -> None:
    with pytest.raises(ConfigError, match="empty"):
        RewardFunctions([])
