"""What an instruction is like: its category, and the traits that make it hard. By rules, in English, no model.

Source: Edit-R1 (arXiv 2604.27505), section 3.2: half of the cold start's pairs are multi-step, fine-grained, implicit
or ask for precise places. The paper's filter is a model; `select` has one as well, and these rules come before it.
"""

from __future__ import annotations

import re
from typing import Final

from ...principles.reading import NotUnderstoodError, read_instruction
from .config import TRAITS

__all__ = ["category_of", "traits_of"]

_LONGEST: Final = 2000  # characters that are looked at


def _any(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words.split('|'))})\b", re.IGNORECASE)


_VERBS: Final = (
    "add|adjust|apply|blur|brighten|change|close|colou?r|convert|crop|cut|darken|delete|draw|dress|dye|edit|enlarge|"
    "erase|exchange|extend|fill|flip|get|give|have|hide|increase|insert|keep|leave|let|lighten|lower|make|mirror|move|"
    "open|paint|place|put|raise|recolou?r|redraw|reduce|remove|render|rebuild|repaint|replace|resize|restore|rotate|"
    "set|shave|shift|show|shrink|smooth|swap|switch|take|tidy|transform|tint|turn|use|whiten|widen|write|zoom"
)
#: Several steps in an instruction that the grammar does not understand as a whole.
_STEPS: Final = re.compile(
    r"[;\n]|\bthen\b|\bfinally\b|\bafter that\b|\bboth\b|\bwith (?:its|their|his|her)\b|:\s[^,]{1,200},"
    rf"|(?:\band|\bwhile|\bbut|\bas well as|,)\s+(?:also\s+|then\s+)?(?:{_VERBS})\b",
    re.IGNORECASE,
)
#: Instructions say what to do; where none of these words begins a clause, it has to be inferred.
_ASKS: Final = re.compile(
    rf"(?:^|[.;,:!]\s*|\b(?:and|please|to|then|can you|could you)\s+)(?:{_VERBS})\b", re.IGNORECASE
)
_FINE: Final = _any(
    "slightly|subtly|subtle|a bit|a little|barely|gently|only|just the|except|without (?:changing|altering|touching)|"
    "texture|pattern|stripes?|buttons?|collar|sleeves?|eyelash(?:es)?|eyebrows?|iris(?:es)?|pupils?|freckles|wrinkles?|"
    "earrings?|fingers?|fingernails?|nails?|teeth|laces|label|logo|stitch(?:es|ing)?|seams?|reflections?|shadows?|"
    "highlights?|edges?|rim|handle|engraving|font|letters?|digits?|petals?|feathers?|whiskers|expression|gaze"
)
_IMPLICIT: Final = _any(
    "as if|as though|so that it|so it (?:looks|feels|seems)|looks? like it|feels? like|what (?:would|happens|if)|"
    "imagine|suggest(?:s|ing)?|impl(?:y|ies|ying)|ready for|appropriate|suitable|more (?:festive|cozy|cosy|inviting|"
    "dramatic|professional|realistic|romantic|mysterious|cheerful)|mood|atmosphere|vibe|season|weather|years? (?:later|"
    "ago|older|younger)|hours? later|aftermath|before and after|should have|would have|supposed to|opposite"
)
_SPATIAL: Final = _any(
    r"\d+\s?(?:px|pixels?|%|percent|degrees?|cm|mm|inch(?:es)?|times)|half|twice|third|quarter|exactly|"
    "(?:to |on |at )?(?:the |its |his |her |their )?(?:far |upper |lower |top |bottom )?(?:left|right)|"
    "between|behind|in front of|next to|beside|above|below|underneath|beneath|on top of|inside|outside|around|"
    "(?:in|at|to|from) the (?:middle|cent(?:er|re)|corner|foreground|background of|edge)|cent(?:er|re)d?|align(?:ed)?|"
    "(?:first|second|third|fourth|fifth|last|nearest|farthest|leftmost|rightmost|topmost|middle)|parallel|facing|rotate|"
    "swap|upper|lower|as (?:large|tall|wide|big|long|high|small) as|(?:larg|tall|wid|bigg|small)er than|"
    "mirror(?:ed)?|flip(?:ped)?|horizontal(?:ly)?|vertical(?:ly)?|diagonal(?:ly)?|closer|further|farther|symmetrical(?:ly)?"
)


def category_of(instruction: str) -> str:
    """The operation that the rules decomposer's grammar reads ("recolour", "remove", "tone", ...).

    "compound" where there are several kinds, "other" where it understands none.
    """
    operations = _operations(instruction)
    if not operations:
        return "other"
    return operations[0] if len(set(operations)) == 1 else "compound"


def traits_of(instruction: str) -> tuple[str, ...]:
    """Which of `TRAITS` the instruction has, in their order."""
    operations, text = _operations(instruction), instruction[:_LONGEST]
    found = {
        "multi-step": len(operations) > 1 if operations else bool(_STEPS.search(text)),
        "fine-grained": bool(_FINE.search(text)),
        "implicit": bool(_IMPLICIT.search(text)) or not (operations or _ASKS.search(text)),
        "spatial": bool(_SPATIAL.search(text)),
    }
    return tuple(trait for trait in TRAITS if found[trait])


def _operations(instruction: str) -> list[str]:
    try:
        return [change.operation for change in read_instruction(instruction)]
    except NotUnderstoodError:
        return []
