"""Training data of an editor: rows with a source `image` and a `prompt`, found broken before training starts.

    rows = load_edit_data("edits.jsonl")
    dataset = rows.usable(skip_broken=True)  # what the edit trainers take

A row's image is decoded when the row is read, by `editr1_plugins.images`. A path that stands in the data is opened only
below the folder of its JSONL file, or, for a data set of the hub, in the hub's own cache; nothing is ever fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError, DataError, ImageError
from ..images import check_image, read_image
from ..reward.edit_rows import file_below
from .edit_sources import hub_caches, rows_of_hub, rows_on_disk

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["BrokenRow", "EditRows", "RowReader", "load_edit_data"]

_SHOWN: Final = 20
_CHUNK: Final = 256  # rows that one worker checks at a time


@dataclass(frozen=True, kw_only=True)
class BrokenRow:
    """A row that cannot be trained on: its number from 0, as in `dataset[index]`, and why."""

    index: int
    reason: str

    def __str__(self) -> str:
        return f"row {self.index}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class EditRows:
    """Rows as found, the broken ones among them.

    Attributes:
        name: where they come from, for messages.
        stored: the rows with images as they are kept: bytes, or where these are.
        reader: turns stored rows into those of `dataset`.
        problems: what was wrong with rows when they were read, by their number.
    """

    name: str
    stored: Dataset
    reader: RowReader
    problems: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def dataset(self) -> Dataset:
        """Columns `image` and `prompt` and whatever else there was.

        Reading a row decodes its images: `image` is an RGB PIL image, or a list of them where it has several sources.
        """
        return self.stored.with_transform(self.reader)

    def broken(self, *, decode: bool = False, workers: int = 1) -> list[BrokenRow]:
        """The rows without an image that can be used, or without a prompt, in order.

        Args:
            decode: decode every image, instead of reading its header and looking for its end (`images.check_image`).
            workers: processes; more than 1 pays for `decode` and slow disks.

        Raises:
            ConfigError: fewer than one worker.
        """
        if workers < 1:
            raise ConfigError(f"workers={workers}: at least 1")
        check = _Check(self, decode)
        starts = range(0, len(self), _CHUNK)
        if workers == 1 or len(starts) < 2:
            parts = [check(start) for start in starts]
        else:
            # Spawned: a fork of a process that runs torch's threads can hang.
            with ProcessPoolExecutor(min(workers, len(starts)), get_context("spawn"), _share, (check,)) as pool:
                parts = list(pool.map(_checked, starts))
        return [row for part in parts for row in part]

    def usable(self, *, skip_broken: bool = False, decode: bool = False, workers: int = 1) -> Dataset:
        """The data set, checked; without its broken rows where these may be skipped.

        Raises:
            DataError: there are broken rows and they may not be skipped (the first 20 are listed), or all are broken.
        """
        return self.without(self.broken(decode=decode, workers=workers), skip=skip_broken)

    def without(self, broken: Sequence[BrokenRow], *, skip: bool) -> Dataset:
        """As `usable`, for rows that were found broken before (on another process, for instance)."""
        if broken and (not skip or len(broken) >= len(self)):
            listed = "; ".join(map(str, broken[:_SHOWN]))
            more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
            hint = "" if skip else " (skip_broken leaves such rows out)"
            raise DataError(f"{self.name}: {len(broken)} of {len(self)} rows are broken{hint}: {listed}{more}")
        left_out = {row.index for row in broken}
        return self.dataset.select([i for i in range(len(self)) if i not in left_out])


def load_edit_data(
    name: str | os.PathLike[str],
    *,
    config: str | None = None,
    split: str = "train",
    image_column: str | Sequence[str] = "image",
    prompt_column: str = "prompt",
) -> EditRows:
    """Rows from a file or folder of this machine, or from the hub.

    Args:
        name: a `.jsonl`, `.parquet` or `.tar` file (see `edit_files` for the first and the last), a folder of such
            files of one kind, a folder that `Dataset.save_to_disk` made, or the id of a data set on the hub.
        config: of a data set on the hub.
        split: in a folder, the files whose names begin with it, or those of the subfolder of this name; "train" is also
            whatever is not named after another split.
        image_column, prompt_column: become `image` and `prompt`; a column that has the name already becomes
            "other_image" or "other_prompt". Several image columns are one row's sources, in this order.

    Raises:
        ConfigError: no such file, folder or data set.
        DataError: it holds no rows, no such split or column, or what cannot be read at all.
    """
    images = [image_column] if isinstance(image_column, str) else list(image_column)
    if not images:
        raise ConfigError("image_column is empty: name at least one column")
    path = Path(name)
    if path.exists():
        dataset, problems, is_image = rows_on_disk(path, split, images, prompt_column)
        roots: tuple[str, ...] = ()
    else:
        dataset, problems, is_image = rows_of_hub(os.fspath(name), config, split), {}, set[str]()
        roots = hub_caches()
    label = f"{os.fspath(name)} ({split})"
    if len(dataset) == 0:
        raise DataError(f"{label} has no rows")
    dataset, found = _undecoded(dataset)
    names = _new_names(dataset.column_names, label, images, prompt_column)
    sources = tuple(names[column] for column in images)
    others = {names[column] for column in found | is_image} - set(sources)
    reader = RowReader(sources=sources, others=frozenset(others), roots=roots)
    changed = {old: new for old, new in names.items() if old != new}
    return EditRows(name=label, stored=dataset.rename_columns(changed), reader=reader, problems=problems)


# From cells to images


def _undecoded(dataset: Dataset) -> tuple[Dataset, set[str]]:
    """The data set with all media as stored, since `datasets` would open any path or URL; and its image columns."""
    from datasets import Features, Image

    found = {name for name, feature in dataset.features.items() if isinstance(_inner(feature), Image)}
    features = {name: _as_stored(feature) for name, feature in dataset.features.items()}
    return (dataset if features == dict(dataset.features) else dataset.cast(Features(features))), found


def _inner(feature: Any) -> Any:
    """What a list feature holds, or the feature itself."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", feature)


def _as_stored(feature: Any) -> Any:
    if isinstance(feature, dict):
        return {name: _as_stored(part) for name, part in feature.items()}
    if isinstance(feature, list):
        return [_as_stored(feature[0])]
    if hasattr(feature, "feature"):
        return type(feature)(_as_stored(feature.feature))
    if getattr(feature, "decode", False):
        return type(feature)(decode=False)
    return feature


def _new_names(columns: Sequence[str], label: str, images: Sequence[str], prompt: str) -> dict[str, str]:
    """Each column's name in the data set that is trained on."""
    missing = [column for column in (*images, prompt) if column not in columns]
    if missing:
        raise DataError(
            f"{label} has no column {' and no '.join(missing)}; it has {', '.join(columns)}"
            " (image_column and prompt_column name the right ones)"
        )
    names = {column: column for column in columns}
    for wanted, column in (("image", images[0]), ("prompt", prompt)):
        if column != wanted and wanted in names:
            names[wanted] = f"other_{wanted}"
        names[column] = wanted
    if len(set(names.values())) < len(names):
        raise DataError(f"{label}: one column cannot be image and prompt, nor can two: {', '.join((*images, prompt))}")
    return names


@dataclass(frozen=True, kw_only=True)
class RowReader:
    """Turns stored rows into rows to train on; what `Dataset.with_transform` calls.

    Attributes:
        sources: columns whose images make up `image`, which is the first of them.
        others: further columns of images.
        roots: folders below which a path in the data may lie.
    """

    sources: tuple[str, ...]
    others: frozenset[str]
    roots: tuple[str, ...]

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows: dict[str, list[Any]] = {}
        for name, cells in batch.items():
            if name in self.others:
                rows[name] = [None if cell is None else _one_or_all(self.decoded(cell)) for cell in cells]
            elif name == "image" and all(source in batch for source in self.sources):
                merged = zip(*(batch[source] for source in self.sources), strict=True)
                rows[name] = [_one_or_all([image for cell in row for image in self.decoded(cell)]) for row in merged]
            elif name not in self.sources:
                rows[name] = cells
        return rows

    def decoded(self, cell: Any) -> list[Any]:
        return [read_image(found) for found in self.encoded(cell)]

    def encoded(self, cell: Any) -> list[bytes | Path]:
        """The images of a cell as bytes, or as paths that may be opened.

        Raises:
            ImageError: there is none, or it is something else.
        """
        parts = cell if isinstance(cell, list) else [cell]
        if not parts or any(part is None for part in parts):
            raise ImageError("no image")
        return [self._encoded(part) for part in parts]

    def _encoded(self, part: Any) -> bytes | Path:
        if isinstance(part, bytes):
            return part
        if isinstance(part, Mapping) and "offset" in part:
            return _referenced(part)
        if isinstance(part, Mapping) and part.get("bytes") is not None:
            return bytes(part["bytes"])
        path = part.get("path") if isinstance(part, Mapping) else part
        if not isinstance(path, str):
            raise ImageError("no image")
        resolved = Path(path).resolve() if "://" not in path else None
        if resolved is not None and any(resolved.is_relative_to(root) for root in self.roots):
            return resolved
        raise ImageError(f"the data hold a path ({path[:100]!r}) instead of an image, and paths in data are not opened")


def _referenced(where: Mapping[str, Any]) -> bytes | Path:
    if where["offset"] < 0:
        return file_below(where["folder"], where["file"])
    try:
        with open(where["file"], "rb") as archive:
            archive.seek(where["offset"])
            return archive.read(where["size"])
    except OSError as error:
        raise ImageError(f"{where['file']} cannot be read: {error.strerror or error}") from None


def _one_or_all(images: list[Any]) -> Any:
    return images[0] if len(images) == 1 else images


# The check


class _Check:
    """Looks at the rows of one chunk."""

    def __init__(self, rows: EditRows, decode: bool) -> None:
        self.reader, self.problems = rows.reader, dict(rows.problems)
        self.stored = rows.stored.select_columns([*self.reader.sources, "prompt"])
        self.look: Callable[[bytes | Path], object] = read_image if decode else check_image

    def __call__(self, start: int) -> list[BrokenRow]:
        found: list[BrokenRow] = []
        for index in range(start, min(start + _CHUNK, len(self.stored))):
            reason = self.problems.get(index) or self.reason(self.stored[index])
            if reason:
                found.append(BrokenRow(index=index, reason=reason))
        return found

    def reason(self, row: Mapping[str, Any]) -> str | None:
        prompt = row["prompt"]
        if prompt is not None and not isinstance(prompt, str):
            return f"the prompt is a {type(prompt).__name__}, not text"
        if prompt is None or not prompt.strip():
            return "no prompt"
        try:
            for source in self.reader.sources:
                for image in self.reader.encoded(row[source]):
                    self.look(image)
        except ImageError as error:
            return str(error)
        return None


_shared: _Check | None = None


def _share(check: _Check) -> None:
    global _shared
    _shared = check


def _checked(start: int) -> list[BrokenRow]:
    assert _shared is not None
    return _shared(start)
