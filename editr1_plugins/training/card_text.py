"""What may be published: text without credentials, and with nothing that Markdown or HTML would act upon."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

__all__ = ["known_secrets", "plain_text", "redacted"]

_REDACTED: Final = "[redacted]"
_MAX_TEXT: Final = 300
_SHORTEST_SECRET: Final = 8  # shorter values of such variables are switches ("1", "true")
_SECRET_NAME: Final = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
_PART: Final = r"[\w-]{0,40}"
#: Forms that credentials have, wherever they come from.
_SHAPES: Final = (
    (re.compile(r"(?<=//)[^/@\s]{1,500}@"), ""),  # user:password@ of a URL
    (
        re.compile(rf"(?i)([?&;]{_PART}(?:key|token|secret|passw|auth|sig){_PART}=)[^&;\s\"']{{1,1000}}"),
        rf"\1{_REDACTED}",
    ),
    (re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{8,2000}"), rf"\1 {_REDACTED}"),
    (re.compile(r"\b(?:(?:hf|sk|pk|ghp|gho|github_pat|glpat|xox[abp])[-_]|AKIA|AIza)[\w-]{16,400}"), _REDACTED),
)
#: What Markdown might act upon: all but letters, digits and a few marks, these only where they stand for themselves.
_STRUCTURE: Final = re.compile(r"[^\w ,.:'()/-]|\b_|_\b|(?<![^\W_])_|//+|^-|(?<=^\d)[.)]|(?<=^\d\d)[.)]")


def known_secrets(*more: str | None) -> frozenset[str]:
    """Values that must not be published: `more`, the hub's token, and environment variables named like a secret."""
    from huggingface_hub import get_token

    named = (value for name, value in os.environ.items() if _SECRET_NAME.search(name))
    return frozenset(value for value in (*more, get_token(), *named) if value and len(value) >= _SHORTEST_SECRET)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without `secrets` and without what has the form of a credential."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _REDACTED)
    for shape, replacement in _SHAPES:
        text = shape.sub(replacement, text)
    return text


def plain_text(value: object, secrets: Iterable[str] = ()) -> str:
    """`value` as one line of Markdown that reads as itself: no markup, no link, no HTML, no table cell of its own.

    Punctuation becomes character references, which Markdown never takes for structure.
    """
    text = " ".join(redacted(str(value), secrets).split())
    text = "".join(letter for letter in text if letter.isprintable())
    text = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
    text = _STRUCTURE.sub(lambda found: "".join(f"&#{ord(letter)};" for letter in found[0]), text)
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", text)
