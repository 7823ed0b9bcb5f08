"""What was read in one image, as one row of letters that knows its lines and words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from editr1_plugins.verifiers.measuring.text_match import NO_LETTER, Letters, Match, apart, best_match, letters
from editr1_plugins.verifiers.measuring.text_reader import TextLine

__all__ = ["ALIKE", "Box", "Passage", "around", "read_again", "same_text", "touch"]

#: Likeness from which a text counts as read: one letter in five may be wrong.
ALIKE = 0.8
_SHORT = 3  # letters up to which a text must be a word of its own: "5" does not stand in "1530"
_MOST = 6  # places at which a text is looked for
_MOST_LINES = 400
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Passage:
    """Letters of several lines in a row; `owner` and `word` say, per letter, which line and which word it is of."""

    lines: tuple[TextLine, ...]
    row: Letters
    owner: tuple[int, ...]
    word: tuple[int, ...]

    @classmethod
    def of(cls, lines: Iterable[TextLine], *, cased: bool = False) -> Passage:
        """Of all lines in their order, up to a limit: what is read is not ours, and comparing costs time."""
        lines = tuple(lines)[:_MOST_LINES]
        rows: list[Letters] = [letters("")]
        owner: list[int] = []
        word: list[int] = []
        words = 0
        for number, line in enumerate(lines):
            for token in re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", line.text)):
                found = letters(token, cased=cased)
                rows.append(found)
                owner += [number] * len(found)
                word += [words] * len(found)
                words += 1
        return cls(lines=lines, row=np.concatenate(rows), owner=tuple(owner), word=tuple(word))

    def places(self, wanted: Letters, least: float = ALIKE) -> list[Match]:
        """Where a text stands, best first; of a short one only where it is a whole word, if it is one anywhere."""
        if len(wanted) <= _SHORT and (words := self._whole_words(wanted, least)):
            return words
        found: list[Match] = []
        free = self.row.copy()
        while len(found) < _MOST:
            match = best_match(wanted, free)
            if match.likeness < least or match.start == match.end:
                break
            found.append(match)
            free[match.start : match.end] = NO_LETTER
        return found

    def _whole_words(self, wanted: Letters, least: float) -> list[Match]:
        runs = [(run, apart(wanted, self._part(run))) for run in _runs(self.word) if len(run) <= 2 * _SHORT]
        found = [Match(errors=errors, length=len(wanted), start=run.start, end=run.stop) for run, errors in runs]
        return sorted((match for match in found if match.likeness >= least), key=lambda match: match.errors)

    def errors(self, wanted: Letters) -> int:
        """Of the best place for a text; a short one is compared with whole words."""
        if len(wanted) <= _SHORT:
            return min((apart(wanted, each) for each in self.words() if len(each) <= 2 * _SHORT), default=len(wanted))
        return best_match(wanted, self.row).errors

    def words(self) -> Iterator[Letters]:
        yield from (self._part(each) for each in _runs(self.word))

    def around(self, match: Match) -> tuple[Letters, Letters]:
        """What stands before and after a match in the same words: "re" and "ing" around "open" in "reopening"."""
        first, last = match.start, match.end
        while first and self.word[first - 1] == self.word[match.start]:
            first -= 1
        while last < len(self.row) and self.word[last] == self.word[match.end - 1]:
            last += 1
        return self.row[first : match.start], self.row[match.end : last]

    def without(self, taken: Iterable[Match]) -> list[tuple[int, Letters]]:
        """(line, letters) of what stands outside of these places."""
        gone = {place for match in taken for place in range(match.start, match.end)}
        keys = [(number, place in gone) for place, number in enumerate(self.owner)]
        return [(keys[each.start][0], self._part(each)) for each in _runs(keys) if not keys[each.start][1]]

    def box(self, match: Match) -> Box:
        """Of the lines in which a match stands."""
        return around(self.lines[number].box for number in self.lines_of(match))

    def height(self, match: Match) -> float:
        """Mean height of the lines in which a match stands, as a share of the image's."""
        boxes = [self.lines[number].box for number in self.lines_of(match)]
        return sum(box[3] - box[1] for box in boxes) / len(boxes)

    def lines_of(self, match: Match) -> set[int]:
        return set(self.owner[match.start : match.end])

    def confidence(self, match: Match) -> float:
        return min(self.lines[number].confidence for number in self.lines_of(match))

    def _part(self, run: range) -> Letters:
        return self.row[run.start : run.stop]


def _runs(keys: Sequence[object]) -> Iterator[range]:
    """Where the same key stands several times in a row."""
    start = 0
    for place in range(1, len(keys) + 1):
        if place == len(keys) or keys[place] != keys[start]:
            yield range(start, place)
            start = place


def around(boxes: Iterable[Box]) -> Box:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def touch(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def read_again(line: TextLine, others: Collection[TextLine], *, cased: bool = False) -> bool:
    """Whether one of the other lines says the same at the same place."""
    own = letters(line.text, cased=cased)
    near = (letters(other.text, cased=cased) for other in others if touch(line.box, other.box))
    return any(same_text(own, other) for other in near)


def same_text(one: Letters, other: Letters) -> bool:
    return len(one) == len(other) and apart(one, other) == 0
