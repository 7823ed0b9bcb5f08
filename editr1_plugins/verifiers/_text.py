"""A judge's raw text made plain: one spelling of brackets and digits, thoughts taken out, score tags found.

Everything is one pass of a regular expression whose repetitions are bounded, hence linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Answer", "Tag", "answer_of", "hide_quoted_questions", "json_punctuation", "normalise", "score_tags"]

# Characters that show nothing. The soft hyphen and the overrides of direction are not among them: removing those would
# join or reverse digits that a reader sees apart.
_ZERO_WIDTH = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff\ufe0e\ufe0f\u180e\u061c]+")

_ENTITY = re.compile(
    r"&(?:amp;){0,4}(?:(?P<name>lt|gt|quot|apos|nbsp)|#(?:(?P<dec>0{0,4}(?:34|39|60|62|160))"
    r"|x(?P<hex>0{0,4}(?:22|27|3c|3e|a0))));",
    re.IGNORECASE,
)
_NAMED: Final = {"lt": "<", "gt": ">", "quot": '"', "apos": "'", "nbsp": " "}

# Full-width forms have one-to-one ASCII twins. The full-width comma is left: it separates a list, never decimals.
_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if code != 0xFF0C} | str.maketrans(
    "\u3008\u3009\ufe64\ufe65\u2039\u203a\u3000\u00a0\u2028\u2029\u0085\r\x0b\x0c\u2044",
    "<><><>  \n\n\n\n\n\n/",
)
_JSON_PUNCTUATION: Final = str.maketrans(
    "\uff0c\u3001\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d\u300e\u300f\u2018\u2019\u201a\u201b\u00b4\u3010\u3011",
    ',,""""""""""' + "'''''" + "[]",
)

#: Stands for the `<` of a tag that belongs to a principle's own text; a private-use character, so no text means it.
_INERT: Final = "\ue000"
#: Questions with tags in them are attacks; a few are looked for, so that many cannot make the search slow.
_MAX_HOSTILE: Final = 64

_THINK = re.compile(
    r"[<\u25c1]\s{0,8}(?P<close>/?)\s{0,8}(?:seed:)?(?:think|thinking|thought)\s{0,8}[>\u25b7]"
    r"|\[(?P<square>/?)THINK\]",
    re.IGNORECASE,
)
_SCORE_TAG = re.compile(
    r"(?P<escape>\\{0,2})<\s{0,8}(?P<slash>[/\\]{0,2})\s{0,8}score(?:\s{0,8}(?P<end>[/\\]{0,2})\s{0,8}"
    r"|(?P<attributes>\s[^<>]{1,60}))>",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What of a reply may count.

    Attributes:
        text: the reply without its thoughts.
        must_end_in_block: a thought was never closed, so `text` (what follows the last mark of a thought) counts only
            where the model stopped by itself and a complete block ends it.
    """

    text: str
    must_end_in_block: bool = False


@dataclass(frozen=True)
class Tag:
    """One score tag in a text: `text[start:end]`.

    `odd` marks an opening tag with attributes: it may say anything about its number, so it is never read.
    """

    start: int
    end: int
    closing: bool
    odd: bool = False


def normalise(text: str) -> str:
    """Return `text` in one spelling: no zero-width characters, `<` for its escapes and twins, ASCII digits."""
    text = _ZERO_WIDTH.sub("", text)
    if "&" in text:
        text = _ENTITY.sub(_entity, text)
    return text.replace("\r\n", "\n").translate(_FULL_WIDTH)


def json_punctuation(text: str) -> str:
    """Return `text` with one spelling of quotes, commas and square brackets; every character keeps its place."""
    return text.translate(_JSON_PUNCTUATION)


def hide_quoted_questions(text: str, questions: Sequence[str]) -> str:
    """Make tags harmless where `text` repeats, word for word, a question that holds tags; lengths stay the same.

    Args:
        text: normalised text.
        questions: normalised questions.
    """
    hostile = [question for question in dict.fromkeys(questions) if _is_hostile(question)]
    for question in hostile[:_MAX_HOSTILE]:
        for spelling in (question, question.replace("\\", "\\\\").replace('"', '\\"')):
            text = text.replace(spelling, spelling.replace("<", _INERT))
    return text


def answer_of(text: str) -> Answer:
    """Take the thoughts out of normalised `text`.

    A bare closing mark ends a thought that the chat template opened, so nothing before it counts. Thoughts may nest.
    A thought that is never closed hides everything, also what stands before it (a prompt's echo, most likely).
    """
    visible: list[str] = []
    depth = position = end = 0
    for mark in _THINK.finditer(text):
        end = mark.end()
        if not (mark["close"] or mark["square"]):
            if depth == 0:
                visible.append(text[position : mark.start()])
            depth += 1
        elif depth:
            depth -= 1
            position = end
        else:
            visible.clear()
            position = end
    if depth:
        return Answer(text=text[end:], must_end_in_block=True)
    visible.append(text[position:])
    return Answer(text="\n".join(visible) if len(visible) > 1 else visible[0])


def score_tags(text: str) -> list[Tag]:
    """All score tags of normalised `text`, in order."""
    tags = []
    for found in _SCORE_TAG.finditer(text):
        # `\<score\>` is how markdown writes an opening tag; `<score/>` and `<score\>` are slips for the closing one.
        escaped = bool(found["escape"])
        closing = bool(found["slash"]) or (bool(found["end"]) and not (escaped and "/" not in found["end"]))
        odd = bool(found["attributes"] and found["attributes"].strip())
        tags.append(Tag(found.start(), found.end(), closing, odd and not closing))
    return tags


def _entity(found: re.Match[str]) -> str:
    if found["name"]:
        return _NAMED[found["name"].lower()]
    code = int(found["dec"]) if found["dec"] else int(found["hex"], 16)
    return chr(code)


def _is_hostile(question: str) -> bool:
    # A question that is little more than a tag would hide the real one.
    return "<" in question and sum(map(str.isalnum, question[:4000])) >= 16
