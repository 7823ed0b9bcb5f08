from __future__ import annotations

import contextlib
import math
import pickle
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

from editr1_plugins.errors import ConfigError, DataError, PluginError
from editr1_plugins.reward import containment, rrm
from editr1_plugins.reward.metrics import was_reached
from editr1_plugins.reward.record import EditRecord
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import FOLLOW, KEEP, Alarm, Edit, NoPrinciples, Principle, Verdict, Verification


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (level, level, level))


def edit(level: int, instruction: str = "brighter", source: Image.Image | None = None) -> Edit:
    return Edit(source=source or grey(0), edited=grey(level), instruction=instruction)


def level(one: Edit) -> float:
    return float(ImageStat.Stat(one.edited).mean[0])


class Brightness:
    """Judges how bright the edited image is: level 250 is a 10; met from 5 up."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        self.batches.append(len(edits))
        return [self.judge(one, asked) for one, asked in zip(edits, principles, strict=True)]

    def judge(self, one: Edit, asked: Sequence[Principle]) -> Verification:
        score = level(one) / 25
        verdicts = tuple(Verdict(principle=each, passed=score >= 5, reason=f"{score:g}") for each in asked)
        return Verification(score=score, verdicts=verdicts, trace="looked")


class Questions:
    """Two questions per instruction; what it does not understand is a failure."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> list[tuple[Principle, ...]]:
        self.asked += [instruction for _, instruction in requests]
        return [self.questions(instruction) for _, instruction in requests]

    def questions(self, instruction: str) -> tuple[Principle, ...]:
        if instruction == "???":
            return NoPrinciples("cannot read it")
        return (
            Principle(question=f"Is it {instruction}?", category=FOLLOW),
            Principle(question="Is the rest kept?", category=KEEP),
        )


class Copies:
    """An early guard: an edit with the source's own pixels is a copy."""

    needs_judge = False

    def inspect(
        self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]], verifications: Sequence[Verification]
    ) -> list[Alarm | None]:
        assert not verifications
        return [self.look(one) for one in edits]

    def look(self, one: Edit) -> Alarm | None:
        same = one.source.tobytes() == one.edited.tobytes()
        return Alarm(flag="copy", reason="same pixels as the source") if same else None


class Glare:
    """A late guard: what was scored above 9 is capped at 2."""

    needs_judge = True

    def inspect(
        self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]], verifications: Sequence[Verification]
    ) -> list[Alarm | None]:
        assert len(edits) == len(principles) == len(verifications)
        return [
            Alarm(flag="glare", reason="too bright", cap=2.0) if each.score is not None and each.score > 9 else None
            for each in verifications
        ]


class Sink:
    def __init__(self) -> None:
        self.records: list[EditRecord] = []

    def write(self, edit: Edit, record: EditRecord) -> None:
        self.records.append(record)


def reward(verifier: Any = None, decomposer: Any = None, guards: Sequence[Any] = (), **settings: Any) -> EditRRMReward:
    return EditRRMReward(verifier or Brightness(), decomposer or Questions(), guards, **settings)


def scores(outcomes: Sequence[Verification]) -> list[float | None]:
    return [outcome.score for outcome in outcomes]


def test_call_and_score_agree_and_keep_the_order() -> None:
    judge = reward()
    levels = [200, 0, 125, 250]
    called = judge(prompts=["brighter"] * 4, completions=[grey(at) for at in levels], source_image=[grey(0)] * 4)
    assert called == scores(judge.score([edit(at) for at in levels])) == [8.0, 0.0, 5.0, 10.0]


def test_each_source_and_instruction_is_decomposed_once() -> None:
    questions = Questions()
    judge = reward(decomposer=questions)
    group = [edit(9, "a"), edit(80, "a"), edit(9, "b"), edit(9, "a", source=grey(7)), edit(3, "a", source=grey(7))]
    judge.score(group)
    judge.score(group)
    assert questions.asked == ["a", "b", "a"]


def test_principles_reach_the_verifier_and_the_record() -> None:
    sink = Sink()
    reward(record=sink).score([edit(200, "warmer")])
    (record,) = sink.records
    row = record.as_dict()
    assert [(each["question"], each["passed"], each["reason"]) for each in row["verdicts"]] == [
        ("Is it warmer?", True, "8"),
        ("Is the rest kept?", True, "8"),
    ]
    assert row["trace"] == "looked"
    assert row["score"] == row["judged_score"] == 8.0
    assert row["verifier"].endswith("Brightness")
    assert row["decomposer"].endswith("Questions")
    assert row["seconds"] > 0
    assert row["batch"] == 1


def test_no_principles_is_none_with_the_decomposers_reason() -> None:
    verifier = Brightness()
    outcomes = reward(verifier).score([edit(200, "???"), edit(100)])
    assert scores(outcomes) == [None, 4.0]
    assert outcomes[0].failure == "no_principles: cannot read it"
    assert verifier.batches == [1]


class Nervous(Brightness):
    """Raises whenever a batch holds a black image."""

    def judge(self, one: Edit, asked: Sequence[Principle]) -> Verification:
        if level(one) == 0:
            raise RuntimeError("black image")
        return super().judge(one, asked)


class NotANumber(Brightness):
    def judge(self, one: Edit, asked: Sequence[Principle]) -> Verification:
        return Verification(score=math.nan) if level(one) == 0 else super().judge(one, asked)


class Forgetful(Brightness):
    """Leaves black images out of its answer."""

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        pairs = [pair for pair in zip(edits, principles, strict=True) if level(pair[0])]
        return super().verify([one for one, _ in pairs], [asked for _, asked in pairs])


class Talkative(Brightness):
    """Judges black images twice."""

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        twice = [i for i, one in enumerate(edits) for _ in range(1 if level(one) else 2)]
        return super().verify([edits[i] for i in twice], [principles[i] for i in twice])


class WrongType(Brightness):
    def judge(self, one: Edit, asked: Sequence[Principle]) -> Verification:
        return super().judge(one, asked) if level(one) else 7.0  # type: ignore[return-value]


class WrongVerdicts(Brightness):
    def judge(self, one: Edit, asked: Sequence[Principle]) -> Verification:
        return super().judge(one, asked if level(one) else asked[:1])


@pytest.mark.parametrize(
    ("verifier", "reason"),
    [
        (Nervous(), "verifier 'Nervous' raised RuntimeError: black image"),
        (NotANumber(), "verifier 'NotANumber' raised ValueError: score must lie in 0..10 or be None, got nan"),
        (Forgetful(), "raised ValueError: 0 verifications for 1 edits"),
        (Talkative(), "raised ValueError: 2 verifications for 1 edits"),
        (WrongType(), "verifier 'WrongType': returned float 7.0, not a Verification"),
        (WrongVerdicts(), "verifier 'WrongVerdicts': returned 1 verdicts for 2 principles"),
    ],
)
def test_a_bad_row_costs_itself_alone(verifier: Any, reason: str) -> None:
    sink = Sink()
    metrics: dict[str, float] = {}
    judge = reward(verifier, record=sink)
    levels = [200, 0, 100]
    rewards = judge(
        prompts=["brighter"] * 3,
        completions=[grey(at) for at in levels],
        source_image=[grey(9)] * 3,
        log_metric=metrics.__setitem__,
    )
    assert rewards == [8.0, None, 4.0]
    assert metrics[f"{judge.__name__}/failure_rate"] == pytest.approx(1 / 3)
    assert reason in str(sink.records[1].verification.failure)


@pytest.mark.parametrize("answer", [None, 3, "text", {}, [], [Verification(score=1.0)] * 9])
def test_a_verifier_that_answers_nonsense_is_none_for_all(answer: Any) -> None:
    class Nonsense:
        def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> Any:
            return answer

    outcomes = reward(Nonsense()).score([edit(1), edit(2)])
    assert scores(outcomes) == [None, None]
    assert all("Nonsense" in str(outcome.failure) for outcome in outcomes)


def test_a_slow_dead_judge_costs_a_few_calls_not_one_per_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "PATIENCE", 0.0)

    class Dead:
        calls = 0

        def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
            self.calls += 1
            raise TimeoutError("no reply")

    verifier = Dead()
    outcomes = reward(verifier).score([edit(at % 200, f"ask {at // 8}") for at in range(64)])
    assert scores(outcomes) == [None] * 64
    assert verifier.calls == 1 + containment.GIVE_UP_AFTER


def test_a_quick_failure_costs_nobody_else() -> None:
    levels = [0] * 8 + [200]
    assert scores(reward(Nervous()).score([edit(at) for at in levels])) == [None] * 8 + [8.0]


def test_one_bad_group_does_not_look_like_a_dead_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "PATIENCE", 0.0)
    bad, good = [edit(0, "bad") for _ in range(8)], [edit(200, "good") for _ in range(8)]
    assert scores(reward(Nervous()).score(bad + good)) == [None] * 8 + [8.0] * 8


def test_interrupting_is_not_a_failure_of_the_verifier() -> None:
    class Interrupted:
        def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reward(Interrupted()).score([edit(1)])


def test_a_decomposer_that_raises_costs_its_own_requests() -> None:
    class Picky(Questions):
        def questions(self, instruction: str) -> tuple[Principle, ...]:
            if instruction == "odd":
                raise KeyError(instruction)
            return super().questions(instruction)

    outcomes = reward(decomposer=Picky()).score([edit(200, "odd"), edit(100, "even")])
    assert scores(outcomes) == [None, 4.0]
    assert "decomposer 'Picky' raised KeyError" in str(outcomes[0].failure)


@pytest.mark.parametrize("answer", [(), [], None, ["Is it red?"]])
def test_a_decomposer_without_principles_is_a_failure(answer: Any) -> None:
    class Empty:
        def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> Any:
            return [answer for _ in requests]

    (outcome,) = reward(decomposer=Empty()).score([edit(200)])
    assert outcome.score is None
    assert str(outcome.failure).startswith("no_principles: ")


def test_an_early_guard_saves_the_judge_and_a_late_one_caps() -> None:
    verifier, sink = Brightness(), Sink()
    judge = reward(verifier, guards=[Copies(), Glare()], record=sink)
    outcomes = judge.score([edit(0), edit(100), edit(250)])
    assert scores(outcomes) == [0.0, 4.0, 2.0]
    assert verifier.batches == [2]
    assert [outcome.flags for outcome in outcomes] == [("copy",), (), ("glare",)]
    rows = [record.as_dict() for record in sink.records]
    assert [row["judged_score"] for row in rows] == [None, 4.0, 10.0]
    assert rows[2]["alarms"] == [{"guard": "Glare", "flag": "glare", "reason": "too bright", "cap": 2.0}]


def test_a_partial_early_cap_still_asks_the_judge() -> None:
    class Border(Copies):
        def look(self, one: Edit) -> Alarm | None:
            return Alarm(flag="border", reason="white border", cap=6.0)

    assert scores(reward(guards=[Border()]).score([edit(50), edit(250)])) == [2.0, 6.0]


def test_a_guard_that_fails_voids_what_it_did_not_see() -> None:
    class Weak(Copies):
        def look(self, one: Edit) -> Alarm | None:
            if level(one) == 100:
                raise OSError("model file is gone")
            return super().look(one)

    outcomes = reward(guards=[Weak()]).score([edit(0), edit(100), edit(200)])
    assert scores(outcomes) == [0.0, None, 8.0]
    assert outcomes[1].flags == ("guard_failed",)
    assert "model file is gone" in str(outcomes[1].failure)


class Wavering(Brightness):
    """The same edit gets 2, 4, 6, ... in turn."""

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        self.batches.append(len(edits))
        return [Verification(score=2.0 + 2 * i) for i, _ in enumerate(edits)]


def test_samples_are_asked_in_one_batch_and_averaged() -> None:
    verifier = Wavering()
    first, second = reward(verifier, samples=2).score([edit(10), edit(20)])
    assert verifier.batches == [4]
    assert (first.score, first.spread, first.samples) == (3.0, 1.0, 2)
    assert (second.score, second.spread, second.samples) == (7.0, 1.0, 2)


def test_abstains_above_the_spread_and_below_the_samples() -> None:
    assert reward(Wavering(), samples=2, max_spread=0.5).score([edit(1)])[0].failure == "spread 1.00 above 0.5"
    assert reward(Wavering(), min_samples=2).score([edit(1)])[0].failure == "too_few_samples: 1 of 2"
    unsure = reward(Wavering(), samples=2, max_spread=0.5, aggregate="average").score([edit(1)])
    assert unsure[0].score is None


def test_average_replaces_tau_by_the_gated_mean() -> None:
    assert scores(reward(aggregate="average").score([edit(100), edit(150)])) == [0.0, 10.0]


def test_logs_rates_and_texts_per_row() -> None:
    extra: dict[str, list[str]] = {}
    metrics: dict[str, float] = {}
    judge = reward(guards=[Copies()], name="look")
    arguments: dict[str, Any] = {"log_extra": extra.__setitem__, "log_metric": metrics.__setitem__}

    def call(*levels: int) -> None:
        count = len(levels)
        images = [grey(at) for at in levels]
        judge(prompts=["brighter"] * count, completions=images, source_image=[grey(0)] * count, **arguments)

    call(0, 100, 200, 225)
    assert metrics == {
        "look/failure_rate": 0.0,
        "look/pass_rate/instruction_following": pytest.approx(2 / 3),
        "look/pass_rate/feature_preservation": pytest.approx(2 / 3),
        "look/flag/copy": 0.25,
    }
    assert extra["look_outcome"] == ["0 [copy]", "4", "8", "9"]
    assert extra["look_verdicts"][2] == "yes: Is it brighter? (8)\nyes: Is the rest kept? (8)"
    assert extra["look_verdicts"][0] == ""
    call(200)
    # TRL averages what it is given, so a flag once seen is logged as 0 afterwards.
    assert metrics["look/flag/copy"] == 0.0


def test_rows_without_an_edit_are_counted() -> None:
    metrics: dict[str, float] = {}
    extra: dict[str, list[str]] = {}
    rewards = reward(name="look")(
        prompts=["brighter"] * 2,
        completions=[grey(100), None],
        source_image=[grey(0)] * 2,
        log_metric=metrics.__setitem__,
        log_extra=extra.__setitem__,
    )
    assert rewards == [4.0, None]
    assert metrics["look/failure_rate"] == 0.5
    assert extra["look_outcome"][1] == "not judged: no edited image in this row"


def test_a_missing_column_ends_the_call() -> None:
    with pytest.raises(DataError, match="no source image"):
        reward()(prompts=["brighter"], completions=[grey(100)])


def test_an_empty_batch() -> None:
    assert reward()(prompts=[], completions=[]) == []
    assert reward().score([]) == []


def test_names_are_distinct_and_hide_arguments() -> None:
    assert reward().__name__ == "edit_rrm_Brightness"
    assert reward(name="mine").__name__ == "mine"
    assert EditRRMReward("editr1-plugins/measure").__name__ == "edit_rrm_editr1_plugins_measure"


def test_is_no_module_and_no_coroutine() -> None:
    import inspect

    from torch import nn

    judge = reward()
    assert not isinstance(judge, nn.Module)
    assert not inspect.iscoroutinefunction(judge.__call__)


def test_pickles_with_given_instances_and_specs() -> None:
    judge = reward(guards=[Copies()], name="look", columns={"edited": "out"})
    judge.score([edit(100)])
    again = pickle.loads(pickle.dumps(judge))
    assert again.__name__ == "look"
    assert again(prompts=["brighter"], completions=["t"], out=[grey(100)], source_image=[grey(1)]) == [4.0]
    by_spec = EditRRMReward("measure")
    assert pickle.loads(pickle.dumps(by_spec)).__name__ == "edit_rrm_measure"


def test_many_threads_at_once() -> None:
    judge = reward()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda at: scores(judge.score([edit(at, f"ask {at % 5}")] * 3)), range(0, 250, 5)))
    assert results == [[at / 25] * 3 for at in range(0, 250, 5)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"aggregate": "mean"}, "aggregate must be one of"),
        ({"samples": 0}, "samples and min_samples must be at least 1"),
        ({"verifier": Brightness}, "got the class Brightness, not an instance"),
        ({"verifier": object()}, "has no verify"),
        ({"decomposer": Brightness()}, "has no decompose"),
        ({"guards": "copies"}, "guards must be a list"),
        ({"guards": [Brightness()]}, "has no inspect"),
        ({"verifier": "measure:"}, "ends in a colon"),
    ],
)
def test_wrong_settings_are_refused_at_once(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EditRRMReward(**({"verifier": Brightness(), "decomposer": Questions()} | arguments))


def test_an_unknown_verifier_is_refused_before_any_edit() -> None:
    with pytest.raises(PluginError, match=r"no verifier 'mesure', did you mean 'measure'\?"):
        EditRRMReward("mesure")


def test_the_default_verifier_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(rrm.VERIFIER_VARIABLE, raising=False)
    monkeypatch.setattr(rrm, "_warned", threading.Event())
    with pytest.warns(UserWarning, match="using the embedded `measure`"):
        assert EditRRMReward().__name__ == "edit_rrm"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "measure" in repr(EditRRMReward())


def test_the_environment_names_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rrm.VERIFIER_VARIABLE, "no-such-judge")
    with pytest.raises(PluginError, match="no-such-judge"):
        EditRRMReward()


def test_principles_are_shared_through_a_file(tmp_path: Path) -> None:
    first, second = Questions(), Questions()
    path = tmp_path / "principles.sqlite"
    reward(decomposer=first, cache=path).score([edit(1, "a")])
    reward(decomposer=second, cache=path).score([edit(2, "a")])
    assert (first.asked, second.asked) == (["a"], [])


def test_a_record_that_cannot_be_written_does_not_cost_the_reward() -> None:
    class Full:
        def write(self, edit: Edit, record: EditRecord) -> None:
            raise OSError(28, "No space left on device")

    assert scores(reward(record=Full()).score([edit(100)])) == [4.0]


class Unreachable:
    """Cannot reach its server for black images."""

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        black = "connection: ConnectError: refused [http://127.0.0.1:9 after 5 attempts]"
        dark = [edit.edited.getextrema()[0][1] == 0 for edit in edits]
        return [Verification(score=None, failure=black, samples=0) if d else Verification(score=5.0) for d in dark]


@pytest.mark.parametrize(
    ("verifier", "levels", "rate"),
    [
        (Unreachable(), [200, 100], None),
        (Unreachable(), [0, 100, 0, 0], 0.75),
        (Unreachable(), [0, 0], 1.0),
        (Nervous(), [0, 0], 1.0),  # a component that raises for each row is as good as away
    ],
)
def test_a_trainer_can_see_that_nobody_was_reached(verifier: Any, levels: list[int], rate: float | None) -> None:
    metrics: dict[str, float] = {}
    images, sources = [grey(at) for at in levels], [grey(9)] * len(levels)
    reward(verifier, name="judge")(
        prompts=["brighter"] * len(levels),
        completions=images,
        source_image=sources,
        log_metric=metrics.__setitem__,
    )
    assert metrics.get("judge/unavailable_rate") == rate


@pytest.mark.parametrize(
    ("verification", "reached"),
    [
        (Verification(score=3.0), True),
        (Verification(score=None, failure="no_score", samples=0), True),
        (Verification(score=None, failure="timeout: no complete reply within 60 s", samples=0), False),
        (Verification(score=None, failure="no_principles: decomposer 'vlm' raised OSError: x", samples=0), False),
        (Verification(score=None, failure="no_principles: connection: refused", samples=0), False),
        (Verification(score=None, failure="no_principles: nothing to ask", samples=0), None),
        (Verification(score=0.0, flags=("copy",), samples=0), None),
        (Verification(score=None, failure="voided (size): too large", samples=0), None),
    ],
)
def test_reached_or_not_or_not_asked(verification: Verification, reached: bool | None) -> None:
    assert was_reached(verification) is reached


@pytest.mark.parametrize(("safe", "most"), [(False, 1), (True, 2)])
def test_parts_are_called_by_one_thread_at_a_time_unless_they_are_thread_safe(safe: bool, most: int) -> None:
    barrier = threading.Barrier(2)
    running: list[int] = []
    seen: list[int] = []

    class Slow:
        thread_safe = safe

        def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
            running.append(1)
            seen.append(len(running))
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(timeout=0.3)
            running.pop()
            return [Verification(score=5.0) for _ in edits]

    judge = reward(Slow())
    threads = [
        threading.Thread(target=judge.score, args=([Edit(source=grey(9), edited=grey(at), instruction="brighter")],))
        for at in (100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) == most
