"""The score a judge expected to give: its digits weighted by their probabilities, not just the ones it drew.

Only the digits inside the score tag are touched, and only where they are the score that was read (`parse_trace`). Where
log-probabilities are missing or do not cover the digits there is a reason instead of a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from editr1_plugins.backends.chat import TokenLogprob
from editr1_plugins.types import MAX_SCORE

__all__ = ["expected_score"]

_TAG: Final = re.compile(r"<score>\s{0,8}(\d{1,2}(?:\.\d{1,4})?)\s{0,8}</score>", re.IGNORECASE)
_NUMBER: Final = re.compile(r"<score>\s{0,8}(\d{1,2}(?:\.\d{0,4})?)(?![\d.])", re.IGNORECASE)


def expected_score(tokens: Sequence[TokenLogprob] | None, score: float) -> float | str:
    """The expectation of the score over the alternatives at each of its tokens, in 0..10; or the reason for none.

    At every token of the number, the drawn token goes on to the next one, and each other likely token stands for the
    number that it spells there ("8" in place of "7" of "7.5" stands for 8). What spells no number in 0..10 is left out
    and the rest renormalised.

    Args:
        tokens: all tokens of the reply, with log-probabilities.
        score: as it was read from the reply.
    """
    if not tokens:
        return "no_logprobs"
    text = "".join(token.token for token in tokens)
    found = _last(text)
    if found is None or float(found.group(1)) != score:
        return "logprobs_without_score"
    begin, (first, last) = found.start(), found.span(1)
    expectation, covered, end = score, False, len(text)
    for token in reversed(tokens):
        start = end - len(token.token)
        # The token right after the number counts as well: "1" may have gone on to "10".
        if start <= last and end > first:
            mean = _mean_over(token, text[begin:start], expectation)
            if mean is None:
                return "bad_logprobs"
            expectation, covered = mean, covered or bool(token.top)
        end = start
    return min(max(expectation, 0.0), MAX_SCORE) if covered else "no_logprobs"


def _last(text: str) -> re.Match[str] | None:
    return max(_TAG.finditer(text), key=lambda found: found.start(), default=None)


def _mean_over(token: TokenLogprob, before: str, value: float) -> float | None:
    weights, total = 0.0, 0.0
    for text, logprob in [(token.token, token.logprob), *((t, p) for t, p in token.top if t != token.token)]:
        spelt = value if text == token.token else _number(before + text)
        if spelt is None:
            continue
        if math.isnan(logprob):
            return None
        weight = math.exp(min(logprob, 0.0))
        weights, total = weights + weight, total + weight * spelt
    return total / weights if weights > 0.0 else None


def _number(text: str) -> float | None:
    found = _NUMBER.match(text)
    if found is None:
        return None
    number = float(found.group(1))
    return number if number <= MAX_SCORE else None
