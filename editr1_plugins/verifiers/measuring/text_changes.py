"""What was read in a source and in its edited image, and each change of text that was asked for."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from editr1_plugins.principles.phrases import Ask
from editr1_plugins.verifiers.measuring.passage import Box, Passage, around, read_again, same_text
from editr1_plugins.verifiers.measuring.pixels import rise
from editr1_plugins.verifiers.measuring.text_match import Letters, Match, apart, best_match, letters
from editr1_plugins.verifiers.measuring.text_reader import TextLine

__all__ = ["FOUND", "REMOVALS", "TextChange", "Texts"]

#: Likeness to the wanted text that earns nothing, and everything.
FOUND: Final = (0.25, 0.9)
#: Kinds of question about text that is to go without another one in its place.
REMOVALS: Final = frozenset({"text_removed", "text_traces"})
_CHANGES: Final = frozenset({"text", "text_replaced", "text_added", "text_removed"})
_GONE: Final = (0.3, 0.8)  # share of the way from the old text to the new one


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """What was read in the source and in the edited image, and what is asked about it; `known`: signs of the reader."""

    source: tuple[TextLine, ...]
    edited: tuple[TextLine, ...]
    known: frozenset[str]
    asks: Sequence[Ask]
    _memo: dict[tuple[str, str], TextChange | str] = field(default_factory=dict)

    def change(self, ask: Ask) -> TextChange | str:
        """The change that a question is about, or why it cannot be judged."""
        new = "" if ask.kind in REMOVALS else ask.value
        replaced = (each.what for each in self.asks if each.kind == "text_replaced" and each.value == new)
        old = ask.what or next(replaced, "")
        if (old, new) not in self._memo:
            self._memo[old, new] = self._change(old, new)
        return self._memo[old, new]

    def changes(self) -> list[TextChange]:
        """Every change that is asked for and can be judged."""
        found = (self.change(ask) for ask in self.asks if ask.kind in _CHANGES)
        return [change for change in found if not isinstance(change, str)]

    def _change(self, old: str, new: str) -> TextChange | str:
        for wanted in filter(None, (old, new)):
            if failure := self._unreadable(wanted):
                return failure
        cased = bool(new) and self._no_news(old, new, cased=False)
        if cased and self._no_news(old, new, cased=True):
            return f"the source reads {new!r} already, as far as letters and digits tell"
        change = TextChange(old=old, new=new, cased=cased, texts=self)
        if old and not change.old_places:
            return f"the text {old!r} cannot be read in the source"
        if old and len(change.old_places) > 1:
            return f"the source shows {old!r} {len(change.old_places)} times; which one is meant is open"
        if new and not old and len(change.wanted) < 2:
            return "a single letter is too little to be looked for"
        return change

    def _no_news(self, old: str, new: str, *, cased: bool) -> bool:
        """Whether the new text is the old one, or, where that is not given, stands in the source already."""
        if old:
            return same_text(letters(old, cased=cased), letters(new, cased=cased))
        source = Passage.of(self.source, cased=cased)
        places = source.places(letters(new, cased=cased), least=1.0)
        return any(not any(map(len, source.around(place))) for place in places)

    def _unreadable(self, wanted: str) -> str:
        signs = [sign for sign in unicodedata.normalize("NFKC", wanted) if sign.isalnum()]
        if not signs:
            return f"{wanted!r} has no letter or digit to look for"
        if strange := [sign for sign in signs if not self._is_known(sign)]:
            return f"{strange[0]!r} is a sign that the reader does not know: it reads English and simplified Chinese"
        return ""

    def _is_known(self, sign: str) -> bool:
        if (bare := unicodedata.normalize("NFKD", sign)[0]).isascii():
            return True
        return unicodedata.name(bare, "").startswith("CJK UNIFIED") and bare in self.known


@dataclass(frozen=True, kw_only=True, eq=False)
class TextChange:
    """One text that was to go (`old`, or ""), to come (`new`, or ""), or both."""

    old: str
    new: str
    cased: bool
    texts: Texts

    @cached_property
    def wanted(self) -> Letters:
        return letters(self.new, cased=self.cased)

    @cached_property
    def unwanted(self) -> Letters:
        return letters(self.old, cased=self.cased)

    @cached_property
    def is_open(self) -> bool:
        """Whether "the text" is to change and which one is not said."""
        return not self.old and any(ask.kind == "text" and ask.value == self.new for ask in self.texts.asks)

    @cached_property
    def before(self) -> Passage:
        return Passage.of(self.texts.source, cased=self.cased)

    @cached_property
    def old_places(self) -> list[Match]:
        return self.before.places(self.unwanted) if self.old else []

    @cached_property
    def old_box(self) -> Box | None:
        """Where the old text stood; None where that cannot be told."""
        if self.old_places:
            return self.before.box(self.old_places[0])
        again = self.texts.edited
        lost = [line.box for line in self.texts.source if not read_again(line, again, cased=self.cased)]
        return around(lost) if self.is_open and lost else None

    @cached_property
    def fresh(self) -> tuple[TextLine, ...]:
        """Lines of the edited image that the source does not have at their place."""
        return tuple(each for each in self.texts.edited if not read_again(each, self.texts.source, cased=self.cased))

    @cached_property
    def found(self) -> tuple[Passage, Match | None, float]:
        """The new lines, where the wanted text stands in them, and its likeness with what hangs on to it counted."""
        best: tuple[Passage, Match | None, float] = (Passage.of(self.fresh, cased=self.cased), None, 0.0)
        if not self.new:
            return best
        for lines in (self.fresh, self.fresh[::-1]):  # text that stands on its head is read from its last line
            passage = Passage.of(lines, cased=self.cased)
            for match in passage.places(self.wanted, least=FOUND[0]):
                likeness = max(0.0, 1 - apart(self.wanted, self._with_its_words(passage, match)) / match.length)
                if likeness > best[2]:
                    best = (passage, match, likeness)
        return best

    @property
    def found_lines(self) -> list[TextLine]:
        """The lines in which the wanted text stands."""
        passage, match, _ = self.found
        return [passage.lines[number] for number in sorted(passage.lines_of(match))] if match else []

    def _with_its_words(self, passage: Passage, match: Match) -> Letters:
        """The letters of a match and of the words it stands in, but for pieces that the source has as well."""
        before, after = passage.around(match)
        start = match.start if self._known(before) else match.start - len(before)
        return passage.row[start : match.end if self._known(after) else match.end + len(after)]

    def _known(self, part: Letters) -> bool:
        """Whether the source shows this piece of a word too, as a word, beside the old text, or among others."""
        if len(part) >= 3:
            return best_match(part, self.before.row).errors == 0
        beside = (rest for place in self.old_places for rest in self.before.around(place))
        return any(same_text(part, each) for each in (*self.before.words(), *beside))

    @cached_property
    def left(self) -> Passage:
        """What is read in the edited image, without the source's other lines that are still there."""
        if self.is_open:
            return Passage.of(self.texts.edited, cased=self.cased)
        owners = {number for place in self.old_places for number in self.before.lines_of(place)}
        others = [line for number, line in enumerate(self.texts.source) if number not in owners]
        kept = [line for line in self.texts.edited if not read_again(line, others, cased=self.cased)]
        return Passage.of(kept, cased=self.cased)

    def present(self) -> float:
        return rise(self.found[2], *FOUND)

    def gone(self) -> float:
        """How far the old text, or without one the most changed line of the source, is on its way to the new one."""
        olds = [self.unwanted] if self.old else [letters(line.text, cased=self.cased) for line in self.texts.source]
        shares = [self._way(old) for old in olds if len(old)]
        return max(shares, default=1.0)

    def _way(self, old: Letters) -> float:
        whole = best_match(old, self.wanted).errors
        if whole == 0:  # the new text contains the old one
            return self.present()
        return rise(self.left.errors(old) / whole, *_GONE)

    def zone(self) -> Iterator[Box]:
        """Where the image had to change."""
        passage, match, _ = self.found
        if match:
            yield passage.box(match)
        if self.old_box:
            yield self.old_box

    def words(self) -> str:
        _, match, likeness = self.found
        if not match:
            return f"{self.new!r} cannot be read anywhere new" + _quote(self.fresh)
        return f"likeness {likeness:.2f} to {self.new!r}" + _quote(self.found_lines)


def _quote(lines: Sequence[TextLine]) -> str:
    return "; read there: " + ", ".join(repr(line.text[:60]) for line in lines[:3]) if lines else ""
