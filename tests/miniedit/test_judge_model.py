"""The tiny judge's architecture and tokenizer: small, read by our own backend, few tokens for today's prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from editr1_plugins.miniedit.compounds import sample_compound
from editr1_plugins.miniedit.judge_model import (
    SIZES,
    build_judge_model,
    build_judge_processor,
    build_judge_tokenizer,
)
from editr1_plugins.miniedit.judge_texts import judge_pieces
from editr1_plugins.miniedit.teachers import NoisyTeacher
from editr1_plugins.miniedit.world import draw
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.training.traces import compose_trace
from editr1_plugins.types import Edit
from editr1_plugins.verifiers.prompting import MODES, judge_request
from editr1_plugins.verifiers.transformers import TransformersVerifier


def edits(count: int, seed: int) -> list[Edit]:
    rng = np.random.default_rng(seed)
    tasks = [sample_compound(rng).task for _ in range(count)]
    return [Edit(source=draw(task.scene), edited=draw(task.goal), instruction=task.instruction) for task in tasks]


def answers(count: int, seed: int) -> list[str]:
    made = []
    teacher = NoisyTeacher(name="spelling", flip=0.4)
    for edit in edits(count, seed):
        principles = decompose_instruction(edit.instruction)
        (told,) = teacher.verify([edit], [principles])
        assert told.score is not None
        verdicts = [verdict.passed for verdict in told.verdicts]
        made += [compose_trace(told.trace, principles, verdicts, told.average, told.score, mode) for mode in MODES]
    return made


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return build_judge_tokenizer(judge_pieces(answers(120, 1), tasks=500))


def test_prompts_of_unseen_tasks_take_few_tokens_and_come_back_as_they_were(tokenizer) -> None:
    lengths = []
    for edit in edits(60, 2):
        for mode in MODES:
            request = judge_request(edit, decompose_instruction(edit.instruction), mode)
            for text in (request.system, request.parts[0], request.parts[2]):
                assert tokenizer.decode(tokenizer(text).input_ids) == text
            lengths.append(sum(len(tokenizer(text).input_ids) for text in (request.system, *request.parts[::2])))
    assert np.mean(lengths) < 90
    assert max(lengths) < 250


def test_answers_take_few_tokens_and_come_back_as_they_were(tokenizer) -> None:
    unseen = answers(40, 3)
    lengths = [len(tokenizer(answer).input_ids) for answer in unseen]
    assert [tokenizer.decode(tokenizer(answer).input_ids) for answer in unseen] == unseen
    assert np.mean(lengths) < 60


def test_any_other_text_survives(tokenizer) -> None:
    text = 'Größe ❤ {"id": 99} <score>'
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize("size", SIZES)
def test_it_is_small_and_is_loaded_and_asked_as_any_judge(tokenizer, size: str, tmp_path: Path) -> None:
    model = build_judge_model(tokenizer, SIZES[size], seed=0)
    assert 4 * sum(parameter.numel() for parameter in model.parameters()) < 5_000_000
    model.save_pretrained(tmp_path)
    build_judge_processor(tokenizer).save_pretrained(tmp_path)
    (edit,) = edits(1, 4)
    verifier = TransformersVerifier(str(tmp_path), max_tokens=4)
    (judged,) = verifier.verify([edit], [decompose_instruction(edit.instruction)])
    assert judged.score is None  # random weights, four tokens
    assert judged.usage is not None
    assert judged.usage.prompt_tokens < 130  # both images in it: a 32x32 image is four tokens and is not resized
