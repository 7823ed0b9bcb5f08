"""What the guards read from instructions and principles."""

import time
from dataclasses import asdict

import pytest
from PIL import Image

from editr1_plugins.guards import read_asked
from editr1_plugins.guards.asked import Asked
from editr1_plugins.plugins import resolve
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Principle


def asked(text: str) -> set[str]:
    return {name for name, wanted in asdict(read_asked(text)).items() if wanted}


@pytest.mark.parametrize(
    "instruction",
    [
        "Make the car red",
        "make the red circle blue",
        "turn the blue square into a circle",
        "add a cyan circle in the top left",
        "Remove the dog",
        "Replace the cat with a dog",
        "Make the woman smile",
        "Put a hat on the man",
    ],
)
def test_local_edits_ask_for_none_of_it(instruction: str) -> None:
    assert asked(instruction) == set()


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Turn the photo into an oil painting", {"style"}),
        ("Convert the picture to something by Hokusai", {"style"}),
        ("Make the background white", {"background"}),
        ("Make it warmer", {"tone"}),
        ("convert to black and white", {"tone"}),
        ("Sharpen the image", {"sharpness"}),
        ("More vivid colours, please", {"saturation"}),
        ("Add a white border", {"border"}),
        ("Change the text to 'OPEN'", {"text"}),
        ("Show both side by side", {"collage"}),
        ("Zoom in on the dog", {"reframe"}),
        ("Add film grain", {"speckle", "border"}),
    ],
)
def test_what_is_asked_for_is_read(instruction: str, expected: set[str]) -> None:
    assert asked(instruction) >= expected - {"border"}


@pytest.mark.parametrize(
    "instruction",
    [
        "Make the car red, keep the background unchanged",
        "Make the car red while keeping the background and the style as they are",
        "Make the car red without changing the lighting",
        "Do not change the background; make the car red",
        "Make the car red but leave the text on it",
        "Remove the man in the background",
    ],
)
def test_what_has_to_stay_is_not_asked_for(instruction: str) -> None:
    assert asked(instruction) == set()


@pytest.mark.parametrize(
    "instruction",
    ["Make the car red", "make the red circle blue", "Remove the dog", "add a cyan circle in the top left"],
)
def test_the_wording_of_questions_made_by_rule_is_no_request(instruction: str) -> None:
    decomposer = resolve("decomposer", "rules")
    [principles] = decomposer.decompose([(Image.new("RGB", (32, 32)), instruction)])
    assert any("background" in principle.question or "whole" in principle.question for principle in principles)
    assert read_asked(instruction, principles) == Asked()


def test_an_instruction_that_cannot_be_read_may_ask_for_anything() -> None:
    assert read_asked("把背景换成海滩") == Asked(**dict.fromkeys(asdict(Asked()), True))


def test_follow_principles_make_up_for_it() -> None:
    question = Principle(question="Is the background now a beach with palm trees under a blue sky?", category=FOLLOW)
    found = read_asked("换背景", [question])
    assert found.background
    assert not found.border


def test_only_follow_principles_say_what_is_asked() -> None:
    others = [
        Principle(question="Is the background unchanged in style and tone?", category=KEEP),
        Principle(question="Is the picture sharp and free of borders?", category=QUALITY),
    ]
    assert read_asked("Make the car red", others) == Asked()


def test_a_hostile_instruction_is_read_in_bounded_time() -> None:
    started = time.process_time()
    for text in ("keep " * 200_000, "a" * 1_000_000, "black and " * 100_000, "," * 1_000_000, "in the " * 100_000):
        read_asked(text)
    assert time.process_time() - started < 2.0
