"""Bulk judging on many machines with Ray Data: `score_file` with a pool of workers, each with its own reward.

Input, images and output lie on storage that every machine sees. A worker writes its own file of records, so what is
done is on disk whatever dies: a worker or a run that is started again judges what has no record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editr1_plugins.errors import DataError, MissingExtraError
from editr1_plugins.reward.bulk_rows import (
    BulkSummary,
    Outcome,
    RowBook,
    RowJudge,
    Tally,
    checked_input,
    problem_of,
    read_edit,
    recorded_keys,
    writing_alone,
)
from editr1_plugins.reward.edit_rows import EditRow, read_edit_rows
from editr1_plugins.types import Edit

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["score_file_with_ray"]


def score_file_with_ray(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    retry_failed: bool = False,
    progress: Callable[[BulkSummary], None] | None = None,
    workers: int = 2,
    resources: Mapping[str, Any] | None = None,
    **reward: Any,
) -> BulkSummary:
    """`bulk.score_file` by a pool of Ray actors; starts Ray, or joins the cluster that `RAY_ADDRESS` names.

    A row that cannot be judged is a record with the reason, also when a part of the reward raises in a worker.

    Args:
        workers: actors, each with a reward of its own.
        resources: what one of them takes, as `ray.remote` names it, such as `{"num_gpus": 1}`.
        path, directory, folder, batch_size, retry_failed, progress: as for `score_file`; paths that all machines see.
        reward: arguments of `EditRRMReward`, but not `record`; they are sent to the workers, so specs rather than
            objects.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError, DataError, ComponentError: as `score_file`.
        OSError: a worker's disk is full or gone; what was recorded stays.
    """
    try:
        import ray.data
        from ray.exceptions import RayTaskError
    except ImportError:
        raise MissingExtraError('many machines need Ray Data: pip install "editr1-plugins[ray]"') from None
    images = checked_input(path, folder, batch_size=batch_size, workers=workers).resolve()
    output = Path(directory).resolve()
    tally = Tally()
    # Made here as well, so that what cannot be built is said before a cluster starts.
    with writing_alone(output, RowJudge(output, reward).settings):
        tasks = list(_tasks(path, RowBook(output, retry_failed=retry_failed), tally))
        if not tasks:
            return tally.summary()
        judged = ray.data.from_items(tasks, override_num_blocks=-(-len(tasks) // batch_size)).map_batches(
            _Worker,
            fn_constructor_kwargs={"directory": output, "folder": images, "reward": dict(reward)},
            batch_size=batch_size,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=workers),
            **(resources or {}),
        )
        try:
            for batch in judged.iter_batches(batch_size=None, batch_format="numpy"):
                tally.add([Outcome(*json.loads(outcome)) for outcome in batch["outcome"]])
                if progress is not None:
                    progress(tally.summary())
        except RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, OSError) else error) from None
    return tally.summary()


def _tasks(path: str | os.PathLike[str], book: RowBook, tally: Tally) -> Iterator[dict[str, str]]:
    for row in read_edit_rows(path):
        told = book.claim(row)
        if isinstance(told, Outcome):
            tally.add([told], resumed=True)
        else:
            yield {"row": json.dumps(asdict(row)), "told": json.dumps(told)}


class _Worker:
    """One actor: judges batches of rows and records them."""

    def __init__(self, directory: Path, folder: Path, reward: Mapping[str, Any]) -> None:
        self._folder = folder
        self._judge = RowJudge(directory, reward)
        # Ray repeats the batches of an actor that died; what that one recorded is not judged again.
        self._recorded = recorded_keys(directory)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        rows = [EditRow(**json.loads(row)) for row in batch["row"]]
        told = [json.loads(each) for each in batch["told"]]
        outcomes: list[Outcome | None] = [self._recorded.get((each["key"], each["attempt"])) for each in told]
        edits: list[tuple[int, Edit]] = []
        problem = "worker: the reward gave no outcome"
        sources: dict[str, Image] = {}
        for index, row in enumerate(rows):
            if outcomes[index] is not None:
                continue
            try:
                edits.append((index, read_edit(row, self._folder, sources)))
            except DataError as error:
                outcomes[index] = self._judge.write_broken(told[index], row.instruction, problem_of(error))
        try:
            self._judge.judge([(told[index], edit) for index, edit in edits])
        except OSError:
            raise
        except Exception as error:  # a bug in a plugin: its rows say so, the others are judged
            problem = f"worker: {type(error).__name__}: {error}"
        for index, edit in edits:
            found = self._judge.outcome(edit)
            outcomes[index] = found or self._judge.write_broken(told[index], edit.instruction, problem)
        return {"outcome": [json.dumps(outcome) for outcome in outcomes]}
