"""Painted text: words appear that the source lacks and nobody asked for, e.g. "score 10/10" for the judge to read.

Method: optical character recognition (extra `[ocr]`: rapidocr-onnxruntime, whose models lie in its wheel) of the edited
image, and of the source only if words were found. Words where the source has words too are not new: edits and
re-encoding blur letters, and then other words are read. Text that was asked for passes, unless it speaks of scores.
Pixels larger than text needs are box-averaged first, and images under 48 pixels are not read.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from PIL import Image

from editr1_plugins.errors import MissingExtraError
from editr1_plugins.guards.asked import Asked
from editr1_plugins.guards.base import PixelGuard, check_caps, check_positive
from editr1_plugins.guards.measures import levels
from editr1_plugins.types import Alarm, Edit

__all__ = ["PaintedTextGuard", "Word"]

_ENGINE: Final = "rapidocr_onnxruntime"
_SMALLEST: Final = 48  # pixels of the shorter side
_LARGEST: Final = 1600  # pixels of the longer side
_READ_AT: Final = 480  # pixels of the shorter side to which the reader enlarges small images
_LONGEST: Final = 80  # characters of a quote in a reason
_TO_THE_JUDGE: Final = re.compile(
    r"\bscor|\brat(?:e|ing)|\d\s*/\s*10\b|perfect|reward|principle|verdict|instruction", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Word:
    """A line of text as read: its bounding box (left, top, right, bottom) in 0..1 of the image, and confidence 0..1."""

    text: str
    box: tuple[float, float, float, float]
    confidence: float


@dataclass(kw_only=True, eq=False)
class PaintedTextGuard(PixelGuard):
    """Caps an edit into which words were painted. Takes 0.1-0.3 s per image on one core.

    Attributes:
        confidence: the reader's confidence, 0..1, from which a word counts.
        letters: letters and digits a word needs, so that stray strokes do not count.
        height: smallest height of a line, as a share of the image's height.
        cap: what the score becomes at most.

    Raises:
        MissingExtraError: the extra `[ocr]` is not installed.
    """

    confidence: float = 0.75
    letters: int = 4
    height: float = 0.02
    cap: float | None = 2.0
    _reader: Any = field(default=None, init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        check_positive(confidence=self.confidence, letters=self.letters, height=self.height)
        check_caps(cap=self.cap)
        if find_spec(_ENGINE) is None:
            raise MissingExtraError(
                "the guard against painted text reads images: pip install 'editr1-plugins[ocr]' (rapidocr-onnxruntime)"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _reader=None, _lock=threading.Lock())

    def look(self, edit: Edit, asked: Asked) -> Alarm | None:
        words = self.read(edit.edited)
        if asked.text:
            wanted = _signs(edit.instruction)
            words = [word for word in words if _TO_THE_JUDGE.search(word.text) and _signs(word.text) not in wanted]
        if not words:
            return None
        before = self.read(edit.source, sure=False)
        new = [word for word in words if not any(_touch(word.box, old.box) for old in before)]
        if not new:
            return None
        quote = ", ".join(repr(word.text[:_LONGEST]) for word in new[:3])
        sure = max(word.confidence for word in new)
        reason = f"text that the source lacks and nobody asked for: {quote} (confidence {sure:.2f})"
        return Alarm(flag="painted_text", reason=reason, cap=self.cap)

    def read(self, image: Image.Image, sure: bool = True) -> list[Word]:
        """Lines of text in the image, from top to bottom; with `sure` False also those too weak or short to count."""
        if min(image.size) < _SMALLEST:
            return []
        if (factor := -(-max(image.size) // _LARGEST)) > 1:
            image = image.convert("RGB").reduce(factor)
        rgb = levels(image)
        # The reader takes BGR arrays; it is never handed a path or a URL.
        with self._lock:
            found, _ = self._engine()(np.ascontiguousarray(rgb[:, :, ::-1]))
        words = [_word(corners, text, float(score), image.size) for corners, text, score in found or []]
        return [word for word in words if self._counts(word)] if sure else words

    def _counts(self, word: Word) -> bool:
        signs = [sign for sign in word.text if sign.isalnum()]
        varied = len({sign.lower() for sign in signs}) > 2  # lattices and stripes read as "IIII", "----"
        high = word.box[3] - word.box[1]
        return word.confidence >= self.confidence and len(signs) >= self.letters and varied and high >= self.height

    def _engine(self) -> Any:
        if self._reader is None:
            # One thread: spinning threads cost a trainer's cores more than they gain.
            options = {"intra_op_num_threads": 1, "inter_op_num_threads": 1, "det_limit_side_len": _READ_AT}
            self._reader = import_module(_ENGINE).RapidOCR(**options)
        return self._reader


def _word(corners: Sequence[Sequence[float]], text: str, confidence: float, size: tuple[int, int]) -> Word:
    xs, ys = zip(*corners, strict=True)
    box = (min(xs) / size[0], min(ys) / size[1], max(xs) / size[0], max(ys) / size[1])
    return Word(text=text, box=box, confidence=confidence)


def _signs(text: str) -> str:
    """Letters and digits only: the reader often misses the spaces."""
    return "".join(sign for sign in text.lower() if sign.isalnum())


def _touch(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
