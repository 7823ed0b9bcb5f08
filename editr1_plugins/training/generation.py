"""From dataset rows to recorded groups: which rows belong together, what the pipeline is called with, which seeds.

Everything random about a rollout follows from (run seed, number of the rollout, row or group); no generator is kept. So
a resumed run makes the rollouts that an uninterrupted one makes, and an edit does not depend on its process.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from ..images import read_image
from .edit_config import EditGRPOConfig
from .rollout import Rollout, record
from .tape import EncoderTape

__all__ = ["Chunk", "EditSampler", "Generation", "check_columns", "derived_seed", "source_image"]

_Row = Mapping[str, Any]


def derived_seed(*parts: int | str) -> int:
    """A seed in 0..2**32 - 1 that is a function of `parts` alone."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4, person=b"editr1 seed").digest(), "little")


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

    def of_pass(self, index: int, batch: int) -> list[Chunk]:
        """The chunks of the `index`-th replay pass of `batch` rows."""
        return [chunk for chunk in self.chunks if chunk.rows.start // batch == index]

    @property
    def encoder_calls(self) -> float:
        """Real encoder runs per (image, instruction) so far, e.g. 3 for Kontext: two text encoders and the VAE."""
        tapes = {id(chunk.rollout.tape): chunk.rollout.tape for chunk in self.chunks}
        return sum(tape.misses for tape in tapes.values()) / len(tapes)


class EditSampler:
    """Calls a pipeline for dataset rows, for training rollouts and for evaluation.

    Raises:
        ConfigError: an argument that the pipeline's call does not take.
    """

    def __init__(
        self,
        pipe: Any,
        config: EditGRPOConfig,
        *,
        stochastic: bool,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.pipe, self.config, self.stochastic, self.autocast = pipe, config, stochastic, autocast
        accepted = inspect.signature(type(pipe).__call__).parameters
        named = {
            "guidance_scale": config.guidance_scale,
            "true_cfg_scale": config.true_cfg_scale,
            "height": config.height,
            "width": config.width,
        }
        extra = config.pipeline_kwargs if isinstance(config.pipeline_kwargs, dict) else {}
        self.options = {**{name: value for name, value in named.items() if value is not None}, **extra}
        unknown = [name for name in self.options if name not in accepted]
        if unknown:
            raise ConfigError(f"{type(pipe).__name__} takes no {', '.join(unknown)}; drop it from the configuration")

    def call(self, row: _Row, steps: int) -> dict[str, Any]:
        """The pipeline's arguments for one row.

        Raises:
            DataError: the row has no `image` or no `prompt`.
        """
        for column in ("image", "prompt"):
            if row.get(column) is None:
                raise DataError(
                    f"a row has no {column!r} (columns: {', '.join(row)}); edit trainers need image and prompt"
                )
        image = row["image"]
        images = [_decoded(one) for one in image] if isinstance(image, (list, tuple)) else _decoded(image)
        return {**self.options, "image": images, "prompt": row["prompt"], "num_inference_steps": steps}

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
        they are replayed, since the size of a batch changes rounding. When the last edit of a group is there (of those
        that are sampled here), `on_group` gets the positions of the group's local rows and their edits.
        """
        size, batch = self.config.num_generations, self.config.per_device_train_batch_size
        generation = Generation(edits=[], chunks=[])
        tapes: dict[int, EncoderTape] = {}
        start = begun = 0
        while start < len(rows):
            group = (offset + start) // size
            end = min(len(rows), (start // batch + 1) * batch, (group + 1) * size - offset)
            chunk = self._chunk(rows[start], slice(start, end), number, offset, tapes.setdefault(group, EncoderTape()))
            generation.edits.extend(chunk.rollout.images)
            generation.chunks.append(chunk)
            start = end
            if on_group is not None and (start == len(rows) or (offset + start) % size == 0):
                on_group(slice(begun, start), generation.edits[begun:start])
                begun = start
        return generation

    def _chunk(self, row: _Row, rows: slice, number: int, offset: int, tape: EncoderTape) -> Chunk:
        group = (offset + rows.start) // self.config.num_generations
        positions = range(offset + rows.start, offset + rows.stop)
        seeds = [derived_seed(self.config.seed, "row", number, position) for position in positions]
        shared = derived_seed(self.config.seed, "group", number, group)
        with self.autocast():
            rollout = record(
                self.pipe,
                self.call(row, self.config.num_inference_steps),
                seeds=seeds,
                start_seeds=[shared] * len(seeds) if self.config.shared_noise else None,
                window=self.window(number, group),
                sampler=self.config.sampler,
                noise_level=self.config.noise_level,
                tape=tape,
            )
        return Chunk(rows=rows, rollout=rollout)

    @torch.no_grad()
    def evaluate(self, row: _Row, index: int) -> Any:
        """One edit by the pipeline as it is (its own scheduler, the ODE), with a seed of its own per held-out row."""
        device = self.pipe._execution_device
        generator = torch.Generator(device).manual_seed(derived_seed(self.config.seed, "eval", index))
        with self.autocast():
            output = self.pipe(**self.call(row, self.config.eval_num_inference_steps), generator=generator)
        return output[0][0]


def source_image(row: _Row) -> Any:
    """The (first) source image of a row, for showing it.

    Raises:
        DataError: the cell holds a path, not an image.
    """
    image = row["image"]
    return _decoded(image[0] if isinstance(image, (list, tuple)) else image)


def _decoded(cell: Any) -> Any:
    """An image cell of a dataset; a path or URL in one is data and is never opened."""
    content = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if content is None or isinstance(content, (str, os.PathLike)):
        raise DataError("column 'image' holds a path, not an image: cast it, dataset.cast_column('image', Image())")
    return read_image(content)
