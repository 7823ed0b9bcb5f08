"""Where rows of (image, prompt) come from: files and folders of this machine, or a data set of the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError, DataError
from .edit_files import FileRows, read_archives, read_json_lines

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["hub_caches", "rows_of_hub", "rows_on_disk"]

_KINDS: Final = {".jsonl": "JSON lines", ".parquet": "Parquet", ".tar": "WebDataset"}
_OTHER_SPLITS: Final = ("test", "validation", "valid", "val", "eval", "dev")
_SHOWN: Final = 20


def rows_on_disk(
    path: Path, split: str, images: Sequence[str], prompt: str
) -> tuple[Dataset, dict[int, str], set[str]]:
    """The rows of a file or folder, what is wrong with some of them by number, and the columns that refer to images.

    Args:
        path: see `edit_data.load_edit_data`, as for `split`.
        images, prompt: names of columns; in JSON lines, those of `images` hold names of files.

    Raises:
        ConfigError: a file of another kind.
        DataError: no such split, or what cannot be read at all.
    """
    import datasets

    if path.is_dir() and any((path / made).is_file() for made in ("state.json", "dataset_dict.json")):
        stored = datasets.load_from_disk(path)
        if isinstance(stored, datasets.DatasetDict):
            if split not in stored:
                raise DataError(f"{path} has no split {split!r}; there are: {', '.join(stored)}")
            stored = stored[split]
        return stored, {}, set()
    files = _files(path, split)
    if files[0].suffix == ".parquet":
        return _parquet(path, files), {}, set()
    jsonl = files[0].suffix == ".jsonl"
    rows: FileRows = read_json_lines(files, images, prompt) if jsonl else read_archives(files)
    return rows.dataset(str(path)), rows.problems, rows.images


def _parquet(path: Path, files: Sequence[Path]) -> Dataset:
    import datasets

    try:
        # "train" is what `datasets` calls the only part there is; which files are in it was chosen before.
        return datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    except (datasets.exceptions.DatasetGenerationError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error.__cause__ or error}") from None


def _files(path: Path, split: str) -> list[Path]:
    """The files that hold a split; all of one kind."""
    if path.is_file():
        if path.suffix not in _KINDS:
            raise ConfigError(f"{path} is not a file of data; known endings: {', '.join(_KINDS)}")
        if split != "train" and not _named(path, (split,)):
            raise DataError(f"{path} has no split {split!r}: name a folder with a file for each split")
        return [path]
    folder = path / split if (path / split).is_dir() else path
    files = sorted(file for place in (folder, folder / "data") for file in place.glob("*") if file.suffix in _KINDS)
    chosen = files if folder != path else [file for file in files if _named(file, (split,))]
    if not chosen and split == "train":
        chosen = [file for file in files if not _named(file, _OTHER_SPLITS)]
    if not chosen:
        there = ", ".join(file.name for file in files[:_SHOWN]) or "nothing that ends in " + ", ".join(_KINDS)
        raise DataError(f"{path} has no file of the split {split!r}; there is: {there}")
    kinds = sorted({file.suffix for file in chosen})
    if len(kinds) > 1:
        raise DataError(f"{path} holds files of several kinds ({', '.join(kinds)}); name the file that is meant")
    return chosen


def _named(file: Path, splits: Sequence[str]) -> bool:
    return any(re.match(rf"{re.escape(split)}(?![a-z])", file.name, re.IGNORECASE) for split in splits)


def rows_of_hub(name: str, config: str | None, split: str) -> Dataset:
    """The rows of a data set of the hub.

    Raises:
        ConfigError: the name is a path, or no data set that can be had.
        DataError: no such configuration or split.
    """
    import datasets

    if "://" in name or name.startswith((".", "/", "~")) or Path(name).suffix in _KINDS:
        raise ConfigError(f"no file or folder {name!r}")
    try:
        return datasets.load_dataset(name, config, split=split)
    except ValueError as error:  # an unknown config or split
        raise DataError(f"data set {name!r}: {error}") from None
    except Exception as error:  # not found, private, no network: the hub raises many kinds
        raise ConfigError(f"{name!r} is no file or folder here, nor a data set of the hub: {error}") from error


def hub_caches() -> tuple[str, ...]:
    """The folders in which the hub's data sets keep their files."""
    from datasets import config
    from huggingface_hub import constants

    return tuple(str(Path(cache).resolve()) for cache in (config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE))
