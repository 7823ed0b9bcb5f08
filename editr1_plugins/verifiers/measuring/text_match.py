"""How like a wanted text is to what was read: pure arithmetic on strings.

Compared are letters and digits only. Spaces and punctuation do not count, since readers drop them; nor does case, nor
accents, nor signs that look alike in many fonts (0 and O; 1, I and l). Every other letter that is wrong, missing or too
much is one error; likeness is 1 - errors / letters of the wanted text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Letter", "Match", "apart", "best_match", "letters"]

#: Letters read of an image, at most: what is read is not ours, and comparing costs time.
_LONGEST: Final = 2000
_LOOKALIKES: Final = {sign: group[0] for group in ("0Oo", "1Il") for sign in group}
#: Letters whose two cases differ in size only.
_SAME_IN_BOTH_CASES: Final = frozenset("cosuvwxzCOSUVWXZ")


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One letter or digit: `folded` is what is compared; `alike` names signs that look the same, "" where none does."""

    folded: str
    alike: str


@dataclass(frozen=True, kw_only=True)
class Match:
    """Where a wanted text fits best: letters `start` to `end` of what was read, with so many `errors` of `length`."""

    errors: int
    length: int
    start: int
    end: int

    @property
    def likeness(self) -> float:
        return max(0.0, 1 - self.errors / self.length)


def letters(text: str, *, cased: bool = False) -> tuple[Letter, ...]:
    """The letters and digits of a text, as they are compared; `cased`: capitals differ from small letters."""
    found = []
    for sign in unicodedata.normalize("NFKC", text):
        bare = next((part for part in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(part)), "")
        if sign.isalnum():
            folded = bare if cased and bare not in _SAME_IN_BOTH_CASES else bare.casefold()
            found.append(Letter(folded=folded, alike=_LOOKALIKES.get(bare, "")))
    return tuple(found[:_LONGEST])


def _same(one: Letter | None, other: Letter | None) -> bool:
    if one is None or other is None:
        return False
    return one.folded == other.folded or (one.alike != "" and one.alike == other.alike)


def best_match(wanted: Sequence[Letter], read: Sequence[Letter | None]) -> Match:
    """The part of `read` that is most like all of `wanted`; the fewest insertions, deletions and replacements.

    None in `read` is like nothing.

    Raises:
        ValueError: nothing is wanted.
    """
    if not wanted:
        raise ValueError("a text without letters and digits cannot be matched")
    # Row i: errors of the first i wanted letters against a part of `read` that ends at each place, and its start.
    row = [(0, place) for place in range(len(read) + 1)]
    for count, letter in enumerate(wanted, start=1):
        before, row = row, [(count, 0)]
        for place, other in enumerate(read, start=1):
            (kept, start), (missing, above), (more, left) = before[place - 1], before[place], row[-1]
            errors = kept if _same(letter, other) else kept + 1
            if missing + 1 < errors:
                errors, start = missing + 1, above
            if more + 1 < errors:
                errors, start = more + 1, left
            row.append((errors, start))
    end = min(range(len(row)), key=lambda place: row[place][0])
    return Match(errors=row[end][0], length=len(wanted), start=row[end][1], end=end)


def apart(one: Sequence[Letter], other: Sequence[Letter]) -> int:
    """Errors between two whole texts."""
    if not one or not other:
        return max(len(one), len(other))
    row = list(range(len(other) + 1))
    for count, letter in enumerate(one, start=1):
        before, row = row, [count]
        for place, second in enumerate(other, start=1):
            row.append(min(before[place - 1] + (not _same(letter, second)), before[place] + 1, row[-1] + 1))
    return row[-1]
