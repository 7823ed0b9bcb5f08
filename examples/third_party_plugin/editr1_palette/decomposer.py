"""Reads instructions that limit the palette, and writes what the verifier can measure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from PIL.Image import Image

from editr1_plugins.types import FOLLOW, KEEP, QUALITY, NoPrinciples, Principle

__all__ = ["PaletteDecomposer"]

_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "ten": 10, "twelve": 12}
_LIMIT = re.compile(rf"\b(?P<count>[0-9]{{1,3}}|{'|'.join(_WORDS)}) colou?rs?\b", re.IGNORECASE)


class PaletteDecomposer:
    """Turns "reduce the image to 8 colours" into principles; anything else is a failure that says so."""

    def decompose(self, requests: Sequence[tuple[Image, str]]) -> list[tuple[Principle, ...]]:
        return [self._principles(instruction) for _, instruction in requests]

    def _principles(self, instruction: str) -> tuple[Principle, ...]:
        limits = {word.lower() for word in _LIMIT.findall(instruction[:1000])}
        if len(limits) != 1:
            return NoPrinciples("the instruction names no number of colours, or several; write e.g. 'use 8 colours'")
        word = limits.pop()
        count = _WORDS.get(word) or int(word)
        if not 2 <= count <= 256:
            return NoPrinciples(f"a palette has 2 to 256 colours, the instruction asks for {count}")
        return (
            Principle(question=f"Does the edited image use at most {count} colours?", category=FOLLOW),
            Principle(question="Does every region keep a colour close to its colour in the source?", category=KEEP),
            Principle(question="Are the colours of the palette easy to tell apart?", category=QUALITY),
        )
