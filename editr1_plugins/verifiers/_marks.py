"""Score tags paired into marks, and how each mark stands in its text: as an answer, in prose, or merely quoted.

A mark is *own* when its line or sentence holds nothing before it but a label ("Final score:") or words that give a
score ("I rate this edit"); *inline* when it stands in any other sentence; *correcting* when that sentence speaks of a
change of mind; *quoted* when it talks about a tag (an example, the format, text in the image, a condition) or quotes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from editr1_plugins.verifiers._score import MAX_CONTENT, foreign_scale, read_score
from editr1_plugins.verifiers._text import Tag

__all__ = ["Mark", "find_marks", "only_tail"]

_LINE = 200  # characters of a line that are looked at on either side of a tag

_OWN_PREFIX = re.compile(
    r"(?:[\W_]|(?<![A-Za-z0-9])(?:final|overall(?: quality)?|total|my|the|scores?|rating|grade|verdict|answer|"
    r"evaluation|assessment|judge?ment|output|result|revised|corrected|updated|so|thus|therefore|hence|is|for|this|conclusion|edit|"
    r"image|div|p|b|strong|json|xml|html|im_start|assistant|tau|begin_of_box|boxed|out of 10|[0-9])(?![A-Za-z0-9])|"
    r"最终|最后|总体|综合|总|得分|评分|分数|打分|总分|分值|结果|答案|结论|修正|更正|为|是|的|因此|所以|我|给出|最終|スコア|評価|点数|점수|"
    r"평가|최종|(?:end)?bewertung|(?:end)?punktzahl|note|nota|puntuaci[oó]n|puntaje|calificaci[oó]n|pontuação|punteggio|"
    r"итоговая|\u043e\u0446\u0435\u043d\u043a\u0430)*",
    re.IGNORECASE,
)
_SUPPOSES = re.compile(
    r"\b(?:examples?|e\.g|for instance|such as|formats?|formatted|template|placeholder|tags?|rather than|instead of|"
    r"not|never|maximum|unless|if|perfect|ideal|scale|between|inject\w*|previous|another|first draft|initially|"
    r"(?:would|could|might|should) (?:have|be|get|earn|deserve|receive|look|mean)|hypothetical\w*|average[ _]score)\b|"
    r"例如|比如|示例|例子|格式|模板|标签|如果|假如|满分|完美|不是|而不是|平均",
    re.IGNORECASE,
)
_QUOTES_TEXT = re.compile(
    r"\b(?:texts?|signs?|reads?|says?|written|writes?|writing|painted|paint|prints?|printed|words?|captions?|watermark|"
    r"banner|overlay|shows?|shown|displays?|spells?|letters|adds?|adding|added|puts?|inserts?|instructions?|prompt|asks?|"
    r"asked|requests?|wants?|principles?|questions?|like)\b|文字|写着|写有|字样|水印|指令|提示|原则|问题|添加|显示",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\b(?:i(?: will|['\u2019]ll| would|['\u2019]d| shall)? (?:give|assign|rate|score|award|settle|go)|"
    r"(?:final|my|overall|the) (?:score|rating))\b|\b(?:so|therefore|thus|hence)[,:]?\s{0,4}$|"
    r"我给|给出|打分|评分|得分|评为",
    re.IGNORECASE,
)
_TALKS_AFTER = re.compile(
    r"\s{0,4}[`\"'\u201d)]{0,2}\s{0,4}(?:(?:tags?|format|would|painted|written|shown|visible|appears?)\b|"
    r"is (?:written|painted|shown|visible|an? example|the format)|标签|格式|字样)",
    re.IGNORECASE,
)
# A verb right after a tag that opens its sentence: the tag is a thing spoken of ("<score>10</score> is on the wall").
_IS_SUBJECT = re.compile(
    r"[ \t*_`\"']{0,6}(?:(?:is|was|are|were|appears?|has|have|had|can|does|did|on|in|at|to|and|now|which|that)\b|"
    r"[出在被的是这字])",
    re.IGNORECASE,
)
_ANNOUNCES_OTHER = re.compile(
    r"\b(?:examples?|for instance|e\.g|would look|would get|would be|perfect edit|template|placeholder|instead of|"
    r"instructions?|prompt|text|sign|caption|painted|written|reads?|says?)\b|示例|例子|例如|比如|模板|指令|文字|写着",
    re.IGNORECASE,
)
_ANNOUNCES_SCORE = re.compile(r"\b(?:my|final|answer|verdict|therefore)\b|最终|我的", re.IGNORECASE)
_CORRECTS = re.compile(
    r"\b(?:revis\w*|correct(?:ed|ion|ing)|updat\w*|adjust\w*|lower\w*|wait|actually|reconsider\w*|therefore|conclu\w*|"
    r"final(?:ly)?)\b|更正|修正|改为|调整|最终|因此|所以",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!;][\s*_`\"')]{1,4}|[\u3002\uff01\uff1b]")
_CONNECTS = re.compile(r"[\s\W_]{0,20}(?:(?:and|or|to|with|tags?)\b|和|与|到|或)[^0-9]*|[^0-9]{30,}", re.IGNORECASE)
_TAIL = re.compile(
    r"(?:[\s`*_.~\"'\u3002})\]|\\]|</?\s?[A-Za-z_]{1,20}\s?/?>|<\|[^<>|\n]{1,40}\|>|/\s?10\b|"
    r"out of 10\b|points?\b|分|json\b|markdown\b|text\b|xml\b|\[/?(?:INST|EOS|END)\])*",
    re.IGNORECASE,
)
_QUOTE_OPENS: Final = frozenset("'\u2018\u201c\u300c")
_QUOTE_CLOSES: Final = frozenset("'\u2019\u201d\u300d")
_BROKEN_OFF = re.compile(r"[.,+/\-][\s*_`]*$")
_CONTINUES = re.compile(r"[\d.,/~%\u2013\u2014-]")

Standing = Literal["own", "inline", "correcting", "quoted"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One score in its tags: `text[start:end]`.

    `outcome` is what `read_score` says, or "truncated" for an open tag in a text that was cut.
    """

    start: int
    end: int
    outcome: float | str
    closed: bool
    standing: Standing


def find_marks(text: str, tags: Sequence[Tag], stopped: bool) -> list[Mark]:
    """Pair tags into marks, in order.

    An opening tag also closes (`<score>7<score>`), unless a score of its own follows it. An unclosed tag makes a mark
    when it is the last one, or when a clear number follows it.

    Args:
        text: normalised text.
        tags: score tags outside of principles, in order.
        stopped: the model stopped by itself; an unclosed tag counts only then.
    """
    marks: list[Mark] = []
    index = 0
    while index < len(tags):
        tag = tags[index]
        following = tags[index + 1] if index + 1 < len(tags) else None
        index += 1
        if tag.closing:
            continue
        if following is not None and (following.closing or _closes(text, tags, index)):
            index += 1
            marks.append(_closed(text, tag, following, marks))
            continue
        content = text[tag.end : following.start if following else len(text)]
        outcome = read_unclosed(content) if stopped else "truncated"
        if following is None or isinstance(outcome, float):
            if tag.odd:
                outcome = "ambiguous"
            standing = _standing(text, tag, marks, text[tag.end : tag.end + _LINE])
            if standing != "own" and not isinstance(outcome, float):
                standing = "quoted"
            end = following.start if following else len(text)
            marks.append(Mark(start=tag.start, end=end, outcome=outcome, closed=False, standing=standing))
    return marks


def only_tail(text: str, start: int) -> bool:
    """Whether nothing follows `start` but end-of-text tokens, fences, closing tags and punctuation."""
    found = _TAIL.match(text, start)
    return found is not None and found.end() == len(text)


def read_unclosed(content: str) -> float | str:
    """What follows an unclosed tag of a text that ended by itself: a number alone on its line, or a failure word."""
    content = content[: 2 * MAX_CONTENT]
    stop = re.search(r"<[/\\|A-Za-z]|```", content)
    ends_there = bool(stop)
    content = content[: stop.start()] if stop else content
    line, _, rest = content.strip().partition("\n")
    if rest and _CONTINUES.match(rest.lstrip()):
        return "ambiguous"
    outcome = read_score(line)
    if isinstance(outcome, float) and _BROKEN_OFF.search(line) and not ends_there:
        return "not_a_number"
    return outcome


def _closes(text: str, tags: Sequence[Tag], index: int) -> bool:
    """Whether the opening tag `tags[index]` is meant to close the one before it."""
    before, tag = tags[index - 1], tags[index]
    content = text[before.end : tag.start]
    if len(content) > MAX_CONTENT or not content.strip() or tag.odd:
        return False
    if not isinstance(read_score(content), float) and not re.search(r"[0-9]|\bn/?a\b|\bnan\b", content, re.IGNORECASE):
        return False
    after = tags[index + 1] if index + 1 < len(tags) else None
    if after is None:
        return not isinstance(read_unclosed(text[tag.end :]), float)
    own = text[tag.end : after.start]
    return not (after.closing and len(own) <= MAX_CONTENT and own.strip())


def _closed(text: str, tag: Tag, closing: Tag, marks: Sequence[Mark]) -> Mark:
    content = text[tag.end : min(closing.start, tag.end + MAX_CONTENT + 1)]
    outcome = "ambiguous" if tag.odd else read_score(content)
    after = text[closing.end : closing.end + _LINE]
    before, whole = _line_before(text, tag, marks)
    if isinstance(outcome, float) and foreign_scale(before[-60:], after):
        outcome = "out_of_scale"
    elif isinstance(outcome, float) and re.match(r"[.,]?[0-9]", after):
        outcome = "ambiguous"  # the closing tag fell into the number
    standing = _standing(text, tag, marks, after)
    mention = outcome == "format_echo" or (outcome == "not_a_number" and _CONNECTS.fullmatch(content))
    if mention and not (whole and _OWN_PREFIX.fullmatch(before)):
        standing = "quoted"
    return Mark(start=tag.start, end=closing.end, outcome=outcome, closed=True, standing=standing)


def _line_before(text: str, tag: Tag, marks: Sequence[Mark]) -> tuple[str, bool]:
    """What stands on the tag's line before it and after the last bracket or mark, and whether that is all of it."""
    start = max(0, tag.start - _LINE, marks[-1].end if marks else 0)
    line = text[start : tag.start].rpartition("\n")[2]
    before = re.split(r"[}\]]", line)[-1]
    return before, len(before) < _LINE


def _standing(text: str, tag: Tag, marks: Sequence[Mark], after: str) -> Standing:
    before, whole = _line_before(text, tag, marks)
    after = after.partition("\n")[0]
    ends = list(_SENTENCE_END.finditer(before))
    sentence = before[ends[-1].end() :] if ends else before
    if _TALKS_AFTER.match(after) or before.rstrip().endswith("<!--") or (ends and whole and before.count('"') % 2):
        return "quoted"
    if (whole or ends) and _OWN_PREFIX.fullmatch(sentence):
        if _announced(text, tag, before):
            return "quoted"
        named = any(map(str.isalpha, sentence))
        return "inline" if not named and _IS_SUBJECT.match(after) else "own"
    bare = sentence.rstrip()
    if bare.endswith("?") or sentence.count('"') % 2 or (bare[-1:] in _QUOTE_OPENS and after[:1] in _QUOTE_CLOSES):
        return "quoted"
    nearby = sentence[-80:]
    gives = list(_CONCLUDES.finditer(nearby))
    if _SUPPOSES.search(sentence) or _QUOTES_TEXT.search(nearby[gives[-1].end() :] if gives else nearby):
        return "quoted"
    if gives:
        return "own"
    return "correcting" if _CORRECTS.search(sentence) else "inline"


def _announced(text: str, tag: Tag, before: str) -> bool:
    """Whether the tag opens its line and the line before announces something other than the judge's score."""
    if any(map(str.isalnum, before)):
        return False
    lines = text[max(0, tag.start - len(before) - _LINE) : tag.start - len(before)].rstrip().rpartition("\n")
    line = lines[2].rstrip("`* \t")
    return line.endswith(":") and bool(_ANNOUNCES_OTHER.search(line)) and not _ANNOUNCES_SCORE.search(line)
