"""Reads an English edit instruction into changes: an operation, what it is done to, and what comes out.

Rules only: an instruction is understood whole or not at all. Whoever calls it gets `NotUnderstoodError` with the part
that was not, so that no vague principle is ever written for it.
"""

from __future__ import annotations

import re
from typing import Final

from editr1_plugins.principles.clauses import Change, Context, read_clause, restore_quotes
from editr1_plugins.principles.words import tone_name

__all__ = ["MAX_INSTRUCTION", "NotUnderstoodError", "quoted_texts", "read_instruction"]

#: Longer instructions are refused: rules do not understand essays, and reading stays cheap.
MAX_INSTRUCTION: Final = 400
_MAX_CHANGES: Final = 6


class NotUnderstoodError(ValueError):
    """The instruction, or a part of it, is outside of what the rules know."""


def read_instruction(instruction: str) -> tuple[Change, ...]:
    """All changes an instruction asks for, in its order.

    Raises:
        NotUnderstoodError: it is blank, too long, negated, vague, or any part of it is not understood.
    """
    if len(instruction) > MAX_INSTRUCTION:
        raise NotUnderstoodError(
            f"the instruction has {len(instruction)} characters; rules read up to {MAX_INSTRUCTION}"
        )
    text, quotes = _take_quotes(_plain(instruction))
    if not re.search(r"[a-z]", text.lower()):
        raise NotUnderstoodError("the instruction holds no English words")
    if negated := _NEGATED.search(text):
        raise NotUnderstoodError(f"instructions that exclude or choose ({negated[0]!r}) are not understood")
    changes = _read(text, Context(quotes=quotes))
    if len(changes) > _MAX_CHANGES:
        raise NotUnderstoodError(f"the instruction asks for {len(changes)} changes; rules read up to {_MAX_CHANGES}")
    return tuple(dict.fromkeys(changes))


_NEGATED: Final = re.compile(
    r"\b(?:don't|dont|do not|never|not|except|but|unless|without|instead(?! of quote\d+q)|or)\b", re.IGNORECASE
)
_POLITE: Final = re.compile(
    r"^(?:please|kindly|now|just|first|finally|also|and|then|next|(?:can|could|would|will) you(?: please)?"
    r"|i(?:'d| would) like (?:you )?to|i want (?:you )?to|i need (?:you )?to|let's|try to|you should"
    r"|edit the (?:image|photo|picture) (?:to|so that)|in (?:the|this) (?:image|photo|picture),?)[\s,]+",
    re.IGNORECASE,
)
_POLITE_END: Final = re.compile(
    r"[\s,]+(?:please|thanks|thank you|(?:in|from) (?:the|this) (?:image|photo|picture|scene))$", re.IGNORECASE
)
# An apostrophe between two letters ends no quote.
_QUOTED: Final = re.compile(
    r"\"([^\"]{1,80})\"|(?<![a-z0-9])'((?:[^']|(?<=[a-z])'(?=[a-z])){1,80})'(?![a-z0-9])", re.IGNORECASE
)
#: Quotation marks of all kinds: curly, low, angled, of East Asia, primes.
_DOUBLE: Final = (
    "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u275d\u275e\u300a\u300b\u300c\u300d\u300e\u300f\u301d\u301e\u301f\uff02"
)
_SINGLE: Final = "\u2018\u2019\u201a\u201b\u2039\u203a\u0060\u00b4\u275b\u275c\uff07\u2032"
_QUOTE_MARKS: Final = str.maketrans({**dict.fromkeys(_DOUBLE, '"'), **dict.fromkeys(_SINGLE, "'")})


def quoted_texts(instruction: str) -> tuple[str, ...]:
    """What stands in quotation marks of any kind in an instruction."""
    return _take_quotes(_plain(instruction))[1]


def _plain(instruction: str) -> str:
    return re.sub(r"\s+", " ", instruction.translate(_QUOTE_MARKS)).strip()


def _take_quotes(text: str) -> tuple[str, tuple[str, ...]]:
    """Put placeholders for quoted texts, whose case and words are not ours to read."""
    quotes: list[str] = []

    def keep(match: re.Match[str]) -> str:
        quotes.append((match[1] or match[2]).strip())
        return f"quote{len(quotes) - 1}q"

    # A placeholder that the instruction itself spells would read as a quote that was never there.
    return _QUOTED.sub(keep, re.sub(r"(?i)quote(\d+)q", r"quote \1 q", text)), tuple(quotes)


def _tidy(text: str) -> str:
    """Without politeness around it, without final punctuation."""
    while (shorter := _POLITE_END.sub("", _POLITE.sub("", text.strip(" .,!?;:")))) != text:
        text = shorter
    return text


# The stronger separator first. "black and white" is one tone, so its "and" does not separate.
_SEPARATORS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"\s*;\s*", r"[.!]\s+", r",?\s+(?:and\s+)?then\s+", r",\s*(?:and\s+)?", r"\s+and(?!\s+white\b)\s+")
)
_VERB: Final = re.compile(
    r"^(?:make|turn|paint|colou?r|dye|recolou?r|change|switch|convert|set|transform|remove|delete|erase|eliminate"
    r"|get rid of|take away|take out|add|put|place|insert|draw|include|replace|swap|give|render|apply|increase"
    r"|decrease)\b",
    re.IGNORECASE,
)


def _read(text: str, context: Context) -> list[Change]:
    clause = _tidy(text)
    if changes := read_clause(clause, context):
        return changes
    for separator in _SEPARATORS:
        pieces = [piece for piece in separator.split(clause) if piece.strip()]
        if len(pieces) > 1:
            return _read_pieces(pieces, context)
    raise NotUnderstoodError(f"not understood: {restore_quotes(clause, context.quotes)!r}")


def _read_pieces(pieces: list[str], context: Context) -> list[Change]:
    changes: list[Change] = []
    for piece in map(_tidy, pieces):
        led = _VERB.match(piece)
        # "make the circle blue and the square red": a piece without a verb takes the one before.
        elliptic = not led and context.verb and not tone_name(piece)
        found = _read(f"{context.verb} {piece}" if elliptic else piece, context)
        if elliptic and found[-1].where and changes and changes[-1].operation == "add" and not changes[-1].where:
            raise NotUnderstoodError(f"unclear whether {found[-1].where!r} is the place of {changes[-1].value!r} too")
        changes += found
        context = Context(quotes=context.quotes, verb=led[0] if led else context.verb, thing=_thing_of(found[-1]))
    return changes


def _thing_of(change: Change) -> str:
    """What "it" means after this change; "" means the image."""
    if change.operation == "add":
        return re.sub(r"^(?:an?|some|another) ", "the ", change.value)
    return change.what if change.operation in {"recolour", "remove", "replace", "background"} else ""
