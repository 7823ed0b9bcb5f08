"""The pool of worked examples that shows a decomposer what good principles look like.

Sixty of our own (the paper's pool has as many, section 3.1): its eleven kinds of edits, and instructions in several
steps, with implied meaning, with exact places or sizes, or about a small part of the picture.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from editr1_plugins.errors import DataError
from editr1_plugins.types import Principle

__all__ = ["KINDS", "TRAITS", "Exemplar", "draw", "load_exemplars"]

#: The paper's kinds of edits.
KINDS: Final = (
    "background change",
    "colour alteration",
    "material modification",
    "motion change",
    "portrait beautification",
    "style transfer",
    "subject addition",
    "subject removal",
    "subject replacement",
    "text modification",
    "tone transformation",
)
#: What makes an instruction hard.
TRAITS: Final = ("multi-step", "implicit", "precise", "local")


@dataclass(frozen=True, kw_only=True)
class Exemplar:
    """An instruction, what its source image shows, and the principles that an expert would write for it.

    `kind` is one of `KINDS`; `traits` are any of `TRAITS`.
    """

    name: str
    kind: str
    traits: tuple[str, ...]
    instruction: str
    source: str
    principles: tuple[Principle, ...]


def load_exemplars(path: str | os.PathLike[str] | None = None) -> tuple[Exemplar, ...]:
    """The pool in the JSON file at `path`: a list of objects with the fields of `Exemplar`. None: the one shipped here.

    Raises:
        DataError: the file cannot be read or an entry is wrong; says which.
    """
    if path is None:
        return _shipped()
    try:
        return _parse(Path(path).read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise DataError(f"cannot read the exemplars {path}: {error}") from None


@cache
def _shipped() -> tuple[Exemplar, ...]:
    text = (files("editr1_plugins.principles") / "exemplars.json").read_text(encoding="utf-8")
    return _parse(text, "exemplars.json")


def _parse(text: str, where: str) -> tuple[Exemplar, ...]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{where} must hold a non-empty JSON list of exemplars")
    pool = tuple(_exemplar(row, f"{where}, entry {number}") for number, row in enumerate(rows))
    if len({each.name for each in pool}) != len(pool):
        raise DataError(f"{where}: two exemplars have the same name")
    return pool


def _exemplar(row: Any, where: str) -> Exemplar:
    try:
        principles = tuple(
            Principle(question=each["question"], category=each["category"]) for each in row["principles"]
        )
        made = Exemplar(
            name=row["name"],
            kind=row["kind"],
            traits=tuple(row["traits"]),
            instruction=row["instruction"],
            source=row["source"],
            principles=principles,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: {type(error).__name__}: {error}") from None
    if made.kind not in KINDS or not set(made.traits) <= set(TRAITS) or not principles:
        raise DataError(f"{where}: unknown kind or trait, or no principles")
    return made


def draw(pool: Sequence[Exemplar], shots: int, seed: int, key: str) -> list[Exemplar]:
    """`shots` exemplars in random order; the same for the same (pool, seed, key), on every machine and Python."""

    def rank(exemplar: Exemplar) -> bytes:
        return hashlib.sha256(f"{seed}\0{key}\0{exemplar.name}".encode()).digest()

    return sorted(pool, key=rank)[:shots]
