"""A tolerant scan for flat JSON objects: what judges write when they mean JSON.

Only flat objects are read; an object or array around them is stepped over, so wrappers, JSON lines, missing brackets
and fences need no rule of their own. A quote closes a string only where the text goes on as JSON would (a key, a
brace), so apostrophes and unescaped quotes in questions do no harm. Closing places are found once for the whole text
and dead ends are remembered, hence the scan is linear.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import partial
from typing import Final

__all__ = ["MAX_OBJECTS", "FlatObject", "scan_objects", "unfold_serialised"]

#: More than a judge ever writes; the scan stops there.
MAX_OBJECTS: Final = 10_000

_KNOWN_KEY = (
    r"(?:question|principle|criterion|criteria|score|verdict|answer|result|passed|pass|met|satisfied|judge?ment|category|"
    r"reason|reasoning|explanation|evidence|id|index|type|bbox|box|justification|comment|analysis|rationale|confidence|"
    r"问题|原则|得分|分数|评分|判断|结果|理由|类别)"
)
_GAP = r"(?:\s|\\[nrt]){0,60}"
_QUOTED_KEY = r"[\"'][^\"'\n:{}]{1,40}[\"']\s{0,8}[:=]"
_BARE_KEY = rf"{_KNOWN_KEY}\s{{0,8}}[:=]"
_NOTE = r"(?://|/\*|\#\s)"
_STRING_GOES_ON = (
    rf"(?={_GAP}(?:\}}|$|,{_GAP}(?:[}}{{]|$|{_NOTE}|{_QUOTED_KEY}|{_BARE_KEY})|{_NOTE})"
    rf"|\s(?:{_GAP})(?:{_QUOTED_KEY}|{_BARE_KEY}))"
)
_CLOSERS: Final = {
    quote: re.compile(rf"(?<!\\){quote}{_STRING_GOES_ON}", re.IGNORECASE | re.DOTALL) for quote in ('"', "'")
}
_ITEM_START = re.compile(  # unfolding leaves spaces inside the quotes
    rf"\{{\s{{0,40}}(?:\"\s{{0,4}}{_KNOWN_KEY}\s{{0,4}}\"|'\s{{0,4}}{_KNOWN_KEY}\s{{0,4}}'|{_KNOWN_KEY})\s{{0,8}}:",
    re.IGNORECASE,
)
_OBJECT_START = re.compile(r"\{(?=[\s\\,nrt]{0,60}(?:[\"'/#]|[^\W\d]))")
_SEPARATORS = re.compile(r"(?:[\s,;]|\\[nrt]|//[^\n]{0,400}|/\*[^*]{0,400}\*/|#\s[^\n]{0,400})*")
_KEY = re.compile(r"(?:[\"'](?P<quoted>[^\"'\n:{}]{1,40})[\"']|(?P<bare>[^\W\d][\w-]{0,39}))\s{0,8}[:=]\s{0,40}")
_LIST = re.compile(r"\[(?:[^\[\]{}]|\[[^\[\]{}]{0,400}\]){0,2000}\]")
_INNER = re.compile(r"\{[^{}\[\]]{0,1000}\}")
_SCALAR = re.compile(r"[^,<{}\[\]\"'\n\\]{0,80}")
_COMMENT = re.compile(r"//|/\*|#\s")

_ESCAPED_GAP = r"\s{0,8}(?:\\+[nrt]\s{0,8}){0,4}"
_SERIALISED = re.compile(
    rf"(?:(?P<key>[\w ]{{0,20}}[\"']\s{{0,4}}:\s{{0,8}})?(?<!\\)[\"']|^){_ESCAPED_GAP}(?:\[{_ESCAPED_GAP})?"
    r"\{(?:\s|\\+[nrt]){0,60}(?P<slashes>\\{1,7})[\"']",
    re.MULTILINE,
)
_ESCAPE = re.compile(r"(\\+)([\"'nrt]?)")
_END_OF_STRING = re.compile(r"(?<!\\)\"")
_TEXT_KEY = re.compile(
    r"(?:question|principle|criterion|text|reason\w*|explanation|问题|原则)[\"']\s{0,4}:", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class FlatObject:
    """One object, `text[start:end]`.

    Attributes:
        fields: (key, value) in order; the key in lower case without separators, the value as written, quotes removed.
            In an object that was cut or broken they are those before the damage.
    """

    start: int
    end: int
    fields: tuple[tuple[str, str], ...]

    def get(self, keys: tuple[str, ...]) -> list[str]:
        """All values of the first of `keys` that occurs."""
        for wanted in keys:
            values = [value for key, value in self.fields if key == wanted]
            if values:
                return values
        return []


@dataclass
class _Scan:
    text: str
    closers: dict[str, list[int]]
    item_starts: list[int]
    dead: set[int] = field(default_factory=set)  # places of keys from which no object could be read


def scan_objects(text: str) -> list[FlatObject]:
    """The flat objects of `text`, in order, at most `MAX_OBJECTS`; linear in its length.

    Args:
        text: one reply, with `json_punctuation` and `unfold_serialised` applied.
    """
    if "{" not in text:
        return []
    closers = {quote: [found.start() for found in pattern.finditer(text)] for quote, pattern in _CLOSERS.items()}
    scan = _Scan(text=text, closers=closers, item_starts=[found.start() for found in _ITEM_START.finditer(text)])
    objects: list[FlatObject] = []
    start = _OBJECT_START.search(text)
    while start and len(objects) < MAX_OBJECTS:
        read = _read_object(scan, start.start())
        if read:
            objects.append(read)
        start = _OBJECT_START.search(text, read.end if read else start.end())
    return objects


def unfold_serialised(text: str) -> str:
    r"""Take one level of `\"` out of arrays that were serialised twice; every character keeps its place."""
    if '\\"' not in text and "\\'" not in text:
        return text
    parts: list[str] = []
    position = 0
    start = _SERIALISED.search(text)
    while start:
        level = len(start["slashes"])
        end = _END_OF_STRING.search(text, start.end())
        stop = end.start() if end else len(text)
        is_text = start["key"] and _TEXT_KEY.search(text, max(0, start.start() - 20), start.end("key"))
        if not is_text:
            body = _ESCAPE.sub(partial(_unfold, level=level), text[start.start() : stop])
            parts += [text[position : start.start()], body]
            position = stop
        start = _SERIALISED.search(text, max(stop, start.end()))
    return "".join([*parts, text[position:]])


def _unfold(found: re.Match[str], level: int) -> str:
    slashes, after = found.groups()
    if after in ('"', "'"):
        inner = len(slashes) > level
        return " " * (len(slashes) - inner) + "\\" * inner + after
    return " " * (len(slashes) + 1) if after else slashes


def _read_object(scan: _Scan, start: int) -> FlatObject | None:
    """The flat object at `start`, or None where none can be read (it holds others, or makes no sense)."""
    text = scan.text
    fields: list[tuple[str, str]] = []
    visited: list[int] = []
    position = start + 1
    while True:
        position = _skip(text, position)
        if position in scan.dead:
            break
        visited.append(position)
        mark = text[position : position + 1]
        if mark in ("}", "]", "{", "["):
            # A missing brace: the next object, or the end of the array, ends this one.
            end = position + 1 if mark == "}" else position
            if not fields or mark == "[":
                break
            return FlatObject(start=start, end=end, fields=tuple(fields))
        key = _KEY.match(text, position)
        if key is None:
            if len(fields) < 2 and mark:
                break
            # What stands here is no JSON, so the value before it may be cut or broken as well.
            return FlatObject(start=start, end=max(position, start + 1), fields=tuple(fields[:-1]))
        value, after = _read_value(scan, key.end())
        if value is None and len(fields) > 1 and text[key.end() : key.end() + 1] in ('"', "'"):
            return FlatObject(start=start, end=key.end(), fields=tuple(fields))
        if value is None:
            break
        fields.append((_plain_key(key["quoted"] or key["bare"]), value))
        position = after
    scan.dead.update(visited)
    return None


def _read_value(scan: _Scan, start: int) -> tuple[str | None, int]:
    """A value and the place after it; (None, start) for one that is unterminated or holds further items."""
    text = scan.text
    opening = text[start : start + 1]
    if opening in ('"', "'"):
        places = scan.closers[opening]
        index = bisect_left(places, start + 1)
        if index == len(places):
            return None, start
        close = places[index]
        swallowed = bisect_left(scan.item_starts, start)
        if swallowed < len(scan.item_starts) and scan.item_starts[swallowed] < close:
            return None, start
        return text[start + 1 : close], close + 1
    if opening == "[":
        found = _LIST.match(text, start)
        return ("[]", found.end()) if found else (None, start)
    if opening == "{":
        found = _INNER.match(text, start)
        return ("{}", found.end()) if found and not _ITEM_START.match(text, start) else (None, start)
    scalar = _SCALAR.match(text, start)
    if scalar is None:  # the pattern matches the empty string
        return None, start
    value = scalar.group()
    comment = _COMMENT.search(value)
    if comment:
        return value[: comment.start()].strip(), start + comment.start()
    return value.strip(), scalar.end()


def _skip(text: str, position: int) -> int:
    found = _SEPARATORS.match(text, position)
    return found.end() if found else position


def _plain_key(key: str) -> str:
    return re.sub(r"[\W_]+", "", key.lower())
