"""Evaluation on held-out rows: reward by category, and sheets of edits on the disk and in the tracker.

Each row is edited once by the pipeline as users run it: its own scheduler (the ODE), averaged weights where there are
any, and a seed of its own, so that two evaluations differ by the weights alone. Rewards that are `row_wise` judge a
batch while the next is sampled.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback

from ..principles.reading import NotUnderstoodError, read_instruction
from .eval_pictures import ShownEdit, as_channels_first, draw_sheet, keep_sheet, shown_edit
from .generation import source_image
from .judging import CALLS_AT_ONCE, Judging
from .pending import raise_together

if TYPE_CHECKING:
    from PIL.Image import Image

    from .edit_trainer import EditGRPOTrainer

__all__ = ["MAX_CATEGORIES", "EvalSheets", "Evaluation", "category_of", "evaluate_edits", "rewards_by_category"]

#: Most categories with a metric of their own; the rarer ones are counted together.
MAX_CATEGORIES: Final = 40

_OTHER: Final = "other"
_UNSAFE: Final = re.compile(r"[^0-9A-Za-z_.-]+")


@dataclass
class _Row:
    """A held-out row and what came of it."""

    category: str | None
    rewards: list[float] = field(default_factory=list)
    shown: ShownEdit | None = None


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of all processes' rows found.

    Attributes:
        rewards: (rows, functions) fp32 in the order of the data set, NaN where not judged.
        categories: one per row; None where nothing tells it.
        shown: the first rows' edits, with their pictures; empty but on the main process.
        metrics: what the rewards logged, by name.
    """

    rewards: Tensor
    categories: list[str | None]
    shown: list[ShownEdit]
    metrics: dict[str, float]


def evaluate_edits(trainer: EditGRPOTrainer, dataloader: Any) -> Evaluation:
    """Edit and judge every row that `dataloader` gives; all processes call this together.

    Raises:
        JudgeUnavailableError: nobody has judged for `judge_patience` seconds.
        Exception: what a reward function raised.
    """
    accelerator, judge = trainer.accelerator, trainer.judge
    batches: list[tuple[list[_Row], Judging]] = []
    seen, failed = 0, False
    try:
        with trainer.policy.averaged():
            for batch in dataloader:
                start = seen + accelerator.process_index * len(batch)
                edits = [trainer.sampler.evaluate(row, start + i) for i, row in enumerate(batch)]
                if len(batches) >= CALLS_AT_ONCE:
                    late = batches[-CALLS_AT_ONCE][1]
                    failed = failed or late.rewards(late.all_rows) is None
                if failed:  # said below; the other processes may count on this one's part in sampling
                    continue
                judging = judge.begin(batch, trainer.state)
                batches.append((_rows(batch, edits, start, trainer.args.eval_images), judging))
                judging.submit(judging.all_rows, edits)
                judging.finish()
                seen += len(batch) * accelerator.num_processes
        metrics = _judged(batches, accelerator)
    finally:
        for _, judging in batches:
            judging.close()
    return _gathered(batches, metrics, accelerator, _length(dataloader))


def _rows(batch: Sequence[dict[str, Any]], edits: Sequence[Image], start: int, shown: int) -> list[_Row]:
    rows = [_Row(category_of(row)) for row in batch]
    for index in range(min(len(batch), max(0, shown - start))):
        rows[index].shown = shown_edit(source_image(batch[index]), edits[index], batch[index]["prompt"])
    return rows


def _judged(batches: Sequence[tuple[list[_Row], Judging]], accelerator: Any) -> dict[str, tuple[float, int]]:
    """Set the rows' rewards; gives what was logged: (sum over rows, rows) by name."""
    error: Exception | None = None
    sums: dict[str, tuple[float, int]] = {}
    for rows, judging in batches:
        try:
            judgement = judging.result()
        except Exception as raised:
            error = raised
            break
        for row, rewards in zip(rows, judgement.rewards.tolist(), strict=True):
            row.rewards = rewards
        for name, value in judgement.metrics.items():
            total, count = sums.get(name, (0.0, 0))
            sums[name] = (total + value * len(rows), count + len(rows))
    raise_together(accelerator, error)
    return sums


def _gathered(
    batches: Sequence[tuple[list[_Row], Judging]],
    sums: dict[str, tuple[float, int]],
    accelerator: Any,
    length: int | None,
) -> Evaluation:
    own = ([rows for rows, _ in batches], sums)
    everyone = gather_object([own]) if accelerator.num_processes > 1 else [own]
    # Batch k of every process, then batch k + 1; what fills up the last batch is behind the last row.
    turns = zip(*(rows for rows, _ in everyone), strict=True)
    rows = [row for turn in turns for part in turn for row in part][:length]
    totals: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for _, logged in everyone:
        for name, pair in logged.items():
            totals[name].append(pair)
    return Evaluation(
        rewards=torch.tensor([row.rewards for row in rows], dtype=torch.float32),
        categories=[row.category for row in rows],
        shown=[replace(row.shown) for row in rows if row.shown] if accelerator.is_main_process else [],
        metrics={name: sum(t for t, _ in pairs) / sum(n for _, n in pairs) for name, pairs in totals.items()},
    )


def _length(dataloader: Any) -> int | None:
    try:
        return len(dataloader.dataset)
    except TypeError:  # a stream of rows
        return None


def category_of(row: Mapping[str, Any]) -> str | None:
    """The column `category` where it holds a text, else the kind of edit that rules read in the instruction."""
    given = row.get("category")
    if isinstance(given, str) and given.strip():
        return given.strip()
    try:
        return read_instruction(str(row["prompt"]))[0].operation
    except (NotUnderstoodError, IndexError):
        return None


def rewards_by_category(totals: Tensor, categories: Sequence[str | None]) -> dict[str, float]:
    """Mean reward by category, as it may stand in a metric's name, leaving out what was not scored.

    Args:
        totals: (rows,), NaN where not scored.
        categories: one per row. None counts as "other", unless no row has one.
    """
    if not any(categories):
        return {}
    names = [_UNSAFE.sub("_", name)[:64] if name else _OTHER for name in categories]
    common = {name for name, _ in Counter(names).most_common(MAX_CATEGORIES)}
    found: dict[str, list[float]] = defaultdict(list)
    for name, value in zip(names, totals.tolist(), strict=True):
        if not math.isnan(value):
            found[name if name in common else _OTHER].append(value)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


class EvalSheets(TrainerCallback):
    """Puts the sheets of an evaluation on the disk, below `output_dir/eval`, and into tensorboard and wandb."""

    def __init__(self, trainer: EditGRPOTrainer) -> None:
        self.trainer = trainer
        self._waiting: list[tuple[str, Image]] = []

    def add(self, prefix: str, shown: Sequence[ShownEdit], scores: Sequence[float]) -> None:
        """Take the edits of an evaluation whose metrics begin with `prefix`; on the main process."""
        if not shown:
            return
        pairs = [replace(pair, score=score) for pair, score in zip(shown, scores, strict=False)]
        self._waiting.append((prefix, draw_sheet(pairs)))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for prefix, sheet in self._waiting:
            # "eval" for the only set, "eval_NAME" for one of several
            part = _UNSAFE.sub("_", prefix.removeprefix("eval").removeprefix("_"))
            keep_sheet(sheet, Path(args.output_dir) / "eval" / part, state.global_step)
            for callback in self.trainer.callback_handler.callbacks:
                _track(callback, f"eval/edits/{part}" if part else "eval/edits", sheet, state.global_step)
        self._waiting.clear()


def _track(callback: Any, name: str, sheet: Image, step: int) -> None:
    """Hand the sheet to what transformers' tracker callbacks write with."""
    writer, wandb = getattr(callback, "tb_writer", None), getattr(callback, "_wandb", None)
    if writer is not None:
        writer.add_image(name, as_channels_first(sheet), step)
        writer.flush()
    if wandb is not None and wandb.run is not None:
        wandb.log({name: wandb.Image(sheet), "train/global_step": step})
