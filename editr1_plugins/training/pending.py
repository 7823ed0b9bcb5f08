"""A rollout whose rewards are still on their way, and what can be done meanwhile.

Work that needs no reward comes first: the other groups are sampled, then points are prepared (the reference policy's
pass). Where advantages of a group depend on that group alone, its replay passes need not wait for later groups either.
What is trained on is the same as if everybody had waited.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ..errors import ComponentError, JudgeUnavailableError
from .advantage import Advantages
from .generation import Chunk, Generation
from .judging import Judgement, Judging

__all__ = ["PendingRollout", "agreed_judgement", "print_of_all", "raise_together"]


@dataclass
class PendingRollout:
    """A sampled rollout, its judging, and which of its chunks are ready to be replayed.

    Attributes:
        generation, judging: of this process's `rows`, the first of which is the `offset`-th of all processes'.
        group_size: rows per group.
        prepare: sets the points of the chunks that learn.
        idle: whether advantages need no replay.
        in_step: processes must make the same calls at the same time, so nothing is prepared that may not be needed.
    """

    generation: Generation
    judging: Judging
    rows: Sequence[dict[str, Any]]
    offset: int
    group_size: int
    prepare: Callable[[list[Chunk]], None]
    idle: Callable[[Tensor], bool]
    in_step: bool = False
    _ready: set[int] = field(default_factory=set)

    @property
    def groups_are_independent(self) -> bool:
        """Whether this process can compare each group's rows as soon as that group is judged."""
        return not (self.in_step or self.offset % self.group_size or len(self.rows) % self.group_size)

    def compare(self, chunks: Sequence[Chunk], advantages: Callable[[Tensor], Advantages]) -> None:
        """Make these chunks ready as soon as their own groups are judged; after a failure they train nothing."""
        for chunk in chunks:
            first = chunk.rows.start // self.group_size * self.group_size
            group = slice(first, first + self.group_size)
            self._prepare_while_waiting([chunk], group)
            found = self.judging.rewards(group)
            if found is None:
                chunk.advantages, chunk.learns, chunk.points = torch.zeros(len(chunk.rollout)), False, ()
            else:
                table = torch.full((len(self.rows), found.shape[1]), math.nan)
                table[group] = found
                self._set([chunk], advantages(table), offset=0)

    def prepare_while_waiting(self) -> None:
        """Prepare points for as long as some row is not judged yet."""
        self._prepare_while_waiting(self.generation.chunks, self.judging.all_rows)

    def _prepare_while_waiting(self, chunks: Sequence[Chunk], rows: slice) -> None:
        for chunk in chunks:
            if not (self.in_step or chunk.points or id(chunk) in self._ready or self.judging.known(rows)):
                self.prepare([chunk])

    def settle(self, found: Advantages) -> None:
        """Make all chunks ready, given the advantages of all processes' rows."""
        self._set([chunk for chunk in self.generation.chunks if id(chunk) not in self._ready], found, self.offset)

    def _set(self, chunks: list[Chunk], found: Advantages, offset: int) -> None:
        for chunk in chunks:
            first = offset + chunk.rows.start
            chunk.advantages = found.values[first : offset + chunk.rows.stop]
            skipped = bool(found.skipped[first // self.group_size])
            chunk.learns = not (skipped or self.idle(chunk.advantages))
            if not chunk.learns:
                chunk.points = ()
            self._ready.add(id(chunk))
        self.prepare([chunk for chunk in chunks if not chunk.points])


def agreed_judgement(judging: Judging, accelerator: Accelerator) -> Judgement:
    """The result of this process's judging, once it is known that no process has failed; see `raise_together`."""
    error: Exception | None = None
    try:
        judgement = judging.result()
    except Exception as raised:
        error = raised
    raise_together(accelerator, error)
    return judgement


def print_of_all(accelerator: Accelerator, lines: Sequence[str]) -> None:
    """Print the lines of every process, in order, from one of them; all must call this."""
    everyone = gather_object(["\n".join(lines)])
    if accelerator.is_main_process:
        print("\n".join(everyone), flush=True)


def raise_together(accelerator: Accelerator, error: Exception | None) -> None:
    """Raise on every process if judging failed on any, instead of waiting for it for ever; all must call this.

    Raises:
        JudgeUnavailableError: on every process, where a judge was out of reach and nothing worse happened.
        ComponentError: another process's reward function raised.
        Exception: `error`, what this process's reward function raised.
    """
    own = None if error is None else (isinstance(error, JudgeUnavailableError), f"{type(error).__name__}: {error}")
    failures = gather_object([own]) if accelerator.num_processes > 1 else [own]
    if error is not None and not isinstance(error, JudgeUnavailableError):
        raise error
    for rank, failure in enumerate(failures):
        if failure is not None and not failure[0]:
            raise ComponentError(f"a reward function failed on process {rank}: {failure[1]}") from error
    if error is not None:
        raise error
    for rank, failure in enumerate(failures):
        if failure is not None:
            raise JudgeUnavailableError(f"process {rank}: {failure[1]}")
