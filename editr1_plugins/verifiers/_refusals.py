# ruff: noqa: RUF001 - letters of other alphabets are meant
"""Recognises a reply that refuses to judge, in the languages judges answer in; its digits are no scores."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_refusal"]

_START: Final = 400  # characters; a refusal says so at once

_CANNOT = (
    r"(?:can(?:no|['\u2019]?)t|can not|am (?:not able|unable|not allowed|not permitted)|won['\u2019]?t|will not|"
    r"['\u2019]m (?:not able|unable|not allowed|not permitted)|must decline|have to decline|decline)"
)
_VERBS = (
    r"(?:assist|help|comply|fulfil+|evaluate|rate|judge|assess|process|analy[sz]e|complete|continue|engage|support|"
    r"answer|respond|discuss|participate|review|grade|perform|carry out|do)"
)
_THINGS = (
    r"(?:with )?(?:this|that|these|those|the (?:edit|request|images?|pictures?|photos?)|your|any|such|it|images?|"
    r"pictures?|photos?|you)"
)
# "I cannot give a score", but not "I cannot give a score above 5".
_GIVES = (
    r"(?:give|provide|offer|make|assign|produce)(?: you)? (?:with )?(?:a|an|any|the)?(?: \w{1,20})? ?"
    r"(?:score|rating|judge?ment|evaluation|assessment|answer)s?\b"
    r"(?!,? (?:above|over|higher|of \d|than|because|since|as))"
)
# "I cannot see the images", but not "I cannot see any difference".
_SEES = (
    r"(?:view|see|access|open|display) (?:any |the |these |those |your |either |both )?(?:\w{1,12} )?"
    r"(?:images?|pictures?|photos?)\b(?! (?:differ|chang|quality))"
)
_PLAIN = re.compile(
    "|".join(
        (
            rf"\b(?:i|we)(?: |['\u2019]m |['\u2019]re )?(?:(?:really|simply|regretfully|unfortunately) )?{_CANNOT} "
            rf"(?:to )?(?:(?:assist|help)(?: you)? with\b|{_VERBS}(?: (?:to )?{_THINGS}\b|[.,!]|$)|{_GIVES}|{_SEES})",
            r"\bagainst (?:my|our|the) (?:guidelines|polic(?:y|ies)|principles|rules)\b",
            r"\b(?:violates?|content) polic(?:y|ies)\b",
            r"\bas an ai(?: language)?(?: model| assistant)?,? i "
            r"(?:can(?:no|['\u2019])t|am (?:not able|unable)|don['\u2019]t)",
            r"\b(?:no|without|missing|did not receive|didn['\u2019]t receive|do not see|don['\u2019]t see)"
            r"(?: any| an| the)? images? (?:were |was |are |is )?(?:provided|attached|uploaded|included)",
        )
    ),
    re.IGNORECASE,
)
# An apology, then "cannot": "sorry" alone may open a judgement, and so may "unfortunately, the model was unable to".
_LANGUAGES: Final = (
    r"(?:i(?:['\u2019]m| am) (?:very |really |so |terribly )?sorry|(?:my )?apologies|i apologi[sz]e|sorry)"
    r"[^\n]{0,160}?(?:can(?:no|['\u2019])t|can not|unable|not able|won['\u2019]t|decline)",
    rf"unfortunately,? (?:i|we) {_CANNOT} (?:to )?{_VERBS}\b",
    r"(?:抱歉|对不起|不好意思|很遗憾,?我)[^\n]{0,80}?(?:无法|不能|不便|不可以|没办法|难以|拒绝)",
    r"我(?:无法|不能|不便|没有办法|没办法)(?:为您|为你|对|就)?[^\n。,]{0,20}?"
    r"(?:评估|评价|评判|打分|评分|提供|协助|帮助|处理|回答|满足|完成|查看|给出)",
    r"作为(?:一个|一名)?(?:AI|人工智能)[^\n]{0,60}?(?:无法|不能)",
    r"(?:申し訳|すみません|恐れ入り)[^\n]{0,80}?(?:できません|できかね|お答え|いたしかね|対応)",
    r"(?:죄송|유감)[^\n]{0,80}?(?:없습니다|없어|없음|어렵)",
    r"lo siento[^\n]{0,80}?\bno\b|no puedo (?:ayudar|evaluar|asistir|calificar|cumplir|proporcionar|continuar)",
    r"d[ée]sol[ée][^\n]{0,80}?(?:\bpas\b|impossible)",
    r"je ne (?:peux|suis) pas (?:en mesure|[ée]valuer|vous aider|aider)",
    r"tut mir (?:sehr )?leid[^\n]{0,80}?(?:nicht|kein)",
    r"ich kann (?:dir |ihnen )?(?:dabei|damit|das|dies(?:e|es|en)?) [^\n]{0,40}?nicht",
    r"mi dispiace[^\n]{0,80}?\bnon\b|non posso (?:aiutar|valutar|fornire)",
    r"(?:desculp[ea]|sinto muito|lamento)[^\n]{0,80}?\bn[ãa]o\b|n[ãa]o posso (?:ajudar|avaliar|fornecer)",
    r"(?:извините|простите|прошу прощения|вибачте)[^\n]{0,80}?\bне\b|я не могу (?:помочь|оценить|выполнить)",
    r"(?:عذر|آسف|نأسف)[^\n]{0,80}?(?:لا |لن |غير )|لا (?:أستطيع|يمكنني)",
    r"(?:क्षमा|माफ़|माफ|खेद)[^\n]{0,80}?(?:नहीं|असमर्थ)",
    r"üzgünüm[^\n]{0,80}?(?:em[ie]|am[ıi]|yok)",
    r"xin lỗi[^\n]{0,80}?không|maaf[^\n]{0,80}?tidak|ขออภัย[^\n]{0,80}?ไม่",
    r"het spijt me[^\n]{0,80}?(?:niet|geen)|(?:przepraszam|przykro mi)[^\n]{0,80}?\bnie\b",
)
_SORRY = re.compile("|".join(_LANGUAGES), re.IGNORECASE)


def is_refusal(text: str) -> bool:
    """Whether `text`, the visible answer, begins by declining to judge.

    "I cannot see any difference" is a judgement, "I cannot evaluate these images" is none. To be asked only of replies
    without verdicts: a judge that gave some did not refuse.
    """
    start = text[: 2 * _START].lstrip(" \t\r\n*_#>\"'`\u201c")[:_START]
    sorry, plain = _SORRY.search(start), _PLAIN.search(start)
    return bool((sorry and sorry.start() < 40) or (plain and plain.start() < 120))
