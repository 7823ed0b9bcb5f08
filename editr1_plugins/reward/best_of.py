"""The judge at inference, for who does not train: the best of N edits, or more of them until one is good enough.

    found = best_of(pipe, image, "make the sky pink", n=8)
    found.best.image.save("pink.png")

`best_of_each` is the same for whoever makes the edits in another way, and for several tasks at once.

Selection by a verifier is how Edit-R1's reward model is used without RL (arXiv 2604.27505, section 3, gives the judge).
An edit that could not be judged never wins.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from editr1_plugins.errors import ComponentError, ConfigError, boundary
from editr1_plugins.images import content_hash, read_image
from editr1_plugins.reward.record import failure_kind
from editr1_plugins.reward.rrm import EditRRMReward
from editr1_plugins.types import MAX_SCORE, Edit, Verification

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BestOf", "Candidate", "best_of", "best_of_each"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One edit and what the judge said.

    Attributes:
        index: from 0, over all rounds.
        round: from 1.
        seed: of the generator that sampled it.
        image: the edit; None where what was made is no picture (its verification says what is wrong).
        verification: its score in 0..10, or None and the reason.
    """

    index: int
    round: int
    seed: int
    image: Image | None
    verification: Verification


@dataclass(frozen=True, kw_only=True)
class BestOf:
    """All candidates in the order they were made, and the best one.

    Attributes:
        instruction: what was asked for.
        candidates: all of them.
        until: the score that was to be reached, or None.
        settings: what the scores depend on (`EditRRMReward.settings`).
        pipeline: class of the pipeline.
        seconds: sampling and judging together.
    """

    instruction: str
    candidates: tuple[Candidate, ...]
    until: float | None
    settings: Mapping[str, Any]
    pipeline: str
    seconds: float

    @property
    def best(self) -> Candidate | None:
        """The first of those with the highest score; None when nothing was judged."""
        judged = [(each.verification.score, -each.index, each) for each in self.candidates]
        scored = [(score, order, each) for score, order, each in judged if score is not None]
        return max(scored, key=lambda item: item[:2])[2] if scored else None

    @property
    def reached(self) -> bool:
        """Whether there is a best edit, and it is as good as was asked for."""
        return self.best is not None and _passes(self.best.verification, self.until)

    @property
    def failure(self) -> str | None:
        """Why there is no best edit, the kinds of failures with their counts; None where there is one."""
        if self.best is not None:
            return None
        kinds: dict[str, int] = {}
        for each in self.candidates:
            kind = failure_kind(str(each.verification.failure))
            kinds[kind] = kinds.get(kind, 0) + 1
        first = self.candidates[0].verification.failure
        counted = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        return f"none of {len(self.candidates)} edits could be judged ({counted}); the first: {first}"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON-able data; an image is told by the hash of its pixels."""
        return {
            "instruction": self.instruction,
            "best": None if self.best is None else self.best.index,
            "reached": self.reached,
            "until": self.until,
            "failure": self.failure,
            "pipeline": self.pipeline,
            "judge": dict(self.settings),
            "seconds": round(self.seconds, 3),
            "candidates": [_row(each) for each in self.candidates],
        }


def best_of(
    pipe: Any,
    image: Image | Sequence[Image],
    prompt: str,
    *,
    n: int = 8,
    reward: EditRRMReward | None = None,
    until: float | None = None,
    max_rounds: int | None = None,
    seed: int = 0,
    batch_size: int = 1,
    call: Mapping[str, Any] | None = None,
) -> BestOf:
    """Make `n` edits of the source, judge them together, and keep the best.

    With `until`, rounds of `n` further edits, each from the source, are made until one reaches that score; without, as
    many rounds as `max_rounds` says. Edit number i has the seed `seed + i`: the same call gives the same edits, and a
    larger `n` only adds to them.

    Args:
        pipe: a diffusers editing pipeline; it is called as it is.
        image: the source, or several of which the first is the one that is edited, as the judge sees it.
        prompt: the instruction.
        reward: the judge; None: `EditRRMReward()`.
        until: a score in 0..10 at which to stop.
        max_rounds: rounds at most; None: 1, or 4 with `until`.
        batch_size: edits per call of the pipeline, for pipelines with `num_images_per_prompt`. It changes rounding,
            hence pixels slightly.
        call: further arguments of the pipeline's call.

    Raises:
        ConfigError: an argument is wrong, or the pipeline does not take it.
        ImageError: the source cannot be used.
        ComponentError: the pipeline or a part of the judge raised.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: at least 1")
    sampler = _Sampler(pipe, image, prompt, batch_size, call or {})

    def make(seeds: Sequence[int]) -> list[list[Edit]]:
        return [[Edit(source=sampler.source, edited=edited, instruction=prompt) for edited in sampler.edits(seeds)]]

    [found] = best_of_each(
        make,
        [prompt],
        reward or EditRRMReward(),
        n=n,
        until=until,
        max_rounds=max_rounds,
        seed=seed,
        pipeline=type(pipe).__name__,
    )
    return found


def best_of_each(
    make: Callable[[Sequence[int]], Sequence[Sequence[Edit | str]]],
    instructions: Sequence[str],
    reward: EditRRMReward,
    *,
    n: int,
    until: float | None = None,
    max_rounds: int | None = None,
    seed: int = 0,
    pipeline: str = "",
) -> list[BestOf]:
    """The best edit of each of several tasks, in rounds of `n` edits of every task.

    With `until`, a task that has an edit of that score is settled: what is made for it in later rounds, along with the
    others', is not judged. Without, all rounds are made. Tasks have the same seeds, so each gets what it would alone.

    Args:
        make: gets the `n` seeds of a round and returns, for each task, one edit per seed; a text in an edit's place
            says why there is none.
        instructions: one per task.
        n, until, max_rounds, seed: as for `best_of`.
        pipeline: who makes the edits, for the record.

    Raises:
        ConfigError: an argument is wrong.
        ComponentError: `make` returned another number of edits, or a part of the judge cannot be built.
    """
    rounds = (1 if until is None else 4) if max_rounds is None else max_rounds
    for name, value in (("n", n), ("max_rounds", rounds)):
        if value < 1:
            raise ConfigError(f"{name}={value}: at least 1")
    if until is not None and not 0 <= until <= MAX_SCORE:
        raise ConfigError(f"until={until}: a score in 0..{MAX_SCORE:g}")
    started = time.perf_counter()
    candidates: list[list[Candidate]] = [[] for _ in instructions]
    unsettled = list(range(len(instructions)))
    for number in range(1, rounds + 1):
        if not unsettled:
            break
        first = (number - 1) * n
        made = make(range(seed + first, seed + first + n))
        if [len(each) for each in made] != [n] * len(instructions):
            raise ComponentError(f"{n} edits of {len(instructions)} tasks were asked for, not {[*map(len, made)]}")
        rows = [(task, index, row) for task in unsettled for index, row in enumerate(made[task], first)]
        judged = reward.score_rows([row for _, _, row in rows])
        for (task, index, row), verification in zip(rows, judged, strict=True):
            image = row.edited if isinstance(row, Edit) else None
            candidates[task].append(
                Candidate(index=index, round=number, seed=seed + index, image=image, verification=verification)
            )
        if until is not None:
            unsettled = [
                task for task in unsettled if not any(_passes(c.verification, until) for c in candidates[task])
            ]
    seconds = time.perf_counter() - started
    return [
        BestOf(
            instruction=instruction,
            candidates=tuple(found),
            until=until,
            settings=reward.settings,
            pipeline=pipeline,
            seconds=seconds,
        )
        for instruction, found in zip(instructions, candidates, strict=True)
    ]


class _Sampler:
    """Calls the pipeline; every edit has its own generator, on the CPU, so that seeds mean the same on any device."""

    def __init__(self, pipe: Any, image: Any, prompt: str, batch_size: int, call: Mapping[str, Any]) -> None:
        accepted = inspect.signature(type(pipe).__call__).parameters
        taken = [name for name in call if name in ("image", "prompt", "generator", "num_images_per_prompt")]
        unknown = [name for name in call if name not in accepted]
        if unknown or taken:
            raise ConfigError(
                f"{type(pipe).__name__} takes no {', '.join(unknown)}" if unknown else f"call sets {', '.join(taken)}"
            )
        if batch_size > 1 and "num_images_per_prompt" not in accepted:
            raise ConfigError(f"{type(pipe).__name__} makes one edit a call: batch_size=1")
        several = isinstance(image, (list, tuple))
        images = [read_image(each) for each in image] if several else [read_image(image)]
        if not images:
            raise ConfigError("no source image")
        self.source, self.pipe, self.batch_size = images[0], pipe, batch_size
        self.arguments = {**call, "image": images if several else images[0], "prompt": prompt, "output_type": "pil"}

    def edits(self, seeds: Sequence[int]) -> list[Image]:
        """One RGB image per seed."""
        import torch

        made: list[Image] = []
        for start in range(0, len(seeds), self.batch_size):
            part = seeds[start : start + self.batch_size]
            generators = [torch.Generator().manual_seed(seed) for seed in part]
            several = {"num_images_per_prompt": len(part)} if len(part) > 1 else {}
            generator = generators if len(part) > 1 else generators[0]
            who = f"pipeline {type(self.pipe).__name__}"
            with boundary(who), torch.no_grad():
                images = self.pipe(**self.arguments, **several, generator=generator).images
            if len(images) != len(part):
                raise ComponentError(f"{who} returned {len(images)} edits instead of {len(part)}")
            made.extend(read_image(image) for image in images)
        return made


def _passes(verification: Verification, until: float | None) -> bool:
    return verification.score is not None and (until is None or verification.score >= until)


def _row(each: Candidate) -> dict[str, Any]:
    verification = each.verification
    return {
        "index": each.index,
        "round": each.round,
        "seed": each.seed,
        "image": None if each.image is None else content_hash(each.image),
        "score": verification.score,
        "failure": verification.failure,
        "flags": list(verification.flags),
        "verdicts": [
            {"question": verdict.principle.question, "passed": verdict.passed, "reason": verdict.reason}
            for verdict in verification.verdicts
        ],
    }
