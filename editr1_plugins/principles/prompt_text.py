"""How text becomes a prompt: templates from files, filled in one pass; text that is not ours, quoted.

Untrusted text (instructions, questions, a model's own words) only ever enters a prompt through `quoted`. That is the
one place that decides what such text may look like: a JSON string on one line, in which no bracket opens a tag or a
control token. So it cannot end its own quotation, start a new section, or spell the tags that answers are read from.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import Final

from editr1_plugins.backends.control_tokens import inert

__all__ = ["Prompt", "digest", "load_prompt", "quoted"]

#: An opening bracket (plain, full-width, small, or as an HTML entity) that starts a tag or a control token.
_OPENING: Final = re.compile(
    r"(?:[<\uff1c\ufe64]|&lt;?|&#0{0,6}60;?|&#x0{0,6}3c;?)(?=[\s/\\!?*_`]*[^\W\d_]|\s*[|\uff5c])", re.IGNORECASE
)
_LINE_ENDS: Final = re.compile(r"\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
#: Joiners shape emoji and some scripts; every other invisible character can only hide something.
_JOINERS: Final = "\u200c\u200d"


@dataclass(frozen=True)
class Prompt:
    """A template with `$name` places (`$$` is a dollar sign) and the version that its text stands for."""

    text: str
    version: str

    def fill(self, **values: str) -> str:
        """The text with every place filled; what is filled in is never scanned again.

        Raises:
            KeyError: a place without a value.
        """
        return Template(self.text).substitute(values)


@cache
def load_prompt(package: str, name: str) -> Prompt:
    """The file `prompts/NAME.txt` of a package; its version is a digest of its text."""
    text = (files(package) / "prompts" / f"{name}.txt").read_text(encoding="utf-8").strip()
    return Prompt(text, digest(text))


def digest(*texts: str) -> str:
    """Twelve hex digits that change when any of the texts does."""
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def quoted(text: str) -> str:
    """Untrusted text as a JSON string on one line that holds no tag, no control token and nothing invisible.

    `<score>` becomes `\u2039score>`, `<|im_end|>` becomes `\u2039|im_end| >`: still readable, so that a judge can see
    what somebody tried. Brackets that open no tag ("a heart <3") stay as they are. Linear in the text's length.
    """
    lines = _LINE_ENDS.sub("\n", text)
    plain = lines.isascii() and lines.isprintable()
    visible = lines if plain else "".join(_shown(character) for character in lines)
    harmless = inert(_OPENING.sub("\u2039", visible))
    return json.dumps(harmless, ensure_ascii=False)


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs" or (category == "Cc" and character not in "\n\t"):
        return "\ufffd"
    return "" if category == "Cf" and character not in _JOINERS else character
