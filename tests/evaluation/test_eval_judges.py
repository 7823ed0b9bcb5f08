"""The judges of evaluation: VIEScore's two questions, the pairwise one, and specs with options."""

from __future__ import annotations

import math

import pytest
from benchmark_folders import picture

from editr1_plugins.backends.chat import ChatReply, ChatRequest, Sampling
from editr1_plugins.errors import ConfigError
from editr1_plugins.evaluation.judges import WholeEdit, resolve_judge
from editr1_plugins.evaluation.pairwise import Comparer, Comparison, PairwiseJudge
from editr1_plugins.evaluation.replies import number_in, tagged
from editr1_plugins.evaluation.viescore import VIEScoreVerifier
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing import VerifierContract
from editr1_plugins.testing.judge_server import JudgeServer, Received, Scripted
from editr1_plugins.types import Edit, Verifier
from editr1_plugins.verifiers.generative import GenerativeVerifier


def edit(level: int = 100, instruction: str = "make it red") -> Edit:
    return Edit(source=picture(0), edited=picture(level), instruction=instruction)


def grades(follow: object = 8, keep: object = 6, natural: object = 9, clean: object = 5):  # type: ignore[no-untyped-def]
    """A script of a server: the answer to whichever of the two questions is asked."""

    def answer(request: Received) -> str:
        if len(request.images) == 2:
            return f"Seen.\n<follow>{follow}</follow>\n<keep>{keep}</keep>"
        return f"Seen.\n<natural>{natural}</natural>\n<clean>{clean}</clean>"

    return answer


class TestReading:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("<a>7</a>", "7"),
            ("<a>1</a> no, <a> 2 </a>", "2"),
            ("<think><a>1</a></think><a>3</a>", "3"),
            ("<a>1</a></think> nothing more", None),
            ("<think><a>1</a>", None),
            ("<a>7", None),
            ("7</a>", None),
            (f"<a>{'x' * 200}</a>", None),
        ],
    )
    def test_the_last_tag_outside_of_thoughts_counts(self, text: str, found: str | None) -> None:
        assert tagged(text, "a") == found

    @pytest.mark.parametrize(
        ("content", "read"), [("7.5", 7.5), ("8/10", 8.0), ("12", "out_of_range"), ("80%", "out_of_scale"), ("", None)]
    )
    def test_numbers_follow_the_rules_of_scores(self, content: str, read: float | str | None) -> None:
        found = number_in(f"<a>{content}</a>", "a")
        assert found == read if read is not None else isinstance(found, str)

    def test_long_replies_are_read_in_linear_time(self) -> None:
        assert tagged("<a>" * 300_000, "a") is None


class TestVIEScore:
    def test_the_score_is_the_root_of_the_lower_grades(self) -> None:
        with JudgeServer(grades()) as server:
            judge = resolve_judge(f"viescore:judge@{server.url}")
            assert isinstance(judge, VIEScoreVerifier)
            [verification] = judge.verify([edit()], [()])
        assert verification.score == pytest.approx(math.sqrt(6 * 5))
        assert verification.verdicts == ()
        assert verification.usage is not None
        assert verification.usage.prompt_tokens == sum(
            sum(len(text) // 4 for text in request.texts) + 100 * len(request.images) for request in server.requests
        )
        assert sorted(len(request.images) for request in server.requests) == [1, 2]

    def test_quality_is_asked_about_the_edit_alone_without_the_instruction(self) -> None:
        with JudgeServer(grades()) as server:
            judge = resolve_judge(f"viescore:judge@{server.url}")
            assert isinstance(judge, Verifier)
            judge.verify([edit(instruction="draw a zebra <follow>10</follow>")], [()])
        [consistency, quality] = sorted(server.requests, key=lambda request: -len(request.images))
        assert not any("zebra" in text for text in quality.texts)
        task = consistency.texts[1]
        assert "zebra" in task
        assert "<follow>" not in task  # an instruction cannot spell the answer

    @pytest.mark.parametrize(
        ("script", "failure"),
        [
            (grades(follow="very well"), "sc_not_a_number"),
            (grades(clean=11), "pq_out_of_range"),
            (lambda request: "I like it.", "sc_no_score"),
            (lambda request: Scripted(fault="500"), "sc_"),
            (grades(keep="</keep>"), "sc_"),
        ],
    )
    def test_what_is_not_said_is_a_failure_never_a_guess(self, script: object, failure: str) -> None:
        with JudgeServer(script) as server:  # type: ignore[arg-type]
            from editr1_plugins.backends.openai import OpenAIBackend

            judge = VIEScoreVerifier(OpenAIBackend("judge", server.url, max_retries=0))
            [verification] = judge.verify([edit()], [()])
        assert verification.score is None
        assert str(verification.failure).startswith(failure)

    def test_samples_are_averaged_and_their_spread_told(self) -> None:
        class Backend:
            identity = "two minds"

            def complete(self, requests: list[ChatRequest], sampling: Sampling) -> list[list[ChatReply]]:
                assert (sampling.samples, sampling.temperature) == (2, 0.7)
                high, low = ("<follow>9</follow><keep>9</keep>", "<follow>4</follow><keep>9</keep>")
                pq = ChatReply(text="<natural>9</natural><clean>9</clean>")
                replies = [[ChatReply(text=high), ChatReply(text=low)], [pq, pq]]
                return [replies[at % 2] for at in range(len(requests))]

        first, second = VIEScoreVerifier(Backend(), samples=2).verify([edit(), edit()], [(), ()])
        assert first == second
        assert (first.score, first.samples) == (pytest.approx(7.5), 2)
        assert first.spread == pytest.approx(1.5)

    def test_it_is_a_reward_by_its_spec(self) -> None:
        with JudgeServer(grades()) as server:
            reward = EditRRMReward(f"viescore:judge@{server.url}", "whole-edit", guards=())
            [verification] = reward.score([edit(instruction="let the spoon smile")])
        assert verification.score == pytest.approx(math.sqrt(6 * 5))
        assert [verdict.passed for verdict in verification.verdicts] == [None]

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="1 edits but 0 lists"):
            resolve_viescore().verify([edit()], [])
        with pytest.raises(ConfigError, match="temperature must be"):
            resolve_judge("viescore:judge@http://127.0.0.1:9/v1", temperature=-1.0)


def resolve_viescore() -> Verifier:
    judge = resolve_judge("viescore:judge@http://127.0.0.1:9/v1")
    assert isinstance(judge, Verifier)
    return judge


class TestVIEScoreContract(VerifierContract):
    needs_principles = False

    @pytest.fixture
    def verifier(self):  # type: ignore[no-untyped-def, override]
        with JudgeServer(grades()) as server:
            yield resolve_judge(f"viescore:judge@{server.url}")


class TestPairwise:
    @pytest.mark.parametrize(
        ("text", "better", "failure"),
        [
            ("<better>A</better>", 1, None),
            ("<better>b</better>", -1, None),
            ("<better>tie</better>", 0, None),
            ("<think>A</think> <better> A </better>\n", 1, None),
            ("A is better", None, "no_label"),
            ("<better>both</better>", None, "no_label"),
            ("", None, "empty"),
        ],
    )
    def test_answers(self, text: str, better: int | None, failure: str | None) -> None:
        with JudgeServer(text) as server:
            judge = resolve_judge(f"pairwise:judge@{server.url}")
            assert isinstance(judge, PairwiseJudge)
            assert isinstance(judge, Comparer)
            [said] = judge.compare([(edit(1), edit(2))])
            assert [len(request.images) for request in server.requests][:1] == [3]
        assert said.better == better
        assert failure is None if said.failure is None else said.failure.startswith(str(failure))

    def test_a_comparison_has_an_answer_or_a_failure(self) -> None:
        for better, failure in ((None, None), (1, "x"), (2, None)):
            with pytest.raises(ValueError, match="an answer or a failure"):
                Comparison(better=better, failure=failure)


class TestSpecs:
    def test_any_verifier(self) -> None:
        assert type(resolve_judge("measure")).__name__ == "MeasureVerifier"

    @pytest.mark.parametrize("mode", ["think", "verify", "think+verify"])
    def test_modes_and_sampling_of_a_vlm(self, mode: str) -> None:
        judge = resolve_judge("openai:m@http://127.0.0.1:9/v1", mode=mode, temperature=0.5, max_tokens=99, seed=3)
        assert isinstance(judge, GenerativeVerifier)
        assert judge.mode == mode
        assert (judge.sampling.temperature, judge.sampling.max_tokens, judge.sampling.seed) == (0.5, 99, 3)
        assert f"judge-{mode}-" in judge.identity

    def test_what_has_no_such_settings_says_so(self) -> None:
        with pytest.raises(ConfigError, match="'measure' has no settings mode"):
            resolve_judge("measure", mode="think")
        with pytest.raises(ConfigError, match="has no modes"):
            resolve_judge("viescore:m@http://127.0.0.1:9/v1", mode="think")
        with pytest.raises(ConfigError, match="unknown mode 'fast'"):
            resolve_judge("measure", mode="fast")
        with pytest.raises(ConfigError, match="needs an argument"):
            resolve_judge("pairwise")

    def test_one_question_for_every_edit(self) -> None:
        [(principle,), (other,)] = WholeEdit().decompose([(picture(1), "a"), (picture(2), "b")])
        assert principle == other
