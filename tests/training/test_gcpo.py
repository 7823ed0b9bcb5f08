"""GCPO: the arithmetic against loops, pairs whole in every batch, and real steps of TRL with a tiny VLM."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from peft import LoraConfig
from PIL import Image as Pictures

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.testing.judges import prompt_words
from editr1_plugins.testing.language import (
    all_but,
    tiny_tokenizer,
    tiny_vision_language_model,
    tiny_vision_language_processor,
)
from editr1_plugins.training.gcpo import GCPOConfig, GCPOTrainer, contrastive_rewards
from editr1_plugins.training.judge_model import LORA_TARGETS
from editr1_plugins.training.preference_pairs import pair_rows, with_principles
from editr1_plugins.types import FOLLOW

QUESTION = {"question": "Is it brighter?", "category": FOLLOW}


def by_hand(winner: list[list[float]], loser: list[list[float]]) -> tuple[list[list[float]], list[list[float]]]:
    """The paper's two sums, literally."""
    of_winners, of_losers = [], []
    for ours, theirs in zip(winner, loser, strict=True):
        of_winners.append([sum(1 for low in theirs if mine > low) / len(theirs) for mine in ours])
        of_losers.append([sum(1 for high in ours if mine < high) / len(ours) for mine in theirs])
    return of_winners, of_losers


class TestContrastiveRewards:
    @pytest.mark.parametrize("seed", range(20))
    def test_equal_the_sums_of_the_paper_with_ties_and_failures(self, seed: int) -> None:
        draw = random.Random(seed)
        pairs, traces = draw.randint(1, 5), draw.randint(1, 9)
        scores = [[[draw.choice([math.nan, *range(5)]) for _ in range(traces)] for _ in range(pairs)] for _ in range(2)]
        winner, loser = contrastive_rewards(torch.tensor(scores[0]), torch.tensor(scores[1]))
        expected = by_hand(*scores)
        torch.testing.assert_close(winner, torch.tensor(expected[0]))
        torch.testing.assert_close(loser, torch.tensor(expected[1]))

    def test_ties_earn_nothing_and_a_trace_without_score_earns_nothing_and_beats_nobody(self) -> None:
        nan = math.nan
        winner, loser = contrastive_rewards(torch.tensor([[5.0, nan, 7.0]]), torch.tensor([[5.0, nan, 6.0]]))
        assert winner.tolist() == [[0.0, 0.0, pytest.approx(2 / 3)]]
        assert loser.tolist() == [[pytest.approx(1 / 3), 0.0, pytest.approx(1 / 3)]]


def pairs_of(count: int, *, principles: bool = True) -> Dataset:
    """Pair i: winner of level 100 + i, loser of level i."""
    rows: dict[str, list[Any]] = {
        "source": [Pictures.new("RGB", (16, 16), (50, 50, 50))] * count,
        "winner": [Pictures.new("RGB", (16, 16), (100 + i,) * 3) for i in range(count)],
        "loser": [Pictures.new("RGB", (16, 16), (i,) * 3) for i in range(count)],
        "instruction": [f"make the image brighter, number {i}" for i in range(count)],
    }
    features: dict[str, Any] = {name: Image() for name in ("source", "winner", "loser")}
    features["instruction"] = Value("string")
    if principles:
        rows["principles"] = [[QUESTION]] * count
        features["principles"] = List({"question": Value("string"), "category": Value("string")})
    return Dataset.from_dict(rows, features=Features(features))


class TestPairs:
    def test_two_rows_share_all_but_the_edited_image(self) -> None:
        rows = pair_rows(pairs_of(3))
        assert len(rows) == 6
        for pair in range(3):
            winner, loser = rows[2 * pair], rows[2 * pair + 1]
            assert (winner["side"], loser["side"], winner["pair"]) == ("winner", "loser", pair)
            assert winner["prompt"] == loser["prompt"]
            assert winner["questions"] == loser["questions"] == ["Is it brighter?"]
            assert winner["images"][0].getpixel((0, 0)) == loser["images"][0].getpixel((0, 0)) == (50, 50, 50)
            assert winner["images"][1].getpixel((0, 0)) == (100 + pair,) * 3
            assert loser["images"][1].getpixel((0, 0)) == (pair,) * 3

    def test_missing_principles_are_made_and_a_pair_without_any_is_left_out(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Even:
            def decompose(self, requests: Any) -> list[Any]:
                from editr1_plugins.types import NoPrinciples, Principle

                return [
                    NoPrinciples("odd") if instruction.endswith("1") else (Principle(**QUESTION),)
                    for _, instruction in requests
                ]

        made = with_principles(pairs_of(3, principles=False), Even())
        assert [row["instruction"][-1] for row in made] == ["0", "2"]
        assert "1 of 3 pairs have no principles" in caplog.text
        assert "pair 1: odd" in caplog.text

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(DataError, match="no column loser"):
            pair_rows(pairs_of(1).remove_columns("loser"))


SAID = [*(f"<score>{score}</score>" for score in (2, 5, 8)), "no answer"]


def trainer(folder: Path, *, pairs: int = 4, peft_config: Any = None, **settings: Any) -> GCPOTrainer:
    """A judge with random weights that says one of `SAID`: every trace is one score or none."""
    tokenizer = tiny_tokenizer([*prompt_words(), *SAID])
    options: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 1,
        "generation_kwargs": {"suppress_tokens": [*all_but(tokenizer, SAID), tokenizer.eos_token_id]},
        "max_steps": 2,
        "learning_rate": 1e-2,
        "report_to": [],
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        **settings,
    }
    path = folder / "model"
    if not path.exists():
        tiny_vision_language_model(tokenizer).save_pretrained(path)  # TRL reads a reference model from there
    return GCPOTrainer(
        str(path),
        GCPOConfig(**options),
        pairs_of(pairs),
        eval_dataset=pairs_of(3),
        processing_class=tiny_vision_language_processor(tokenizer),
        peft_config=peft_config,
    )


def weights(made: GCPOTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in made.model.named_parameters()}


def moved(before: dict[str, torch.Tensor], made: GCPOTrainer) -> set[str]:
    return {name for name, value in made.model.named_parameters() if not torch.equal(before[name], value)}


class TestTrainer:
    def test_it_trains_on_whole_pairs_and_logs_what_happened(self, tmp_path: Path) -> None:
        made = trainer(tmp_path)
        before = weights(made)
        made.train()
        logs = [entry for entry in made.state.log_history if "gcpo/pair_accuracy" in entry]
        assert len(logs) == 2
        for entry in logs:
            assert 0 <= entry["gcpo/pair_accuracy"] + entry["gcpo/tie_rate"] <= 1
            assert 0 <= entry["gcpo/parse_failure"] <= 1
            assert {"gcpo/weighted_advantage", "gcpo/score_winner", "completions/mean_length"} <= entry.keys()
        assert moved(before, made)

    @pytest.mark.parametrize(
        "settings",
        [
            {"num_iterations": 2, "max_steps": 4},
            {"beta": 0.1},
            {"gradient_accumulation_steps": 2, "steps_per_generation": 4},
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},  # a side per pass
            {"scale_rewards": "group", "loss_type": "dapo", "temperature": 0.7, "top_p": 0.9},
        ],
        ids=lambda settings: ", ".join(settings),
    )
    def test_what_trl_offers_is_kept(self, tmp_path: Path, settings: dict[str, Any]) -> None:
        made = trainer(tmp_path, **settings)
        before = weights(made)
        made.train()
        assert moved(before, made)
        last = [entry for entry in made.state.log_history if "loss" in entry][-1]
        assert last["grad_norm"] == last["grad_norm"]
        if "beta" in settings:
            assert last["kl"] > 0

    def test_a_lora_alone_moves(self, tmp_path: Path) -> None:
        lora = LoraConfig(r=2, target_modules=LORA_TARGETS, init_lora_weights="gaussian")
        made = trainer(tmp_path, peft_config=lora, beta=0.1)
        before = weights(made)
        made.train()
        names = moved(before, made)
        assert names
        assert all("lora_" in name for name in names)

    def test_batches_hold_whole_pairs_in_training_and_evaluation(self, tmp_path: Path) -> None:
        made = trainer(tmp_path, pairs=5)
        group = 4
        for sampler in (made._get_train_sampler(), made._get_eval_sampler(made.eval_dataset)):
            order = list(sampler)
            assert len(order) == len(sampler)
            for first in range(0, len(order), 2 * group):
                rows = order[first : first + 2 * group]
                assert rows == [rows[0]] * group + [rows[0] + 1] * group
                assert rows[0] % 2 == 0

    def test_what_would_tear_pairs_apart_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="whole pairs"):
            trainer(tmp_path, per_device_train_batch_size=12)
        made = trainer(tmp_path)
        torn = [made.train_dataset[index] for index in (0, 0, 0, 0, 3, 3, 3, 3)]
        with pytest.raises(ConfigError, match="does not hold whole pairs of 2 x 4 traces"):
            made._generate_and_score_completions(torn)
        with pytest.raises(ConfigError, match="remove_unused_columns"):
            trainer(tmp_path, remove_unused_columns=True)

    def test_evaluation_reports_pairs(self, tmp_path: Path) -> None:
        made = trainer(tmp_path, eval_strategy="steps", per_device_eval_batch_size=4, num_generations_eval=2)
        metrics = made.evaluate()
        assert 0 <= metrics["eval_gcpo/pair_accuracy"] <= 1
        assert metrics["eval_gcpo/pair_accuracy"] * 3 == pytest.approx(round(metrics["eval_gcpo/pair_accuracy"] * 3))

    def test_pairs_a_judge_chose_are_told_in_the_card(self, tmp_path: Path) -> None:
        tokenizer = tiny_tokenizer([*prompt_words(), *SAID])
        config = GCPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, num_generations=4, report_to=[])
        made = GCPOTrainer(
            tiny_vision_language_model(tokenizer),
            config,
            pairs_of(3).add_column("synthetic", [True, False, True]),
            processing_class=tiny_vision_language_processor(tokenizer),
        )
        made.create_model_card(model_name="judge")
        assert "2 of 3 training pairs are synthetic" in (tmp_path / "README.md").read_text()


class Said:
    """Replaces sampling: the traces of the next batch are these texts, in the batch's order."""

    def __init__(self, made: GCPOTrainer, texts: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
        tokens = [made._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        ids = [[*each, made._tokenizer.eos_token_id] for each in tokens]
        monkeypatch.setattr(made, "_generate_single_turn", lambda *_: (ids, None))


class TestInsideTrl:
    """What TRL's own pipeline makes of traces, up to the gradient."""

    TEXTS = ("<score>8</score>", "<score>5</score>", "no answer", "<score>5</score>")
    LOSERS = ("<score>5</score>", "no answer", "<score>2</score>", "<score>8</score>")

    def by_hand(self) -> list[float]:
        """Advantages of the paper's sums for `TEXTS` against `LOSERS`, with loops."""
        scores = [
            [float(text[7]) if "score" in text else math.nan for text in side] for side in (self.TEXTS, self.LOSERS)
        ]
        rewards = [side[0] for side in by_hand([scores[0]], [scores[1]])]
        return [value - sum(side) / len(side) for side in rewards for value in side]

    def test_advantages_are_the_papers_and_reach_the_loss(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = trainer(tmp_path, per_device_train_batch_size=8)
        Said(made, (*self.TEXTS, *self.LOSERS), monkeypatch)
        taken: dict[str, Any] = {}
        original = made._compute_loss

        def watching(model: Any, inputs: Any) -> Any:
            taken.update(inputs)
            return original(model, inputs)

        monkeypatch.setattr(made, "_compute_loss", watching)
        monkeypatch.setattr("trl.trainer.grpo_trainer.shuffle_sequence_dict", lambda each: each)
        batch = [made.train_dataset[index] for index in made._get_train_sampler()][:8]
        made.model.train()
        made.current_gradient_accumulation_steps = 1
        loss = made.compute_loss(made.model, made._prepare_inputs(batch))
        expected = self.by_hand()
        assert taken["advantages"].tolist() == pytest.approx(expected)
        # The winner's rewards are 2/4, 1/4, 0, 1/4, the loser's 1/4, 0, 3/4, 0.
        assert expected == pytest.approx([0.25, 0.0, -0.25, 0.0, 0.0, -0.25, 0.5, -0.25])
        loss.backward()
        found = {name: value.grad.clone() for name, value in made.model.named_parameters() if value.grad is not None}
        made.model.zero_grad()
        self.objective(made, taken, expected).backward()
        for name, value in made.model.named_parameters():
            if value.grad is not None:
                torch.testing.assert_close(found[name], value.grad, rtol=1e-4, atol=1e-7)

    def objective(self, made: GCPOTrainer, taken: dict[str, Any], advantages: list[float]) -> torch.Tensor:
        """-1/(2N) sum of 1/T sum of rho A, with rho's gradient, from the model's own log-probabilities."""
        ids, mask = taken["completion_ids"], taken["completion_mask"]
        inputs = {name: taken[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
        whole = torch.cat([taken["prompt_ids"], ids], dim=1)
        seen = torch.cat([taken["prompt_mask"], mask], dim=1)
        logits = made.model(input_ids=whole, attention_mask=seen, **inputs).logits[:, -ids.shape[1] - 1 : -1]
        logs = logits.log_softmax(-1).gather(2, ids.unsqueeze(2)).squeeze(2)
        ratio = (logs - logs.detach()).exp()
        each = [(ratio[row, : int(mask[row].sum())] * advantage).mean() for row, advantage in enumerate(advantages)]
        return -torch.stack(each).mean()

    @pytest.mark.parametrize(
        ("winners", "losers", "accuracy", "missing"),
        [
            (["no answer"] * 4, SAID[:3] + SAID[:1], 0.0, {"gcpo/score_winner"}),
            (SAID[:3] + SAID[:1], ["no answer"] * 4, 0.0, {"gcpo/score_loser"}),
            (["no answer"] * 4, ["no answer"] * 4, 0.0, {"gcpo/score_winner", "gcpo/score_loser"}),
            (["<score>8</score>", *["no answer"] * 3], ["<score>5</score>", *["no answer"] * 3], 1.0, set()),
        ],
    )
    def test_a_side_without_any_score_poisons_no_log(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        winners: list[str],
        losers: list[str],
        accuracy: float,
        missing: set[str],
    ) -> None:
        made = trainer(tmp_path, max_steps=1)
        Said(made, (*winners, *losers), monkeypatch)
        made.train()
        [entry] = [entry for entry in made.state.log_history if "gcpo/pair_accuracy" in entry]
        assert entry["gcpo/pair_accuracy"] == accuracy
        assert entry["gcpo/tie_rate"] == 0
        assert {"gcpo/score_winner", "gcpo/score_loser"} - entry.keys() == missing
        assert all(value is not None and value == value for value in entry.values())
        assert entry["rewards/gcpo/mean"] == pytest.approx(accuracy / 16)

    def test_a_trace_that_was_cut_has_no_score(self, tmp_path: Path) -> None:
        made = trainer(tmp_path)
        text, ids = "Is it brighter? <score>5</score> or", [1, 2]
        assert made.gcpo([text], [[*ids, made._tokenizer.eos_token_id]], [["Is it brighter?"]]) == [-1.0]
        assert made.gcpo(["<score>5</score>"], [ids], [["Is it brighter?"]]) == [5.0]


class TestControlTokens:
    def test_none_but_the_end_is_sampled(self, tmp_path: Path) -> None:
        made = trainer(tmp_path, generation_kwargs={}, max_completion_length=40, temperature=3.0)
        tokenizer = made._tokenizer
        control = set(tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>", "<|vision_start|>"]))
        control |= set(tokenizer.convert_tokens_to_ids(["<|vision_end|>", "<|im_start|>", "<|endoftext|>"]))
        with torch.no_grad():  # a policy that would say little else
            made.model.get_input_embeddings().weight[sorted(control)] *= 50
        assert control <= set(made.generation_config.suppress_tokens)
        assert tokenizer.eos_token_id not in made.generation_config.suppress_tokens
        batch = [made.train_dataset[index] for index in made._get_train_sampler()][:8]
        made.model.train()
        found = made._generate_and_score_completions(batch)
        assert not control & set(found["completion_ids"][found["completion_mask"].bool()].tolist())

    def test_the_users_own_are_added(self, tmp_path: Path) -> None:
        made = trainer(tmp_path, generation_kwargs={"suppress_tokens": [3, 4]})
        assert {3, 4} < set(made.generation_kwargs["suppress_tokens"])

    def test_vllm_gets_a_bias_in_its_own_words(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given: dict[str, Any] = {}

        class Generation:
            """Stands for TRL's client of vLLM, which cannot run here; keeps what it is made with."""

            def __init__(self, **kwargs: Any) -> None:
                given.update(kwargs)
                self.generation_kwargs = kwargs["generation_kwargs"] or {}

        monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", Generation, raising=False)
        settings = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.4}
        made = trainer(tmp_path, generation_kwargs={"logit_bias": {5: 1.0}}, **settings)
        assert (given["mode"], given["gpu_memory_utilization"], given["temperature"]) == ("colocate", 0.4, 1.0)
        bias = made.vllm_generation.generation_kwargs["logit_bias"]
        assert bias[5] == 1.0
        assert bias[made._tokenizer.convert_tokens_to_ids("<|image_pad|>")] == -100.0
        assert made._tokenizer.eos_token_id not in bias
        assert "suppress_tokens" not in made.vllm_generation.generation_kwargs
