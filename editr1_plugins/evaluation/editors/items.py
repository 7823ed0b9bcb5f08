"""What a benchmark asks of an editor, and what came of it: items with pictures, answers without."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.reward.edit_rows import numbered_lines

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "IMAGE_NAME",
    "EditorBenchmark",
    "EditorItem",
    "JudgedEdit",
    "Sources",
    "distinct",
    "read_judged_edits",
    "write_judged_edits",
]

#: Images of a run lie here, named by their content; a row that names another file is refused.
IMAGE_NAME: Final = re.compile(r"images/[0-9a-f]{32}\.png")


class Sources(NamedTuple):
    """What an editor is given (one image or several), and what the judge sees as the source."""

    given: Sequence[Image]
    shown: Image


@dataclass(frozen=True, kw_only=True)
class EditorItem:
    """One edit to be made.

    Attributes:
        key: unique within the benchmark; the seed of the edit follows from it, so it must not depend on the order.
        instruction: what is asked for.
        category: what is edited (a task type); "" where the benchmark has none.
        group: items of one source, which bootstraps draw together; "" for an item that stands alone.
        tags: what else the official arithmetic needs to know of the item.
        names: where an already made image may lie below a folder, without its ending.
        read: returns the source images; raises DataError where it cannot.
        gold: measures an edit by what no judge knows: numbers in 0..10 by name. Only for worlds that know the truth.
    """

    key: str
    instruction: str
    read: Callable[[], Sources]
    category: str = ""
    group: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    gold: Callable[[Image], Mapping[str, float]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)  # thousands are kept
class JudgedEdit:
    """One edit and what a judge said about it.

    Attributes:
        key, instruction, category, group, tags: as of the item.
        numbers: what was said, by name. Of our judges "score" (tau), and where they answer questions or give parts,
            "follow", "keep" and "quality", all 0..10; of recorded answers the benchmark's own numbers. Empty where it
            failed.
        failure: why there are none.
        source, edited: the images, relative to the directory of the run; None where there are none.
    """

    key: str
    instruction: str = ""
    category: str = ""
    group: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    source: str | None = None
    edited: str | None = None

    def __post_init__(self) -> None:
        for name, number in self.numbers.items():
            if type(number) not in (int, float) or not math.isfinite(number):
                raise DataError(f"edit {self.key!r}: {name} is {number!r}, no finite number")
        if not self.numbers and not self.failure:
            raise DataError(f"edit {self.key!r}: neither numbers nor a failure")


@runtime_checkable
class EditorBenchmark(Protocol):
    """What `register_benchmarks` adds for `editr1 eval editor`.

    Attributes:
        name: as registered, with its argument.
        source: the hub id, or what to give as the place.
        overall: the number by which edits are ranked and editors compared, where a row has it; else "score".
        limits: lowest and highest value of `overall`.
    """

    name: str
    source: str
    overall: str
    limits: tuple[float, float]

    def edits(self, place: str | None) -> Iterator[EditorItem]:
        """The rows of a local folder or file or a hub id; None: `source`. DataError names what does not fit."""
        ...

    def aspects(self, row: JudgedEdit) -> dict[str, float]:
        """The benchmark's own numbers of an edit that was judged; what the judge did not give is left out."""
        ...

    def official(self, rows: Sequence[JudgedEdit]) -> dict[str, Any]:
        """The official arithmetic, faults included; None, with a "note", where the script would give no number."""
        ...

    def recorded(self, path: Path, place: str | None) -> list[JudgedEdit]:
        """Answers of the benchmark's own judge in its raw format; `place` holds the rows where they do not tell."""
        ...


def distinct(items: Iterable[EditorItem]) -> Iterator[EditorItem]:
    """The same items.

    Raises:
        DataError: two have one key.
    """
    seen: set[str] = set()
    for item in items:
        if item.key in seen:
            raise DataError(f"two rows have the key {item.key!r}"[:300])
        seen.add(item.key)
        yield item


def write_judged_edits(path: Path, rows: Iterable[JudgedEdit]) -> None:
    """One JSON line per edit; the file is complete or not there.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("w", encoding="ascii") as file:
            for row in rows:
                file.write(json.dumps({"kind": "edit", **asdict(row)}, allow_nan=False) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def read_judged_edits(path: Path) -> list[JudgedEdit]:
    """What `write_judged_edits` wrote.

    Raises:
        DataError: the file cannot be read, or a line is no such row; names the line.
    """
    found = []
    for number, line in numbered_lines(path):
        try:
            found.append(_row(json.loads(line or b"")))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise DataError(f"{path.name}, line {number}: not a judged edit ({error})"[:300]) from None
    return found


def _row(row: Any) -> JudgedEdit:
    data = dict(row)
    if data.pop("kind") != "edit":
        raise ValueError("of another kind")
    unknown = data.keys() - {each.name for each in fields(JudgedEdit)}
    if unknown:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    for name in ("key", "instruction", "category", "group"):
        if not isinstance(data.get(name, ""), str):
            raise ValueError(f"{name!r} must be text")
    for name in ("failure", "source", "edited"):
        if not isinstance(data.get(name), (str, type(None))):
            raise ValueError(f"{name!r} must be text or null")
    if not all(IMAGE_NAME.fullmatch(name) for name in (data.get("source"), data.get("edited")) if name is not None):
        raise ValueError("an image of another name")
    if not all(isinstance(text, str) for text in dict(data.get("tags", {})).values()):
        raise ValueError("'tags' must be texts")
    return JudgedEdit(**data)
