"""What a benchmark asks of a judge, and what came of it: items with pictures, answers without.

An `Item` is one row of a benchmark: candidates of one (source, instruction), read when they are judged. What people
said about it, and later what the judge said, is a `JudgedPair` or a `JudgedRating`: small, without pictures, one JSON
line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from editr1_plugins.errors import ConfigError, DataError
from editr1_plugins.reward.edit_rows import numbered_lines

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "Benchmark",
    "Item",
    "Judged",
    "JudgedPair",
    "JudgedRating",
    "as_pairs",
    "as_ratings",
    "first_rows",
    "read_judged",
    "write_judged",
]


@dataclass(frozen=True, kw_only=True, slots=True)  # thousands are kept
class JudgedPair:
    """Two edits of one source: which is better, as people said and as the judge did.

    Attributes:
        key: of the row, unique within the benchmark.
        preference: 1 the first is better, -1 the second, 0 a tie.
        category: what is edited (a task type); "" where the benchmark has none.
        dimension: what was looked at (overall, consistency, ...); "" where there is one only.
        group: rows of one source; whole groups are drawn in bootstraps, and a K-way ranking is one group.
        label: what people said, as the benchmark spells it.
        names: of the two edits within their group ("A", "C").
        scores: the judge's, one per edit, None where it failed; empty where it gave none.
        votes: of a pairwise judge, one per order shown (first edit first, then last): 1, -1, 0, or None where it
            failed.
        said: the judge's own label, where the benchmark has more than three.
        failure: why an answer is missing.
    """

    key: str
    preference: int
    category: str = ""
    dimension: str = ""
    group: str = ""
    label: str = ""
    names: tuple[str, str] = ("A", "B")
    scores: tuple[float | None, ...] = ()
    votes: tuple[int | None, ...] = ()
    said: str = ""
    failure: str | None = None

    def __post_init__(self) -> None:
        if self.preference not in (-1, 0, 1):
            raise DataError(f"pair {self.key!r}: preference must be 1, -1 or 0, got {self.preference!r}")
        if len(self.scores) not in (0, 2) or len(self.votes) > 2 or len(self.names) != 2:
            raise DataError(f"pair {self.key!r}: two names, two scores or none, at most two votes")
        if any(vote not in (-1, 0, 1, None) for vote in self.votes):
            raise DataError(f"pair {self.key!r}: votes must be 1, -1, 0 or null, got {self.votes!r}")
        _check_numbers(self.key, self.scores)

    @property
    def difference(self) -> float | None:
        """First score less second; None without both."""
        if len(self.scores) != 2 or self.scores[0] is None or self.scores[1] is None:
            return None
        return self.scores[0] - self.scores[1]

    def outcome(self, tolerance: float = 1e-9) -> int | None:
        """What the judge says: 1, -1, 0, or None where it failed. Votes that differ by order make a tie."""
        if self.votes:
            if None in self.votes:
                return None
            return self.votes[0] if len(set(self.votes)) == 1 else 0
        difference = self.difference
        if difference is None:
            return None
        return 0 if abs(difference) <= tolerance else (1 if difference > 0 else -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedRating:
    """One edit with ratings of people, and the judge's.

    Attributes:
        key: of the row, unique within the benchmark.
        ratings: one per rater; each the rater's numbers (ImagenHub: SC and PQ in 0, 0.5, 1; else a single number).
        category: correlations are computed within it (ImagenHub: the editor).
        group: rows of one source.
        scores: the judge's numbers by name ("O" overall; VIEScore "SC" and "PQ", each one or several numbers, of which
            the lowest counts); empty where it failed.
        failure: why there are none.
    """

    key: str
    ratings: tuple[tuple[float, ...], ...]
    category: str = ""
    group: str = ""
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    failure: str | None = None

    def __post_init__(self) -> None:
        if not self.ratings or not all(self.ratings):
            raise DataError(f"rating {self.key!r}: no rating of any person")
        for numbers in (*self.ratings, *self.scores.values()):
            _check_numbers(self.key, numbers)


Judged = JudgedPair | JudgedRating


def _check_numbers(key: str, numbers: Sequence[float | None]) -> None:
    for number in numbers:
        if number is not None and (type(number) not in (int, float) or not math.isfinite(number)):
            raise DataError(f"row {key!r}: {number!r} is no finite number")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One row of a benchmark, to be judged.

    Attributes:
        blank: the row as people judged it, without the judge's answers.
        instruction: what was asked for.
        edits: a name for each candidate that tells it from all others of the benchmark; rows that share an edit share
            its name, so that it is judged once.
        read: returns the source and then the candidates as RGB images; raises DataError where it cannot.
    """

    blank: Judged
    instruction: str
    edits: tuple[str, ...]
    read: Callable[[], Sequence[Image]]


@runtime_checkable
class Benchmark(Protocol):
    """What `register_benchmarks` adds: where rows come from, and how the official script counts.

    Attributes:
        name: as registered.
        source: the hub id, or what to give as the place.
        headline: the dimension that the headline number is of; "" for all rows.
        ranked: a group of pairs is one K-way ranking, right where all its pairs are.
    """

    name: str
    source: str
    headline: str
    ranked: bool

    def items(self, place: str | None) -> Iterator[Item]:
        """The rows of a local folder or file or a hub id; None: `source`. DataError names what does not fit."""
        ...

    def official(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """The official arithmetic in percent (correlations as they are), faults included; "accuracy" is the headline
        (None for ratings).

        A number that the official script would not give is None, with a "note".
        """
        ...

    def predictions(self, path: Path, place: str | None) -> list[Judged]:
        """Answers recorded elsewhere, in the benchmark's own raw format; `place` holds the labels where they do not."""
        ...


def as_pairs(judged: Iterable[Judged], who: str) -> list[JudgedPair]:
    """The same rows, if all are pairs.

    Raises:
        DataError: one is not.
    """
    rows = list(judged)
    pairs = [row for row in rows if isinstance(row, JudgedPair)]
    if len(pairs) < len(rows):
        raise DataError(f"{who} is a benchmark of pairs; these rows hold ratings")
    return pairs


def as_ratings(judged: Iterable[Judged], who: str) -> list[JudgedRating]:
    """The same rows, if all are ratings.

    Raises:
        DataError: one is not.
    """
    rows = list(judged)
    ratings = [row for row in rows if isinstance(row, JudgedRating)]
    if len(ratings) < len(rows):
        raise DataError(f"{who} is a benchmark of ratings; these rows hold pairs")
    return ratings


_Rows = TypeVar("_Rows", Item, Judged)


def first_rows(rows: Iterable[_Rows], limit: int | None, *, ranked: bool) -> Iterator[_Rows]:
    """The first `limit` rows (None: all); where groups are rankings, up to the end of the last row's group."""
    last: str | None = None
    for number, row in enumerate(rows):
        group = (row.blank if isinstance(row, Item) else row).group
        if limit is not None and number >= limit and not (ranked and group == last):
            return
        last = group
        yield row


def write_judged(path: Path, judged: Iterable[Judged]) -> None:
    """One JSON line per row; the file is complete or not there.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("w", encoding="ascii") as file:
            for row in judged:
                kind = "pair" if isinstance(row, JudgedPair) else "rating"
                file.write(json.dumps({"kind": kind, **asdict(row)}, allow_nan=False) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def read_judged(path: Path) -> list[Judged]:
    """What `write_judged` wrote.

    Raises:
        DataError: the file cannot be read, or a line is no such row; names the line.
    """
    found: list[Judged] = []
    for number, line in numbered_lines(path):
        where = f"{path.name}, line {number}"
        try:
            row = json.loads(line or b"")
            found.append(_row(row))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise DataError(f"{where}: not a judged row ({error})") from None
    return found


def _row(row: Any) -> Judged:
    data = dict(row)
    kind: type[Judged] = {"pair": JudgedPair, "rating": JudgedRating}[data.pop("kind")]
    unknown = data.keys() - {each.name for each in fields(kind)}
    if unknown:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    for name in ("key", "category", "dimension", "group", "label", "said"):
        if not isinstance(data.get(name, ""), str):
            raise ValueError(f"{name!r} must be text")
    if kind is JudgedPair:
        for name in ("names", "scores", "votes"):
            data[name] = tuple(data.get(name) or ())
        data["names"] = data["names"] or ("A", "B")
        return JudgedPair(**data)
    data["ratings"] = tuple(tuple(each) for each in data["ratings"])
    data["scores"] = {name: tuple(numbers) for name, numbers in data.get("scores", {}).items()}
    return JudgedRating(**data)
