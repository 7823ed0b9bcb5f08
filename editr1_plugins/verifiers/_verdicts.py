"""From flat objects to verdict arrays: which objects are verdicts, which belong together, what each value says.

A verdict is 1 or 0 in any of its spellings; an array with a number above 1 in it was judged on another scale and is
no verdicts at all. Items without the text of a question count only as an array of several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from editr1_plugins.verifiers._objects import FlatObject

__all__ = ["Item", "VerdictArray", "is_item", "read_average", "read_verdict", "verdict_arrays"]

_QUESTION_KEYS: Final = (
    *(
        "question",
        "principle",
        "criterion",
        "criteria",
        "questiontext",
        "principletext",
        "requirement",
        "check",
        "text",
    ),
    *("item", "q", "问题", "原则", "标准", "检查项"),
)
_VERDICT_KEYS: Final = (
    *("score", "verdict", "answer", "judgement", "judgment", "result", "passed", "pass", "met", "satisfied", "value"),
    *("得分", "分数", "评分", "判断", "结论", "结果", "答案"),
)
# What names an item without a question: not one of ours, but a text all the same, so it is never taken for unnamed.
_NAME_KEYS: Final = ("name", "aspect", "dimension", "category", "title", "description", "类别", "维度")
_REMARK_KEYS: Final = (
    *("reason", "reasoning", "explanation", "justification", "comment", "evidence", "analysis", "rationale", "note"),
    *("thought", "observation", "理由", "说明", "分析"),
)
_ID_KEYS: Final = ("id", "index", "idx", "no", "number", "num", "questionid", "principleid", "qid", "编号", "序号")
_BOX_KEY = re.compile(r"bbox|box|point|label|coord")


def _words_of(words: str, *more: str) -> frozenset[str]:
    return frozenset((*words.split(), *more))


_YES: Final = _words_of(
    "yes y true t pass passed met satisfied 是 是的 对 有 通过 满足 符合 \u2713 \u2714 \u2611 \u2705 \u221a"
)
_NO: Final = _words_of(
    "no n false f fail failed unmet 否 不是 错 没有 未通过 不通过 不满足 不符合 "
    "\u2717 \u2718 \u2716 \u2715 \u2612 \u274c \u274e \u00d7",
    "not met",
    "not satisfied",
)
#: The paper's rule: what the judge is not sure of is not met.
_UNSURE: Final = _words_of("uncertain unsure unclear 不确定 无法确定 不清楚", "not sure", "not certain")

_ONE_OR_ZERO = re.compile(r"(?P<digit>[01])(?:\.0{0,6})?")
_NUMBER = re.compile(r"[+-]?(?:\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})(?=\s?(?:$|/|%|out of|分))")
_SHOWN_CHOICE = re.compile(
    r"[<\[(]?\s?(?:0\s?(?:\||/|or|或|,)\s?1|1\s?(?:\||/|or|或|,)\s?0|yes\s?/\s?no|0-1|binary)\s?[>\])]?"
)
_NO_TEXT = re.compile(
    r"[\s.\u2026_\-?]*|[<\[{]?\s?(?:the\s)?(?:question|principle)(?:[\s_]?text|\s?here)?\s?[>\]}]?|"
    r"(?:question|principle|q|p|no\.?|#|问题|原则)?\s?[#.]?\s?(?P<number>\d{1,4})[.):]?",
    re.IGNORECASE,
)
_AVERAGE = re.compile(
    r"(?:(?:\b|(?<=_))(?:average|avg|mean)(?:[ _]?score)?|平均(?:分|得分|值)?)"
    r"[\"'*`\s]{0,6}[:=][\s\"'*`]{0,6}(?P<value>[^,}\]\n\"'*`<]{1,40})",
    re.IGNORECASE,
)
_DECIMAL = re.compile(r"(?:[01]?\.\d{1,20}|[01]\.?|\d{1,4}(?:\.\d{1,20})?)")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One verdict as written: the question's text ("" where it gives none), its number, and what it says."""

    text: str
    number: int | None
    passed: bool | None


@dataclass(frozen=True, kw_only=True)
class VerdictArray:
    """Items that belong together, `text[start:end]`; none where the array was on another scale."""

    start: int
    end: int
    items: tuple[Item, ...]


def read_verdict(value: str) -> bool | None:
    """What a verdict's value says; None for null, N/A, negatives, fractions and everything else."""
    word = _bare(value)
    digit = _ONE_OR_ZERO.fullmatch(word)
    if digit:
        return digit["digit"] == "1"
    if word in _YES:
        return True
    return False if word in _NO or word in _UNSURE else None


def is_item(read: FlatObject) -> bool:
    """Whether an object is a principle or a verdict, rather than an average, a box or anything else."""
    if read.get(_QUESTION_KEYS):
        return True
    values = read.get(_VERDICT_KEYS)
    if any("<" in value for value in values) and not read.get(_ID_KEYS):
        return False  # {"score": "<score>7</score>"} wraps the tag
    return bool(values) and not any(_BOX_KEY.search(key) for key, _ in read.fields)


def verdict_arrays(text: str, objects: Sequence[FlatObject], tag_starts: Sequence[int]) -> list[VerdictArray]:
    """The verdict arrays of `text`, in order.

    Args:
        text: what the objects were scanned from.
        objects: in order.
        tag_starts: places of score tags; items on both sides of one do not belong together.
    """
    arrays = []
    for group in _groups(text, objects, tag_starts):
        array = _array(text, group)
        if array:
            arrays.append(array)
    return arrays


def read_average(text: str) -> tuple[float | None, bool, int]:
    """The first average written in `text`.

    Returns:
        The average where it lies in 0..1; whether a number was written at all; how many decimals it has.
    """
    found = _AVERAGE.search(text)
    value = _bare(found["value"]) if found else ""
    number = _DECIMAL.fullmatch(value)
    if not number:
        return None, False, 0
    average = float(value)
    return (average if average <= 1 else None), True, len(value.partition(".")[2])


def _groups(text: str, objects: Sequence[FlatObject], tag_starts: Sequence[int]) -> Iterable[list[FlatObject]]:
    """Objects with a verdict or a question, split where an array ends or begins, or a score tag or average stands."""
    group: list[FlatObject] = []
    tag = 0
    for read in objects:
        while tag < len(tag_starts) and tag_starts[tag] < (group[-1].end if group else 0):
            tag += 1
        tagged = tag < len(tag_starts) and tag_starts[tag] < read.start
        wanted = is_item(read)
        if group and (not wanted or tagged or _splits(text[group[-1].end : read.start])):
            yield group
            group = []
        if wanted:
            group.append(read)
    if group:
        yield group


def _splits(gap: str) -> bool:
    # `}, {` and `}", "{` go on; `}]` and `[{` are where an array ends and another begins.
    return "]" in gap or "[" in gap


def _array(text: str, group: Sequence[FlatObject]) -> VerdictArray | None:
    values = [value for read in group for value in read.get(_VERDICT_KEYS)]
    if not values or all(_SHOWN_CHOICE.fullmatch(_bare(value)) for value in values):
        return None  # the principles, or the format, repeated from the prompt
    items = [_item(read) for read in group]
    if not any(item.text for item in items):
        start = group[0].start
        in_array = text[max(0, start - 200) : start].rstrip().endswith("[")
        shown = [item.passed for item in items] == [True, False] and not any(item.number for item in items)
        if shown or (len(items) == 1 and not in_array):
            return None
    start, end = group[0].start, group[-1].end
    if any(_above_one(value) for value in values):
        return (
            VerdictArray(start=start, end=end, items=()) if any(item.text for item in items) or len(items) > 1 else None
        )
    return VerdictArray(start=start, end=end, items=tuple(items))


def _item(read: FlatObject) -> Item:
    texts, ids, values = read.get(_QUESTION_KEYS), read.get(_ID_KEYS), read.get(_VERDICT_KEYS)
    said = {read_verdict(value) for value in values}
    text = texts[0] if texts else ""
    number = _integer(ids[0]) if ids else None
    absent = _NO_TEXT.fullmatch(text) if len(text) < 200 else None
    if absent:
        number = number if number is not None else _integer(absent["number"] or "")
        text = "" if texts or number is not None else next(iter(read.get(_NAME_KEYS)), "")
    clear = len(said) == 1 and len(set(texts)) <= 1 and not _holds_two(read)
    return Item(text=text, number=number, passed=said.pop() if clear else None)


def _holds_two(read: FlatObject) -> bool:
    """Whether a question stands under a key that is none: two items ran into one, and whose verdict it is, is lost."""
    return any(
        value.rstrip().endswith(("?", "\uff1f")) and key not in (*_QUESTION_KEYS, *_REMARK_KEYS)
        for key, value in read.fields
    )


def _integer(word: str) -> int | None:
    found = re.fullmatch(r"\D{0,12}?(\d{1,4})", word.strip())
    return int(found[1]) if found else None


def _above_one(value: str) -> bool:
    found = _NUMBER.match(_bare(value))
    return bool(found and float(found.group()) > 1)


def _bare(value: str) -> str:
    word = value[:80].strip(" \t\r\n*_`\"'\\").lower()
    return word.rstrip(".!\u3002") if word.rstrip(".!\u3002").isalpha() else word
