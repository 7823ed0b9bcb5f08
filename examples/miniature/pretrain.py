"""The untrained model learns to look: what a downloaded VLM brings along, MiniEdit's judge has to be given.

Its exercises are the decomposer's questions, and the answers come from `measure`. First verdicts alone; then answers in
full, in every mode, whose score is ten times their average. There are no teachers in it and no preferences, and it is
the same for every mode. Verdicts weigh more than the words around them, which are learned at once; for the first 500
steps or so the model guesses, then it begins to look. With Muon for the matrices of the layers it does so after half
the steps that AdamW takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch.nn.functional import cross_entropy

from editr1_plugins.miniedit.compounds import draw_attempt, sample_attempt, sample_compound
from editr1_plugins.miniedit.judge_model import (
    SIZES,
    build_judge_model,
    build_judge_processor,
    build_judge_tokenizer,
)
from editr1_plugins.miniedit.judge_texts import judge_pieces, main_principles, some_principles
from editr1_plugins.miniedit.teachers import NoisyTeacher
from editr1_plugins.miniedit.world import draw
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.training.preference_pairs import judge_messages
from editr1_plugins.training.traces import compose_trace
from editr1_plugins.types import MAX_SCORE, Edit, Principle
from editr1_plugins.verifiers.measure import MeasureVerifier
from editr1_plugins.verifiers.prompting import MODES

WARMUP, BATCH = 30, 32
MUON_RATE, ADAM_RATE = 8e-3, 2e-3
VERDICT_WEIGHT = 5.0
# Exercises with every question of the decomposer, and with a random run of them; the others have the main ones.
ALL_QUESTIONS, OTHER_QUESTIONS = 0.15, 0.15


#: Ids of the prompt and of the answer, and the pixels of both images with their grids.
Encoded = tuple[list[int], list[int], Any]


class Exercise(NamedTuple):
    messages: list[dict[str, Any]]
    images: list[Image]
    answer: str


def exercises(count: int, seed: int) -> list[Exercise]:
    rng = np.random.default_rng(seed)
    made: list[Exercise] = []
    while len(made) < count:
        made += questions(rng)
    return made


def questions(rng: np.random.Generator) -> list[Exercise]:
    """Two edits of one task, each with questions about it and their true answers."""
    compound = sample_compound(rng)
    principles, source = decompose_instruction(compound.task.instruction), draw(compound.task.scene)
    edits = [
        Edit(
            source=source,
            edited=draw_attempt(compound, sample_attempt(rng, compound)),
            instruction=compound.task.instruction,
        )
        for _ in range(2)
    ]
    made = []
    for edit, truth in zip(edits, MeasureVerifier().verify(edits, [principles] * 2), strict=True):
        asked = _asked(rng, principles)
        passed = {verdict.principle: verdict.passed is not False for verdict in truth.verdicts}
        messages, images = judge_messages(edit, asked, MODES[int(rng.integers(len(MODES)))])
        verdicts = [passed[principle] for principle in asked]
        answer = compose_trace("", asked, verdicts, None, 1.0, "verify").partition("\n\n<score>")[0]
        made.append(Exercise(messages, images, answer))
    return made


def full_answers(count: int, seed: int) -> list[Exercise]:
    """Edits with true answers: what became of each part, verdicts, average; the score is the plainest one there is."""
    rng = np.random.default_rng(seed)
    truthful = NoisyTeacher(name="truth", flip=0.0, spread=0.0)
    made = []
    for _ in range(count):
        compound = sample_compound(rng)
        principles = decompose_instruction(compound.task.instruction)
        asked = principles if rng.random() < ALL_QUESTIONS else main_principles(principles)
        edit = Edit(
            source=draw(compound.task.scene),
            edited=draw_attempt(compound, sample_attempt(rng, compound)),
            instruction=compound.task.instruction,
        )
        (told,) = truthful.verify([edit], [asked])
        assert told.average is not None
        mode = MODES[int(rng.integers(len(MODES)))]
        messages, images = judge_messages(edit, asked, mode)
        verdicts = [verdict.passed for verdict in told.verdicts]
        score = round(2 * MAX_SCORE * told.average) / 2
        made.append(Exercise(messages, images, compose_trace(told.trace, asked, verdicts, told.average, score, mode)))
    return made


def _asked(rng: np.random.Generator, principles: Sequence[Principle]) -> Sequence[Principle]:
    chance = rng.random()
    if chance < ALL_QUESTIONS:
        return principles
    if chance < ALL_QUESTIONS + OTHER_QUESTIONS:
        return [principles[place] for place in some_principles(rng, principles)]
    return main_principles(principles)


def example_answers(seed: int, count: int = 600) -> list[str]:
    """Answers in every mode and of the exercises, for the tokenizer's pieces: every verdict both ways."""
    rng = np.random.default_rng(seed)
    teacher = NoisyTeacher(name="spelling", flip=0.4, seed=seed)
    answers = [exercise.answer for exercise in exercises(2 * count, seed)]
    for _ in range(count):
        compound = sample_compound(rng)
        image, principles = draw(compound.task.scene), decompose_instruction(compound.task.instruction)
        edit = Edit(
            source=image,
            edited=draw_attempt(compound, sample_attempt(rng, compound)),
            instruction=compound.task.instruction,
        )
        (told,) = teacher.verify([edit], [principles])
        assert told.score is not None
        verdicts = [verdict.passed for verdict in told.verdicts]
        answers += [compose_trace(told.trace, principles, verdicts, told.average, told.score, mode) for mode in MODES]
    return answers


def pretrain(folder: Path, *, size: str, seed: int, steps: int) -> None:
    """Train a model from nothing and write it, with its processor, as `from_pretrained` reads it."""
    tokenizer = build_judge_tokenizer(judge_pieces(example_answers(seed)))
    processor = build_judge_processor(tokenizer)
    model = build_judge_model(tokenizer, SIZES[size], seed=seed)
    look(model, processor, seed=seed, steps=steps)
    answer(model, processor, seed=seed, steps=steps // 4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def look(model: Any, processor: Any, *, seed: int, steps: int) -> None:
    """First verdicts alone."""
    made = [encoded(processor, exercise) for exercise in exercises(most_of(30_000, steps), seed + 1)]
    train(model, processor.tokenizer, made, seed=seed, steps=steps)
    renew_unused(model, {token for prompt, answer, _ in made for token in (*prompt, *answer)}, seed)


def answer(model: Any, processor: Any, *, seed: int, steps: int) -> None:
    """Then answers in full, in every mode, with 10 times the average as their score."""
    made = [encoded(processor, exercise) for exercise in full_answers(most_of(12_000, steps), seed + 2)]
    train(model, processor.tokenizer, made, seed=seed, steps=steps)


def most_of(count: int, steps: int) -> int:
    """No more exercises than a short trial can see."""
    return min(count, max(4 * BATCH, BATCH * steps))


def train(model: Any, tokenizer: Any, made: list[Encoded], *, seed: int, steps: int) -> None:
    made.sort(key=lambda one: len(one[0]) + len(one[1]))
    optimizers = optimizers_of(model)
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, cosine(steps)) for each in optimizers]
    verdicts = torch.tensor(tokenizer.convert_tokens_to_ids(["0", "1"]))
    rng, began = np.random.default_rng(seed), time.process_time()
    model.train()
    for step in range(steps):
        # Neighbours in length, so that little is padded.
        first = int(rng.integers(len(made) - 3 * BATCH))
        chosen = [made[first + int(place)] for place in rng.choice(3 * BATCH, BATCH, replace=False)]
        loss = loss_of(model, tokenizer.pad_token_id, verdicts, chosen)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        model.zero_grad()
        if (step + 1) % 100 == 0:
            print(
                f"pretraining: step {step + 1}, loss {loss.item():.3f}, {time.process_time() - began:.0f} CPU s",
                flush=True,
            )


@torch.no_grad()
def renew_unused(model: Any, used: set[int], seed: int) -> None:
    """Draw the embeddings of tokens that no exercise held like those of the others.

    Thousands of steps have taught the model never to say them, which SFT would have to undo: scores are among them.
    """
    rows = model.get_input_embeddings().weight
    unused = torch.tensor([token not in used for token in range(len(rows))])
    drawn = torch.randn(int(unused.sum()), rows.shape[1], generator=torch.Generator().manual_seed(seed))
    rows[unused] = rows[~unused].mean(0) + rows[~unused].std(0) * drawn


def optimizers_of(model: Any) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, norms and biases."""
    matrices = [each for name, each in model.named_parameters() if each.ndim == 2 and "embed" not in name]
    known = {id(each) for each in matrices}
    others = [each for each in model.parameters() if id(each) not in known]
    return [
        torch.optim.Muon(matrices, MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, ADAM_RATE, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def cosine(steps: int) -> Callable[[int], float]:
    return lambda step: min(1.0, (step + 1) / WARMUP) * (0.525 + 0.475 * math.cos(math.pi * step / steps))


def encoded(processor: Any, exercise: Exercise) -> Encoded:
    """Ids of the prompt and of the answer, and the pixels of both images."""
    text = processor.apply_chat_template(exercise.messages, tokenize=False, add_generation_prompt=True)
    prompt = processor(text=[text], images=[exercise.images], return_tensors="pt")
    answer = [*processor.tokenizer(exercise.answer).input_ids, processor.tokenizer.eos_token_id]
    return prompt["input_ids"][0].tolist(), answer, (prompt["pixel_values"], prompt["image_grid_thw"])


def loss_of(model: Any, pad: int, verdicts: torch.Tensor, examples: list[Encoded]) -> torch.Tensor:
    left = max(len(prompt) for prompt, _, _ in examples)
    right = max(len(answer) for _, answer, _ in examples)
    ids = torch.full((len(examples), left + right), pad)
    for row, (prompt, answer, _) in enumerate(examples):
        ids[row, left - len(prompt) : left] = torch.tensor(prompt)
        ids[row, left : left + len(answer)] = torch.tensor(answer)
    logits = model(
        input_ids=ids,
        attention_mask=(ids != pad).long(),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        pixel_values=torch.cat([pixels for _, _, (pixels, _) in examples]),
        image_grid_thw=torch.cat([grid for _, _, (_, grid) in examples]),
        use_cache=False,
        logits_to_keep=right + 1,
    ).logits[:, :-1]
    answers = ids[:, left:]
    weights = (answers != pad) * torch.where(torch.isin(answers, verdicts), VERDICT_WEIGHT, 1.0)
    return (cross_entropy(logits.transpose(1, 2), answers, reduction="none") * weights).sum() / (answers != pad).sum()
