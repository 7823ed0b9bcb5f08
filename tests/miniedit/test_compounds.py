"""Instructions of several parts: what they ask for, what both judges make of it, and edits wrong in known ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageChops

from editr1_plugins.miniedit.compounds import Attempt, Compound, draw_attempt, sample_attempt, sample_compound
from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.teachers import NoisyTeacher
from editr1_plugins.miniedit.world import draw
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.testing.contracts import VerifierContract
from editr1_plugins.types import FOLLOW, KEEP, Edit, Principle
from editr1_plugins.verifiers.measure import MeasureVerifier


def compounds(count: int, seed: int, *, parts: int | None = None) -> list[Compound]:
    rng = np.random.default_rng(seed)
    return [sample_compound(rng, parts=parts) for _ in range(count)]


def perfect(compound: Compound) -> Attempt:
    return Attempt(done=(1.0,) * len(compound.parts), wrong=(None,) * len(compound.parts))


def test_the_same_seed_gives_the_same_tasks_and_edits() -> None:
    assert compounds(20, 3) == compounds(20, 3) != compounds(20, 4)
    (compound,) = compounds(1, 5)
    first, second = (sample_attempt(np.random.default_rng(6), compound) for _ in range(2))
    assert first == second
    assert draw_attempt(compound, first).tobytes() == draw_attempt(compound, second).tobytes()


@pytest.mark.parametrize("parts", [1, 2])
def test_every_instruction_is_understood_and_names_each_part(parts: int) -> None:
    for compound in compounds(100, 7, parts=parts):
        assert len(compound.parts) == parts
        assert all(part.text in compound.task.instruction for part in compound.parts)
        principles = decompose_instruction(compound.task.instruction)
        assert len([principle for principle in principles if principle.category == FOLLOW]) >= 2 * parts


def test_gold_gives_the_goal_10_and_the_copy_nothing() -> None:
    for compound in compounds(100, 8):
        assert gold_score(compound.task, draw(compound.task.goal)).score == 10.0
        assert gold_score(compound.task, draw(compound.task.scene)).score < 0.6


def test_measure_accepts_the_goal_and_refuses_the_copy() -> None:
    scores = []
    for compound in compounds(40, 9):
        source = draw(compound.task.scene)
        images = (draw(compound.task.goal), source)
        edits = [Edit(source=source, edited=image, instruction=compound.task.instruction) for image in images]
        goal, copy = MeasureVerifier().verify(edits, [decompose_instruction(compound.task.instruction)] * 2)
        assert copy.score == 0.0
        assert goal.score is not None
        scores.append(goal.score)
    assert min(scores) > 8


def test_an_attempt_that_does_everything_draws_the_goal() -> None:
    for compound in compounds(60, 10):
        drawn = draw_attempt(compound, perfect(compound))
        difference = ImageChops.difference(drawn, draw(compound.task.goal))
        assert max(top for _, top in difference.getextrema()) <= 1


def test_each_fault_costs_gold() -> None:
    for compound in compounds(40, 11):
        whole = perfect(compound)
        faults = [
            replace(whole, done=(0.0, *whole.done[1:])),
            replace(whole, noise=0.15),
            replace(whole, tint=(0.2, -0.2, 0.2)),
        ]
        kept = [shape for shape in compound.task.scene.shapes if shape in compound.task.goal.shapes]
        if kept:
            faults.append(replace(whole, other=(kept[0], None)))
        for fault in faults:
            assert gold_score(compound.task, draw_attempt(compound, fault)).score < 9.7


def test_drawn_attempts_are_wrong_in_every_way() -> None:
    rng = np.random.default_rng(12)
    attempts = [sample_attempt(rng, sample_compound(rng)) for _ in range(300)]
    for share in (
        np.mean([attempt.other is not None for attempt in attempts]),
        np.mean([any(attempt.tint) for attempt in attempts]),
        np.mean([attempt.noise > 0 for attempt in attempts]),
        np.mean([attempt.blur > 0 for attempt in attempts]),
        np.mean([any(attempt.wrong) for attempt in attempts]),
        np.mean([0 < min(attempt.done) < 1 for attempt in attempts]),
    ):
        assert 0.05 < share < 0.6


class TestNoisyTeacher:
    def judged(self, teacher: NoisyTeacher, count: int = 60) -> list[tuple[float, float, float]]:
        """(share of verdicts turned round, score, score of measure)"""
        rng, found = np.random.default_rng(13), []
        for compound in compounds(count, 14):
            edited = draw_attempt(compound, sample_attempt(rng, compound))
            edit = Edit(source=draw(compound.task.scene), edited=edited, instruction=compound.task.instruction)
            principles = decompose_instruction(compound.task.instruction)
            (told,), (true,) = teacher.verify([edit], [principles]), MeasureVerifier().verify([edit], [principles])
            assert told.score is not None
            assert true.score is not None
            pairs = [
                (ours.passed, theirs.passed)
                for ours, theirs in zip(told.verdicts, true.verdicts, strict=True)
                if theirs.passed is not None
            ]
            found.append((float(np.mean([ours != theirs for ours, theirs in pairs])), told.score, true.score))
        return found

    def test_it_turns_round_the_share_of_verdicts_it_is_told_to(self) -> None:
        assert np.mean([flipped for flipped, _, _ in self.judged(NoisyTeacher(name="a", flip=0.0))]) == 0
        assert 0.04 < np.mean([flipped for flipped, _, _ in self.judged(NoisyTeacher(name="a", flip=0.08))]) < 0.13

    def test_blindness_takes_less_off_for_what_was_not_kept(self) -> None:
        exact = {"flip": 0.0, "spread": 0.0}
        mild = np.mean([score for _, score, _ in self.judged(NoisyTeacher(name="a", blindness=0.0, **exact))])
        strict = np.mean([score for _, score, _ in self.judged(NoisyTeacher(name="a", blindness=1.0, **exact))])
        assert mild > strict + 0.3

    def test_it_names_the_parts_in_their_order_and_nothing_else(self) -> None:
        teacher = NoisyTeacher(name="a", flip=0.0)
        for compound in compounds(30, 15, parts=2):
            source = draw(compound.task.scene)
            edit = Edit(source=source, edited=draw(compound.task.goal), instruction=compound.task.instruction)
            principles = decompose_instruction(compound.task.instruction)
            (told,) = teacher.verify([edit], [principles])
            lines = told.trace.splitlines()
            assert len(lines) == 2
            assert all(line.endswith(": done") for line in lines)
            assert sum(principle.category == KEEP for principle in principles) >= 2

    def test_questions_it_does_not_know_give_no_score(self) -> None:
        (compound,) = compounds(1, 16)
        image = draw(compound.task.scene)
        edit = Edit(source=image, edited=image, instruction=compound.task.instruction)
        (told,) = NoisyTeacher(name="a").verify([edit], [()])
        assert told.score is None
        assert told.failure


class TestTeacherIsAVerifier(VerifierContract):
    @pytest.fixture
    def verifier(self) -> NoisyTeacher:
        return NoisyTeacher(name="a")

    @pytest.fixture
    def edits(self) -> list[Edit]:
        tasks = [compound.task for compound in compounds(3, 17)]
        return [Edit(source=draw(task.scene), edited=draw(task.goal), instruction=task.instruction) for task in tasks]

    @pytest.fixture
    def principles(self, edits: list[Edit]) -> list[tuple[Principle, ...]]:
        return [decompose_instruction(edit.instruction) for edit in edits]
