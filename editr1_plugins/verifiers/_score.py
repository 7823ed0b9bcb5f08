"""What stands inside a score tag: a number in 0..10, or the word for why it is none.

A wrong score is far worse than none, so this is a whitelist: the content must be, from end to end, one number with
nothing around it but decoration, a known label, a denominator of ten or a points suffix. Decisions the contract
leaves open:

- `7,5` is a decimal comma, `7, 8` two numbers; `7,500` (thousands?) and `8,10` (eight and ten?) are ambiguous, and so
  is a full-width comma, which only ever separates a list.
- `0-10` and `a number from 0 to 10` are the format's own words (`format_echo`), any other range is `ambiguous`.
- An empty tag is `not_a_number`. Exponents, leading zeros and numbers of more than 20 digits are not numbers here.
"""

from __future__ import annotations

import re
from typing import Final

from editr1_plugins.types import MAX_SCORE

__all__ = ["MAX_CONTENT", "foreign_scale", "is_placeholder", "read_score"]

#: Longer contents are prose between two tags; no number in words and marks comes near.
MAX_CONTENT: Final = 160

# Decoration and white space become one space each before anything is matched; so no pattern below needs more than " ?".
_HTML = re.compile(r"</?\s?(?:b|strong|i|em|u|p|span|font|div|br|code)\s?/?>|<\|[a-z_]{1,30}\|>", re.IGNORECASE)
_MARKS = re.compile(r"[\s*_`\"'$\u201c\u201d\u2018\u2019]+")
_DIGITS = r"(?:0|[1-9][0-9]{0,19})"
_NUMBER = (
    rf"(?P<sign>[+\-\u2212\u2013\u2014]? ?)(?P<number>{_DIGITS}(?:\.[0-9]{{0,20}}|,[0-9]{{1,20}})?|\.[0-9]{{1,20}})"
)
_OUT_OF = r"[0-9]{1,20}(?:\.[0-9]{0,20})?"
_LABEL = (
    r"(?:(?:the|my|a|final|overall|total|image|edit|editing|score|rating|grade|value|result|answer|is|of|for|this|y|tau|"
    r"scores|スコア|点数|점수|\u043e\u0446\u0435\u043d\u043a\u0430|puntuaci[oó]n|bewertung|punktzahl|pontuação|punteggio|"
    r"我|的|给出|最终|最后|总体|综合|总|得分|评分|分数|打分|分值|结果|为|是) ?){1,8}"
)
_POINTS = r"(?:points?|pts?|分|점)"
_SUFFIX = (
    rf"(?: ?{_POINTS})?(?: ?[(\[]? ?(?:/|out of|of|满分(?:为|是)?) ?(?P<top>{_OUT_OF})(?: ?{_POINTS})? ?[)\]]?)?"
    rf"(?: ?{_POINTS})?"
)
_OF_TEN = r"(?:[(\[](?:0 ?(?:-|\u2013|to|~) ?10|out of 10|/ ?10|满分10分?)[)\]] ?)"
_CLEAN = re.compile(rf"(?:{_LABEL}{_OF_TEN}?)?(?:[:=] ?)?{_NUMBER}{_SUFFIX} ?[.!\u3002]?", re.IGNORECASE)
_PERCENT = re.compile(r"[0-9] ?(?:%|\u2030|per ?cent)|百分之", re.IGNORECASE)
_OTHER_TOP = re.compile(rf"[0-9.] ?(?:分 ?)?(?:/|out of|of|满分) ?(?P<top>{_OUT_OF})", re.IGNORECASE)
_NUMERAL = re.compile(r"[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?", re.IGNORECASE)
_VERSION = re.compile(r"[0-9]*(?:\.[0-9]*){2,}")

# A scale stated beside a tag: "Score (1-5):", "out of 100", "满分5分".
_SCALE_BEFORE = re.compile(
    r"(?:out\s{1,4}of|/|满分(?:为|是)?|[01]\s{0,2}(?:-|\u2013|~|to|至|到)|maximum(?:\s+of)?|max)\s{0,4}"
    rf"(?P<top>{_OUT_OF})\s{{0,2}}(?:%|分|points?|scale)?[)\])\s:=*_`|是为]{{0,12}}$",
    re.IGNORECASE,
)
_SCALE_AFTER = re.compile(
    rf"[\s*_`)]{{0,6}}(?:(?P<percent>%|percent\b)|[(\[]?(?:/|out\s{{1,4}}of|满分)\s{{0,4}}(?P<top>{_OUT_OF}))",
    re.IGNORECASE,
)

_SPAN = r"[01](?:\.0+)? ?(?:-|\u2013|\u2014|~|to|and|,|\.\.+|\u2026|至|到) ?10(?:\.0+)?"
_PLACEHOLDER = re.compile(
    r"(?:[xyzn#?\u2026]|x{2,4}|[xyn#]{1,3}\.[xyn#]{1,3}|\.{2,}|tau|\u03c4|"
    r"(?:(?:the|your|my|a|insert|final|overall|numeric|numerical|float|decimal|integer)[ -]?){0,5}"
    r"(?:score|number|value|rating|float|integer|int|decimal|digit)(?: ?here)?|"
    r"(?:分数|得分|评分|数字|数值|最终得分|最终分数|最终评分|你的评分|你的分数|总分)|"
    rf"[a-z:, (\u4e00-\u9fff]{{0,60}}{_SPAN}[) ]{{0,3}}[a-z\u4e00-\u9fff]{{0,20}})(?: ?/ ?10)?",
    re.IGNORECASE,
)


def read_score(content: str) -> float | str:
    """Read the content of one score tag.

    Args:
        content: what stands between the tags, after `normalise` (no zero-width characters, ASCII digits).

    Returns:
        A float in 0..10, or one of `not_a_number`, `out_of_range`, `out_of_scale`, `ambiguous`, `format_echo`.
    """
    if not content.strip() or len(content) > MAX_CONTENT:
        return "not_a_number"
    content = _HTML.sub(" ", content)
    if is_placeholder(content):
        return "format_echo"
    plain = _MARKS.sub(" ", content).strip()
    clean = _CLEAN.fullmatch(plain)
    if clean:
        return _value(clean)
    if _PERCENT.search(plain) or any(float(found["top"]) != MAX_SCORE for found in _OTHER_TOP.finditer(plain)):
        return "out_of_scale"
    if _VERSION.fullmatch(plain):
        return "not_a_number"
    return "ambiguous" if len(_NUMERAL.findall(plain)) > 1 or plain.startswith("[") else "not_a_number"


def is_placeholder(content: str) -> bool:
    """Whether `content` is what a format shows in place of a number: `y`, `X.X`, `{score}`, `0-10`."""
    plain = _MARKS.sub(" ", content[: MAX_CONTENT + 1]).strip()
    bare = plain.strip(" {}[]()<>%\\")
    return len(content) <= MAX_CONTENT and _PLACEHOLDER.fullmatch(bare or content.strip()) is not None


def foreign_scale(before: str, after: str) -> bool:
    """Whether the text around a score tag says that its number is not out of ten: `Score (1-5): `, `/5`, `%`.

    Args:
        before: some characters of the same line before the tag.
        after: some characters after its closing tag.
    """
    found = _SCALE_BEFORE.search(before)
    counts = found and before[: found.start()].rstrip()[-1:].isdigit()  # "met 3/4" counts, "(1-5)" is a scale
    if found and not counts and float(found["top"]) != MAX_SCORE:
        return True
    found = _SCALE_AFTER.match(after)
    return bool(found and (found["percent"] or float(found["top"]) != MAX_SCORE))


def _value(clean: re.Match[str]) -> float | str:
    number = clean["number"]
    if clean["top"] is not None and float(clean["top"]) != MAX_SCORE:
        return "out_of_scale"
    whole, comma, decimals = number.partition(",")
    if comma and (len(decimals) > 2 or decimals == "10"):
        return "ambiguous"
    value = float(f"{whole}.{decimals}" if comma else number)
    if value != 0 and clean["sign"].strip() not in ("", "+"):
        return "out_of_range"
    # float() may round 10.00000000000000000001 down to 10; what is written is not in the range.
    above = value == MAX_SCORE and number.replace(",", ".").partition(".")[2].strip("0")
    return value if value <= MAX_SCORE and not above else "out_of_range"
