"""The pool of worked examples: what it covers, and that every principle in it has the form that we ask models for."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from editr1_plugins.errors import DataError
from editr1_plugins.principles.answers import COUNTS, MAX_QUESTION, is_yes_no, read_principles
from editr1_plugins.principles.exemplars import KINDS, TRAITS, Exemplar, draw, load_exemplars

POOL = load_exemplars()
QUESTIONS = [(exemplar.name, each.question) for exemplar in POOL for each in exemplar.principles]


def test_there_are_sixty_and_none_twice() -> None:
    assert len(POOL) == 60
    for texts in ([each.name for each in POOL], [each.instruction for each in POOL], [each.source for each in POOL]):
        assert len({text.casefold() for text in texts}) == 60


def test_every_kind_of_edit_and_every_hard_trait_is_covered() -> None:
    kinds = Counter(each.kind for each in POOL)
    assert set(kinds) == set(KINDS)
    assert len(KINDS) == 11
    assert min(kinds.values()) >= 5
    traits = Counter(trait for each in POOL for trait in each.traits)
    assert set(traits) == set(TRAITS)
    assert min(traits.values()) >= 10


@pytest.mark.parametrize("exemplar", POOL, ids=lambda each: each.name)
def test_each_would_pass_our_own_check_of_a_model(exemplar: Exemplar) -> None:
    rows = [{"question": each.question, "category": each.category} for each in exemplar.principles]
    assert read_principles(json.dumps(rows)) == exemplar.principles
    categories = [each.category for each in exemplar.principles]
    assert categories == sorted(categories, key=list(COUNTS).index)


def test_questions_are_single_specific_and_their_yes_is_good() -> None:
    for name, question in QUESTIONS:
        assert is_yes_no(question), (name, question)
        assert len(question) <= min(MAX_QUESTION, 160), (name, question)
        assert question.count("?") == 1, (name, question)
        assert len(question.split()) >= 4, (name, question)
        assert not re.search(r"\b(instruction|as requested|the edit|looks? good|high quality)\b", question), (
            name,
            question,
        )


def test_questions_are_written_for_their_exemplar_not_pasted() -> None:
    counts = Counter(question.casefold() for _, question in QUESTIONS)
    assert [question for question, count in counts.items() if count > 1] == []


def test_text_is_plain() -> None:
    for exemplar in POOL:
        for text in (exemplar.instruction, exemplar.source, *(each.question for each in exemplar.principles)):
            assert text == " ".join(text.split())
            assert not re.search(r"[<>|{}\\]", text)


def test_the_draw_depends_on_seed_and_key_alone_and_reaches_the_whole_pool() -> None:
    assert draw(POOL, 4, 0, "key") == draw(tuple(reversed(POOL)), 4, 0, "key")
    assert [each.name for each in draw(POOL, 4, 0, "key")] == FIRST_DRAW
    assert draw(POOL, 4, 1, "key") != draw(POOL, 4, 0, "key") != draw(POOL, 4, 0, "other")
    drawn = Counter(each.name for key in range(300) for each in draw(POOL, 4, 0, str(key)))
    assert len(drawn) == 60
    assert max(drawn.values()) < 4 * min(drawn.values()) + 10
    assert all(len({each.name for each in draw(POOL, 4, 0, str(key))}) == 4 for key in range(50))


#: Written down once: the same on every machine and Python, or caches and runs would not be reproducible.
FIRST_DRAW = ["red-lipstick", "passport-photo", "portrait-mosaic", "fog-morning"]


def test_an_own_pool_can_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    row = {
        "name": "one",
        "kind": "motion change",
        "traits": ["local"],
        "instruction": "Raise the arm.",
        "source": "A man.",
        "principles": [{"question": "Is the arm raised?", "category": "Instruction Following"}],
    }
    path.write_text(json.dumps([row]))
    assert load_exemplars(path)[0].principles[0].question == "Is the arm raised?"
    for broken in (
        [],
        "text",
        [row, row],
        [{**row, "kind": "other"}],
        [{**row, "traits": ["easy"]}],
        [{**row, "principles": []}],
        [{**row, "principles": [{"question": "?"}]}],
        [{"name": "x"}],
        ["x"],
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match=re.escape(str(path))):
            load_exemplars(path)
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="JSON"):
        load_exemplars(path)
    with pytest.raises(DataError, match="cannot read"):
        load_exemplars(tmp_path / "missing.json")
