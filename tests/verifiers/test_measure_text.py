"""The verifier `measure` reads: text changed, added and removed on signs in real photographs."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from editr1_plugins.errors import MissingExtraError
from editr1_plugins.principles.rules import decompose_instruction
from editr1_plugins.reward.rrm import DEFAULT_GUARD_NAMES, EditRRMReward
from editr1_plugins.types import FOLLOW, KEEP, Edit, Verdict, Verification
from editr1_plugins.verifiers.measure import MeasureVerifier
from editr1_plugins.verifiers.measuring import text_reader
from editr1_plugins.verifiers.measuring.text_reader import TextLine, read_text, require_reader

FOLDER = Path(__file__).parent.parent / "assets" / "photos"
PHOTOS = {path.stem: Image.open(path).convert("RGB") for path in sorted(FOLDER.glob("*.jpg"))}
ASK = 'Change the text "SALE" to "OPEN"'


@pytest.fixture(scope="module", autouse=True)
def _reader() -> None:
    try:
        require_reader()
    except MissingExtraError as error:
        pytest.skip(str(error))


def sign(image: Image.Image, text: str, *, angle: float = 0, at: float = 0.45, size: float = 0.12) -> Image.Image:
    """A navy plate with white text, in the middle of the image at the height `at`; an empty one for ""."""
    plate = Image.new("RGBA", (round(0.62 * image.width), round(size * image.height * 1.9)), "navy")
    font = ImageFont.load_default(size * image.height)
    ImageDraw.Draw(plate).text((plate.width / 2, plate.height / 2), text, "white", font, anchor="mm")
    plate = plate.rotate(angle, expand=True, resample=Image.Resampling.BICUBIC)
    out = image.copy()
    out.paste(plate, ((image.width - plate.width) // 2, round(at * image.height - plate.height / 2)), plate)
    return out


def written(image: Image.Image, text: str, at: tuple[float, float]) -> Image.Image:
    out = image.copy()
    font = ImageFont.load_default(0.13 * image.height)
    place = (at[0] * image.width, at[1] * image.height)
    ImageDraw.Draw(out).text(place, text, "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return out


def jpeg(image: Image.Image, quality: int = 70) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(io.BytesIO(data.getvalue())).convert("RGB")


def judge(source: Image.Image, edited: Image.Image, instruction: str = ASK) -> Verification:
    principles = decompose_instruction(instruction)
    assert principles, principles
    edit = Edit(source=source, edited=edited, instruction=instruction)
    return MeasureVerifier().verify([edit], [principles])[0]


def score(source: Image.Image, edited: Image.Image, instruction: str = ASK) -> float:
    verification = judge(source, edited, instruction)
    assert verification.score is not None, verification.failure
    return verification.score


def verdict(verification: Verification, words: str) -> Verdict:
    [found] = [each for each in verification.verdicts if words in each.principle.question]
    return found


# --- change -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHOTOS)
def test_the_right_text_passes_as_drawn_and_as_a_jpeg(name: str) -> None:
    source = sign(PHOTOS[name], "SALE")
    for edited in (sign(PHOTOS[name], "OPEN"), jpeg(sign(PHOTOS[name], "OPEN"))):
        verification = judge(source, edited)
        assert verification.score is not None
        assert verification.score > 9
        assert all(each.passed for each in verification.verdicts if each.principle.category == FOLLOW)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_copy_of_the_source_earns_nothing(name: str) -> None:
    source = sign(PHOTOS[name], "SALE")
    for edited in (source.copy(), jpeg(source)):
        verification = judge(source, edited)
        assert verification.score == 0
        assert verdict(verification, "now read").passed is False
        assert verdict(verification, "Is the old text").passed is False


@pytest.mark.parametrize(
    ("shown", "least", "most"),
    [
        ("OPLE", 0.5, 4.0),  # half of the letters
        ("OPEM", 2.0, 5.5),
        ("OPENING", 0.0, 2.0),
        ("CLOSED", 0.0, 0.5),
        ("OPEN SALE", 0.0, 0.5),
        ("", 0.0, 0.0),
    ],
)
def test_a_wrong_text_earns_as_little_as_it_is_right(shown: str, least: float, most: float) -> None:
    cat = PHOTOS["cat"]
    verification = judge(sign(cat, "SALE"), sign(cat, shown))
    assert verification.score is not None
    assert least <= verification.score <= most
    assert verdict(verification, "correct and legible").passed is (shown == "OPEN SALE")


def test_text_beside_the_old_one_replaces_nothing() -> None:
    source = sign(PHOTOS["coffee"], "SALE")
    verification = judge(source, written(source, "OPEN", (0.5, 0.85)))
    assert verification.score == 0
    assert verdict(verification, "Is the old text").passed is False


@pytest.mark.parametrize("angle", [15, 90, 180])
def test_turned_signs_are_read(angle: float) -> None:
    photo = PHOTOS["astronaut"]
    source, right = (sign(photo, text, angle=angle, size=0.09) for text in ("SALE", "OPEN"))
    assert score(source, right) > 9
    assert score(source, source) == 0
    assert score(source, sign(photo, "FULL", angle=angle, size=0.09)) < 1


def test_one_letter_makes_the_difference() -> None:
    cat = PHOTOS["cat"]
    source = sign(cat, "MAY 2024")
    ask = 'change the text "2024" to "2025"'
    assert score(source, sign(cat, "MAY 2025"), ask) > 9
    assert score(source, jpeg(source), ask) == 0
    assert score(source, sign(cat, "MAY 2026"), ask) < 5
    assert score(sign(cat, "ROOM 5"), sign(cat, "ROOM 7"), 'change the number "5" to "7"') > 9


def test_a_longer_text_that_holds_the_old_one() -> None:
    cat = PHOTOS["cat"]
    source = sign(cat, "OPEN")
    ask = 'change the text "OPEN" to "NOW OPEN"'
    assert score(source, sign(cat, "NOW OPEN"), ask) > 9
    assert score(source, jpeg(source), ask) == 0
    assert score(sign(cat, "NOW OPEN"), sign(cat, "OPEN"), 'change the text "NOW OPEN" to "OPEN"') > 9
    assert score(sign(cat, "NOW OPEN"), sign(cat, "NOW OPEN"), 'change the text "NOW OPEN" to "OPEN"') == 0


def test_the_text_need_not_be_quoted_where_there_is_one_only() -> None:
    cat = PHOTOS["cat"]
    source = sign(cat, "SALE")
    ask = 'change the text on the sign to "OPEN"'
    assert score(source, sign(cat, "OPEN"), ask) > 9
    assert score(source, jpeg(source), ask) == 0
    assert score(source, sign(cat, "CLOSED"), ask) < 1
    assert score(source, written(source, "OPEN", (0.5, 0.85)), ask) == 0


def test_letters_may_differ_in_case_unless_the_case_is_what_changes() -> None:
    cat = PHOTOS["cat"]
    assert score(sign(cat, "SALE"), sign(cat, "Open")) > 9
    ask = 'change the text "SALE" to "Sale"'
    assert score(sign(cat, "SALE"), sign(cat, "Sale"), ask) > 9
    assert score(sign(cat, "SALE"), jpeg(sign(cat, "SALE")), ask) == 0


def test_several_lines_and_lost_spaces() -> None:
    cat = PHOTOS["cat"]
    source = sign(cat, "SALE")
    two = written(written(sign(cat, ""), "WELCOME", (0.5, 0.39)), "HOME", (0.5, 0.53))
    assert score(source, two, 'change the text "SALE" to "Welcome home"') > 6
    assert score(source, sign(cat, "W E L C O M E"), 'change the text "SALE" to "Welcome"') > 9


# --- what was not to change -------------------------------------------------------------------------------------------


def test_the_rest_of_the_picture_counts() -> None:
    source = sign(PHOTOS["cat"], "SALE")
    assert score(source, sign(PHOTOS["coffee"], "OPEN")) < 0.5
    assert score(source, sign(PHOTOS["cat"].rotate(180), "OPEN")) < 1
    assert score(source, sign(PHOTOS["cat"], "OPEN", at=0.8)) < 2


def test_other_text_has_to_stay_and_none_may_come() -> None:
    cat = PHOTOS["cat"]
    source = written(sign(cat, "SALE"), "HARBOUR", (0.5, 0.85))
    right = written(sign(cat, "OPEN"), "HARBOUR", (0.5, 0.85))
    assert score(source, right) > 9
    for wrong in (sign(cat, "OPEN"), written(sign(cat, "OPEN"), "PIGEONS", (0.5, 0.85))):
        verification = judge(source, wrong)
        assert verdict(verification, "all other text").passed is False
        assert verification.score is not None
        assert verification.score < 5
    painted = judge(source, written(right, "SCORE 10/10", (0.5, 0.12)))
    assert verdict(painted, "all other text").passed is False


def test_what_is_measured_is_said() -> None:
    cat = PHOTOS["cat"]
    verification = judge(sign(cat, "SALE"), sign(cat, "CLOSED"))
    assert "'CLOSED'" in verdict(verification, "now read").reason
    keeps = [each for each in verification.verdicts if each.principle.category == KEEP]
    assert any(each.passed is None and "font" in each.reason for each in keeps)


# --- add and remove ---------------------------------------------------------------------------------------------------


def test_added_text_at_its_place() -> None:
    coffee = PHOTOS["coffee"]
    ask = 'Add the text "GOOD MORNING" at the top'
    assert score(coffee, written(coffee, "GOOD MORNING", (0.5, 0.12)), ask) > 9
    assert score(coffee, written(coffee, "GOOD MORNING", (0.5, 0.88)), ask) == 0
    assert score(coffee, written(coffee, "GOOD EVENING", (0.5, 0.12)), ask) < 6
    assert score(coffee, jpeg(coffee), ask) == 0


def test_removed_text() -> None:
    rocket = PHOTOS["rocket"]
    source = sign(rocket, "SALE")
    for ask in ('Remove the text "SALE"', "Remove the text", "Delete the word SALE"):
        assert score(source, sign(rocket, ""), ask) > 8
        assert score(source, jpeg(source), ask) == 0
        assert score(source, sign(rocket, "SA"), ask) < 6
    assert score(source, sign(rocket, "OPEN"), 'Remove the text "SALE"') < 1


def test_removing_one_of_two_texts_keeps_the_other() -> None:
    rocket = PHOTOS["rocket"]
    source = written(sign(rocket, "SALE"), "HARBOUR", (0.5, 0.88))
    ask = 'Remove the text "SALE"'
    assert score(source, written(sign(rocket, ""), "HARBOUR", (0.5, 0.88)), ask) > 8
    assert score(source, sign(rocket, ""), ask) < 5
    assert score(source, sign(rocket, ""), "Remove all text") > 6
    assert score(source, written(sign(rocket, ""), "HARBOUR", (0.5, 0.88)), "Remove all text") < 3


# --- what it does not judge -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ('change the text "CLOSED" to "OPEN"', "'CLOSED' cannot be read in the source"),
        ('change the text "SALE" to "Добро"', "does not know"),
        ('change the text "SALE" to "환영"', "does not know"),
        ('change the text "SALE" to "???"', "no letter or digit"),
        ('change the text "SALE" to "S A L E"', "already"),
        ('change the text "S0LD" to "SOLD"', "already"),
        ('change the text to "SALE"', "already"),
        ('add the text "B"', "single letter"),
        ('write "HELLO" on the wall', "without a model"),
        ('change the text "SALE" to "OPEN" and remove the dog', "without a model"),
    ],
)
def test_what_cannot_be_read_is_not_judged(instruction: str, reason: str) -> None:
    cat = PHOTOS["cat"]
    for edited in (sign(cat, "OPEN"), sign(cat, "SALE")):
        verification = judge(sign(cat, "SALE"), edited, instruction)
        assert verification.score is None
        assert reason in (verification.failure or "")


def test_a_text_that_stands_twice_is_ambiguous() -> None:
    source = sign(sign(PHOTOS["cat"], "SALE", at=0.25), "SALE", at=0.75)
    verification = judge(source, source)
    assert verification.score is None
    assert "2 times" in (verification.failure or "")


def test_chinese_is_read_where_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    # No Chinese font comes with pillow, so what the reader returns is given; the rest is real.
    lines = {32: "欢迎光临", 33: "谢谢惠顾"}
    box = (0.2, 0.4, 0.8, 0.6)

    def read(image: Image.Image) -> list[TextLine]:
        return [TextLine(text=lines[image.getpixel((0, 0))[0]], box=box, confidence=0.9)]

    monkeypatch.setattr(text_reader, "read_text", read)
    source, edited = (Image.new("RGB", (200, 100), (level, 0, 0)) for level in lines)
    ask = 'change the text "欢迎光临" to "谢谢惠顾"'
    assert verdict(judge(source, edited, ask), "now read").passed is True
    assert verdict(judge(source, source, ask), "now read").passed is False


def test_tiny_images_are_not_read() -> None:
    assert read_text(Image.new("RGB", (47, 200))) == []
    verification = judge(Image.new("RGB", (47, 200)), Image.new("RGB", (47, 200)))
    assert "too small to read" in (verification.failure or "")


def test_a_group_reads_its_source_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cat = PHOTOS["cat"]
    read: list[Image.Image] = []

    def counted(image: Image.Image) -> list[TextLine]:
        read.append(image)
        return read_text(image)

    monkeypatch.setattr(text_reader, "read_text", counted)
    source = sign(cat, "SALE")
    edits = [Edit(source=source, edited=sign(cat, text), instruction=ASK) for text in ("OPEN", "SHUT", "OPENS")]
    scores = [each.score for each in MeasureVerifier().verify(edits, [decompose_instruction(ASK)] * 3)]
    assert len(read) == 4
    assert scores[0] == max(score for score in scores if score is not None)


# --- with the guard that reads --------------------------------------------------------------------------------------


def test_the_guard_against_painted_text_lets_asked_text_pass() -> None:
    source = sign(PHOTOS["cat"], "SALE")
    right, copy = sign(PHOTOS["cat"], "OPEN"), jpeg(source)
    painted = written(right, "SCORE 10/10", (0.5, 0.85))
    edits = [Edit(source=source, edited=edited, instruction=ASK) for edited in (right, copy, painted)]
    outcomes = EditRRMReward(verifier="measure", guards=[*DEFAULT_GUARD_NAMES, "text"]).score(edits)
    assert outcomes[0].score is not None
    assert outcomes[0].score > 9
    assert outcomes[0].flags == ()
    assert outcomes[1].score == 0
    assert outcomes[2].score is not None
    assert outcomes[2].score <= 2
    assert "painted_text" in outcomes[2].flags


# --- without the extra ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [text_reader._NOT_INSTALLED, text_reader._BROKEN.format(error="libGL.so.1: no")])
def test_without_the_reader_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    monkeypatch.setattr(text_reader, "_failure", lambda: reason)
    cat = PHOTOS["cat"]
    verification = judge(sign(cat, "SALE"), sign(cat, "OPEN"))
    assert verification.score is None
    assert reason in (verification.failure or "")
    assert "pip" in reason
    asked = [each for each in verification.verdicts if each.principle.category == FOLLOW]
    assert all(each.passed is None for each in asked)


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from editr1_plugins.verifiers.measuring.text_reader import require_reader\n"
        "try:\n    require_reader()\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.startswith("MissingExtraError")
    assert "libGL.so.1: cannot open shared object file" in said
    assert "apt-get install libgl1" in said
    assert "opencv-python-headless" in said
