"""The decomposer `rules`: what it understands, what it refuses, and that its questions can be read back."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from editr1_plugins.principles.clauses import Change
from editr1_plugins.principles.phrases import KINDS, Ask, category_of, parse_question, render, subject_of
from editr1_plugins.principles.reading import MAX_INSTRUCTION, NotUnderstoodError, read_instruction
from editr1_plugins.principles.rules import RulesDecomposer, decompose_instruction
from editr1_plugins.principles.words import PLACES, TONES, colour_name, place_name, read_thing
from editr1_plugins.types import CATEGORIES, FOLLOW, KEEP, QUALITY, Decomposer, NoPrinciples


def recolour(what: str, value: str) -> Change:
    return Change(operation="recolour", what=what, value=value)


def remove(what: str) -> Change:
    return Change(operation="remove", what=what)


def replace(what: str, value: str) -> Change:
    return Change(operation="replace", what=what, value=value)


def add(value: str, where: str = "") -> Change:
    return Change(operation="add", value=value, where=where)


def ground(value: str) -> Change:
    return Change(operation="background", what="the background", value=value)


def tone(value: str) -> Change:
    return Change(operation="tone", value=value)


def text(value: str, old: str = "") -> Change:
    return Change(operation="text", what=old, value=value)


def text_added(value: str, where: str = "") -> Change:
    return Change(operation="text_added", value=value, where=where)


def text_removed(old: str = "") -> Change:
    return Change(operation="text_removed", what=old)


def style(value: str) -> Change:
    return Change(operation="style", value=value)


UNDERSTOOD: list[tuple[str, list[Change]]] = [
    # recolour
    ("make the red circle blue", [recolour("the red circle", "blue")]),
    ("Make the red circle blue.", [recolour("the red circle", "blue")]),
    ("turn the sky orange", [recolour("the sky", "orange")]),
    ("paint the house white", [recolour("the house", "white")]),
    ("colour the car yellow", [recolour("the car", "yellow")]),
    ("change the colour of the car to green", [recolour("the car", "green")]),
    ("change the color of the red circle from red to blue", [recolour("the red circle", "blue")]),
    ("change the car's color to light blue", [recolour("the car", "light blue")]),
    ("change the car to red", [recolour("the car", "red")]),
    ("change the car from blue to red", [recolour("the car", "red")]),
    ("recolor the dress to dark green", [recolour("the dress", "dark green")]),
    ("make the sofa grey", [recolour("the sofa", "gray")]),
    ("make the shirt sky blue", [recolour("the shirt", "light blue")]),
    ("give the car a red colour", [recolour("the car", "red")]),
    ("the car should be red", [recolour("the car", "red")]),
    ("I want the car to be red", [recolour("the car", "red")]),
    ("could you please make the red circle blue?", [recolour("the red circle", "blue")]),
    ("make all circles green", [recolour("all circles", "green")]),
    ("make the orange blue", [recolour("the orange", "blue")]),
    ("make the square in the top left red", [recolour("the square in the top left", "red")]),
    ("turn the man's jacket black", [recolour("the man's jacket", "black")]),
    # remove
    ("remove the red circle", [remove("the red circle")]),
    ("delete the red circle", [remove("the red circle")]),
    ("erase the man on the left", [remove("the man on the left")]),
    ("get rid of the blue square", [remove("the blue square")]),
    ("take away the chair", [remove("the chair")]),
    ("eliminate the text", [text_removed()]),
    ("remove all of the text from the image", [text_removed()]),
    ("remove the person from the image", [remove("the person")]),
    ("please remove the dog, thanks", [remove("the dog")]),
    ("make the red circle disappear", [remove("the red circle")]),
    ("remove the orange", [remove("the orange")]),
    ("remove the man with the hat", [remove("the man with the hat")]),
    ('remove the text "SALE"', [text_removed("SALE")]),
    ('remove the words "SALE" from the sign', [text_removed("SALE")]),
    ("delete the word SALE", [text_removed("SALE")]),
    ('erase "SALE"', [text_removed("SALE")]),
    ("remove both squares", [remove("both squares")]),
    # add
    ("add a blue square in the top left", [add("a blue square", "top left")]),
    ("add a blue square in the top left corner of the image", [add("a blue square", "top left")]),
    ("put a blue square in the upper-left corner", [add("a blue square", "top left")]),
    ("place a red ball at the bottom right", [add("a red ball", "bottom right")]),
    ("add a blue square top left", [add("a blue square", "top left")]),
    ("draw a yellow triangle in the middle", [add("a yellow triangle", "centre")]),
    ("insert a cat on the left side", [add("a cat", "left")]),
    ("in the top right, add a green circle", [add("a green circle", "top right")]),
    ("add a red circle", [add("a red circle")]),
    ("add red circle", [add("a red circle")]),
    ("add a hat on the dog", [add("a hat on the dog")]),
    ("add some flowers", [add("some flowers")]),
    ("add rain", [add("rain")]),
    ("add another tree to the image", [add("another tree")]),
    # replace, turn into
    ("replace the dog with a cat", [replace("the dog", "a cat")]),
    ("replace the dog by a cat", [replace("the dog", "a cat")]),
    ("swap the dog for a cat", [replace("the dog", "a cat")]),
    ("turn the red circle into a square", [replace("the red circle", "a square")]),
    ("change the red circle into a blue square", [replace("the red circle", "a blue square")]),
    ("transform the car into a spaceship", [replace("the car", "a spaceship")]),
    ("make the red circle a square", [replace("the red circle", "a square")]),
    ("change the shape of the red circle to a triangle", [replace("the red circle", "a triangle")]),
    ("replace the red circle with a blue one", [replace("the red circle", "a blue circle")]),
    ("the dog should be a cat", [replace("the dog", "a cat")]),
    ("replace the red circle with blue", [recolour("the red circle", "blue")]),
    # background
    ("make the background white", [ground("white")]),
    ("change the background to black", [ground("black")]),
    ("change the background colour to light gray", [ground("light gray")]),
    ("change the background from white to black", [ground("black")]),
    ("turn the background green", [ground("green")]),
    ("set the background to plain white", [ground("white")]),
    ("give it a white background", [ground("white")]),
    ("use a black background", [ground("black")]),
    ("change the background to a beach", [ground("a beach")]),
    ("replace the background with a snowy mountain", [ground("a snowy mountain")]),
    ("the background should be blue", [ground("blue")]),
    # tone
    ("make the image warmer", [tone("warmer")]),
    ("make it warmer", [tone("warmer")]),
    ("make the photo much cooler", [tone("cooler")]),
    ("make the colors of the photo colder", [tone("cooler")]),
    ("give the image a warmer tone", [tone("warmer")]),
    ("apply a warm filter", [tone("warmer")]),
    ("warm up the photo", [tone("warmer")]),
    ("cool down the image", [tone("cooler")]),
    ("make the image brighter", [tone("brighter")]),
    ("brighten the image", [tone("brighter")]),
    ("lighten the picture", [tone("brighter")]),
    ("brighten up the whole photo", [tone("brighter")]),
    ("increase the brightness", [tone("brighter")]),
    ("increase the exposure of the photo", [tone("brighter")]),
    ("reduce the brightness of the image", [tone("darker")]),
    ("make the picture look darker", [tone("darker")]),
    ("darken the image", [tone("darker")]),
    ("make the lighting dimmer", [tone("darker")]),
    ("convert to grayscale", [tone("black and white")]),
    ("make it black and white", [tone("black and white")]),
    ("turn the photo into black and white", [tone("black and white")]),
    ("convert the image to a black-and-white photo", [tone("black and white")]),
    ("remove all colour", [tone("black and white")]),
    ("remove the colors from the photo", [tone("black and white")]),
    ("make the image monochrome", [tone("black and white")]),
    ("make the image more saturated", [tone("more saturated")]),
    ("make the colors more vivid", [tone("more saturated")]),
    ("boost the saturation", [tone("more saturated")]),
    ("increase the color saturation of the picture", [tone("more saturated")]),
    ("make the photo less colourful", [tone("less saturated")]),
    ("desaturate the photo", [tone("less saturated")]),
    ("lower the saturation", [tone("less saturated")]),
    # text
    ('change the text "SALE" to "OPEN"', [text("OPEN", "SALE")]),
    ("change the text 'SALE' to 'OPEN'", [text("OPEN", "SALE")]),
    ("replace the word “Sale” with “Now Open”", [text("Now Open", "Sale")]),
    ('change "SALE" to "OPEN"', [text("OPEN", "SALE")]),
    ('change the text on the sign from "SALE" to "OPEN"', [text("OPEN", "SALE")]),
    ("change the text SALE to OPEN", [text("OPEN", "SALE")]),
    ('make the sign say "OPEN"', [text("OPEN")]),
    ('change the title to "The End"', [text("The End")]),
    ("change the sign to OPEN", [text("OPEN")]),
    ('write "HELLO" on the wall', [text_added("HELLO", "on the wall")]),
    ('add "HELLO" to the sign', [text_added("HELLO", "on the sign")]),
    ('add the text "HELLO" at the bottom', [text_added("HELLO", "bottom")]),
    ('write "HELLO" in the upper left corner', [text_added("HELLO", "top left")]),
    ('add the text "HELLO" to the image', [text_added("HELLO")]),
    ('add a caption that says "HELLO"', [text_added("HELLO")]),
    ("write HELLO at the top", [text_added("HELLO", "top")]),
    ("change the text „SALE“ to «OPEN»", [text("OPEN", "SALE")]),
    ("change the text 「SALE」 to 『OPEN』", [text("OPEN", "SALE")]),
    ("change \u2039SALE\u203a into \uff02OPEN\uff02", [text("OPEN", "SALE")]),
    ("change the text 'Don\u2019t stop' to 'Let's go'", [text("Let's go", "Don't stop")]),
    ('change the text "SALE" to "欢迎光临"', [text("欢迎光临", "SALE")]),
    ('change the text "black and white" to "red and blue"', [text("red and blue", "black and white")]),
    ('change the text "SALE" so that it says "OPEN"', [text("OPEN", "SALE")]),
    ('the text should say "OPEN"', [text("OPEN")]),
    ('change the sign\'s text to "OPEN"', [text("OPEN")]),
    ('change the number "5" to "7"', [text("7", "5")]),
    ('make the sign say "OPEN" instead of "SALE"', [text("OPEN", "SALE")]),
    ('rewrite the text as "OPEN"', [text("OPEN")]),
    ('correct the spelling of "RECIEVE" to "RECEIVE"', [text("RECEIVE", "RECIEVE")]),
    ('add a sign saying "HELLO"', [add('a sign saying "HELLO"')]),
    # style
    ("in the style of van Gogh", [style("van Gogh")]),
    ("make the image in the style of Studio Ghibli", [style("Studio Ghibli")]),
    ("make it look like a watercolor", [style("watercolor")]),
    ("make it look like a watercolor painting", [style("watercolor painting")]),
    ("turn the image into an oil painting", [style("oil painting")]),
    ("convert the photo to anime style", [style("anime style")]),
    ("apply a comic book style to the image", [style("comic book")]),
    ("render it as a pencil sketch", [style("pencil sketch")]),
    ("make the photo look like it was painted by Monet", [style("Monet")]),
    # several at once
    ("make the circle blue and the square red", [recolour("the circle", "blue"), recolour("the square", "red")]),
    ("remove the dog and the cat", [remove("the dog"), remove("the cat")]),
    ("remove the dog, the cat and the bird", [remove("the dog"), remove("the cat"), remove("the bird")]),
    (
        "make the red circle and the green square blue",
        [recolour("the red circle", "blue"), recolour("the green square", "blue")],
    ),
    (
        "make the red circle blue, then remove the green square",
        [recolour("the red circle", "blue"), remove("the green square")],
    ),
    ("remove the car; make the background white", [remove("the car"), ground("white")]),
    ("Remove the car. Make the image brighter.", [remove("the car"), tone("brighter")]),
    (
        "make the red circle blue and turn it into a square",
        [recolour("the red circle", "blue"), replace("the red circle", "a square")],
    ),
    ("make the image warmer and brighter", [tone("warmer"), tone("brighter")]),
    ("make it black and white and remove the dog", [tone("black and white"), remove("the dog")]),
    (
        "add a red circle in the top left and a blue square in the bottom right",
        [add("a red circle", "top left"), add("a blue square", "bottom right")],
    ),
]
REFUSED = [
    "",
    "   ",
    "!!!",
    "把红色的圆变成蓝色",
    "make it better",
    "make the image nicer",
    "make it pop",
    "fix it",
    "enhance",
    "do something",
    "what is in the image?",
    "rotate the image",
    "crop the image",
    "move the circle to the left",
    "make the circle bigger",
    "make the dog happy",
    "make the man smile",
    "blur the background",
    "remove the background",
    "change the background",
    "change the colour of the car",
    "change the text",
    "remove it",
    "make it blue",
    "make the image blue",
    "make the car brighter",
    "make the car darker and the house blue",
    "don't remove the circle",
    "do not change anything",
    "make the circle blue or green",
    "remove everything except the dog",
    "make the image slightly warmer",
    "make it a bit brighter",
    "increase the brightness by 20%",
    "turn the day into night",
    "swap the dog and the cat",
    "replace the man with the hat with a dog",
    "make the sky look dramatic",
    "make the circle blue and bigger",
    "make the circle blue and make it brighter",
    "remove the dog and make it better",
    "add a red circle and a blue square in the top left",
    "make the image look like a dream",
    "remove something",
    "x" * (MAX_INSTRUCTION + 1),
    "remove the a, the b, the c, the d, the e, the f, the g and the h",
]


@pytest.mark.parametrize(("instruction", "changes"), UNDERSTOOD, ids=[row[0] for row in UNDERSTOOD])
def test_reads(instruction: str, changes: list[Change]) -> None:
    assert list(read_instruction(instruction)) == changes


@pytest.mark.parametrize(("instruction", "changes"), UNDERSTOOD, ids=[row[0] for row in UNDERSTOOD])
def test_what_is_read_becomes_principles(instruction: str, changes: list[Change]) -> None:
    principles = decompose_instruction(instruction)
    assert not isinstance(principles, NoPrinciples), principles
    count = {category: sum(p.category == category for p in principles) for category in CATEGORIES}
    assert 2 * len(changes) <= count[FOLLOW] <= 4 * len(changes)
    assert 2 <= count[KEEP] <= 5 + len(changes)
    assert count[QUALITY] == 3
    assert all(p.question.endswith("?") for p in principles)
    assert len({p.question for p in principles}) == len(principles)


@pytest.mark.parametrize("instruction", REFUSED, ids=[row[:40] for row in REFUSED])
def test_refuses_what_it_does_not_understand(instruction: str) -> None:
    principles = decompose_instruction(instruction)
    assert isinstance(principles, NoPrinciples)
    assert len(principles) == 0
    assert principles.failure.startswith("rules decomposer: ")
    assert len(principles.failure) < 600


def test_a_refusal_names_the_part_that_was_not_understood() -> None:
    failure = decompose_instruction("remove the dog and make the cat happier").failure  # type: ignore[attr-defined]
    assert "make the cat happier" in failure


def test_the_table_is_large() -> None:
    assert len(UNDERSTOOD) + len(REFUSED) >= 150


def test_a_request_is_answered_in_order_and_the_image_is_not_read() -> None:
    decomposer: Decomposer = RulesDecomposer()
    image = Image.new("RGB", (1, 1))
    principles = decomposer.decompose([(image, "remove the dog"), (image, "fix it"), (image, "make it warmer")])
    assert [bool(each) for each in principles] == [True, False, True]
    assert principles[0] == decompose_instruction("remove the dog")
    assert pickle.loads(pickle.dumps(decomposer)).decompose([(image, "remove the dog")]) == principles[:1]
    assert RulesDecomposer.identity == "rules/2"


def test_principles_ask_about_the_thing_and_the_colour() -> None:
    questions = [p.question for p in decompose_instruction("make the red circle blue")]
    assert questions[0] == "Is the red circle now blue in colour?"
    assert "Apart from the red circle, has every object kept its colour?" in questions
    assert "Has the red circle kept its form, size and place?" in questions


def test_what_changes_is_not_asked_to_stay() -> None:
    reshaped = decompose_instruction("make the red circle blue and turn it into a square")
    assert not any(
        "kept its form, size and place?" in p.question and "Has the red circle" in p.question for p in reshaped
    )
    assert not any("kept the colour of the red circle" in p.question for p in reshaped)
    recoloured_ground = decompose_instruction("make the background white")
    assert not any("background the same as before" in p.question for p in recoloured_ground)
    brighter = decompose_instruction("make it brighter")
    assert not any("as bright as" in p.question for p in brighter)


# --- the shared grammar ----------------------------------------------------------------------------------------------

_PLAIN_WORDS = [
    "the",
    "a",
    "red",
    "circle",
    "dog",
    "is",
    "now",
    "gone",
    "of",
    "where",
    "was",
    "kept",
    "image",
    "and",
    "place",
    "every",
    "unchanged",
]
_PLAIN_WORDS = "the a red circle dog is now gone of where was kept image and place every"
_NOUNS = st.lists(st.sampled_from(_PLAIN_WORDS.split(" ")), min_size=1, max_size=4).map(" ".join)


@given(kind=st.sampled_from(KINDS), what=_NOUNS, value=_NOUNS, where=st.sampled_from(sorted(PLACES)))
@settings(max_examples=200, deadline=None)
def test_every_question_reads_back_as_what_was_asked(kind: str, what: str, value: str, where: str) -> None:
    slots = {"what": what, "value": value, "where": where}
    blank = parse_question(_any_question(kind))
    assert blank is not None
    ask = Ask(kind=kind, **{slot: slots[slot] for slot in slots if getattr(blank, slot)})
    try:
        principle = render(ask)
    except ValueError:
        return  # refused, because it would read as another question
    assert parse_question(principle.question) == ask
    assert parse_question("  " + principle.question.upper().replace(" ", "  ")) is not None
    assert principle.category == category_of(ask)


def _any_question(kind: str) -> str:
    for slots in ({}, {"what": "x"}, {"value": "x"}, {"what": "x", "value": "y"}, {"value": "x", "where": "y"}):
        try:
            return render(Ask(kind=kind, **slots)).question
        except ValueError:
            continue
    raise AssertionError(f"no question for {kind}")


def test_other_questions_are_not_understood() -> None:
    assert parse_question("Is the dog happy?") is None
    assert parse_question("") is None
    assert parse_question("Is " + "the " * 10_000 + "gone?") is None


def test_a_question_that_would_read_as_another_is_refused() -> None:
    with pytest.raises(ValueError, match="one clear question"):
        render(Ask(kind="gone", what=""))
    with pytest.raises(ValueError, match="one clear question"):
        render(Ask(kind="colour", what="  padded  ", value="blue"))


def test_facets_of_one_change_share_a_subject() -> None:
    principles = decompose_instruction("make the red circle blue and remove the green square")
    asks = [parse_question(p.question) for p in principles if p.category == FOLLOW]
    assert len({subject_of(ask) for ask in asks if ask}) == 2


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "name"),
    [("Grey", "gray"), ("sky-blue", "light blue"), ("dark  red", "dark red"), ("bright red", "red"), ("reddish", None)],
)
def test_colour_words(phrase: str, name: str | None) -> None:
    assert colour_name(phrase) == name


@pytest.mark.parametrize(
    ("phrase", "name"),
    [("upper-left corner", "top left"), ("left top", "top left"), ("centre of the image", "centre"), ("moon", None)],
)
def test_place_words(phrase: str, name: str | None) -> None:
    assert place_name(phrase) == name


def test_things() -> None:
    thing = read_thing("the small red circle in the top left")
    assert thing is not None
    assert (thing.colour, thing.shape, thing.place, thing.plural) == ("red", "circle", "top left", False)
    plural = read_thing("all squares")
    assert plural is not None
    assert plural.plural
    assert plural.shape == "square"
    assert read_thing("the") is not None
    assert read_thing("") is None


# --- hostile input ---------------------------------------------------------------------------------------------------

_PIECES = (
    "make turn change the a red blue circle square background to into with and then , ; . it all black white replace",
    "add remove in of top left style text \"X\" quote0q quote7q warmer image 'y' or colour ? ( [ \\",
)
_WORDS = st.sampled_from([word for line in _PIECES for word in line.split()])


@given(st.one_of(st.text(max_size=60), st.lists(_WORDS, max_size=25).map(" ".join)))
@settings(max_examples=200, deadline=None)
def test_no_instruction_raises(instruction: str) -> None:
    principles = decompose_instruction(instruction)
    assert isinstance(principles, tuple)
    assert all(parse_question(p.question) is not None for p in principles)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["the ", "and ", "a, ", '"', "'a' ", "make the x ", "to ", "colour of ", "top ", "in the "]
)
def test_long_hostile_instructions_take_no_time(piece: str) -> None:
    for start in ("", "make ", "change the text ", "add ", "replace ", "in the style of "):
        decompose_instruction((start + piece * MAX_INSTRUCTION)[:MAX_INSTRUCTION])


def test_every_tone_can_be_asked_for() -> None:
    for name in TONES:
        assert read_instruction(f"make the image {name}") == (tone(name),)


def test_reading_raises_only_its_own_error() -> None:
    with pytest.raises(NotUnderstoodError, match="not understood"):
        read_instruction("fix it")
