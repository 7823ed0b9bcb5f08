"""The verifier `measure` on real photographs: global tone is measured, objects are not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.types import Edit, Verification
from editr1_plugins.verifiers.measure import MeasureVerifier

FOLDER = Path(__file__).parent.parent / "assets" / "photos"
PHOTOS = {path.stem: Image.open(path).convert("RGB") for path in sorted(FOLDER.glob("*.jpg"))}


def channels(red: float, green: float, blue: float) -> Callable[[Image.Image], Image.Image]:
    def edit(image: Image.Image) -> Image.Image:
        scaled = np.asarray(image, np.float32) * np.array([red, green, blue], np.float32)
        return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))

    return edit


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "warmer": channels(1.15, 1, 0.85),
    "cooler": channels(0.85, 1, 1.15),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "black and white": lambda image: image.convert("L").convert("RGB"),
    "more saturated": lambda image: ImageEnhance.Color(image).enhance(1.6),
    "less saturated": lambda image: ImageEnhance.Color(image).enhance(0.5),
}
OPPOSITES = {
    "warmer": "cooler",
    "cooler": "warmer",
    "brighter": "darker",
    "darker": "brighter",
    "black and white": "more saturated",
    "more saturated": "less saturated",
    "less saturated": "more saturated",
}


def judge(source: Image.Image, edited: Image.Image, instruction: str) -> Verification:
    edit = Edit(source=source, edited=edited, instruction=instruction)
    return MeasureVerifier().verify([edit], [decompose_instruction(instruction)])[0]


def score(source: Image.Image, edited: Image.Image, tone: str) -> float:
    verification = judge(source, edited, f"make the image {tone}")
    assert verification.score is not None, verification.failure
    return verification.score


def noise(size: tuple[int, int]) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_the_photographs_are_there() -> None:
    assert sorted(PHOTOS) == ["astronaut", "cat", "coffee", "rocket"]


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("tone", EDITS)
class TestOrder:
    def test_gold_beats_half_beats_copy_which_nothing_wrong_beats(self, tone: str, photo: str) -> None:
        source = PHOTOS[photo]
        gold = EDITS[tone](source)
        other = PHOTOS["cat" if photo != "cat" else "coffee"].resize(source.size)
        ranks = {
            "gold": judge(source, gold, f"make the image {tone}"),
            "half": judge(source, Image.blend(source, gold, 0.5), f"make the image {tone}"),
            "copy": judge(source, source, f"make the image {tone}"),
            "opposite": judge(source, EDITS[OPPOSITES[tone]](source), f"make the image {tone}"),
            "other photograph": judge(source, other, f"make the image {tone}"),
            "noise": judge(source, noise(source.size), f"make the image {tone}"),
        }
        found = {name: verification.score for name, verification in ranks.items()}
        assert found["gold"] > 8.5
        assert found["gold"] > found["half"] > 2.5
        assert found["copy"] == found["opposite"] == found["other photograph"] == found["noise"] == 0
        average = {name: verification.average for name, verification in ranks.items()}
        assert average["gold"] == 1
        assert average["copy"] >= average["opposite"] > average["other photograph"] > average["noise"]

    def test_no_other_tone_is_taken_for_it(self, tone: str, photo: str) -> None:
        source = PHOTOS[photo]
        for other, edit in EDITS.items():
            # Less colour is the way to none.
            if other not in (tone, "less saturated") or (other, tone) == ("less saturated", "warmer"):
                assert score(source, edit(source), tone) < 0.1, other

    def test_it_rises_with_the_strength(self, tone: str, photo: str) -> None:
        source = PHOTOS[photo]
        gold = EDITS[tone](source)
        found = [score(source, Image.blend(source, gold, share), tone) for share in (0, 0.25, 0.5, 0.75, 1)]
        assert found == sorted(found)
        assert found[0] == 0


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize(
    "instruction",
    [
        "make the background white",
        "make the red circle blue",
        "remove the red circle",
        "add a blue square in the top left",
        "turn the cat into a dog",
        "make the cat blue",
        "make it look like a watercolor",
        "make the sky orange",
    ],
)
def test_objects_of_a_photograph_are_not_judged(photo: str, instruction: str) -> None:
    source = PHOTOS[photo]
    for edited in (source, EDITS["warmer"](source)):
        verification = judge(source, edited, instruction)
        assert verification.score is None
        assert "without a model" in (verification.failure or "")


def test_a_part_of_the_image_is_part_of_the_edit() -> None:
    source = PHOTOS["cat"]
    gold = EDITS["warmer"](source)
    half = gold.copy()
    half.paste(source.crop((0, 0, source.width // 2, source.height)), (0, 0))
    assert 0 < score(source, half, "warmer") < 0.7 * score(source, gold, "warmer")


def test_a_stray_object_costs_most() -> None:
    source = PHOTOS["cat"]
    gold = EDITS["warmer"](source)
    painted = gold.copy()
    ImageDraw.Draw(painted).ellipse((100, 50, 160, 110), fill=(0, 0, 255))
    assert score(source, painted, "warmer") < 0.3 * score(source, gold, "warmer")


def test_blur_and_noise_cost() -> None:
    source = PHOTOS["cat"]
    gold = EDITS["warmer"](source)
    rng = np.random.default_rng(0)
    noisy = np.clip(np.asarray(gold) + rng.normal(0, 15, (gold.height, gold.width, 3)), 0, 255).astype(np.uint8)
    best = score(source, gold, "warmer")
    assert score(source, gold.filter(ImageFilter.GaussianBlur(3)), "warmer") < 0.9 * best
    assert score(source, Image.fromarray(noisy), "warmer") < 0.8 * best


def test_jpeg_and_size_do_not_matter_much() -> None:
    source = PHOTOS["astronaut"]
    gold = EDITS["cooler"](source)
    buffer = io.BytesIO()
    gold.save(buffer, "JPEG", quality=70)
    assert score(source, Image.open(buffer), "cooler") > 8
    resized = judge(source, gold.resize((640, 640)), "make the image cooler")
    assert resized.flags == ("size_changed",)
    assert (resized.score or 0) > 7.5


def test_a_crop_with_other_proportions_is_flagged_and_fails() -> None:
    source = PHOTOS["astronaut"]
    verification = judge(source, EDITS["warmer"](source).crop((0, 0, 320, 160)), "make the image warmer")
    assert "aspect_changed" in verification.flags
    assert verification.score is None or verification.score < 1
    framed = next(v for v in verification.verdicts if "proportions" in v.principle.question)
    assert framed.passed is False


def test_a_grey_photograph_has_no_colour_to_take_away() -> None:
    grey = EDITS["black and white"](PHOTOS["cat"])
    for tone in ("black and white", "more saturated", "less saturated"):
        verification = judge(grey, grey, f"make the image {tone}")
        assert verification.score is None
        assert "no colour" in (verification.failure or "")
