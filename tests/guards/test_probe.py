"""The probe: a judge shown the source as its own edit has to give about 0."""

from collections.abc import Sequence

import pytest
from PIL import Image

from editr1_plugins.errors import ComponentError, ConfigError
from editr1_plugins.guards import NoEditGuard
from editr1_plugins.guards.probe import probe
from editr1_plugins.principles.rules import RulesDecomposer
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import Edit, Principle, Verification
from editr1_plugins.verifiers.measure import MeasureVerifier

ASKS = ["make the photo black and white", "make the picture much brighter"]


class Scripted:
    """A judge that pays what it is told to, in order; None is a failure."""

    def __init__(self, *scores: float | None) -> None:
        self.scores = scores

    def score(self, edits: Sequence[Edit]) -> list[Verification]:
        assert all(edit.source.tobytes() == edit.edited.tobytes() for edit in edits)
        return [Verification(score=one, failure="no answer" if one is None else None) for one in self.scores]


@pytest.fixture
def sources(photos: dict[str, Image.Image]) -> list[Image.Image]:
    return [photos["cat"], photos["coffee"]]


def test_the_embedded_judge_passes_as_a_verifier(sources: list[Image.Image]) -> None:
    principles = RulesDecomposer().decompose(list(zip(sources, ASKS, strict=True)))
    report = probe(MeasureVerifier(), sources, ASKS, principles)
    assert report.scores
    assert report.worst is not None
    assert report.worst <= 0.5
    assert report.passed


def test_the_embedded_judge_passes_as_a_reward(sources: list[Image.Image]) -> None:
    report = probe(EditRRMReward(verifier=MeasureVerifier(), decomposer=RulesDecomposer(), guards=()), sources, ASKS)
    assert report.passed
    assert "passed" in str(report)


def test_a_judge_that_pays_for_nothing_is_named(sources: list[Image.Image]) -> None:
    report = probe(Scripted(0.5, 7.0), sources, ASKS)
    assert not report.passed
    assert report.above == (1,)
    assert report.mean == pytest.approx(3.75)
    assert report.worst == 7.0
    assert "1 above 1" in str(report)


def test_an_unjudged_picture_is_no_zero(sources: list[Image.Image]) -> None:
    report = probe(Scripted(None, 0.0), sources, ASKS)
    assert (report.unjudged, report.mean, report.passed) == (1, 0.0, True)
    nothing = probe(Scripted(None, None), sources, ASKS)
    assert (nothing.mean, nothing.worst, nothing.passed) == (None, None, False)
    assert "none of 2" in str(nothing)


def test_a_guard_in_front_of_the_judge_is_told(sources: list[Image.Image]) -> None:
    guarded = EditRRMReward(verifier=MeasureVerifier(), decomposer=RulesDecomposer(), guards=[NoEditGuard()])
    report = probe(guarded, sources, ASKS)
    assert report.worst == 0.0
    assert report.guarded == 2
    assert not report.passed
    assert "guards=()" in str(report)


def test_bad_calls_are_refused(sources: list[Image.Image]) -> None:
    with pytest.raises(ConfigError, match="one instruction"):
        probe(Scripted(), sources, ASKS[:1])
    with pytest.raises(ConfigError, match="one instruction"):
        probe(Scripted(), [], [])
    with pytest.raises(ConfigError, match="principles"):
        probe(MeasureVerifier(), sources, ASKS)
    with pytest.raises(ConfigError, match="no verify"):
        probe(Scripted(0, 0), sources, ASKS, [(), ()])
    with pytest.raises(ComponentError, match="returned 1"):
        probe(Scripted(0.0), sources, ASKS)


def test_a_judge_that_raises_is_named(sources: list[Image.Image]) -> None:
    class Broken:
        def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
            raise RuntimeError("out of memory")

    with pytest.raises(ComponentError, match="Broken raised RuntimeError"):
        probe(Broken(), sources, ASKS, [(), ()])
