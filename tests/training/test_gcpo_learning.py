"""A judge that was taught to prefer the losers is turned round by GCPO; with shuffled labels it is not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image as Pictures
from trl.data_utils import prepare_multimodal_messages

from editr1_plugins.testing.judges import save_tiny_judge
from editr1_plugins.training.gcpo import GCPOConfig, GCPOTrainer
from editr1_plugins.training.judge_model import judge_processor
from editr1_plugins.training.preference_pairs import pair_rows
from editr1_plugins.types import FOLLOW

SAID = [f"<score>{score}</score>" for score in (2, 4, 6, 8)]
HELD_OUT = 40


def pairs_of(count: int, seed: int, *, shuffled: bool = False) -> Dataset:
    """The winner is the brighter of two grey squares; or, shuffled, either of them by the toss of a coin."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        levels = draw.randint(150, 250), draw.randint(5, 100)
        images = [Pictures.new("RGB", (16, 16), (level,) * 3) for level in levels]
        if shuffled and draw.random() < 0.5:
            images.reverse()
        pair = {"source": Pictures.new("RGB", (16, 16), (120,) * 3), "winner": images[0], "loser": images[1]}
        asked = [{"question": "Is it brighter?", "category": FOLLOW}]
        rows.append({**pair, "instruction": "make it brighter", "principles": asked})
    return Dataset.from_list(rows)


def made_to_prefer_losers(folder: Path) -> Path:
    """A tiny judge, taught by supervision that winners' images get low scores and losers' high ones."""
    path = save_tiny_judge(folder / "judge", SAID, initializer_range=0.18)  # 1/sqrt(width): it sees images
    from transformers import Qwen2_5_VLForConditionalGeneration

    model, processor = Qwen2_5_VLForConditionalGeneration.from_pretrained(path), judge_processor(str(path))
    answers = processor.tokenizer.convert_tokens_to_ids(SAID)
    draw, rows = random.Random(0), list(pair_rows(pairs_of(16, seed=0)))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(40):
        batch = draw.sample(rows, 8)
        prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in batch]
        inputs = processor.apply_chat_template(
            prompts,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        target = torch.tensor([answers[draw.randint(0, 1) + 2 * (row["side"] == "loser")] for row in batch])
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits[:, -1], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(path)
    return path


def trained(path: Path, folder: Path, pairs: Dataset) -> tuple[GCPOTrainer, dict[str, float], dict[str, float]]:
    """The trainer, and measures on held-out pairs before and after GCPO."""
    processor = judge_processor(str(path))
    tokenizer = processor.tokenizer
    others = [token for token in range(len(tokenizer)) if token not in tokenizer.convert_tokens_to_ids(SAID)]
    config = GCPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=64,
        per_device_eval_batch_size=160,
        num_generations=8,
        max_completion_length=1,
        generation_kwargs={"suppress_tokens": others},
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        max_steps=14,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    made = GCPOTrainer(str(path), config, pairs, pairs_of(HELD_OUT, seed=9), processing_class=processor)
    before = made.evaluate()
    made.train()
    return made, before, made.evaluate()


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_to_prefer_losers(tmp_path_factory.mktemp("judge"))


@pytest.mark.slow
def test_a_judge_that_prefers_losers_is_turned_round(judge: Path, tmp_path: Path) -> None:
    _, before, after = trained(judge, tmp_path, pairs_of(64, seed=1))
    assert before["eval_gcpo/pair_accuracy"] < 0.2
    assert after["eval_gcpo/pair_accuracy"] > 0.8
    assert after["eval_gcpo/score_winner"] > after["eval_gcpo/score_loser"] + 1


@pytest.mark.slow
def test_shuffled_labels_teach_nothing(judge: Path, tmp_path: Path) -> None:
    made, _, after = trained(judge, tmp_path, pairs_of(64, seed=1, shuffled=True))
    shuffled = made.evaluate(pair_rows(pairs_of(HELD_OUT, seed=9, shuffled=True)))
    assert abs(shuffled["eval_gcpo/pair_accuracy"] - 0.5) < 0.2  # 2.5 standard deviations of 40 tosses
    assert after["eval_gcpo/pair_accuracy"] < 0.5
