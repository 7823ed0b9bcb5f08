"""GCPO: the arithmetic against loops, pairs whole in every batch, and real steps of TRL with a tiny VLM."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pictures

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.testing.language import (
    all_but,
    tiny_tokenizer,
    tiny_vision_language_model,
    tiny_vision_language_processor,
)
from editr1_plugins.training.gcpo import GCPOConfig, GCPOTrainer, contrastive_rewards
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


WORDS = [f"<score>{score}</score>" for score in (2, 5, 8)]


def trainer(folder: Path, *, pairs: int = 4, **settings: Any) -> GCPOTrainer:
    tokenizer = tiny_tokenizer([*WORDS, "no answer"])
    said = [*WORDS, "no answer"]
    options: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 1,  # a score's tag is one token, so every trace is one score or none
        "generation_kwargs": {"suppress_tokens": all_but(tokenizer, said)},
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
    return GCPOTrainer(
        tiny_vision_language_model(tokenizer),
        GCPOConfig(**options),
        pairs_of(pairs),
        eval_dataset=pairs_of(3),
        processing_class=tiny_vision_language_processor(tokenizer),
    )


class TestTrainer:
    def test_it_trains_on_whole_pairs_and_logs_what_happened(self, tmp_path: Path) -> None:
        made = trainer(tmp_path)
        before = {name: value.detach().clone() for name, value in made.model.named_parameters()}
        made.train()
        logs = [entry for entry in made.state.log_history if "gcpo/pair_accuracy" in entry]
        assert len(logs) == 2
        for entry in logs:
            assert 0 <= entry["gcpo/pair_accuracy"] + entry["gcpo/tie_rate"] <= 1
            assert 0 <= entry["gcpo/parse_failure"] <= 1
            assert {"gcpo/weighted_advantage", "gcpo/score_winner", "completions/mean_length"} <= entry.keys()
        assert any(not torch.equal(before[name], value) for name, value in made.model.named_parameters())

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

    def test_advantages_are_rewards_minus_the_mean_of_their_own_side(self, tmp_path: Path, monkeypatch: Any) -> None:
        made = trainer(tmp_path)
        seen: dict[str, Any] = {}
        original = made._calculate_rewards

        def watching(*args: Any) -> Any:
            seen["rewards"] = original(*args).clone()
            return seen["rewards"]

        monkeypatch.setattr(made, "_calculate_rewards", watching)
        batch = [made.train_dataset[index] for index in made._get_train_sampler()][:8]
        made.model.train()
        found = made._generate_and_score_completions(batch)
        rewards = seen["rewards"][:, 0].view(-1, 4)
        torch.testing.assert_close(found["advantages"], (rewards - rewards.mean(1, keepdim=True)).flatten())

    def test_what_would_tear_pairs_apart_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="whole pairs"):
            trainer(tmp_path, per_device_train_batch_size=12)

    def test_evaluation_reports_pairs(self, tmp_path: Path) -> None:
        made = trainer(tmp_path, eval_strategy="steps", per_device_eval_batch_size=8)
        metrics = made.evaluate()
        assert 0 <= metrics["eval_gcpo/pair_accuracy"] <= 1
