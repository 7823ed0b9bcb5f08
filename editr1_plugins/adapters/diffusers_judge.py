"""The block of diffusers' Modular Pipelines that judges and retries; import it from `adapters.diffusers`.

It holds the pipeline's own denoising and decoding blocks and runs them once a round. It has to hold them: after they
have run, the state no longer has what they began with (embeddings are repeated, source latents packed, timesteps and
latents set), so a block that only came after them could not run them again.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers.modular_pipelines import (
    InputParam,
    LoopSequentialPipelineBlocks,
    OutputParam,
    PipelineState,
    SequentialPipelineBlocks,
)

from editr1_plugins.adapters.conversion import EditOrReason, as_edit, as_image
from editr1_plugins.adapters.scorer import HostScorer
from editr1_plugins.errors import ComponentError, ConfigError
from editr1_plugins.reward.best_of import BestOf, best_of_each
from editr1_plugins.reward.rrm import EditRRMReward

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["JudgeAndRetry"]

_log = logging.getLogger(__name__)

_OWN_INPUTS = (
    InputParam("prompt", description="The instruction, or one per task; the judge reads it."),
    InputParam("image", description="The source image(s) of the pipeline."),
    InputParam(
        "source_image",
        description="What the judge compares edits with, one per task. Default: `image`, of several the first.",
    ),
    InputParam("seed", type_hint=int, description="Of the first edit; default: that of `generator`, else drawn."),
    InputParam("until", type_hint=float, description="A score in 0..10 at which a task is settled."),
    InputParam("max_rounds", type_hint=int, description="Rounds at most; default: 1, or 4 with `until`."),
)
_OWN_OUTPUTS = (
    OutputParam("images", description="The best edit of each task, in the pipeline's `output_type`."),
    OutputParam("scores", type_hint=list, description="Its score in 0..10; None where no edit could be judged."),
    OutputParam("verifications", type_hint=list, description="Its `Verification`: verdicts, flags, or the failure."),
    OutputParam("rounds", type_hint=int, description="Rounds that were made."),
    OutputParam("best_of", type_hint=list, description="One `BestOf` per task: every edit with seed and score."),
)


class JudgeAndRetry(LoopSequentialPipelineBlocks):  # of this kind, since diffusers never takes a loop's blocks apart
    """Judges edits, keeps the best of each task, and denoises again with other seeds until one is good enough.

    Inserted where the blocks in `steps` were; what comes before (encoders) runs once. A task is a prompt with its
    source, and makes `num_images_per_prompt` edits a round. Edit i of every task has a generator of its own with the
    seed `seed + i`, so a `generator` that is passed to the pipeline only tells seed and device; the first edit of a
    call with `torch.Generator().manual_seed(7)` is the one that the pipeline makes of it without this block.

    An edit that could not be judged never wins over one that was. Where a task has none that was, its first edit is
    kept, with the score None and the reason in `verifications`, and a warning is logged.

    Args:
        steps: blocks by name that make `images` from what is encoded, in order.
        reward: the judge, built already; else one is built from `settings` when the first edits are there.
        until, max_rounds: for calls that do not say otherwise.
        settings: of `EditRRMReward`: `verifier`, `decomposer`, `guards`, `samples`, `record`, ...

    Raises:
        ConfigError: no steps, or settings that do not fit; in a call: no prompt, no source, or sources that cannot be
            told apart.
        ComponentError: in a call: the steps make another number of images than of edits.
    """

    model_name: ClassVar[str | None] = None

    def __init__(
        self,
        steps: Mapping[str, Any],
        reward: EditRRMReward | None = None,
        *,
        until: float | None = None,
        max_rounds: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if not steps:
            raise ConfigError("steps are the blocks that make the images, such as denoise and decode; there are none")
        self.sub_blocks.update(steps)
        self.block_names = list(steps)
        self.block_classes = [type(block) for block in steps.values()]
        self._scorer = HostScorer(reward, **settings)
        self._until, self._max_rounds = until, max_rounds

    @classmethod
    def taking(cls, blocks: Any, first: str = "denoise", **options: Any) -> JudgeAndRetry:
        """A block with those of `blocks` from the one named `first` to the last, which are taken out of `blocks`.

        Args:
            options: as for the class.

        Raises:
            ConfigError: there is no such block.
        """
        names = list(blocks.sub_blocks)
        if first not in names:
            raise ConfigError(f"{type(blocks).__name__} has no block {first!r}, only {', '.join(names)}")
        taken = names[names.index(first) :]
        judge = cls({name: blocks.sub_blocks[name] for name in taken}, **options)
        for name in taken:
            del blocks.sub_blocks[name]
        return judge

    def __deepcopy__(self, memo: dict[int, Any]) -> JudgeAndRetry:
        # diffusers copies blocks; the judge (its connections, its model) is one for all copies.
        new = copy.copy(self)
        memo[id(self)] = new
        new.sub_blocks = copy.deepcopy(self.sub_blocks, memo)
        return new

    @property
    def description(self) -> str:
        return "Judges the edits that its blocks make, keeps the best of each task, and makes others until one is good."

    @property
    def inputs(self) -> list[InputParam]:
        own = {each.name for each in _OWN_INPUTS}
        return [*copy.deepcopy(_OWN_INPUTS), *(each for each in self._steps().inputs if each.name not in own)]

    @property
    def required_inputs(self) -> list[str]:
        return [each.name for each in self.inputs if each.required]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return list(copy.deepcopy(_OWN_OUTPUTS))

    @property
    def outputs(self) -> list[OutputParam]:
        return self.intermediate_outputs

    @torch.no_grad()
    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        instructions, sources = _tasks(state)
        if state.get("output_type") == "latent":
            raise ConfigError("output_type='latent' leaves no picture to judge")
        steps, copies = self._steps(), state.get("num_images_per_prompt") or 1
        seed, device = _first_seed(state)
        made: list[Any] = []  # what the steps returned, round by round

        def make(seeds: Sequence[int]) -> list[list[EditOrReason]]:
            generators = [torch.Generator(device).manual_seed(each) for _ in instructions for each in seeds]
            images = _images(steps, components, state, generators)
            made.append(images)
            tasks = [row // copies for row in range(len(images))]
            edits = [
                as_edit(sources[task], image, instructions[task], row=row)
                for row, (task, image) in enumerate(zip(tasks, images, strict=True))
            ]
            return [edits[first : first + copies] for first in range(0, len(edits), copies)]

        found = best_of_each(
            make,
            instructions,
            self._scorer.reward,
            n=copies,
            until=self._until if state.get("until") is None else state.get("until"),
            max_rounds=self._max_rounds if state.get("max_rounds") is None else state.get("max_rounds"),
            seed=seed,
            pipeline=type(components).__name__,
        )
        _put(state, found, made, copies)
        return components, state

    def set_progress_bar_config(self, **options: Any) -> None:
        """The bars of all loops among its blocks, which diffusers' own call does not reach."""
        super().set_progress_bar_config(**options)
        for block in _loops(self.sub_blocks):
            block.set_progress_bar_config(**options)

    def _steps(self) -> SequentialPipelineBlocks:
        return SequentialPipelineBlocks.from_blocks_dict(self.sub_blocks)


def _loops(blocks: Mapping[str, Any]) -> Iterator[Any]:
    for block in blocks.values():
        if isinstance(block, LoopSequentialPipelineBlocks):
            yield block
        yield from _loops(block.sub_blocks)


def _images(steps: Any, components: Any, state: PipelineState, generators: list[torch.Generator]) -> Any:
    """What the steps make of the state, which stays as it was."""
    trial = PipelineState(
        values=dict(state.values),
        kwargs_mapping={kind: list(names) for kind, names in state.kwargs_mapping.items()},
    )
    trial.set("generator", generators if len(generators) > 1 else generators[0])
    _, trial = steps(components, trial)
    images = trial.get("images")
    if images is None or len(images) != len(generators):
        count = "no images" if images is None else f"{len(images)} images"
        raise ComponentError(f"the blocks {', '.join(steps.sub_blocks)} made {count} for {len(generators)} edits")
    return images


def _tasks(state: PipelineState) -> tuple[list[str], list[Image]]:
    """The instructions and, for each, the source."""
    prompt, given = state.get("prompt"), state.get("source_image")
    if prompt is None:
        raise ConfigError("the judge reads the instruction: pass prompt, also where prompt_embeds are passed")
    instructions = [prompt] if isinstance(prompt, str) else list(prompt)
    images = state.get("image") if given is None else given
    if images is None:
        raise ConfigError("the judge compares edits with their source: pass image (or source_image)")
    several = list(images) if isinstance(images, (list, tuple)) else [images]
    if len(instructions) == 1 or len(several) == 1:
        several = several[:1] * len(instructions)
    elif len(several) != len(instructions) or (given is None and not _one_source_each(state, len(instructions))):
        raise ConfigError(
            f"{len(several)} images for {len(instructions)} prompts do not tell which was edited by which: pass one "
            "source_image per prompt"
        )
    return instructions, [as_image(image, f"source image {task}") for task, image in enumerate(several)]


def _one_source_each(state: PipelineState, tasks: int) -> bool:
    """Whether the encoded sources are a batch (as Kontext's) and not several references for every prompt."""
    encoded = state.get("image_latents")
    return isinstance(encoded, torch.Tensor) and len(encoded) == tasks


def _first_seed(state: PipelineState) -> tuple[int, torch.device]:
    seed, generator = state.get("seed"), state.get("generator")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ConfigError("every edit gets a generator of its own, so a list of them has no use: pass seed instead")
    device = torch.device("cpu") if generator is None else generator.device
    if seed is not None:
        return int(seed), device
    return int(torch.randint(2**31, ())) if generator is None else generator.initial_seed(), device


def _put(state: PipelineState, found: Sequence[BestOf], made: Sequence[Any], copies: int) -> None:
    chosen = []
    for task, each in enumerate(found):
        if each.best is None:
            _log.warning("task %d, %.60r: %s; its first edit is kept", task, each.instruction, each.failure)
        winner = each.best or each.candidates[0]
        chosen.append((winner, made[winner.round - 1][task * copies + winner.index % copies]))
    state.set("images", _like(made[0], [image for _, image in chosen]))
    state.set("scores", [winner.verification.score for winner, _ in chosen])
    state.set("verifications", [winner.verification for winner, _ in chosen])
    state.set("rounds", len(made))
    state.set("best_of", list(found))


def _like(made: Any, images: list[Any]) -> Any:
    """The images in the shape in which the pipeline returns several: a list, a tensor or an array."""
    if isinstance(made, torch.Tensor):
        return torch.stack(images)
    if isinstance(made, list):
        return images
    import numpy as np

    return np.stack(images)
