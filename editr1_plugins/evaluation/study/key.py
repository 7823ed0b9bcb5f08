"""The key of a study: which side of which item shows which system. It stays with who made the study.

A study is a folder: `study.html` goes to the raters, `key.json` and `images` (the originals) do not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.evaluation.sources import load_json

__all__ = ["KEY_NAME", "PAGE_NAME", "SYSTEMS", "StudyItem", "StudyKey", "read_key", "write_text"]

KEY_NAME: Final = "key.json"
PAGE_NAME: Final = "study.html"
#: The two systems as figures name them: good is "a" better than "b".
SYSTEMS: Final = ("a", "b")
_FORMAT: Final = "editr1-study-key"
_VERSION: Final = 1
_TEXTS: Final = ("item", "name", "left", "instruction", "category", "source", "a", "b")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyItem:
    """One comparison.

    Attributes:
        item: its identifier on the page; tells nothing about the sides.
        name: in the data that the study was made of.
        left: "a" or "b", the system that the page shows on the left.
        instruction: of the edit.
        category: what is edited; "" where the data do not tell.
        source, a, b: names of the original images below the study's folder.
    """

    item: str
    name: str
    left: str
    instruction: str
    category: str
    source: str
    a: str
    b: str


@dataclass(frozen=True, kw_only=True)
class StudyKey:
    """A study: its identifier, the names of the systems a and b, the seed of its order, and its items in page order."""

    study: str
    systems: tuple[str, str]
    seed: str
    items: tuple[StudyItem, ...]

    def write(self, folder: Path) -> None:
        """Write the key into the study's folder.

        Raises:
            ConfigError: it cannot be written.
        """
        made = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        write_text(folder / KEY_NAME, json.dumps(made, indent=1, allow_nan=False) + "\n")


def read_key(folder: Path) -> StudyKey:
    """The key in the study's folder.

    Raises:
        DataError: there is none, or it is not one that this package wrote.
    """
    path = folder / KEY_NAME
    if not path.is_file():
        raise DataError(f"{folder} is no study: it has no {KEY_NAME}; `editr1 study make` writes one")
    found = load_json(path)
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise DataError(f"{path} is no key of a study")
    if found.get("version") != _VERSION:
        raise DataError(
            f"{path} is a key of version {found.get('version')!r}, this package reads {_VERSION}; update it"
        )
    systems, items = found.get("systems"), found.get("items")
    texts = [found.get("study"), found.get("seed"), *(systems if isinstance(systems, list) else [None])]
    if len(texts) != 4 or not all(isinstance(text, str) for text in texts) or not isinstance(items, list):
        raise DataError(f"{path}: study, seed, two systems and items are needed")
    read = tuple(_item(cells, number, path) for number, cells in enumerate(items))
    _check_unique(read, path)
    return StudyKey(study=texts[0], seed=texts[1], systems=(texts[2], texts[3]), items=read)


def write_text(path: Path, text: str) -> None:
    """Write a file whole, or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def _item(cells: Any, number: int, path: Path) -> StudyItem:
    if not isinstance(cells, dict) or not all(isinstance(cells.get(name), str) for name in _TEXTS):
        raise DataError(f"{path}, item {number}: {', '.join(_TEXTS)} must be texts")
    if cells["left"] not in SYSTEMS:
        raise DataError(f"{path}, item {number}: left must be a or b, not {cells['left']!r}"[:300])
    return StudyItem(**{name: cells[name] for name in _TEXTS})


def _check_unique(items: Sequence[StudyItem], path: Path) -> None:
    if not items:
        raise DataError(f"{path} has no items")
    if len({each.item for each in items}) != len(items):
        raise DataError(f"{path}: two items have the same identifier")
