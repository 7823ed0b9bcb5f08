"""The remembering verifier: judged once, found again exactly, and never believed where an entry is odd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1_plugins.errors import ConfigError
from editr1_plugins.principles.cache import MemoryCache, PrincipleCache, SqliteCache
from editr1_plugins.testing import VerifierContract
from editr1_plugins.types import FOLLOW, KEEP, Edit, Principle, Verdict, Verification
from editr1_plugins.verifiers.cached import CachedVerifier

PRINCIPLES = (
    Principle(question="Is it blue?", category=FOLLOW),
    Principle(question="Is the rest the same?", category=KEEP),
)
SOURCE = Image.new("RGB", (4, 4), "red")


class Judge:
    """Scores by the number of edits judged so far, so that judging again is visible."""

    identity = "judge/1"

    def __init__(self) -> None:
        self.judged = 0

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        return [self._verify(edit, asked) for edit, asked in zip(edits, principles, strict=True)]

    def _verify(self, edit: Edit, principles: Sequence[Principle]) -> Verification:
        self.judged += 1
        if "fail" in edit.instruction or not principles:
            return Verification(score=None, failure="no_score", samples=0)
        answers = (True, None, False)
        return Verification(
            score=self.judged / 8,
            verdicts=tuple(Verdict(principle=p, passed=answers[n % 3], reason="é") for n, p in enumerate(principles)),
            average=0.5,
            trace="I saw\nit \ud83d",
            flags=("odd",),
            spread=0.25,
            samples=3,
        )


def edit(instruction: str = "make it blue", color: str = "blue") -> Edit:
    return Edit(source=SOURCE, edited=Image.new("RGB", (4, 4), color), instruction=instruction)


@pytest.fixture(params=["memory", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> PrincipleCache:
    return MemoryCache() if request.param == "memory" else SqliteCache(tmp_path / "c.sqlite")


def test_what_was_judged_is_found_exactly_and_only_the_rest_is_judged(cache: PrincipleCache) -> None:
    judge = Judge()
    cached = CachedVerifier(judge, cache)
    [first] = cached.verify([edit()], [PRINCIPLES])
    again = cached.verify([edit(color="green"), edit(), edit("make it red")], [PRINCIPLES] * 3)
    assert again[1] == first
    assert [each.score for each in again] == [2 / 8, 1 / 8, 3 / 8]
    assert judge.judged == 3


def test_anything_that_may_change_the_judgement_is_part_of_the_key(cache: PrincipleCache) -> None:
    judge = Judge()
    CachedVerifier(judge, cache).verify([edit()], [PRINCIPLES])
    other = Edit(source=Image.new("RGB", (4, 4), "white"), edited=edit().edited, instruction=edit().instruction)
    CachedVerifier(judge, cache).verify([other, edit()], [PRINCIPLES, PRINCIPLES[::-1]])
    CachedVerifier(judge, cache, identity="judge/2").verify([edit()], [PRINCIPLES])
    assert judge.judged == 4


def test_failures_are_tried_again(cache: PrincipleCache) -> None:
    judge = Judge()
    for _ in range(2):
        [found] = CachedVerifier(judge, cache).verify([edit("fail")], [PRINCIPLES])
        assert found.failure == "no_score"
    assert judge.judged == 2
    assert len(cache) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"score": 11},
        {"score": None},
        {"score": True},
        {"score": "7"},
        {"verdicts": [[True, ""]]},
        {"verdicts": [[1, ""], [0, ""]]},
        {"verdicts": 7},
        {"average": 2},
        {"flags": [7]},
        {"trace": None},
        {"samples": 1.5},
    ],
)
def test_an_odd_entry_is_judged_anew(cache: PrincipleCache, change: dict[str, Any]) -> None:
    judge = Judge()
    cached = CachedVerifier(judge, cache)
    cached.verify([edit()], [PRINCIPLES])
    key = cached._key(edit(), PRINCIPLES)
    value = cache.get_json(key)
    assert value["score"] == 1 / 8
    cache.put_json(key, {**value, **change})
    [found] = cached.verify([edit()], [PRINCIPLES])
    assert (found.score, judge.judged) == (2 / 8, 2)
    cache.put_json(key, "text")
    assert cached.verify([edit()], [PRINCIPLES])[0].score == 3 / 8


def test_a_verifier_needs_a_name() -> None:
    class Nameless:
        def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
            return []

    with pytest.raises(ConfigError, match="identity"):
        CachedVerifier(Nameless(), MemoryCache())
    assert CachedVerifier(Nameless(), MemoryCache(), identity="nameless/1").identity == "nameless/1"


class TestCachedVerifier(VerifierContract):
    deterministic = False  # the judge above counts

    @pytest.fixture
    def verifier(self) -> CachedVerifier:
        return CachedVerifier(Judge(), MemoryCache())
