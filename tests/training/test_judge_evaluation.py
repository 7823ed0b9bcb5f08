"""What is measured of a judge in training: by hand on scripted replies, and on a live model, which stays as it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from editr1_plugins.backends.chat import ChatReply, ChatRequest, Sampling
from editr1_plugins.backends.transformers import TransformersBackend
from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.testing.judges import save_tiny_judge, tiny_pairs, tiny_traces
from editr1_plugins.training.judge_evaluation import JudgeEvaluation, JudgeSettings, judge_in_training, judge_metrics
from editr1_plugins.training.judge_model import judge_processor
from editr1_plugins.training.trace_data import read_principles
from editr1_plugins.training.traces import compose_trace
from editr1_plugins.types import Edit
from editr1_plugins.verifiers.generative import GenerativeVerifier
from editr1_plugins.verifiers.prompting import judge_request


class Scripted:
    """Replies in the order of the requests, each 10 tokens long; None is a broken one."""

    identity = "scripted"

    def __init__(self, replies: Sequence[tuple[float, list[int | None]] | None]) -> None:
        self.replies = list(replies)

    def complete(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[list[ChatReply]]:
        made = []
        for _ in requests:
            said = self.replies.pop(0)
            text = "no idea"
            if said is not None:
                score, verdicts = said
                principles = read_principles(tiny_traces(1)[0]["principles"])
                text = compose_trace("Seen.", principles, verdicts, None, score)
            made.append([ChatReply(text=text, completion_tokens=10)])
        return made


def test_counts_by_hand() -> None:
    # Pairs: right, wrong, tied, one side without a score. Traces: gold is [1, 1], [0, 1], [1, 1] and scores 9, 2, 9.
    pairs = [(9, [1, 1]), (2, [0, 1]), (3, [1, 1]), (4, [1, 1]), (5, [1, 1]), (5, [1, 1]), (9, [1, 1]), None]
    traces = [(9, [1, 1]), (4, [1, None]), None]
    verifier = GenerativeVerifier(Scripted([*pairs, *traces]))  # type: ignore[list-item]
    found = judge_metrics(verifier, pairs=tiny_pairs(4), traces=tiny_traces(3))
    assert found == {
        "parse_rate": pytest.approx(9 / 11),
        "completion_tokens": 10,
        "pair_accuracy": 0.25,
        "pair_tie_rate": 0.25,
        "pair_failure_rate": 0.25,
        "score_error": 1,
        "verdict_accuracy": pytest.approx(2 / 6),
        "verdict_accuracy/instruction_following": pytest.approx(1 / 3),
        "verdict_accuracy/feature_preservation": pytest.approx(1 / 3),
        "failures/no_score": 2,
    }


def test_what_has_no_denominator_is_left_out() -> None:
    verifier = GenerativeVerifier(Scripted([(9, [1, 1])]))
    traces = tiny_traces(1).remove_columns("gold").add_column("gold", [None])
    found = judge_metrics(verifier, traces=traces)
    assert found == {"parse_rate": 1, "completion_tokens": 10, "score_error": 0}


def test_a_mode_without_verdicts_has_no_verdict_accuracy() -> None:
    verifier = GenerativeVerifier(Scripted([(9, [1, 1])]), mode="think")
    assert "verdict_accuracy" not in judge_metrics(verifier, traces=tiny_traces(1))


def test_broken_rows_are_named() -> None:
    pairs = tiny_pairs(1).map(lambda row: {"principles": []})
    with pytest.raises(DataError, match="pair 0: 'principles'"):
        judge_metrics(GenerativeVerifier(Scripted([])), pairs=pairs)
    traces = tiny_traces(1).remove_columns("gold").add_column("gold", [[1]])
    with pytest.raises(DataError, match="trace 0: 1 gold verdicts for 2 principles"):
        judge_metrics(GenerativeVerifier(Scripted([(9, [1, 1])])), traces=traces)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_judge(tmp_path_factory.mktemp("judge"), initializer_range=0.1)


def live(judge: Path) -> Any:
    from transformers import Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration.from_pretrained(judge)


class TestLive:
    def test_it_replies_as_the_saved_model_does(self, judge: Path) -> None:
        row = tiny_traces(1)[0]
        request = judge_request(
            Edit(source=row["source"], edited=row["edited"], instruction=row["instruction"]),
            read_principles(row["principles"]),
        )
        sampling = Sampling(max_tokens=12, temperature=1.0, samples=3, seed=5)
        saved = TransformersBackend(str(judge), device="cpu").complete([request], sampling)[0]
        settings = JudgeSettings(max_tokens=12)
        with judge_in_training(live(judge), judge_processor(str(judge)), settings) as verifier:
            mine = verifier.backend.complete([request], sampling)[0]
        assert [reply.text for reply in mine] == [reply.text for reply in saved]
        assert any(reply.text for reply in mine)

    def test_the_model_and_all_random_states_stay_as_they_were(self, judge: Path) -> None:
        model = live(judge).train()
        model.generation_config.repetition_penalty = 1.3
        before = torch.get_rng_state(), model.generation_config
        with judge_in_training(model, judge_processor(str(judge)), JudgeSettings(max_tokens=4)) as verifier:
            assert not model.training
            assert model.generation_config.repetition_penalty in (None, 1.0), "the model's own file must not mix in"
            judge_metrics(verifier, pairs=tiny_pairs(1), traces=tiny_traces(1))
        assert model.training
        assert model.generation_config is before[1]
        assert torch.equal(torch.get_rng_state(), before[0])
        # What ran in inference mode left nothing behind that a backward pass would trip over.
        inputs = judge_processor(str(judge)).tokenizer("Is it brighter?", return_tensors="pt")
        model(**inputs, labels=inputs["input_ids"]).loss.backward()

    def test_it_does_not_outlive_its_model_in_another_process(self, judge: Path) -> None:
        import pickle

        with judge_in_training(live(judge), judge_processor(str(judge)), JudgeSettings()) as verifier:
            copy = pickle.loads(pickle.dumps(verifier.backend))
        with pytest.raises(ConfigError, match="lives in another process"):
            copy.complete([ChatRequest(parts=("hello",))], Sampling())


class TestCallback:
    def trainer(self, judge: Path, tmp_path: Path, **changed: Any) -> Trainer:
        args = TrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, report_to=[], eval_strategy=changed.pop("eval_strategy", "steps")
        )
        return Trainer(
            live(judge), args, train_dataset=[1], eval_dataset=[], processing_class=judge_processor(str(judge))
        )

    def test_metrics_are_logged_once_and_can_choose_the_best(self, judge: Path, tmp_path: Path) -> None:
        trainer = self.trainer(judge, tmp_path)
        evaluation = JudgeEvaluation(trainer, pairs=tiny_pairs(2), settings=JudgeSettings(max_tokens=4))
        metrics: dict[str, float] = {"eval_loss": 1.0}
        for _ in range(2):  # two evaluation sets at the same step
            evaluation.on_evaluate(trainer.args, trainer.state, trainer.control, metrics=metrics)
        assert metrics["eval_judge/pair_failure_rate"] == 1
        assert [entry["eval_judge/parse_rate"] for entry in trainer.state.log_history] == [0]

    def test_what_cannot_be_measured_is_refused(self, judge: Path, tmp_path: Path) -> None:
        trainer = self.trainer(judge, tmp_path)
        with pytest.raises(ConfigError, match="give held-out pairs, traces or both"):
            JudgeEvaluation(trainer)
        with pytest.raises(DataError, match="no column principles"):
            JudgeEvaluation(trainer, pairs=tiny_pairs(1).remove_columns("principles"))
        with pytest.raises(ConfigError, match="set eval_strategy"):
            JudgeEvaluation(self.trainer(judge, tmp_path, eval_strategy="no"), pairs=tiny_pairs(1))
        trainer.is_fsdp_enabled = True
        with pytest.raises(ConfigError, match="under FSDP"):
            JudgeEvaluation(trainer, pairs=tiny_pairs(1))
