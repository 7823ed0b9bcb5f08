"""What an instruction is like, measured on the sixty worked examples, whose traits people wrote down."""

import time

import pytest

from editr1_plugins.principles.exemplars import load_exemplars
from editr1_plugins.training.coldstart.config import TRAITS
from editr1_plugins.training.coldstart.traits import category_of, traits_of


def test_most_hard_examples_are_found_and_few_simple_ones_are_called_hard() -> None:
    examples = load_exemplars()
    hard = [bool(traits_of(each.instruction)) for each in examples if each.traits]
    simple = [bool(traits_of(each.instruction)) for each in examples if not each.traits]
    assert sum(hard) / len(hard) > 0.75
    assert sum(simple) / len(simple) < 0.35


@pytest.mark.parametrize(
    ("instruction", "category", "trait"),
    [
        ("make the red circle blue", "recolour", None),
        ("remove the dog", "remove", None),
        ("make the image warmer", "tone", None),
        ("remove the dog and make the ball red", "compound", "multi-step"),
        ("remove the dog and the cat", "remove", "multi-step"),
        ("Lighten his hair; then shave off the beard", "other", "multi-step"),
        ("brighten the buttons on her coat slightly", "other", "fine-grained"),
        ("She needs a photo that the passport office will accept.", "other", "implicit"),
        ("move the cup 20 pixels to the left", "other", "spatial"),
        ("Пожалуйста", "other", "implicit"),
    ],
)
def test_categories_and_traits(instruction: str, category: str, trait: str | None) -> None:
    assert category_of(instruction) == category
    found = traits_of(instruction)
    assert (trait in found) if trait else not found
    assert list(found) == [each for each in TRAITS if each in found]


def test_an_absurd_instruction_costs_little() -> None:
    started = time.monotonic()
    for text in ("a " * 50_000, "and, " * 20_000, ": a" * 20_000, "the " * 10_000 + "left"):
        traits_of(text)
    assert time.monotonic() - started < 20.0
