"""MiniEdit's world: scenes, instructions, gold measure, data sets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.model import CALL, build_pipeline
from editr1_plugins.miniedit.pairs import edit_dataset, is_held_out, sample_pairs, sample_tasks, split_tasks
from editr1_plugins.miniedit.world import BACKGROUNDS, COLOURS, OPERATIONS, WORDS, draw, render, sample_task, to_image

TASKS = sample_tasks(300, seed=11)


def test_tasks_are_reproducible_and_cover_every_operation() -> None:
    assert sample_tasks(300, seed=11) == TASKS
    assert sample_tasks(300, seed=12) != TASKS
    assert {task.operation for task in TASKS} == set(OPERATIONS)


def test_instructions_use_the_editors_vocabulary_and_fit_its_length() -> None:
    assert {word for task in TASKS for word in task.instruction.split()} <= set(WORDS)
    tokenizer = build_pipeline().tokenizer
    lengths = [len(tokenizer(task.instruction).input_ids) for task in TASKS]
    assert max(lengths) <= CALL["max_sequence_length"]
    assert tokenizer.unk_token_id not in tokenizer(" ".join(WORDS), max_length=99).input_ids


def test_scenes_hold_what_they_say() -> None:
    for task in TASKS[:50]:
        pixels = render(task.goal)
        for shape in task.goal.shapes:
            assert np.allclose(pixels[round(shape.y), round(shape.x)], COLOURS[shape.colour], atol=1e-6)
        assert np.allclose(pixels[0, 0], BACKGROUNDS[task.goal.background])


def test_an_edit_changes_one_thing() -> None:
    for task in TASKS:
        before, after = set(task.scene.shapes), set(task.goal.shapes)
        changed = (len(before - after), len(after - before), task.scene.background != task.goal.background)
        wanted = {"recolour": (1, 1, False), "remove": (1, 0, False), "replace": (1, 1, False), "add": (0, 1, False)}
        assert changed == wanted.get(task.operation, (0, 0, True))


def test_gold_orders_edits_of_every_task() -> None:
    rng = np.random.default_rng(0)
    for task in TASKS:
        source, goal = render(task.scene), render(task.goal)
        half = gold_score(task, to_image((source + goal) / 2)).score
        assert gold_score(task, draw(task.goal)).score == 10.0
        assert 4.5 < half < 5.5
        assert gold_score(task, draw(task.scene)).score < 0.5
        assert gold_score(task, to_image(rng.random(source.shape))).score < 0.5
        assert gold_score(task, draw(task.goal).filter(ImageFilter.GaussianBlur(0.4))).score > half


def test_gold_punishes_a_lost_neighbour() -> None:
    for task in [task for task in TASKS if task.operation == "recolour" and len(task.scene.shapes) > 1]:
        changed = {shape for shape in task.goal.shapes if shape not in task.scene.shapes}
        alone = type(task.goal)(background=task.goal.background, shapes=tuple(changed))
        assert gold_score(task, to_image(render(alone))).score < 2.0


def test_gold_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="32x32, got 64x32"):
        gold_score(TASKS[0], Image.new("RGB", (64, 32)))


def test_pairs_are_wrong_as_often_as_asked() -> None:
    pairs = sample_pairs(2000, seed=1, wrong=0.5)
    untouched = sum(pair.target == pair.task.scene for pair in pairs) / len(pairs)
    right = sum(pair.target == pair.task.goal for pair in pairs) / len(pairs)
    assert untouched == pytest.approx(0.25, abs=0.03)
    assert right == pytest.approx(0.5, abs=0.04)
    assert all(pair.target == pair.task.goal for pair in sample_pairs(100, seed=2))


def test_held_out_instructions_are_kept_apart() -> None:
    kept, seen = (split_tasks(200, seed=s, held_out=h) for s, h in ((1, True), (2, False)))
    assert not {task.instruction for task in kept} & {task.instruction for task in seen}
    assert {task.operation for task in kept} == {task.operation for task in seen} == set(OPERATIONS)
    assert all(is_held_out(task.instruction) for task in kept)


def test_dataset_has_the_columns_of_an_edit_trainer() -> None:
    rows = edit_dataset(TASKS[:3])
    assert rows.column_names == ["image", "prompt"]
    assert np.array_equal(np.asarray(rows[1]["image"]), np.asarray(draw(TASKS[1].scene)))


def test_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="recolour, remove"):
        sample_task(np.random.default_rng(0), operation="paint")
