"""Rows with named image columns, from a file, a folder or the hub; a judge's training data comes in through here.

    rows = load_image_rows("traces", images=("source", "edited"))

An image is stored in its row, or the row holds its name, relative to the folder of the data set. It is decoded when a
row is taken, by `editr1_plugins.images`; a name leads to a file below that folder, or nowhere. Nothing that a row names
is ever fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError, DataError
from ..images import read_image
from ..reward.edit_rows import file_below
from .edit_data import EditRows, RowReader, load_edit_data

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["load_image_rows", "then"]

_SHOWN: Final = 20
_Rows = dict[str, list[Any]]


def load_image_rows(name: str | os.PathLike[str], *, images: Sequence[str], split: str = "train") -> Dataset:
    """Rows of a data set, with each of `images` decoded to an RGB PIL image where a row is taken.

    Every row has a text `instruction`; to the columns comes `row`, the row's number for messages.

    Args:
        name: a folder with Parquet files (below it or in its folder `data`) and images, a `.parquet` or `.jsonl` file,
            or the id of a data set on the hub, of either form: images in the rows, or such a folder.
        images: the columns that hold images, or their names relative to the folder of the data set.
        split: as `load_edit_data` takes it.

    Raises:
        ConfigError: no such file, folder or data set.
        DataError: no such split or column, no rows, or lines that are no rows. Where a row is taken: an image is
            missing, broken or outside of the folder; the message names the row and the column.
    """
    path = Path(name)
    if not path.exists():
        return _from_hub(os.fspath(name), images, split)
    return _dataset(_rows(path, images, split), images, folder=_folder_of(path), prefix="")


def then(dataset: Dataset, function: Callable[[_Rows], _Rows]) -> Dataset:
    """`dataset` with `function` applied to rows when they are taken, after what is applied to them already."""
    before = dataset.format["format_kwargs"].get("transform") if dataset.format["type"] == "custom" else None
    return dataset.with_transform(function if before is None else _Chain(before, function))


@dataclass(frozen=True)
class _Chain:
    first: Callable[[_Rows], _Rows]
    second: Callable[[_Rows], _Rows]

    def __call__(self, batch: _Rows) -> _Rows:
        return self.second(self.first(batch))


def _rows(name: str | os.PathLike[str], images: Sequence[str], split: str) -> EditRows:
    rows = load_edit_data(name, split=split, image_column=images, prompt_column="instruction")
    if rows.problems:
        told = "; ".join(f"row {index}: {reason}" for index, reason in list(rows.problems.items())[:_SHOWN])
        raise DataError(f"{rows.name}: {len(rows.problems)} of {len(rows)} rows cannot be read: {told}")
    return rows


def _dataset(rows: EditRows, images: Sequence[str], folder: Path | None, prefix: str) -> Dataset:
    stored = rows.stored.rename_columns({"image": images[0], "prompt": "instruction"})
    numbered = stored.add_column("row", list(range(len(stored)))) if "row" not in stored.column_names else stored
    where = None if folder is None else str(folder)
    return numbered.with_transform(_Decoder(rows.name, tuple(images), rows.reader, where, prefix))


@dataclass(frozen=True)
class _Decoder:
    """Decodes the image cells of rows; picklable.

    Attributes:
        name: of the data set, for messages.
        images: the columns.
        reader: reads what `load_edit_data` left in a cell.
        folder: where names lead to, with `prefix` before them; None where the rows must hold their images.
    """

    name: str
    images: tuple[str, ...]
    reader: RowReader
    folder: str | None
    prefix: str

    def __call__(self, batch: _Rows) -> _Rows:
        made = dict(batch)
        for column in set(self.images) & batch.keys():
            numbers = batch.get("row") or [None] * len(batch[column])
            made[column] = [self._decoded(cell, column, row) for cell, row in zip(batch[column], numbers, strict=True)]
        return made

    def _decoded(self, cell: Any, column: str, row: int | None) -> Any:
        try:
            name = cell.get("path") if isinstance(cell, Mapping) and cell.get("bytes") is None else cell
            if isinstance(name, str) and self.folder is not None:
                return read_image(file_below(self.folder, self.prefix + name))
            found = self.reader.decoded(cell)
        except DataError as error:
            raise DataError(f"{self.name}, row {row}, column {column!r}: {error}") from error
        if len(found) != 1:
            raise DataError(f"{self.name}, row {row}, column {column!r}: {len(found)} images where one is needed")
        return found[0]


def _folder_of(path: Path) -> Path:
    """What names of images are relative to: the folder of the data set, also for a file in its folder `data`."""
    if path.is_dir():
        return path
    above = path.resolve().parent
    return above.parent if above.name == "data" and (above.parent / "images").is_dir() else above


def _from_hub(name: str, images: Sequence[str], split: str) -> Dataset:
    rows = _rows(name, images, split)
    if all(getattr(rows.stored.features[column], "dtype", None) != "string" for column in ("image", *images[1:])):
        return _dataset(rows, images, folder=None, prefix="")
    from huggingface_hub import snapshot_download

    try:  # the rows hold names: the files come with the repository
        snapshot = Path(snapshot_download(name, repo_type="dataset"))
    except Exception as error:  # not found, private, no network: the hub raises many kinds
        raise ConfigError(f"the files of data set {name!r} cannot be downloaded: {error}") from error
    # A snapshot is links into `blobs`, two folders above it.
    return _dataset(rows, images, folder=snapshot.parents[1], prefix=f"{snapshot.parent.name}/{snapshot.name}/")
