"""The verifier `measure` on MiniEdit: the order of edits of every kind, and what it says of odd requests and images."""

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import (
    COLOURS,
    OPERATIONS,
    QUARTERS,
    Scene,
    Shape,
    Task,
    draw,
    sample_task,
    to_image,
)
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Edit, Principle, Verification, Verifier
from editr1_plugins.verifiers.measure import MeasureVerifier

TASKS_PER_OPERATION = 60


def judge(source: Image.Image, edited: Image.Image, instruction: str) -> Verification:
    edit = Edit(source=source, edited=edited, instruction=instruction)
    return MeasureVerifier().verify([edit], [decompose_instruction(instruction)])[0]


def tau(source: Image.Image, edited: Image.Image, instruction: str) -> float:
    verification = judge(source, edited, instruction)
    assert verification.score is not None, verification.failure
    return verification.score


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / 255


def blend(source: Image.Image, gold: Image.Image) -> Image.Image:
    return to_image((values(source) + values(gold)) / 2)


def blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """About what the tiny VAE does to a picture."""
    soft = values(image.filter(ImageFilter.GaussianBlur(0.5)))
    return to_image(soft + rng.normal(0, 0.008, soft.shape))


def wrong_edit(rng: np.random.Generator, task: Task) -> Image.Image:
    """Another edit of the same scene."""
    while True:
        other = sample_task(rng, scene=task.scene)
        if other.goal != task.goal:
            return draw(other.goal)


def harmed(task: Task, harm: Callable[[Shape], Shape | None]) -> Image.Image | None:
    """The goal with one more change, of an object that nobody asked to change; None when there is no such object."""
    kept = [shape for shape in task.goal.shapes if shape in task.scene.shapes]
    if not kept:
        return None
    shapes = [harm(shape) if shape is kept[0] else shape for shape in task.goal.shapes]
    return draw(replace(task.goal, shapes=tuple(shape for shape in shapes if shape)))


@pytest.fixture(scope="module")
def judged() -> dict[str, list[dict[str, Verification]]]:
    """Per operation and task: what the verifier says of each candidate."""
    rng = np.random.default_rng(0)
    verifier = MeasureVerifier()
    results: dict[str, list[dict[str, Verification]]] = {}
    for operation in OPERATIONS:
        for task in sample_tasks(TASKS_PER_OPERATION, seed=11, operations=(operation,)):
            source, gold = draw(task.scene), draw(task.goal)
            free = next(c for c in COLOURS if all(c != s.colour for s in (*task.scene.shapes, *task.goal.shapes)))
            candidates = {
                "gold": gold,
                "blurred gold": blurred(gold, rng),
                "half": blend(source, gold),
                "copy": source.copy(),
                "blurred copy": source.filter(ImageFilter.GaussianBlur(0.5)),
                "wrong": wrong_edit(rng, task),
                "noise": to_image(rng.random((32, 32, 3))),
                "lost": harmed(task, lambda shape: None),
                "recoloured": harmed(task, lambda shape, colour=free: replace(shape, colour=colour)),
                "reshaped": harmed(task, lambda shape: replace(shape, kind=NEXT_KIND[shape.kind])),
            }
            given = {name: image for name, image in candidates.items() if image is not None}
            edits = [Edit(source=source, edited=image, instruction=task.instruction) for image in given.values()]
            principles = [decompose_instruction(task.instruction)] * len(edits)
            verdicts = verifier.verify(edits, principles)
            results.setdefault(operation, []).append(dict(zip(given, verdicts, strict=True)))
    return results


NEXT_KIND = {"circle": "square", "square": "triangle", "triangle": "circle"}


def scores(judged: dict[str, list[dict[str, Verification]]], operation: str, name: str) -> np.ndarray:
    found = [task[name].score for task in judged[operation] if name in task]
    assert None not in found
    return np.array(found, float)


def averages(judged: dict[str, list[dict[str, Verification]]], operation: str, name: str) -> np.ndarray:
    return np.array([task[name].average for task in judged[operation] if name in task], float)


@pytest.mark.parametrize("operation", OPERATIONS)
class TestOrder:
    """Strict on every task, not in the mean."""

    def test_gold_beats_half_beats_copy(self, judged, operation) -> None:
        gold, half, copy = (scores(judged, operation, name) for name in ("gold", "half", "copy"))
        assert gold.min() > 9
        assert (gold > half).all()
        assert (half > copy).all()
        assert 2.5 < half.mean() < 7.5

    def test_a_copy_earns_exactly_nothing(self, judged, operation) -> None:
        assert (scores(judged, operation, "copy") == 0).all()
        assert scores(judged, operation, "blurred copy").max() < 0.5

    def test_a_wrong_edit_earns_no_more_than_a_copy_and_noise_no_more_than_that(self, judged, operation) -> None:
        assert (scores(judged, operation, "wrong") == 0).all()
        assert (scores(judged, operation, "noise") == 0).all()

    def test_where_the_score_is_zero_the_average_still_tells_them_apart(self, judged, operation) -> None:
        copy, wrong, noise = (averages(judged, operation, name) for name in ("copy", "wrong", "noise"))
        assert (copy >= wrong).all()
        assert (wrong > noise).all()

    def test_a_blurred_gold_edit_is_nearly_as_good(self, judged, operation) -> None:
        assert scores(judged, operation, "blurred gold").min() > 7.5
        assert scores(judged, operation, "blurred gold").mean() > 9

    @pytest.mark.parametrize("harm", ["lost", "recoloured", "reshaped"])
    def test_harm_to_one_other_object_costs_most_of_the_score(self, judged, operation, harm) -> None:
        found = scores(judged, operation, harm)
        assert found.max() < 4
        assert found.mean() < 1

    def test_verdicts_follow_the_score(self, judged, operation) -> None:
        for task in judged[operation]:
            # Without the only object there is no edge left whose sharpness could be judged.
            assert all(verdict.passed is not False for verdict in task["gold"].verdicts)
            assert all(v.passed for v in task["gold"].verdicts if v.principle.category == FOLLOW)
            follow = [v.passed for v in task["copy"].verdicts if v.principle.category == FOLLOW]
            assert not any(follow)
            assert all(v.passed is not False for v in task["copy"].verdicts if v.principle.category != FOLLOW)
            assert task["copy"].flags == ("no_edit",)
            assert all(verdict.reason for verdict in task["wrong"].verdicts)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_score_rises_with_every_step_of_an_edit(operation: str) -> None:
    for task in sample_tasks(12, seed=3, operations=(operation,)):
        source, gold = draw(task.scene), draw(task.goal)
        steps = [to_image(values(source) * (1 - s) + values(gold) * s) for s in np.linspace(0, 1, 9)]
        found = [tau(source, step, task.instruction) for step in steps]
        # The jump by which a shape begins to be told from another may hide a step, never turn it round.
        assert all(later >= earlier - 0.35 for earlier, later in pairwise(found)), (task, found)
        assert found[0] == 0
        assert found[-1] > 9
        assert len({round(score, 3) for score in found}) >= 4


# --- requests beyond one plain change --------------------------------------------------------------------------------


def shape(kind: str, colour: str, quarter: str) -> Shape:
    x, y = QUARTERS[quarter]
    return Shape(kind=kind, colour=colour, quarter=quarter, x=x, y=y, radius=5.5)


RED = shape("circle", "red", "top left")
GREEN = shape("square", "green", "bottom right")
BLUE = shape("triangle", "blue", "top right")
SOURCE = draw(Scene(background="white", shapes=(RED, GREEN, BLUE)))
YELLOW = replace(RED, colour="yellow")
NEW = shape("square", "yellow", "bottom left")
RECOLOUR = "make the red circle yellow"


def scene(*shapes: Shape, background: str = "white") -> Image.Image:
    return draw(Scene(background=background, shapes=shapes))


@pytest.mark.parametrize(
    ("instruction", "edited"),
    [
        ("make the circle yellow", scene(YELLOW, GREEN, BLUE)),
        ("make the object in the top left yellow", scene(YELLOW, GREEN, BLUE)),
        ("replace the red circle with a yellow square", scene(replace(YELLOW, kind="square"), GREEN, BLUE)),
        ("replace the red circle with a yellow one", scene(YELLOW, GREEN, BLUE)),
        ("make the red circle yellow and turn it into a square", scene(replace(YELLOW, kind="square"), GREEN, BLUE)),
        ("make the red circle yellow and remove the green square", scene(YELLOW, BLUE)),
        ("make the background black and remove the green square", scene(RED, BLUE, background="black")),
        (
            "make the background black and add a yellow square in the bottom left",
            scene(RED, GREEN, BLUE, NEW, background="black"),
        ),
        ("add a yellow square", scene(RED, GREEN, BLUE, NEW)),
        ("remove all circles", scene(GREEN, BLUE)),
        ("make the red circle green", scene(replace(RED, colour="green"), GREEN, BLUE)),
        ("make the red circle white", scene(GREEN, BLUE)),
    ],
)
def test_other_ways_to_ask(instruction: str, edited: Image.Image) -> None:
    assert tau(SOURCE, edited, instruction) > 9
    assert tau(SOURCE, SOURCE, instruction) == 0


def test_one_of_two_changes_is_half_of_the_edit() -> None:
    both = "make the red circle yellow and remove the green square"
    assert tau(SOURCE, scene(YELLOW, GREEN, BLUE), both) == pytest.approx(5, abs=0.5)
    assert tau(SOURCE, scene(RED, BLUE), both) == pytest.approx(5, abs=0.5)


def test_one_of_several_alike_is_part_of_the_edit() -> None:
    other = shape("circle", "red", "bottom left")
    source = scene(RED, other, GREEN)
    assert tau(source, scene(YELLOW, replace(other, colour="yellow"), GREEN), "make all red circles yellow") > 9
    assert tau(source, scene(YELLOW, other, GREEN), "make all red circles yellow") == pytest.approx(5, abs=0.5)


def test_only_a_part_of_the_wanted_thing_earns_nothing() -> None:
    assert tau(SOURCE, scene(YELLOW, GREEN, BLUE), "replace the red circle with a yellow square") == 0
    assert tau(SOURCE, scene(RED, GREEN, BLUE, NEW), "add a yellow circle in the bottom left") == 0
    assert tau(SOURCE, scene(RED, GREEN, BLUE, NEW), "add a cyan square in the bottom left") == 0
    assert tau(scene(GREEN), scene(GREEN, NEW), "add a yellow square in the top left") == 0


@pytest.mark.parametrize("instruction", [RECOLOUR, "remove the green square", "make the background gray"])
def test_half_of_the_place_is_half_of_the_edit(instruction: str) -> None:
    gold = {
        RECOLOUR: scene(YELLOW, GREEN, BLUE),
        "remove the green square": scene(RED, BLUE),
        "make the background gray": scene(RED, GREEN, BLUE, background="gray"),
    }[instruction]
    changed = np.nonzero(np.abs(values(gold) - values(SOURCE)).sum((0, 2)) > 0.1)[0]
    half = gold.copy()
    half.paste(SOURCE.crop((0, 0, int(changed.mean()), 32)), (0, 0))
    assert 1 < tau(SOURCE, half, instruction) < 8


# --- what it does not judge ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("make the purple circle yellow", "no purple circle"),
        ("make the red square yellow", "no red square"),
        ("remove the dog", "cannot be found without a model"),
        ("replace the red circle with a dog", "without a model"),
        ("add a dog in the bottom left", "without a model"),
        ("add a white square in the bottom left", "cannot be seen"),
        ("change the background to a beach", "without a model"),
        ("make the red circle red", "no change to measure"),
        ("make the background white", "no change to measure"),
        ("make the red circle yellow and make the image brighter", "tone of the whole image"),
        ('change the text "A" to "B"', "too small to read"),
        ("make it look like a watercolor", "without a model"),
    ],
)
def test_what_cannot_be_measured_is_said(instruction: str, reason: str) -> None:
    for edited in (SOURCE, scene(YELLOW, GREEN, BLUE)):
        verification = judge(SOURCE, edited, instruction)
        assert verification.score is None
        assert verification.samples == 0
        assert verification.failure is not None
        assert verification.failure.startswith("not measured: ")
        assert reason in verification.failure
        unjudged = [v for v in verification.verdicts if v.passed is None]
        assert unjudged
        assert all(v.reason for v in unjudged)


def test_an_ambiguous_reference_is_not_guessed() -> None:
    source = scene(RED, shape("circle", "red", "bottom left"))
    verification = judge(source, scene(YELLOW, shape("circle", "red", "bottom left")), RECOLOUR)
    assert verification.score is None
    assert "which one" in (verification.failure or "")
    named = "make the red circle in the top left yellow"
    assert tau(source, scene(YELLOW, shape("circle", "red", "bottom left")), named) > 9


def test_questions_of_others_are_not_judged() -> None:
    edit = Edit(source=SOURCE, edited=scene(YELLOW, GREEN, BLUE), instruction=RECOLOUR)
    foreign = Principle(question="Is the dog happy?", category=FOLLOW)
    known = decompose_instruction(RECOLOUR)
    alone, among, none = MeasureVerifier().verify([edit] * 3, [[foreign], [*known, foreign], []])
    assert alone.score is None
    assert alone.average is None
    assert among.score is None
    assert among.average == 1
    assert "Is the dog happy?" in (among.failure or "")
    assert none.failure == "no Instruction Following principle to measure"
    quality = Principle(question="Is the fur well drawn?", category=QUALITY)
    (with_quality,) = MeasureVerifier().verify([edit], [[*known, quality]])
    assert with_quality.score is not None
    assert with_quality.verdicts[-1].passed is None


# --- odd images ------------------------------------------------------------------------------------------------------


def test_another_size_is_compared_and_said() -> None:
    gold = scene(YELLOW, GREEN, BLUE)
    for size in (64, 256):
        verification = judge(SOURCE, gold.resize((size, size), Image.Resampling.NEAREST), RECOLOUR)
        assert verification.flags == ("size_changed",)
        assert 8 < (verification.score or 0) < 10
        assert f"{size}x{size} instead of 32x32" in verification.trace
    copy = judge(SOURCE, SOURCE.resize((64, 64), Image.Resampling.NEAREST), RECOLOUR)
    assert copy.score == 0
    assert copy.flags == ("size_changed", "no_edit")


def test_other_proportions_are_not_compared() -> None:
    verification = judge(SOURCE, scene(YELLOW, GREEN, BLUE).resize((48, 32)), RECOLOUR)
    assert verification.score is None
    assert "aspect_changed" in verification.flags
    framed = verification.verdicts[-1]
    assert framed.passed is False
    assert "48x32 instead of 32x32" in framed.reason


@pytest.mark.parametrize("side", [1, 2, 7])
def test_tiny_images_are_not_judged(side: int) -> None:
    tiny = Image.new("RGB", (side, side), (255, 0, 0))
    for source, edited in ((tiny, SOURCE), (SOURCE, tiny), (tiny, tiny)):
        for instruction in (RECOLOUR, "make it brighter"):
            verification = judge(source, edited, instruction)
            assert verification.score is None
            assert verification.average is None


@pytest.mark.parametrize("size", [(8, 8), (9, 500), (2000, 9)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
@pytest.mark.parametrize("instruction", [RECOLOUR, "make the background green", "make it warmer", "make it brighter"])
def test_plain_images_do_not_break_it(size, colour, instruction: str) -> None:
    plain = Image.new("RGB", size, colour)
    for edited in (plain, Image.new("RGB", size, (90, 90, 90)), Image.new("RGB", size[::-1])):
        verification = judge(plain, edited, instruction)
        assert verification.score is None or 0 <= verification.score <= 10
    copy = judge(plain, plain, instruction)
    assert copy.score in (None, 0)


def test_large_images_are_judged_alike() -> None:
    big = [image.resize((2400, 2400), Image.Resampling.NEAREST) for image in (SOURCE, scene(YELLOW, GREEN, BLUE))]
    assert tau(big[0], big[1], RECOLOUR) > 9
    assert tau(big[0], big[0], RECOLOUR) == 0


@pytest.mark.parametrize("plain", [(0, 0, 0), (242, 217, 26), (255, 255, 255)])
def test_painting_everything_over_earns_nothing(plain) -> None:
    assert tau(SOURCE, Image.new("RGB", (32, 32), plain), RECOLOUR) < 0.1


@pytest.mark.parametrize("quality", [95, 85, 75])
def test_jpeg_is_told_from_an_edit(quality: int) -> None:
    def saved(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    assert tau(SOURCE, saved(scene(YELLOW, GREEN, BLUE)), RECOLOUR) > 7
    assert tau(SOURCE, saved(SOURCE), RECOLOUR) < 0.1


def test_a_border_a_blur_and_noise_cost_quality() -> None:
    gold = scene(YELLOW, GREEN, BLUE)
    framed = gold.copy()
    ImageDraw.Draw(framed).rectangle((0, 0, 31, 31), outline=(0, 0, 0), width=2)
    rng = np.random.default_rng(0)
    noisy = to_image(values(gold) + rng.normal(0, 0.06, (32, 32, 3)))
    soft = gold.filter(ImageFilter.GaussianBlur(1.2))
    dotted = gold.copy()
    for x, y in rng.integers(0, 32, (60, 2)):
        dotted.putpixel((int(x), int(y)), (255, 0, 255))
    best = tau(SOURCE, gold, RECOLOUR)
    for spoilt, question in ((framed, "border"), (noisy, "noise"), (dotted, "noise"), (soft, "blur")):
        verification = judge(SOURCE, spoilt, RECOLOUR)
        assert (verification.score or 0) < 0.75 * best
        failed = [v for v in verification.verdicts if v.principle.category == QUALITY and not v.passed]
        assert any(question in v.principle.question for v in failed) or spoilt is soft


def test_something_new_in_the_background_costs_most() -> None:
    verification = judge(SOURCE, scene(YELLOW, GREEN, BLUE, NEW), RECOLOUR)
    assert (verification.score or 0) < 1
    failed = [v for v in verification.verdicts if v.passed is False]
    assert [v.principle.category for v in failed] == [KEEP]
    assert "nothing new" in failed[0].principle.question


# --- the protocol ----------------------------------------------------------------------------------------------------


def test_a_batch_is_judged_as_one_by_one() -> None:
    tasks = sample_tasks(20, seed=5)
    edits = [Edit(source=draw(t.scene), edited=draw(t.goal), instruction=t.instruction) for t in tasks]
    principles = [decompose_instruction(t.instruction) for t in tasks]
    verifier: Verifier = MeasureVerifier()
    together = verifier.verify(edits, principles)
    assert together == [verifier.verify([e], [p])[0] for e, p in zip(edits, principles, strict=True)]
    assert pickle.loads(pickle.dumps(verifier)).verify(edits, principles) == together
    assert MeasureVerifier.identity == "measure/2"
    assert verifier.verify([], []) == []
    with pytest.raises(ValueError, match="one list of principles per edit"):
        verifier.verify(edits, principles[1:])


def test_the_trace_shows_the_arithmetic() -> None:
    verification = judge(SOURCE, blend(SOURCE, scene(YELLOW, GREEN, BLUE)), RECOLOUR)
    lines = verification.trace.splitlines()
    assert len(lines) == len(verification.verdicts) + 1
    assert lines[-1].startswith("score = 10 x follow ")
    assert lines[-1].endswith(f"= {verification.score:.2f}")
    assert "of its pixels are yellow" in verification.verdicts[0].reason


def test_images_in_other_modes_are_read() -> None:
    palette = scene(YELLOW, GREEN, BLUE).convert("P", palette=Image.Palette.ADAPTIVE)
    assert tau(SOURCE.convert("RGBA"), palette, RECOLOUR) > 8.5
