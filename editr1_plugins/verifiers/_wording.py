"""How alike two wordings of a yes/no question are, and whether they can mean the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Final

__all__ = [
    "comparable",
    "content_words",
    "contradicts",
    "drift",
    "letters",
    "number_of",
    "overlap_of",
    "stripped",
    "unescaped",
]

_MAX_TEXT: Final = 2000  # characters of a text that are compared
_MAX_CHANGED: Final = 6  # content words that a small drift may touch

_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NUMBERING = re.compile(
    r"^[\s\"'*_#\ue000-]{0,8}(?:[\[(][^\])\n]{1,40}[\])]\s{0,4})?(?:(?:question|principle|criterion|no|q|p|问题|原则|第)"
    r"\s{0,2}[.#]?\s{0,2})?[\[(]?(?P<number>\d{1,3})\s{0,2}(?:[.):\]\u3001,-]|题|条)\s{0,4}[.:]?",
    re.IGNORECASE,
)
_CATEGORY = re.compile(r"^[\s\"'*_]{0,8}[\[(][^\])\n]{1,40}[\])]\s{0,4}:?")
_ANSWER_FORM = re.compile(r"[\s(\[]{0,4}(?:yes\s?/\s?no|0\s?/\s?1|是\s?/\s?否)[)\]\s.?]{0,4}$", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def _words_of(words: str, form: Callable[[str], str] = str) -> frozenset[str]:
    return frozenset(map(form, words.split()))


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s", "d", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word


_EMPTY_WORDS: Final = _words_of("""
    a an the is are was were be been being has have had do does did in of on at to for with by and that this it its as
    there still now edited image edit result correctly properly fully completely clearly well
""")
_NEGATIONS: Final = _words_of("not no never without none nothing neither nor isn aren wasn doesn didn don cannot")
_CHINESE_NEGATIONS: Final = frozenset("不没未无非")
_COLOURS: Final = _words_of(
    "red orange yellow green blue purple violet pink brown black white grey gray gold silver cyan magenta", _stem
)
_OPPOSITES: Final = _words_of(
    """
    left/right top/bottom upper/lower front/back before/after first/second present/absent gone/present kept/removed
    preserved/removed preserved/changed kept/changed same/changed same/different added/removed visible/hidden
    open/closed larger/smaller more/less brighter/darker warmer/cooler inside/outside
""",
    lambda pair: "/".join(map(_stem, pair.split("/"))),
)


def comparable(text: str, question: str) -> bool:
    """Whether both are in the same kind of script; words of a translation cannot be compared."""
    return _script(text) == _script(question)


def _script(text: str) -> str:
    text = text[:_MAX_TEXT]
    if _CJK.search(text):
        return "cjk"
    return "latin" if any(map(str.isalpha, filter(str.isascii, text))) else "other"


def drift(text: str, question: str) -> float:
    """How surely `text` is a small rewording of `question`: 0..1, and 0 where the sense may have changed."""
    cut = re.search(r"(?:\.{3}|\u2026)\s*$", text)
    if cut:
        start, whole = letters(stripped(text[: cut.start()])), letters(stripped(question))
        return 1.0 if len(start) >= 8 and whole.startswith(start) else 0.0
    mine, theirs = content_words(text), content_words(question)
    only_mine, only_theirs = mine - theirs, theirs - mine
    if _negations(text) != _negations(question) or _digits(text) != _digits(question):
        return 0.0
    if len(only_mine) > _MAX_CHANGED or len(only_theirs) > _MAX_CHANGED:
        return 0.0
    unpaired = [word for word in only_mine if not any(_alike(word, other) for other in only_theirs)]
    unanswered = [word for word in only_theirs if not any(_alike(word, other) for other in only_mine)]
    if unpaired and unanswered:
        return 0.0
    total = sum(mine.values()) + sum(theirs.values())
    return 1.0 - (len(unpaired) + len(unanswered)) / total if total else 0.0


def contradicts(text: str, question: str) -> bool:
    """Whether the two cannot be one question in other words: a negation, an opposite, another colour or side."""
    if _negations(text, "without") != _negations(question, "without"):
        return True
    only_mine, only_theirs = (
        content_words(text) - content_words(question),
        content_words(question) - content_words(text),
    )
    if len(only_mine) > _MAX_CHANGED * 4 or len(only_theirs) > _MAX_CHANGED * 4:
        return False
    return any(
        not _OPPOSITES.isdisjoint((f"{one}/{other}", f"{other}/{one}"))
        or (one in _COLOURS and other in _COLOURS)
        or _negates(one, other)
        or _negates(other, one)
        for one in only_mine
        for other in only_theirs
    )


def _negates(one: str, other: str) -> bool:
    return one.endswith(other) and one[: -len(other)] in ("un", "in", "im", "dis", "non")


def overlap_of(mine: Counter[str], theirs: Counter[str]) -> float:
    total = sum(mine.values()) + sum(theirs.values())
    return 2 * sum((mine & theirs).values()) / total if total else 0.0


def content_words(text: str) -> Counter[str]:
    """Content words in a rough stem; pairs of characters where a script writes no spaces. Not to be changed."""
    return _counted(stripped(text)[:_MAX_TEXT].casefold())


@lru_cache(maxsize=512)
def _counted(text: str) -> Counter[str]:
    words: Counter[str] = Counter()
    for word in _WORD.findall(text):
        if _CJK.search(word):
            words.update(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif word not in _EMPTY_WORDS and word not in _NEGATIONS:
            words[_stem(word)] += 1
    return words


def _alike(word: str, other: str) -> bool:
    """Whether two words are one in two spellings: a typo or an inflection, not "unchanged" for "changed"."""
    if min(len(word), len(other)) < 4 or word[0] != other[0]:
        return False
    return SequenceMatcher(None, word[:40], other[:40], autojunk=False).ratio() >= 0.8


def _negations(text: str, *ignored: str) -> int:
    lowered = text[:_MAX_TEXT].casefold()
    spelt = [word for word in _WORD.findall(lowered) if word in _NEGATIONS and word not in ignored]
    return len(spelt) + sum(character in _CHINESE_NEGATIONS for character in lowered)


def _digits(text: str) -> list[str]:
    return sorted(re.findall(r"[0-9]+", stripped(text)[:_MAX_TEXT]))


def number_of(text: str) -> int | None:
    found = _NUMBERING.match(text[:100])
    return int(found["number"]) if found else None


def stripped(text: str) -> str:
    """Without numbering, a category in brackets and a "(yes/no)"."""
    head, rest = text[:100], text[100:]
    head = _CATEGORY.sub("", _NUMBERING.sub("", head, count=1), count=1) + rest
    return head[:-40] + _ANSWER_FORM.sub("", head[-40:])


def letters(text: str) -> str:
    """Letters and digits alone: what is left when case, space and punctuation drift."""
    return "".join(filter(str.isalnum, text.casefold()))


def unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    text = _UNICODE_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return re.sub(r"\\([nrtbf])", " ", text)
