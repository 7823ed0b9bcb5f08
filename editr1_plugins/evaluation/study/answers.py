"""What raters exported. A file comes from outside: one that is not as the page wrote it is refused, with the reason.

The checksum finds files that were changed, by hand or on the way; it cannot find who computes a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from editr1_plugins.errors import DataError
from editr1_plugins.evaluation.sources import load_json
from editr1_plugins.evaluation.study.key import StudyKey

__all__ = ["Answer", "Answers", "answers_checksum", "read_answers"]

_FORMAT: Final = "editr1-study-answers"
_VERSION: Final = 1
_SIDES: Final = ("left", "same", "right")
_MAX_BYTES: Final = 64 * 2**20
_MAX_NAME: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Of one item: the better side ("left", "same", "right"), how long it was looked at, and when (Unix time)."""

    item: str
    answer: str
    milliseconds: int
    at: int


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One rater's export."""

    rater: str
    answers: tuple[Answer, ...]
    path: Path


def read_answers(places: Sequence[str | Path], key: StudyKey) -> list[Answers]:
    """The exports in the files, and in the `.json` files of the folders, that `places` name; one per rater.

    Raises:
        DataError: no such file, none at all, one that is not an export of this study or was changed after it was
            exported, or two of one rater; names the file.
    """
    paths = [path for place in places for path in _files(Path(place))]
    if not paths:
        raise DataError("no exported answers: give the .json files that the raters' pages exported, or their folder")
    found: dict[str, Answers] = {}
    known = {each.item for each in key.items}
    for path in paths:
        read = _read(path, key.study, known)
        same = " ".join(read.rater.split()).casefold()
        if same in found:
            raise DataError(
                f"{found[same].path} and {path} are both of the rater {read.rater!r}; give only the one that counts"
            )
        found[same] = read
    return list(found.values())


def answers_checksum(study: str, rater: str, started: int, answers: Sequence[Answer]) -> str:
    """SHA-256, in hexadecimal, as the page computes it."""
    rows = [[each.item, each.answer, each.milliseconds, each.at] for each in answers]
    text = json.dumps([study, rater, started, rows], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _files(place: Path) -> list[Path]:
    return sorted(path for path in place.glob("*.json") if path.is_file()) if place.is_dir() else [place]


def _read(path: Path, study: str, known: set[str]) -> Answers:
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{path} has more than {_MAX_BYTES} bytes; exported answers are far smaller")
    found = load_json(path)
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise DataError(f"{path} holds no exported answers of a study")
    if found.get("version") != _VERSION:
        raise DataError(f"{path} is of version {found.get('version')!r}, this package reads {_VERSION}; update it")
    if found.get("study") != study:
        raise DataError(f"{path} answers the study {found.get('study')!r}, not this one, {study!r}"[:400])
    rater, started, rows = found.get("rater"), found.get("started"), found.get("answers")
    if not isinstance(rater, str) or not rater.strip() or len(rater) > _MAX_NAME:
        raise DataError(f"{path}: 'rater' must be a name")
    if not _whole(started) or not isinstance(rows, list):
        raise DataError(f"{path}: 'started' must be a time and 'answers' a list")
    answers, seen = [], set[str]()
    for number, cells in enumerate(rows):
        answer = _answer(cells, f"{path}, answer {number}")
        if answer.item not in known:
            raise DataError(f"{path}, answer {number}: this study has no item {answer.item!r}"[:400])
        if answer.item in seen:
            raise DataError(f"{path}, answer {number}: the item {answer.item!r} is answered twice"[:400])
        seen.add(answer.item)
        answers.append(answer)
    if found.get("checksum") != answers_checksum(study, rater, started, answers):
        raise DataError(f"{path} was changed after it was exported (its checksum differs); export the answers again")
    return Answers(rater=rater, answers=tuple(answers), path=path)


def _answer(cells: Any, where: str) -> Answer:
    fine = isinstance(cells, dict) and isinstance(cells.get("item"), str) and cells.get("answer") in _SIDES
    if not fine or not _whole(cells.get("milliseconds")) or not _whole(cells.get("at")):
        raise DataError(f"{where}: an item, one of {', '.join(_SIDES)}, milliseconds and a time are needed")
    return Answer(**{name: cells[name] for name in ("item", "answer", "milliseconds", "at")})


def _whole(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**53
