"""Best of N: better by a measure that the judge never sees, repeatable, honest about what was not judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1_plugins.errors import ComponentError, ConfigError
from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.model import CALL, load_pipeline
from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import draw
from editr1_plugins.reward.best_of import BestOf, best_of, best_of_each
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import FOLLOW, Edit, Principle, Verdict, Verification

CALL_8 = {**CALL, "num_inference_steps": 8}


class Asks:
    def decompose(self, requests: Sequence[Any]) -> list[tuple[Principle, ...]]:
        return [(Principle(question="Is it good?", category=FOLLOW),) for _ in requests]


class Says:
    """A verifier that gives the scores it was told, in turn; None is a failure."""

    def __init__(self, *scores: float | None) -> None:
        self.scores = list(scores)
        self.calls: list[int] = []

    def verify(self, edits: Sequence[Edit], principles: Sequence[Any]) -> list[Verification]:
        self.calls.append(len(edits))
        return [self.one(asked) for asked in principles]

    def one(self, asked: Sequence[Principle]) -> Verification:
        score = self.scores.pop(0)
        verdicts = tuple(Verdict(principle=each, passed=score is not None) for each in asked)
        return Verification(score=score, verdicts=verdicts, failure=None if score is not None else "timeout: 3 s")


class Paints:
    """A pipeline whose edit is a colour drawn from the generator."""

    calls = 0

    def __call__(
        self,
        image: Any,
        prompt: str,
        generator: Any,
        output_type: str = "pil",
        num_images_per_prompt: int = 1,
        strength: float = 1.0,
    ) -> Any:
        self.calls += 1
        generators = generator if isinstance(generator, list) else [generator]
        assert len(generators) == num_images_per_prompt
        colours = [tuple(torch.randint(0, 255, (3,), generator=each).tolist()) for each in generators]
        return type("Output", (), {"images": [Image.new("RGB", (8, 8), colour) for colour in colours]})


class PaintsOne:
    """A pipeline that makes one edit a call."""

    def __call__(self, image: Any, prompt: str, generator: Any, output_type: str = "pil") -> Any:
        return Paints()(image, prompt, generator)


def judged(*scores: float | None) -> EditRRMReward:
    return EditRRMReward(Says(*scores), Asks(), guards=())


def made(reward: EditRRMReward, pipe: Any = None, **options: Any) -> BestOf:
    return best_of(pipe or Paints(), Image.new("RGB", (8, 8)), "do it", reward=reward, **options)


class TestChoice:
    def test_the_highest_score_wins_and_of_equals_the_first(self) -> None:
        found = made(judged(2.0, 7.0, 7.0, 1.0), n=4)
        assert found.best is found.candidates[1]
        assert found.reached
        assert found.failure is None
        assert [each.seed for each in found.candidates] == [0, 1, 2, 3]

    def test_what_was_not_judged_never_wins(self) -> None:
        found = made(judged(None, 0.0, None), n=3)
        assert found.best is found.candidates[1]
        assert found.best.verification.score == 0.0

    def test_nothing_judged_is_no_best_and_the_reason(self) -> None:
        found = made(judged(None, None), n=2)
        assert found.best is None
        assert not found.reached
        assert found.failure == "none of 2 edits could be judged (2 x timeout); the first: timeout: 3 s"
        assert json.loads(json.dumps(found.as_dict()))["best"] is None

    def test_all_are_judged_in_one_call(self) -> None:
        verifier = Says(1.0, 2.0, 3.0)
        made(EditRRMReward(verifier, Asks(), guards=()), n=3)
        assert verifier.calls == [3]


class TestRounds:
    def test_it_stops_at_the_first_that_is_good_enough(self) -> None:
        found = made(judged(1.0, 2.0, 3.0, 8.0), n=2, until=7.5, max_rounds=5)
        assert [each.round for each in found.candidates] == [1, 1, 2, 2]
        assert [each.seed for each in found.candidates] == [0, 1, 2, 3]
        assert found.reached

    def test_and_at_the_last_round_with_the_best_so_far(self) -> None:
        found = made(judged(1.0, 4.0, None, 2.0), n=2, until=7.5, max_rounds=2)
        assert not found.reached
        assert found.best is found.candidates[1]

    def test_four_rounds_unless_told(self) -> None:
        assert len(made(judged(*[0.0] * 4), n=1, until=5).candidates) == 4

    def test_without_until_there_is_one_round(self) -> None:
        assert len(made(judged(0.0, 0.0), n=2).candidates) == 2

    def test_or_as_many_as_were_asked_for(self) -> None:
        found = made(judged(10.0, 0.0, 0.0, 0.0), n=2, max_rounds=2)
        assert [each.round for each in found.candidates] == [1, 1, 2, 2]


class TestSeveralTasks:
    SOURCE = Image.new("RGB", (8, 8))

    def edit(self, colour: int, instruction: str) -> Edit:
        return Edit(source=self.SOURCE, edited=Image.new("RGB", (8, 8), (colour, 0, 0)), instruction=instruction)

    def test_a_settled_task_is_not_judged_again_and_seeds_are_the_same_for_all(self) -> None:
        asked: list[list[int]] = []

        def make(seeds: Sequence[int]) -> list[list[Edit]]:
            asked.append(list(seeds))
            return [[self.edit(seed, task) for seed in seeds] for task in ("one", "two")]

        verifier = Says(1.0, 8.0, 2.0, 3.0, 9.0, 4.0)
        reward = EditRRMReward(verifier, Asks(), guards=())
        one, two = best_of_each(make, ["one", "two"], reward, n=2, until=7.0, max_rounds=5, seed=3)
        assert asked == [[3, 4], [5, 6]]
        assert verifier.calls == [4, 2]
        assert [(each.index, each.seed) for each in one.candidates] == [(0, 3), (1, 4)]
        assert [(each.index, each.seed, each.round) for each in two.candidates][2:] == [(2, 5, 2), (3, 6, 2)]
        assert (one.best, two.best) == (one.candidates[1], two.candidates[2])

    def test_an_edit_that_could_not_be_made_has_its_reason_and_never_wins(self) -> None:
        [found] = best_of_each(lambda seeds: [["no picture", self.edit(1, "one")]], ["one"], judged(0.0), n=2)
        assert found.best is found.candidates[1]
        assert found.candidates[0].verification.failure == "no picture"
        assert json.loads(json.dumps(found.as_dict()))["candidates"][0]["image"] is None

    def test_a_number_of_edits_that_was_not_asked_for(self) -> None:
        with pytest.raises(ComponentError, match=r"2 edits of 1 tasks were asked for, not \[1\]"):
            best_of_each(lambda seeds: [[self.edit(1, "one")]], ["one"], judged(), n=2)


class TestSampling:
    def test_seeds_fix_the_edits_whatever_n_and_batch(self) -> None:
        pipe = Paints()
        many = made(judged(*[0.0] * 5), pipe, n=5, batch_size=2, seed=3)
        assert pipe.calls == 3
        few = made(judged(0.0, 0.0), n=2, seed=4)
        pixels = [each.image.getpixel((0, 0)) for each in many.candidates]
        assert [each.image.getpixel((0, 0)) for each in few.candidates] == pixels[1:3]
        assert len(set(pixels)) == 5

    def test_the_global_generator_is_left_alone(self) -> None:
        before = torch.get_rng_state()
        made(judged(0.0), n=1)
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n": 0}, "n=0"),
            ({"max_rounds": 0}, "max_rounds=0"),
            ({"batch_size": 0}, "batch_size=0"),
            ({"until": 11}, "until=11"),
            ({"call": {"strenght": 0.5}}, "takes no strenght"),
            ({"call": {"prompt": "x"}}, "call sets prompt"),
            ({"pipe": PaintsOne(), "batch_size": 2}, "one edit a call"),
        ],
    )
    def test_wrong_arguments(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            made(judged(), **options)

    def test_a_pipeline_that_raises_is_named(self) -> None:
        class Breaks(PaintsOne):
            def __call__(self, image: Any, prompt: str, generator: Any, output_type: str = "pil") -> Any:
                raise RuntimeError("out of memory")

        with pytest.raises(ComponentError, match="pipeline Breaks raised RuntimeError: out of memory"):
            made(judged(), Breaks())


def test_the_best_of_eight_is_better_by_the_gold_measure() -> None:
    """The judge never sees the gold measure; the pipeline is a real one."""
    torch.set_num_threads(1)
    pipe, singles, bests = load_pipeline(), [], []
    reward = EditRRMReward("measure")
    tasks = sample_tasks(10, seed=11)
    for task in tasks:
        options = {"n": 8, "reward": reward, "batch_size": 8, "call": CALL_8}
        found = best_of(pipe, draw(task.scene), task.instruction, **options)
        golds = [gold_score(task, each.image).score for each in found.candidates]
        singles.append(np.mean(golds))
        bests.append(golds[found.best.index] if found.best is not None else golds[0])
    assert np.mean(bests) > np.mean(singles) + 2

    again = best_of(pipe, draw(tasks[-1].scene), tasks[-1].instruction, **options)
    assert [each.image.tobytes() for each in again.candidates] == [each.image.tobytes() for each in found.candidates]
    assert [each["score"] for each in again.as_dict()["candidates"]] == [
        each["score"] for each in found.as_dict()["candidates"]
    ]
