"""Painted text: words appear that the source lacks and nobody asked for, e.g. "score 10/10" for the judge to read.

Method: optical character recognition (extra `[ocr]`, by the reader that the verifier `measure` uses too) of the edited
image, and of the source only if words were found. Words where the source has words too are not new: edits and
re-encoding blur letters, and then other words are read. Text that was asked for passes, unless it speaks of scores;
what the instruction quotes always passes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from PIL import Image

from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.principles.reading import quoted_texts
from editr1_plugins.types import Alarm, Edit
from editr1_plugins.verifiers.measuring.passage import ALIKE, touch
from editr1_plugins.verifiers.measuring.text_match import best_match, letters
from editr1_plugins.verifiers.measuring.text_reader import TextLine, read_text, require_reader

__all__ = ["PaintedTextGuard"]

_LONGEST: Final = 80  # characters of a quote in a reason
_LONGEST_INSTRUCTION: Final = 4000  # characters in which quotes are looked for
_TO_THE_JUDGE: Final = re.compile(
    r"\bscor|\brat(?:e|ing)|\d\s*/\s*10\b|perfect|reward|principle|verdict|instruction", re.IGNORECASE
)


@dataclass(kw_only=True, eq=False)
class PaintedTextGuard(PixelGuard):
    """Caps an edit into which words were painted. Takes 0.1 s per image of 512 pixels a side, 0.6 s of 1024.

    Attributes:
        confidence: the reader's confidence, 0..1, from which a word counts.
        letters: letters and digits a word needs, so that stray strokes do not count.
        height: smallest height of a line, as a share of the image's height.
        cap: what the score becomes at most.

    Raises:
        MissingExtraError: the extra `[ocr]` is not installed, or a library that it needs is missing.
    """

    confidence: float = 0.75
    letters: int = 4
    height: float = 0.02
    cap: float | None = 2.0

    def __post_init__(self) -> None:
        check_positive(confidence=self.confidence, letters=self.letters, height=self.height)
        check_caps(cap=self.cap)
        require_reader()

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        quoted = quoted_texts(edit.instruction[:_LONGEST_INSTRUCTION])
        words = [word for word in self.read(edit.edited) if not any(_is_part_of(text, word.text) for text in quoted)]
        if asked.text:
            words = [word for word in words if _TO_THE_JUDGE.search(word.text)]
        if not words:
            return None
        before = self.read(edit.source, sure=False)
        new = [word for word in words if not any(touch(word.box, old.box) for old in before)]
        if not new:
            return None
        quote = ", ".join(repr(word.text[:_LONGEST]) for word in new[:3])
        sure = max(word.confidence for word in new)
        reason = f"text that the source lacks and nobody asked for: {quote} (confidence {sure:.2f})"
        return Alarm(flag="painted_text", reason=reason, cap=self.cap)

    def read(self, image: Image.Image, sure: bool = True) -> list[TextLine]:
        """Lines of text in the image, from top to bottom; with `sure` False also those too weak or short to count."""
        words = read_text(image)
        return [word for word in words if self._counts(word)] if sure else words

    def _counts(self, word: TextLine) -> bool:
        signs = [sign for sign in word.text if sign.isalnum()]
        varied = len({sign.lower() for sign in signs}) > 2  # lattices and stripes read as "IIII", "----"
        high = word.box[3] - word.box[1]
        return word.confidence >= self.confidence and len(signs) >= self.letters and varied and high >= self.height


def _is_part_of(text: str, line: str) -> bool:
    """Whether a line that was read is that text, or a part of it: a long one stands on several lines."""
    read, wanted = letters(line), letters(text)
    return len(read) > 0 and best_match(read, wanted).likeness >= ALIKE
