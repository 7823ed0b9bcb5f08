"""The contract of an adapter: a pytest class that the tests of a host's adapter inherit, one promise per test."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from ..errors import UnscoredError
from ..images import content_hash
from ..reward.rrm import EditRRMReward
from ..types import FOLLOW, MAX_SCORE, Edit, Principle, Verdict, Verification
from .contracts import _Contract

__all__ = ["AdapterContract", "OneQuestion", "ShadeVerifier"]


class OneQuestion:
    """A decomposer that asks the same of every edit."""

    thread_safe = True

    def decompose(self, requests: Sequence[tuple[Image.Image, str]]) -> list[tuple[Principle, ...]]:
        return [(Principle(question="Was it done?", category=FOLLOW),) for _ in requests]


class ShadeVerifier:
    """Scores an edit by the red of its first pixel (255 is 10) and its proportions, so each edit has its own score.

    "refuse" in an instruction leaves it without a score, "raise" raises. `seen` lists (source size, edited size,
    instruction) of all edits, in this process.
    """

    thread_safe = True

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, int], tuple[int, int], str]] = []

    def verify(self, edits: Sequence[Edit], principles: Sequence[Sequence[Principle]]) -> list[Verification]:
        return [self._judged(edit, asked) for edit, asked in zip(edits, principles, strict=True)]

    def _judged(self, edit: Edit, asked: Sequence[Principle]) -> Verification:
        self.seen.append((edit.source.size, edit.edited.size, edit.instruction))
        if "raise" in edit.instruction:
            raise RuntimeError("told to raise")
        # A refusal is of single pictures, so that one group can hold both.
        if "refuse" in edit.instruction and edit.edited.getpixel((0, 0)) == (1, 1, 1):
            return Verification(score=None, failure="refused: told to", samples=0)
        red = edit.edited.getpixel((0, 0))[0]  # type: ignore[index]
        score = MAX_SCORE * red / 255 * min(edit.source.size) / max(edit.source.size)
        return Verification(score=score, verdicts=tuple(Verdict(principle=each, passed=red > 127) for each in asked))


class AdapterContract(_Contract):
    """Promises of an adapter. Give `build` and `ask`, and adjust the flags.

    Attributes:
        top: what a perfect edit gets in this host.
        picklable: what `build` returns can be sent to another process.
        one_by_one: the host asks for one edit a call, so means come from earlier calls.
        unscored: the exception with which too many missing scores end the host's call.
    """

    top = MAX_SCORE
    picklable = True
    one_by_one = False
    unscored: type[BaseException] | tuple[type[BaseException], ...] = UnscoredError

    def build(self, **settings: Any) -> Any:
        """The adapter as its host holds it, with these settings of `HostScorer`."""
        raise NotImplementedError

    def ask(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        """The host's own call for a batch of edits; one number per edit."""
        raise NotImplementedError

    async def ask_in_loop(self, adapter: Any, edits: Sequence[Edit]) -> list[float]:
        """`ask` by a host whose event loop is running; give it where `ask` runs a loop of its own."""
        return self.ask(adapter, edits)

    @pytest.fixture
    def verifier(self) -> ShadeVerifier:
        return ShadeVerifier()

    @pytest.fixture
    def adapter(self, verifier: ShadeVerifier) -> Any:
        return self.build(**_settings(verifier))

    def test_the_scores_of_the_reward_bit_by_bit_and_in_order(self, adapter: Any) -> None:
        edits = [_edit(red) for red in (200, 3, 255, 77, 200)]
        said = EditRRMReward(**_settings(ShadeVerifier())).score(edits)
        assert self.ask(adapter, edits) == [each.score * (self.top / MAX_SCORE) for each in said if each.score]

    def test_the_scale(self, adapter: Any) -> None:
        assert self.ask(adapter, [_edit(255, side=(16, 16)), _edit(0)]) == [self.top, 0.0]

    def test_pictures_keep_their_proportions(self, adapter: Any, verifier: ShadeVerifier) -> None:
        wide = Edit(
            source=Image.new("RGB", (48, 16)), edited=Image.new("RGB", (24, 8), (9, 0, 0)), instruction="make it red"
        )
        self.ask(adapter, [wide])
        assert verifier.seen == [((48, 16), (24, 8), "make it red")]

    def test_the_pixels_arrive_as_they_are(self, adapter: Any) -> None:
        seen: list[str] = []
        noisy = Image.effect_noise((16, 16), 90).convert("RGB")

        class Look(ShadeVerifier):
            def _judged(self, edit: Edit, asked: Sequence[Principle]) -> Verification:
                seen.extend([content_hash(edit.source), content_hash(edit.edited)])
                return Verification(score=5.0)

        self.ask(self.build(**_settings(Look())), [Edit(source=noisy, edited=_grey(7), instruction="make it grey")])
        assert seen == [content_hash(noisy), content_hash(_grey(7))]

    def test_a_missing_score_gets_the_mean_of_its_group(self, adapter: Any) -> None:
        edits = [_edit(100, "refuse"), _edit(200, "refuse"), _edit(250), _refused()]
        values = self.ask(adapter, edits)
        assert values[3] == pytest.approx(sum(values[:2]) / 2)

    def test_too_many_missing_scores_end_the_call(self, adapter: Any) -> None:
        with pytest.raises(self.unscored, match="have no score"):
            self.ask(adapter, [_refused()] * 3)

    def test_the_policy_error(self, verifier: ShadeVerifier) -> None:
        adapter = self.build(**_settings(verifier), missing="error")
        with pytest.raises(self.unscored, match="refused: told to"):
            self.ask(adapter, [_edit(100, "refuse"), _refused()])

    def test_a_judge_that_raises_costs_its_own_rows(self, adapter: Any) -> None:
        values = self.ask(adapter, [_edit(100), _edit(200), _edit(50), _edit(9, "raise")])
        assert values[:3] == self.ask(adapter, [_edit(100), _edit(200), _edit(50)])
        assert 0 <= values[3] <= self.top

    def test_again_and_again(self, adapter: Any) -> None:
        edits = [_edit(10), _edit(20)]
        assert self.ask(adapter, edits) == self.ask(adapter, edits) == self.ask(adapter, edits)

    def test_from_eight_threads(self, adapter: Any) -> None:
        batches = [[_edit(10 * i), _edit(10 * i + 5)] for i in range(1, 9)]
        alone = [self.ask(adapter, batch) for batch in batches]
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda batch: self.ask(adapter, batch), batches)) == alone

    def test_inside_a_running_event_loop(self, adapter: Any) -> None:
        edits = [_edit(10), _edit(20)]

        assert asyncio.run(self.ask_in_loop(adapter, edits)) == self.ask(adapter, edits)

    def test_in_another_process(self, adapter: Any) -> None:
        if not self.picklable:
            pytest.skip("the adapter says that it is not picklable")
        edits = [_edit(10), _edit(20)]
        assert self.ask(pickle.loads(pickle.dumps(adapter)), edits) == self.ask(adapter, edits)


def _settings(verifier: ShadeVerifier) -> dict[str, Any]:
    return {"verifier": verifier, "decomposer": OneQuestion(), "guards": ()}


def _grey(red: int, side: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new("RGB", side, (red, 90, 30))


def _edit(red: int, instruction: str = "make it red", *, side: tuple[int, int] = (20, 16)) -> Edit:
    return Edit(source=Image.new("RGB", side, (0, 0, 60)), edited=_grey(red, side), instruction=instruction)


def _refused() -> Edit:
    source = Image.new("RGB", (20, 16), (0, 0, 60))
    return Edit(source=source, edited=Image.new("RGB", (20, 16), (1, 1, 1)), instruction="refuse")
