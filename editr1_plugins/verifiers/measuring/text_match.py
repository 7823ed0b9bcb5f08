"""How like a wanted text is to what was read: pure arithmetic on strings.

Compared are letters and digits only. Spaces and punctuation do not count, since readers drop them; nor does case, nor
accents, nor signs that look alike in many fonts (0 and O; 1, I and l). Every other letter that is wrong, missing or too
much is one error; likeness is 1 - errors / letters of the wanted text.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["NO_LETTER", "Letters", "Match", "apart", "best_match", "letters"]

#: Letters and digits of a text as (N, 2) numbers: what is compared, and which signs it looks like (0: none).
Letters: TypeAlias = npt.NDArray[np.int64]
#: What is like nothing, in place of a letter.
NO_LETTER: Final = (-1, 0)
_LOOKALIKES: Final = {sign: number for number, group in enumerate(("0Oo", "1Il"), start=1) for sign in group}
#: Letters whose two cases differ in size only.
_SAME_IN_BOTH_CASES: Final = frozenset("cosuvwxzCOSUVWXZ")
_FIRST_NON_CHARACTER: Final = 0x110000


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


def letters(text: str, *, cased: bool = False) -> Letters:
    """The letters and digits of a text, as they are compared; `cased`: capitals differ from small letters."""
    found = []
    for sign in unicodedata.normalize("NFKC", text):
        if sign.isalnum():
            bare = next((part for part in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(part)), sign)
            folded = bare if cased and bare not in _SAME_IN_BOTH_CASES else bare.casefold()
            found.append((_number(folded), _LOOKALIKES.get(bare, 0)))
    return np.array(found, np.int64).reshape(-1, 2)


def _number(folded: str) -> int:
    number = 0
    for sign in folded:  # one sign, seldom two: a sharp s folds to "ss"
        number = number * _FIRST_NON_CHARACTER + ord(sign)
    return number


def _same(letter: npt.NDArray[np.int64], others: Letters) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = others[:, 0] == letter[0]
    return same | (others[:, 1] == letter[1]) if letter[1] else same


def best_match(wanted: Letters, read: Letters) -> Match:
    """The part of `read` that is most like all of `wanted`: the fewest insertions, deletions and replacements.

    Raises:
        ValueError: nothing is wanted.
    """
    if not len(wanted):
        raise ValueError("a text without letters and digits cannot be matched")
    places = np.arange(len(read) + 1, dtype=np.int64)
    # Row i: errors of the first i wanted letters against a part of `read` that ends at each place, times `unit`, plus
    # how far from the end of `read` that part starts: of two equal ones the smaller number is the shorter part.
    unit = len(read) + 1
    row = len(read) - places
    for count, letter in enumerate(wanted, start=1):
        row = _next_row(row, _same(letter, read), count * unit + len(read), places * unit, unit)
    end = int(np.argmin(row // unit))
    errors, back = divmod(int(row[end]), unit)
    return Match(errors=errors, length=len(wanted), start=len(read) - back, end=end)


def apart(one: Letters, other: Letters) -> int:
    """Errors between two whole texts."""
    places = np.arange(len(other) + 1, dtype=np.int64)
    row = places
    for count, letter in enumerate(one, start=1):
        row = _next_row(row, _same(letter, other), count, places, 1)
    return int(row[-1])


def _next_row(
    row: npt.NDArray[np.int64],
    same: npt.NDArray[np.bool_],
    first: int,
    steps: npt.NDArray[np.int64],
    unit: int,
) -> npt.NDArray[np.int64]:
    """One more letter of an edit distance: it is kept or replaced, it is missing, or letters before it are too much."""
    best = np.empty_like(row)
    best[0] = first
    np.minimum(row[:-1] + np.where(same, 0, unit), row[1:] + unit, out=best[1:])
    following: npt.NDArray[np.int64] = np.minimum.accumulate(best - steps) + steps
    return following
