"""`JudgeAndRetry` in diffusers' own Modular Pipelines: real tiny ones, with the host's own blocks and mechanisms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import modular_pipelines
from diffusers.modular_pipelines import FluxKontextAutoBlocks

import editr1_plugins.adapters.diffusers as lazy
from editr1_plugins.adapters.diffusers import JudgeAndRetry
from editr1_plugins.errors import ComponentError, ConfigError, MissingExtraError
from editr1_plugins.miniedit.gold import gold_score
from editr1_plugins.miniedit.model import CALL, load_pipeline
from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import draw
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.testing.adapter_contract import OneQuestion, ShadeVerifier
from editr1_plugins.testing.pipeline_families import klein, qwen
from editr1_plugins.testing.pipelines import picture
from editr1_plugins.types import Edit, Principle, Verification

README = Path(__file__).parent.parent.parent / "integrations/diffusers/README.md"
STEPS = {**CALL, "num_inference_steps": 3}
TASKS = sample_tasks(6, seed=11)
FLUX_CALL = {"height": 32, "width": 32, "max_sequence_length": 24, "num_inference_steps": 2, "seed": 3}
ONE = {"image": draw(TASKS[0].scene), "prompt": TASKS[0].instruction, **STEPS}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Says(ShadeVerifier):
    """Gives the scores it was told, in turn; None is a failure."""

    def __init__(self, *scores: float | None) -> None:
        super().__init__()
        self.scores = list(scores)

    def _judged(self, edit: Edit, asked: Sequence[Principle]) -> Verification:
        self.seen.append((edit.source.size, edit.edited.size, edit.instruction))
        score = self.scores.pop(0)
        return Verification(score=score, failure=None if score is not None else "timeout: 3 s")


def says(*scores: float | None) -> EditRRMReward:
    return EditRRMReward(Says(*scores), OneQuestion(), guards=())


@cache
def parts() -> dict[str, Any]:
    return dict(load_pipeline().components)


def filled(blocks: Any, components: dict[str, Any]) -> Any:
    pipe = blocks.init_pipeline()
    pipe.update_components(**{name: components[name] for name in pipe.component_names if name in components})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def end_judged(blocks_class: str, components: dict[str, Any], reward: EditRRMReward | None, **options: Any) -> Any:
    blocks = getattr(modular_pipelines, blocks_class)()
    judge = JudgeAndRetry.taking(blocks, reward=reward, **options)
    blocks.sub_blocks.insert("judge", judge, len(blocks.sub_blocks))
    return filled(blocks, components)


def judged(reward: EditRRMReward | None = None, **options: Any) -> Any:
    """MiniEdit's Kontext as a modular pipeline that ends with the block."""
    return end_judged("FluxKontextAutoBlocks", parts(), reward, **options)


@cache
def edit_of(seed: int) -> bytes:
    """The edit of `ONE` that the pipeline makes without the block."""
    state = filled(FluxKontextAutoBlocks(), parts())(**ONE, generator=torch.Generator().manual_seed(seed))
    [image] = state.images
    return bytes(image.tobytes())


class TestRounds:
    def test_it_ends_with_the_first_edit_that_is_good_enough(self) -> None:
        pipe = judged(says(2.0, 3.0, 8.5, 9.0), until=8.0, max_rounds=5)
        state = pipe(**ONE, seed=7)
        assert state.scores == [8.5]
        assert state.rounds == 3
        assert [each.seed for each in state.best_of[0].candidates] == [7, 8, 9]
        assert state.best_of[0].reached
        assert [image.tobytes() for image in state.images] == [edit_of(9)]

    def test_or_with_the_best_of_all_rounds(self) -> None:
        state = judged(says(1.0, 4.0, 2.0), until=8.0, max_rounds=3)(**ONE, seed=7)
        assert (state.scores, state.rounds) == ([4.0], 3)
        assert not state.best_of[0].reached
        assert state.images[0].tobytes() == edit_of(8)
        assert [each.image.tobytes() for each in state.best_of[0].candidates] == [edit_of(seed) for seed in (7, 8, 9)]

    def test_without_a_threshold_all_rounds_are_made_and_the_call_may_say_how_many(self) -> None:
        state = judged(says(10.0, 1.0), max_rounds=9)(**ONE, seed=0, max_rounds=2)
        assert (state.scores, state.rounds) == ([10.0], 2)

    def test_the_call_may_give_the_threshold(self) -> None:
        state = judged(says(4.0, 6.0), until=9.0)(**ONE, seed=0, until=5.0)
        assert (state.scores, state.rounds) == ([6.0], 2)

    def test_several_edits_a_round(self) -> None:
        state = judged(says(1.0, 2.0, 3.0, 9.0), until=8.0)(**ONE, seed=7, num_images_per_prompt=2)
        assert [(each.round, each.seed) for each in state.best_of[0].candidates] == [(1, 7), (1, 8), (2, 9), (2, 10)]
        assert (state.scores, len(state.images)) == ([9.0], 1)
        assert near(state.images[0], edit_of(10))

    def test_encoders_run_once(self) -> None:
        calls: list[int] = []
        hooks = [parts()[name].register_forward_hook(lambda *_: calls.append(1)) for name in ("text_encoder_2",)]
        try:
            assert judged(says(0.0, 0.0, 0.0), max_rounds=3)(**ONE, seed=0).rounds == 3
        finally:
            for hook in hooks:
                hook.remove()
        assert len(calls) == 1


def near(image: Any, expected: bytes) -> bool:
    """Equal up to the rounding that a batch's size makes."""
    gap = np.asarray(image).astype(int) - np.frombuffer(expected, np.uint8).reshape(np.asarray(image).shape)
    return int(np.abs(gap).max()) <= 1


class TestWhatWasNotJudged:
    def test_it_never_wins(self) -> None:
        state = judged(says(None, 0.0, None), max_rounds=3)(**ONE, seed=7)
        assert (state.scores, state.verifications[0].failure) == ([0.0], None)
        assert state.images[0].tobytes() == edit_of(8)
        failures = [each.verification.failure for each in state.best_of[0].candidates]
        assert failures == ["timeout: 3 s", None, "timeout: 3 s"]

    def test_nothing_judged_is_said_and_the_first_edit_kept(self, caplog: pytest.LogCaptureFixture) -> None:
        state = judged(says(None, None), until=5.0, max_rounds=2)(**ONE, seed=7)
        assert (state.scores, state.rounds) == ([None], 2)
        assert state.verifications[0].failure == "timeout: 3 s"
        assert state.images[0].tobytes() == edit_of(7)
        assert "none of 2 edits could be judged (2 x timeout); the first: timeout: 3 s" in caplog.text

    def test_an_edit_that_is_no_picture_costs_only_itself(self) -> None:
        """As a VAE in half precision makes them."""
        rounds: list[int] = []

        def overflow(module: Any, given: Any, pixels: torch.Tensor) -> torch.Tensor:
            rounds.append(1)
            return pixels * torch.nan if len(rounds) == 1 else pixels

        hook = parts()["vae"].decoder.register_forward_hook(overflow)
        try:
            state = judged(says(0.5), until=0.5)(**ONE, seed=7, output_type="pt")
        finally:
            hook.remove()
        first, second = state.best_of[0].candidates
        assert first.image is None
        assert "edited image: row 0: edited image has float pixels in nan..nan" in first.verification.failure
        assert (second.verification.score, state.rounds) == (0.5, 2)
        assert torch.isfinite(state.images).all()
        assert state.best_of[0].as_dict()["candidates"][0]["image"] is None


class TestTasks:
    BATCH = {  # noqa: RUF012
        "image": [draw(task.scene) for task in TASKS[:2]],
        "prompt": [task.instruction for task in TASKS[:2]],
        **STEPS,
    }

    def test_each_gets_what_it_would_get_alone(self) -> None:
        options = {"verifier": "measure", "max_rounds": 2}
        together = judged(**options)(**self.BATCH, seed=5, num_images_per_prompt=2)
        for task, image in enumerate(self.BATCH["image"]):
            one = {**STEPS, "image": image, "prompt": self.BATCH["prompt"][task]}
            alone = judged(**options)(**one, seed=5, num_images_per_prompt=2)
            assert alone.scores[0] == pytest.approx(together.scores[task], abs=0.05)
            assert near(together.images[task], alone.images[0].tobytes())

    def test_a_settled_task_is_not_judged_again(self) -> None:
        verifier = Says(9.0, 1.0, 2.0, 8.5)
        reward = EditRRMReward(verifier, OneQuestion(), guards=())
        state = judged(reward, until=8.0)(**self.BATCH, seed=0)
        assert (state.scores, state.rounds) == ([9.0, 8.5], 3)
        first, second = self.BATCH["prompt"]
        assert [instruction for _, _, instruction in verifier.seen] == [first, second, second, second]

    def test_references_are_not_taken_for_the_sources_of_several_prompts(self) -> None:
        pipe = end_judged("Flux2KleinAutoBlocks", klein("Flux2KleinPipeline").components, says(3.0, 4.0))
        call = {**FLUX_CALL, "image": [picture(64), picture(64, 1)], "prompt": ["a", "b"]}
        with pytest.raises(ConfigError, match="2 images for 2 prompts do not tell which was edited by which"):
            pipe(**call)
        assert pipe(**call, source_image=picture(64)).scores == [3.0, 4.0]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"image": None}, "pass image"),
            ({"prompt": None, "prompt_embeds": True}, "pass prompt"),
            ({"output_type": "latent"}, "no picture"),
            ({"generator": [torch.Generator()]}, "pass seed instead"),
            ({"until": 11}, "until=11"),
            ({"max_rounds": 0}, "max_rounds=0"),
        ],
    )
    def test_calls_that_cannot_be_judged(self, changes: dict[str, Any], message: str) -> None:
        pipe = judged(says())
        state = modular_pipelines.PipelineState(values={**ONE, **changes})
        with pytest.raises(ConfigError, match=message):
            pipe._blocks.sub_blocks["judge"](pipe, state)


class TestSeeds:
    def test_a_generator_tells_the_seed_and_the_first_edit_is_the_pipelines_own(self) -> None:
        pipe = judged(says(1.0))
        state = pipe(**ONE, generator=torch.Generator().manual_seed(31))
        assert state.best_of[0].candidates[0].seed == 31
        assert state.images[0].tobytes() == edit_of(31)

    def test_without_either_it_is_drawn_and_told(self) -> None:
        pipe = judged(says(1.0, 1.0))
        torch.manual_seed(1)
        [first] = pipe(**ONE).best_of
        [other] = pipe(**ONE).best_of
        assert first.candidates[0].seed != other.candidates[0].seed
        assert first.candidates[0].image.tobytes() == edit_of(first.candidates[0].seed)


class TestHost:
    def test_it_stays_in_the_hosts_workflows(self) -> None:
        workflow = judged(says(1.0)).blocks.get_workflow("image_conditioned")
        assert list(workflow.sub_blocks) == ["text_encoder", "vae_encoder.preprocess", "vae_encoder.encode", "judge"]
        assert filled(workflow, parts())(**ONE, seed=7).scores == [1.0]

    def test_its_inputs_and_outputs_are_listed_and_nothing_is_asked_for_twice(self) -> None:
        pipe = judged(says())
        names = [each.name for each in pipe.blocks.inputs]
        assert len(names) == len(set(names))
        assert {"until", "max_rounds", "seed", "source_image", "num_inference_steps", "height"} <= set(names)
        for each in ("scores", "verifications", "rounds", "best_of"):
            assert each in pipe.blocks.sub_blocks["judge"].doc
        assert "JudgeAndRetry" in repr(pipe.blocks)
        assert pipe.component_names == filled(FluxKontextAutoBlocks(), parts()).component_names

    def test_copies_of_the_blocks_have_one_judge(self) -> None:
        verifier = Says(1.0, 2.0)
        pipe = judged(EditRRMReward(verifier, OneQuestion(), guards=()))
        pipe(**ONE, seed=0)
        filled(pipe.blocks, parts())(**ONE, seed=0)
        assert len(verifier.seen) == 2

    def test_the_state_before_the_block_is_left_alone_and_can_be_gone_on_from(self) -> None:
        pipe = judged(says(1.0, 5.0))
        state = pipe(**ONE, seed=7)
        assert state.height == CALL["height"]
        assert state.get("latents") is None
        assert pipe(state=state, prompt=ONE["prompt"]).scores == [5.0]

    @pytest.mark.parametrize("kind", ["pt", "np"])
    def test_the_best_come_as_the_pipeline_gives_images(self, kind: str) -> None:
        pipe = judged(says(1.0, 3.0), max_rounds=2)
        images = pipe(**ONE, seed=7, output_type=kind).images
        assert isinstance(images, torch.Tensor if kind == "pt" else np.ndarray)
        assert images.shape == ((1, 3, 32, 32) if kind == "pt" else (1, 32, 32, 3))
        pixels = images[0].permute(1, 2, 0).numpy() if kind == "pt" else images[0]
        assert (pixels * 255).round().astype(np.uint8).tobytes() == edit_of(8)

    def test_bars_of_the_denoising_are_switched_off_with_the_others(self, capfd: pytest.CaptureFixture[str]) -> None:
        judged(says(1.0))(**ONE, seed=7)
        assert "it/s" not in capfd.readouterr().err

    def test_steps_that_lose_an_edit_are_named(self) -> None:
        class Loses(modular_pipelines.ModularPipelineBlocks):
            def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
                state.set("images", state.images[1:])
                return components, state

        pipe = judged(says(1.0))
        pipe._blocks.sub_blocks["judge"].sub_blocks["lose"] = Loses()
        with pytest.raises(ComponentError, match="denoise, decode, lose made 0 images for 1 edits"):
            pipe(**ONE, seed=0)

    def test_wrong_blocks(self) -> None:
        blocks = FluxKontextAutoBlocks()
        with pytest.raises(ConfigError, match="no block 'denoising', only text_encoder, vae_encoder, denoise, decode"):
            JudgeAndRetry.taking(blocks, "denoising")
        with pytest.raises(ConfigError, match="steps"):
            JudgeAndRetry({})
        assert list(blocks.sub_blocks) == ["text_encoder", "vae_encoder", "denoise", "decode"]


@pytest.mark.parametrize(
    ("blocks_class", "build", "pipeline_class", "call"),
    [
        ("Flux2KleinAutoBlocks", klein, "Flux2KleinPipeline", FLUX_CALL),
        pytest.param(
            "QwenImageEditAutoBlocks",
            qwen,
            "QwenImageEditPipeline",
            {"height": 256, "width": 256, "num_inference_steps": 2, "seed": 3},
            marks=pytest.mark.slow,  # it encodes about a megapixel
        ),
    ],
)
def test_other_families(blocks_class: str, build: Any, pipeline_class: str, call: dict[str, Any]) -> None:
    verifier = ShadeVerifier()
    reward = EditRRMReward(verifier, OneQuestion(), guards=())
    pipe = end_judged(blocks_class, build(pipeline_class).components, reward, max_rounds=2)
    state = pipe(image=picture(64), prompt="make the sky red", num_images_per_prompt=2, **call)
    scores = [each.verification.score for each in state.best_of[0].candidates]
    assert len(scores) == len(verifier.seen) == 4
    assert state.scores == [max(scores)]
    assert state.images[0].getpixel((0, 0))[0] / 25.5 == pytest.approx(max(scores))
    assert len({each.image.tobytes() for each in state.best_of[0].candidates}) == 4


def test_rounds_raise_the_score_above_that_of_a_fixed_seed() -> None:
    """By the judge, and by the gold measure that the judge never sees."""
    pipe, first, best, golds = judged(verifier="measure", until=9.0, max_rounds=4), [], [], []
    for task in TASKS:
        call = {**CALL, "image": draw(task.scene), "prompt": task.instruction, "num_inference_steps": 8}
        state = pipe(**call, seed=0, num_images_per_prompt=4)
        edits = state.best_of[0].candidates
        first.append(edits[0].verification.score or 0.0)
        best.append(state.scores[0])
        golds.append((gold_score(task, edits[0].image).score, gold_score(task, state.images[0]).score))
        assert state.scores[0] == max(each.verification.score for each in edits if each.verification.score is not None)
        assert state.rounds == 4 or state.scores[0] >= 9.0
    assert np.mean(best) > np.mean(first) + 3
    fixed, retried = np.mean(golds, axis=0)
    assert retried > fixed + 2


def test_the_lines_of_the_readme() -> None:
    """With MiniEdit's weights and judge in place of the real ones."""
    lines = README.read_text().split("```python\n")[2].split("```")[0].replace("openai:MODEL@URL", "measure")
    blocks, weights = lines.split("pipe = blocks.init_pipeline(")
    call = weights.split("state = ")[1].replace('image=source, prompt="make the sky pink"', "**ONE")
    lines = f"{blocks}pipe = filled(blocks, parts())\nstate = {call}"
    given = {**globals()}
    exec(compile(lines, "README.md", "exec"), given)
    assert given["state"].scores[0] is not None
    assert 1 <= given["state"].rounds <= 4


def test_diffusers_is_imported_when_it_is_needed() -> None:
    code = (
        "import sys, editr1_plugins.adapters.diffusers as lazy\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)\n"
        "try: lazy.nothing\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('no error')\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_host_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "editr1_plugins.adapters.diffusers_judge")
    monkeypatch.delattr("editr1_plugins.adapters.diffusers_judge", raising=False)
    monkeypatch.setitem(sys.modules, "diffusers.modular_pipelines", None)
    with pytest.raises(MissingExtraError, match=r'pip install "diffusers>=0\.42\.1"'):
        _ = lazy.JudgeAndRetry
