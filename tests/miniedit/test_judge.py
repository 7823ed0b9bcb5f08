"""The verifier `rrm-mini` as it ships: small, sound by the contract, better than chance at what it was trained on."""

from __future__ import annotations

import numpy as np
import pytest

from editr1_plugins.miniedit.compounds import Compound, draw_attempt, sample_attempt, sample_compound
from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.judge import judge_path, load_judge
from editr1_plugins.miniedit.judge_texts import main_principles
from editr1_plugins.miniedit.world import draw
from editr1_plugins.plugins import resolve
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.testing import VerifierContract
from editr1_plugins.types import Edit, Principle
from editr1_plugins.verifiers.prompting import judge_request
from editr1_plugins.verifiers.transformers import TransformersVerifier

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def judge() -> TransformersVerifier:
    verifier = resolve("verifier", "rrm-mini")
    assert isinstance(verifier, TransformersVerifier)
    return verifier


def asked(edits: list[Edit]) -> list[list[Principle]]:
    return [main_principles(decompose_instruction(edit.instruction)) for edit in edits]


def edit_of(compound: Compound, edited: object) -> Edit:
    return Edit(source=draw(compound.task.scene), edited=edited, instruction=compound.task.instruction)


class TestContract(VerifierContract):
    deterministic = False  # to the last bit: sums in a padded batch round differently, see the test below

    @pytest.fixture
    def verifier(self) -> TransformersVerifier:
        return load_judge()

    @pytest.fixture
    def edits(self) -> list[Edit]:
        rng = np.random.default_rng(3)
        tasks = [sample_compound(rng, parts=1).task for _ in range(2)]
        return [Edit(source=draw(task.scene), edited=draw(task.goal), instruction=task.instruction) for task in tasks]

    @pytest.fixture
    def principles(self, edits: list[Edit]) -> list[tuple[Principle, ...]]:
        return [decompose_instruction(edit.instruction) for edit in edits]


def test_it_ships_within_five_megabytes() -> None:
    assert sum(path.stat().st_size for path in judge_path().rglob("*")) < 5 * MEGABYTE


def test_its_identity_names_no_place_of_this_machine(judge: TransformersVerifier) -> None:
    assert str(judge_path().parent) not in judge.identity


def test_it_reads_todays_prompts_in_few_tokens(judge: TransformersVerifier) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(judge_path())
    rng = np.random.default_rng(8)
    lengths = []
    for _ in range(40):
        task = sample_compound(rng).task
        edit = Edit(source=draw(task.scene), edited=draw(task.goal), instruction=task.instruction)
        request = judge_request(edit, decompose_instruction(task.instruction), "think+verify")
        lengths.append(sum(len(tokenizer(text).input_ids) for text in (request.system, *request.parts[::2])))
    # A changed prompt makes this hundreds: then the judge has to be trained anew (examples/miniature).
    assert np.mean(lengths) < 100


def test_every_reply_about_unseen_edits_has_a_score_and_all_verdicts(judge: TransformersVerifier) -> None:
    rng = np.random.default_rng(9)
    compounds = [sample_compound(rng) for _ in range(48)]
    edits = [edit_of(each, draw_attempt(each, sample_attempt(rng, each))) for each in compounds]
    found = judge.verify(edits, asked(edits))
    assert sum(each.score is None for each in found) <= 1
    assert all(0 <= each.score <= 10 for each in found if each.score is not None)
    judged = [verdict.passed is not None for each in found for verdict in each.verdicts]
    assert np.mean(judged) > 0.97


def test_neighbours_matter_no_more_than_rounding(judge: TransformersVerifier) -> None:
    rng = np.random.default_rng(12)
    compounds = [sample_compound(rng) for _ in range(6)]
    edits = [edit_of(each, draw_attempt(each, sample_attempt(rng, each))) for each in compounds]
    together = judge.verify(edits, asked(edits))
    alone = [judge.verify([edit], [questions])[0] for edit, questions in zip(edits, asked(edits), strict=True)]
    assert [each.score for each in together] == pytest.approx([each.score for each in alone], abs=1e-3)


def test_it_orders_pairs_of_unseen_edits_better_than_chance(judge: TransformersVerifier) -> None:
    rng = np.random.default_rng(10)
    right = 0
    pairs: list[tuple[Edit, Edit]] = []
    while len(pairs) < 144:
        compound = sample_compound(rng)
        images = [draw_attempt(compound, sample_attempt(rng, compound)) for _ in range(2)]
        scores = [gold_score(compound.task, image).score for image in images]
        if abs(scores[0] - scores[1]) >= 1:
            first, second = images if scores[0] > scores[1] else images[::-1]
            pairs.append((edit_of(compound, first), edit_of(compound, second)))
    edits = [edit for pair in pairs for edit in pair]
    found = [each.score for each in judge.verify(edits, asked(edits))]
    for better, worse in zip(found[::2], found[1::2], strict=True):
        if better is not None and worse is not None:
            right += better > worse
    # A judge that guesses is 2.4 standard errors below this with 144 pairs; one without a score is wrong.
    assert right > 0.6 * len(pairs)
