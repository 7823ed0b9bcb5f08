"""The plugin keeps the contracts of editr1_plugins, and measures what it says."""

import numpy as np
import pytest
from editr1_palette.decomposer import PaletteDecomposer
from editr1_palette.guard import FewColoursGuard
from editr1_palette.verifier import PaletteVerifier
from PIL import Image

from editr1_plugins import EditRRMReward, resolve
from editr1_plugins.testing import DecomposerContract, GuardContract, VerifierContract, check_plugin_imports_light
from editr1_plugins.types import FOLLOW, Edit, NoPrinciples, Principle


def picture() -> Image.Image:
    """A smooth gradient with thousands of colours."""
    y, x = np.mgrid[0:64, 0:64] * 2
    return Image.fromarray(np.stack([x, y, 255 - x // 2 - y // 2], -1).astype(np.uint8))


def reduced(count: int, instruction: str = "use at most 6 colours") -> Edit:
    source = picture()
    edited = source.quantize(count, method=Image.Quantize.MEDIANCUT).convert("RGB")
    return Edit(source=source, edited=edited, instruction=instruction)


class TestPaletteVerifier(VerifierContract):
    @pytest.fixture
    def verifier(self):
        return PaletteVerifier()

    @pytest.fixture
    def edits(self):
        return [reduced(4), reduced(6), reduced(60)]

    @pytest.fixture
    def principles(self, edits):
        return PaletteDecomposer().decompose([(edit.source, edit.instruction) for edit in edits])

    def test_it_scores_what_was_asked_for(self, verifier, edits, principles):
        few, six, many = verifier.verify(edits, principles)
        assert few.score == 10
        assert six.score == 10
        assert many.score == 0
        assert "colours cover" in many.verdicts[0].reason

    def test_a_smear_over_the_picture_costs_points(self, verifier, edits, principles):
        flat = Edit(source=edits[0].source, edited=Image.new("RGB", (64, 64), "red"), instruction="use 6 colours")
        [judged] = verifier.verify([flat], principles[:1])
        assert [verdict.passed for verdict in judged.verdicts] == [True, False, False]
        assert judged.score == pytest.approx(10 / 3)

    def test_black_and_white(self, verifier):
        source = picture()
        asked = [Principle(question="Is the image now black and white?", category=FOLLOW)]
        grey = Edit(source=source, edited=source.convert("L").convert("RGB"), instruction="make it black and white")
        same = Edit(source=source, edited=source, instruction="make it black and white")
        assert [each.score for each in verifier.verify([grey, same], [asked, asked])] == [10, 0]

    def test_another_question_is_not_guessed_at(self, verifier, edits):
        [judged] = verifier.verify(edits[:1], [[Principle(question="Is the car blue?", category=FOLLOW)]])
        assert judged.score is None
        assert judged.verdicts[0].passed is None


class TestPaletteDecomposer(DecomposerContract):
    @pytest.fixture
    def decomposer(self):
        return PaletteDecomposer()

    @pytest.fixture
    def requests(self):
        return [(picture(), "Reduce the image to 8 colors"), (picture(), "use only four colours")]

    def test_the_number_is_read(self, decomposer, requests):
        assert [asked[0].question for asked in decomposer.decompose(requests)] == [
            "Does the edited image use at most 8 colours?",
            "Does the edited image use at most 4 colours?",
        ]

    @pytest.mark.parametrize(
        "text", ["make it red", "use 0 colours", "use 999 colours", "from 16 colours to 4 colours"]
    )
    def test_what_is_no_palette_is_declined(self, decomposer, text):
        assert isinstance(decomposer.decompose([(picture(), text)])[0], NoPrinciples)


class TestFewColoursGuard(GuardContract):
    @pytest.fixture
    def guard(self):
        return FewColoursGuard()

    @pytest.fixture
    def hack(self):
        return Edit(source=picture(), edited=Image.new("RGB", (64, 64), "teal"), instruction="use 6 colours")

    @pytest.fixture
    def honest(self):
        return reduced(6)

    def test_a_source_that_is_blank_itself_is_no_hack(self, guard, hack):
        assert guard.inspect([Edit(source=hack.edited, edited=hack.edited, instruction="x")], [()], []) == [None]


def test_the_plugin_imports_light():
    check_plugin_imports_light("editr1_palette")


def test_all_three_work_in_the_reward():
    reward = EditRRMReward(verifier="palette", decomposer="palette", guards=["editr1-palette/few_colours:2"])
    blank = Edit(source=picture(), edited=Image.new("RGB", (64, 64), "teal"), instruction="use at most 6 colours")
    other = Edit(source=picture(), edited=picture(), instruction="make the car red")
    scores = reward.score([reduced(6), reduced(60), blank, other])
    assert [each.score for each in scores] == [10.0, 0.0, 0.0, None]
    assert "few_colours" in scores[2].flags
    assert "number of colours" in scores[3].failure


def test_an_unknown_guard_argument_is_an_error_that_names_the_plugin():
    with pytest.raises(RuntimeError, match="editr1-palette"):
        resolve("guard", "few_colours:many")
