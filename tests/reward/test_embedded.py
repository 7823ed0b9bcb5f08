"""The default reward, `EditRRMReward()`: rules and measure, end to end."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageEnhance

from editr1_plugins.reward.journal import read_records
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import Edit


@pytest.fixture
def reward(monkeypatch: pytest.MonkeyPatch) -> EditRRMReward:
    monkeypatch.delenv("EDITR1_VERIFIER", raising=False)
    monkeypatch.delenv("EDITR1_DECOMPOSER", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EditRRMReward()


def scene(circle: str, square: str = "green") -> Image.Image:
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((6, 6, 28, 28), fill=circle)
    draw.rectangle((36, 36, 58, 58), fill=square)
    return image


def call(reward: EditRRMReward, instruction: str, source: Image.Image, edited: list[Image.Image]) -> list[float | None]:
    count = len(edited)
    return reward(prompts=[instruction] * count, completions=edited, image=[source] * count)


def test_a_recolour_is_ranked_as_it_should_be(reward: EditRRMReward) -> None:
    candidates = [scene("blue"), scene("red"), scene("blue", square="yellow"), scene("green")]
    gold, copy, collateral, wrong = call(reward, "make the red circle blue", scene("red"), candidates)
    assert gold is not None
    assert collateral is not None
    assert wrong is not None
    assert gold > 9
    assert copy == 0
    assert gold > collateral + 1
    assert wrong < 2


def test_a_tone_edit_of_a_picture(reward: EditRRMReward) -> None:
    source = Image.effect_mandelbrot((96, 96), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    candidates = [ImageEnhance.Brightness(source).enhance(factor) for factor in (1.5, 1.0, 0.6)]
    brighter, copy, darker = call(reward, "make the image brighter", source, candidates)
    assert brighter is not None
    assert brighter > 5
    assert copy == darker == 0


def test_what_it_does_not_understand_is_none_with_the_reason(reward: EditRRMReward) -> None:
    edit = Edit(source=scene("red"), edited=scene("blue"), instruction="evoke the melancholy of late autumn")
    (outcome,) = reward.score([edit])
    assert outcome.score is None
    assert str(outcome.failure).startswith("no_principles: ")


def test_records_name_the_parts_with_their_versions(tmp_path: Path) -> None:
    reward = EditRRMReward("measure", "rules", record=tmp_path)
    reward.score([Edit(source=scene("red"), edited=scene("blue"), instruction="make the red circle blue")])
    (row,) = read_records(tmp_path)
    assert (row["verifier"], row["decomposer"]) == ("measure/2", "rules/2")
    assert {verdict["category"] for verdict in row["verdicts"]} == {
        "Instruction Following",
        "Feature Preservation",
        "Image Quality",
    }
    assert all(verdict["reason"] for verdict in row["verdicts"])


def _score_elsewhere(pickled: bytes) -> float | None:
    reward: EditRRMReward = pickle.loads(pickled)
    edit = Edit(source=scene("red"), edited=scene("blue"), instruction="make the red circle blue")
    return reward.score([edit])[0].score


def test_a_used_reward_travels_to_a_fresh_process(reward: EditRRMReward) -> None:
    here = _score_elsewhere(pickle.dumps(reward))
    reward.score([Edit(source=scene("red"), edited=scene("blue"), instruction="make the red circle blue")])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_score_elsewhere, (pickle.dumps(reward),)) == here
    assert here is not None
