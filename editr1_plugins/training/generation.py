"""From dataset rows to recorded groups: which rows belong together, what the pipeline is called with, which seeds.

Everything random about a rollout follows from (run seed, number of the rollout, row or group); no generator is kept. So
a resumed run makes the rollouts that an uninterrupted one makes, and an edit does not depend on its process.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor

from ..errors import ConfigError, DataError
from ..images import read_image_cell
from .edit_config import EditGRPOConfig
from .offload import EncoderOffload
from .pipelines import accepted_arguments, image_argument, images_of
from .rollout import Rollout, full_precision, record_group, rescored
from .tape import EncoderTape
from .tape_folder import TapeFolder

__all__ = ["Chunk", "EditSampler", "Generation", "check_columns", "derived_seed", "size_like", "source_image"]

_Row = Mapping[str, Any]

#: Columns that go to the pipeline as well, where its call has an argument of that name.
_PICTURES = ("mask_image", "control_image", "image_reference")
_TEXTS = ("negative_prompt",)
#: Any of these in the configuration sets the size of all edits.
_SIZES = {"height", "width", "max_area"}


def derived_seed(*parts: int | str) -> int:
    """A seed in 0..2**32 - 1 that is a function of `parts` alone."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4, person=b"editr1 seed").digest(), "little")


def size_like(source: tuple[int, int], resolution: int, multiple: int) -> tuple[int, int]:
    """(width, height) of about resolution x resolution pixels in the proportions of `source`, in multiples of it."""
    aspect = source[0] / source[1]
    sides = resolution * math.sqrt(aspect), resolution / math.sqrt(aspect)
    width, height = (max(multiple, round(side / multiple) * multiple) for side in sides)
    return width, height


def check_columns(name: str, dataset: Any) -> None:
    """Refuse a dataset (or a dict of them), called `name` in the message, without the columns an edit trainer reads.

    Raises:
        DataError: `image` or `prompt` is missing.
    """
    if isinstance(dataset, dict):
        for key, part in dataset.items():
            check_columns(f"{name}[{key!r}]", part)
        return
    columns = getattr(dataset, "column_names", None) or ("image", "prompt")  # a plain list of rows tells none
    missing = [column for column in ("image", "prompt") if column not in columns]
    if missing:
        raise DataError(f"{name} has no column {' and no '.join(missing)}; it has {', '.join(columns)}")


@dataclass
class Chunk:
    """Rows of one group that are sampled in one pipeline call and replayed in one pass.

    `rows` are their positions in the local batch. `advantages`, (rows,), `learns` and `points` are set once rewards are
    known; `points` stays empty where no process learns anything from its chunk of these rows.
    """

    rows: slice
    rollout: Rollout
    advantages: Tensor = field(default_factory=lambda: torch.empty(0))
    points: Sequence[Any] = ()
    learns: bool = True


@dataclass
class Generation:
    """What one rollout phase made on this process: edits in the order of the rows, and the chunks to replay."""

    edits: list[Any]
    chunks: list[Chunk]
    groups: int
    tape: EncoderTape
    misses_before: int

    def of_pass(self, index: int, batch: int) -> list[Chunk]:
        """The chunks of the `index`-th replay pass of `batch` rows."""
        return [chunk for chunk in self.chunks if chunk.rows.start // batch == index]

    @property
    def encoder_calls(self) -> float:
        """Real encoder runs per group since this rollout began, e.g. 3 for Kontext: two text encoders and the VAE.

        Fewer where images or instructions repeat; 0 where all were seen in an earlier epoch.
        """
        return (self.tape.misses - self.misses_before) / max(1, self.groups)


class EditSampler:
    """Calls a pipeline for dataset rows, for training rollouts and for evaluation.

    Encoders run once per image and instruction for the whole run: their outputs are kept in host memory, or in files
    below `tape_dir`, up to `tape_limit` bytes; what was not used for longest is forgotten first.

    Attributes:
        rows_per_call: 1: the pipeline makes no more rows a call (found by the preflight); None: any number.

    Raises:
        ConfigError: an argument that the pipeline's call does not take, or a pipeline that takes no source image.
    """

    tape_limit = 4 * 2**30

    def __init__(
        self,
        pipe: Any,
        config: EditGRPOConfig,
        *,
        stochastic: bool,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.pipe, self.config, self.stochastic, self.autocast = pipe, config, stochastic, autocast
        self.rows_per_call: int | None = None
        self.encoders = EncoderOffload(pipe, enabled=config.offload_encoders)
        self.tape = EncoderTape(None if config.tape_dir is None else TapeFolder(config.tape_dir))
        self.image_argument, self.accepted = image_argument(pipe), accepted_arguments(pipe)
        named = {
            "guidance_scale": config.guidance_scale,
            "true_cfg_scale": config.true_cfg_scale,
            "height": config.height,
            "width": config.width,
        }
        extra = config.pipeline_kwargs if isinstance(config.pipeline_kwargs, dict) else {}
        self.options = {**{name: value for name, value in named.items() if value is not None}, **extra}
        unknown = [name for name in self.options if name not in self.accepted]
        if unknown:
            raise ConfigError(f"{type(pipe).__name__} takes no {', '.join(unknown)}; drop it from the configuration")

    def call(self, row: _Row, steps: int) -> dict[str, Any]:
        """The pipeline's arguments for one row: source, instruction, and columns that its call knows, as `mask_image`.

        Raises:
            DataError: the row has no `image` or no `prompt`.
        """
        for column in ("image", "prompt"):
            if row.get(column) is None:
                raise DataError(
                    f"a row has no {column!r} (columns: {', '.join(row)}); edit trainers need image and prompt"
                )
        pictures = {self.image_argument: row["image"]}
        pictures |= {name: row[name] for name in _PICTURES if name in self.accepted and row.get(name) is not None}
        texts = {name: row[name] for name in _TEXTS if name in self.accepted and row.get(name) is not None}
        decoded = {name: _all_decoded(cell, name) for name, cell in pictures.items()}
        return {
            **self._sized(decoded),
            **self.options,
            **texts,
            "prompt": row["prompt"],
            "num_inference_steps": steps,
        }

    def _sized(self, pictures: dict[str, Any]) -> dict[str, Any]:
        """The pictures, and the size of an edit in its source's proportions where the configuration asks for that."""
        resolution, set_already = self.config.resolution, self.options.keys() & _SIZES
        if resolution is None or set_already or not self.accepted.keys() >= {"height", "width"}:
            return pictures
        cell = pictures[self.image_argument]
        first = _listed(cell)[0]
        # Latents are packed 2 x 2 by most; pipelines would round down what does not fit.
        width, height = size_like(first.size, resolution, 2 * getattr(self.pipe, "vae_scale_factor", 8))
        sized: dict[str, Any] = {"width": width, "height": height}
        if "max_area" in self.accepted:  # Kontext's, which otherwise blows any size up to it
            sized["max_area"] = width * height
        if "_auto_resize" in self.accepted:  # so that a source has no more tokens than its edit
            sized["_auto_resize"] = False
            small = [image.resize((width, height), Resampling.LANCZOS) for image in _listed(cell)]
            pictures = {**pictures, self.image_argument: small if isinstance(cell, list) else small[0]}
        return {**pictures, **sized}

    def window(self, number: int, group: int) -> range:
        """The stochastic steps of a group in the `number`-th rollout."""
        if not self.stochastic:
            return range(0)
        allowed = self.config.trainable_range
        size = self.config.window or len(allowed)
        choices = len(allowed) - size + 1
        if self.config.window_strategy == "random":
            start = random.Random(derived_seed(self.config.seed, "window", number, group)).randrange(choices)
        else:
            start = number % choices if self.config.window_strategy == "sliding" else 0
        return range(allowed.start + start, allowed.start + start + size)

    def sample(
        self,
        rows: Sequence[_Row],
        number: int,
        offset: int,
        on_group: Callable[[slice, Sequence[Any]], object] | None = None,
    ) -> Generation:
        """Sample the local rows of the `number`-th rollout; `offset` is the first one's position among all processes'.

        A group is `num_generations` rows in a row, counted over all processes. Rows are sampled in the chunks in which
        they are replayed, since the size of a batch changes rounding, unless `generation_chunk` says otherwise. When
        the last edit of a group is there (of those that are sampled here), `on_group` gets the positions of the group's
        local rows and their edits.
        """
        size = self.config.num_generations
        bounds = [0, *range(size - offset % size, len(rows), size), len(rows)]
        groups = [slice(*pair) for pair in pairwise(bounds)]
        self.tape.trim(self.tape_limit)
        generation = Generation(edits=[], chunks=[], groups=len(groups), tape=self.tape, misses_before=self.tape.misses)
        with self.encoders.needed():
            for group in groups:
                chunks = self._group(rows[group.start], group, number, offset)
                generation.chunks.extend(chunks)
                generation.edits.extend(edit for chunk in chunks for edit in chunk.rollout.images)
                if on_group is not None:
                    on_group(group, generation.edits[group])
        return generation

    def _group(self, row: _Row, rows: slice, number: int, offset: int) -> list[Chunk]:
        """The chunks of one group's local rows."""
        batch = self.config.per_device_train_batch_size
        most = batch if self.rows_per_call is None else min(batch, self.rows_per_call)
        cuts = [rows.start]
        while cuts[-1] < rows.stop:
            cuts.append(min(rows.stop, cuts[-1] + most, (cuts[-1] // batch + 1) * batch))
        parts = [slice(*pair) for pair in pairwise(cuts)]
        call = self.call(row, self.config.num_inference_steps)
        if self.config.generation_chunk is None:
            return [Chunk(rows=part, rollout=self._rollout(call, part, number, offset)) for part in parts]
        whole = self._rollout(call, rows, number, offset, chunk=self.config.generation_chunk)
        rollouts = [whole.rows(slice(part.start - rows.start, part.stop - rows.start)) for part in parts]
        with self.autocast():
            # Other batch sizes than while sampling: below full precision, the old log-probabilities would be off.
            if not full_precision(self.pipe):
                rollouts = [rescored(self.pipe, rollout) for rollout in rollouts]
        return [Chunk(rows=part, rollout=rollout) for part, rollout in zip(parts, rollouts, strict=True)]

    def _rollout(
        self, call: Mapping[str, Any], rows: slice, number: int, offset: int, chunk: int | None = None
    ) -> Rollout:
        group = (offset + rows.start) // self.config.num_generations
        positions = range(offset + rows.start, offset + rows.stop)
        seeds = [derived_seed(self.config.seed, "row", number, position) for position in positions]
        shared = derived_seed(self.config.seed, "group", number, group)
        with self.autocast():
            return record_group(
                self.pipe,
                call,
                seeds=seeds,
                chunk=self.rows_per_call if chunk is None else min(chunk, self.rows_per_call or chunk),
                start_seeds=[shared] * len(seeds) if self.config.shared_noise else None,
                window=self.window(number, group),
                sampler=self.config.sampler,
                noise_level=self.config.noise_level,
                tape=self.tape,
            )

    def close(self) -> None:
        """Put the encoders back on their device, and forget (and delete) what they returned."""
        self.encoders.back()
        self.tape.clear()

    @torch.no_grad()
    def evaluate(self, row: _Row, index: int) -> Any:
        """One edit by the pipeline as it is (its own scheduler, the ODE), with a seed of its own per held-out row."""
        device = self.pipe._execution_device
        generator = torch.Generator(device).manual_seed(derived_seed(self.config.seed, "eval", index))
        with self.encoders.needed(), self.autocast():
            output = self.pipe(**self.call(row, self.config.eval_num_inference_steps), generator=generator)
        return images_of(self.pipe, output)[0]


def source_image(row: _Row) -> Any:
    """The (first) source image of a row, for showing it.

    Raises:
        DataError: the cell holds a path, not an image.
    """
    image = row["image"]
    return read_image_cell(image[0] if isinstance(image, (list, tuple)) else image, "image")


def _listed(cell: Any) -> list[Any]:
    return cell if isinstance(cell, list) else [cell]


def _all_decoded(cell: Any, column: str) -> Any:
    if isinstance(cell, (list, tuple)):
        return [read_image_cell(one, column) for one in cell]
    return read_image_cell(cell, column)
