"""The fallback chain: who is asked for what, and that nobody's fault harms another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image

from editr1_plugins.errors import ConfigError
from editr1_plugins.principles.chain import FallbackDecomposer, decompose_contained
from editr1_plugins.types import FOLLOW, NoPrinciples, Principle

RED = Image.new("RGB", (4, 4), "red")


@dataclass
class Knows:
    """Serves the instructions that contain a word."""

    word: str
    asked: list[str] = field(default_factory=list)

    @property
    def identity(self) -> str:
        return f"knows-{self.word}"

    def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> list[tuple[Principle, ...]]:
        self.asked += [text for _, text in requests]
        return [
            (Principle(question=f"Is {self.word} done?", category=FOLLOW),)
            if self.word in text
            else NoPrinciples(f"not about {self.word}")
            for _, text in requests
        ]


class Acts:
    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> Any:
        return self.act()


def raises() -> None:
    raise RuntimeError("out of memory")


def test_each_request_goes_to_the_first_that_can_serve_it() -> None:
    first, second = Knows("red"), Knows("blue")
    answers = FallbackDecomposer([first, second]).decompose(
        [(RED, "blue"), (RED, "red"), (RED, "red blue"), (RED, "x")]
    )
    assert [answer[0].question if answer else None for answer in answers] == [
        "Is blue done?",
        "Is red done?",
        "Is red done?",
        None,
    ]
    assert isinstance(answers[3], NoPrinciples)
    assert answers[3].failure == "knows-red: not about red; knows-blue: not about blue"
    assert second.asked == ["blue", "x"]


@pytest.mark.parametrize("act", [raises, lambda: [], lambda: None, lambda: [(), (), ()]])
def test_a_broken_member_is_passed_over_with_its_reason(act: Callable[[], Any]) -> None:
    answers = FallbackDecomposer([Acts(act), Knows("red")]).decompose([(RED, "red"), (RED, "blue")])
    assert answers[0]
    assert isinstance(answers[1], NoPrinciples)
    assert answers[1].failure.startswith("Acts: ")


def test_an_empty_answer_without_a_reason_still_gets_one() -> None:
    [answer] = FallbackDecomposer([Acts(lambda: [()])]).decompose([(RED, "red")])
    assert isinstance(answer, NoPrinciples)
    assert answer.failure == "Acts: no principles"


def test_nothing_is_asked_for_nothing() -> None:
    assert FallbackDecomposer([Acts(raises)]).decompose([]) == []
    assert decompose_contained(Acts(raises), []) == []


def test_the_identity_names_everybody_in_order() -> None:
    one, two = Knows("red"), Knows("blue")
    assert FallbackDecomposer([one, two]).identity != FallbackDecomposer([two, one]).identity
    assert "knows-red" in FallbackDecomposer([one, two]).identity
    with pytest.raises(ConfigError):
        FallbackDecomposer([])


def test_a_chain_can_be_built_from_specs() -> None:
    chain = FallbackDecomposer.from_spec("rules | rules")
    assert len(chain.decomposers) == 2
    [principles] = chain.decompose([(RED, "make the red square blue")])
    assert principles
