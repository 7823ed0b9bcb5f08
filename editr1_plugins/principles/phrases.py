"""The questions that the `rules` decomposer writes and the `measure` verifier understands: one grammar, both ways.

A verifier is given text only, so `parse_question(render(ask)) == ask` is what holds the two parts together; `render`
refuses an ask for which it would not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from editr1_plugins.types import FOLLOW, KEEP, QUALITY, Category, Principle

__all__ = [
    "KINDS",
    "LIST_WORD",
    "MAX_QUESTION",
    "Ask",
    "bare_noun",
    "category_of",
    "parse_question",
    "read_list",
    "render",
    "subject_of",
]

#: Longer questions are not ours; refusing them keeps parsing cheap.
MAX_QUESTION: Final = 600

# kind -> (category, template). {what}: a noun phrase with its article; {value}: a colour, a tone, a new object, a style
# or a text; {where}: a place. The more special template comes first where two could match.
_TEMPLATES: Final[dict[str, tuple[Category, str]]] = {
    # recolour, and a background that becomes a colour
    "colour": (FOLLOW, "Is {what} now {value} in colour?"),
    "colour_everywhere": (FOLLOW, "Does {value} cover the whole of {what}, with no part left in its old colour?"),
    "colour_clear": (FOLLOW, "Is the new colour of {what} a clear and even {value}, not a blend with the old one?"),
    # remove
    "gone": (FOLLOW, "Is {what} gone?"),
    "gone_fully": (FOLLOW, "Is {what} removed completely, without an outline, a ghost or a remainder?"),
    "filled": (FOLLOW, "Does the background continue cleanly where {what} was?"),
    # replace, turn into
    "becomes": (FOLLOW, "Is {value} to be seen now in place of {what}?"),
    "old_gone": (FOLLOW, "Is nothing of {what} left where {value} took its place?"),
    "becomes_clear": (FOLLOW, "Is {value} that replaced {what} complete and clearly recognisable?"),
    # add
    "added": (FOLLOW, "Does the image now show {value}, which the source did not?"),
    "added_at": (FOLLOW, "Was {value} added in the {where} of the image?"),
    "added_shape": (FOLLOW, "Has the added {value} clearly the form of {what}?"),
    "added_solid": (FOLLOW, "Is the added {value} solid and complete, not faint?"),
    # global tone
    "tone": (FOLLOW, "Is the image clearly {value} than the source?"),
    "tone_state": (FOLLOW, "Is the image now {value}?"),
    "tone_everywhere": (FOLLOW, "Is the whole image {value} now, not only parts of it?"),
    "tone_visible": (FOLLOW, "Is it plain at first sight that the image became {value}?"),
    # text, style
    "text": (FOLLOW, 'Does the text now read "{value}"?'),
    "text_replaced": (FOLLOW, 'Does the text that said "{what}" now read "{value}"?'),
    "text_old_gone": (FOLLOW, 'Is the old text "{what}" gone where "{value}" was to stand?'),
    "text_added": (FOLLOW, 'Does the image now show the text "{value}"?'),
    "text_at": (FOLLOW, 'Does the text "{value}" stand in the {where} of the image?'),
    "text_on": (FOLLOW, 'Does the text "{value}" stand {where}?'),
    "text_legible": (FOLLOW, 'Is every letter of "{value}" correct and legible?'),
    "text_removed": (FOLLOW, 'Is the text "{what}" gone from the image?'),
    "text_traces": (FOLLOW, 'Is no letter of the text "{what}" left where it stood?'),
    "text_all_removed": (FOLLOW, "Is no text to be read in the image any more?"),
    "text_all_lines": (FOLLOW, "Is every single line of text gone, not only some?"),
    "style": (FOLLOW, "Is the whole image now in the style of {value}?"),
    "style_marks": (FOLLOW, "Are the typical marks of {value} plain to see, such as its strokes, tones or materials?"),
    # what was not to change
    "others_colour": (KEEP, "Has every object kept its colour?"),
    "others_colour_but": (KEEP, "Apart from {what}, has every object kept its colour?"),
    "others_form": (KEEP, "Is every object still there, with its form, size and place?"),
    "others_form_but": (KEEP, "Apart from {what}, is every object still there, with its form, size and place?"),
    "ground_kept": (KEEP, "Is the background the same as before, with nothing new in it?"),
    "ground_kept_but": (KEEP, "Apart from {what}, is the background the same as before, with nothing new in it?"),
    "nothing_new": (KEEP, "Is there nothing on the new background that was not there before?"),
    "nothing_new_but": (KEEP, "Apart from {what}, is there nothing on the new background that was not there before?"),
    "form_kept": (KEEP, "Has {what} kept its form, size and place?"),
    "colour_kept": (KEEP, "Has {value} kept the colour of {what}?"),
    "place_kept": (KEEP, "Is {value} at the place of {what} and of about its size?"),
    "content_kept": (KEEP, "Is everything still there, with nothing added, removed or moved?"),
    "content_kept_but": (KEEP, "Apart from {what}, is everything still there, with nothing added, removed or moved?"),
    "layout_kept": (KEEP, "Is every person and thing still recognisable, in the same pose and place?"),
    "light_kept": (KEEP, "Is the image about as bright as the source?"),
    "hues_kept": (KEEP, "Are the colours free of a cast that the source does not have?"),
    "detail_kept": (KEEP, "Is the detail in the brightest and the darkest parts kept?"),
    "text_others_kept": (KEEP, "Does all other text read as before, with none added?"),
    "text_place_kept": (KEEP, "Does the new text stand in the place of the old one, about as large?"),
    "text_look_kept": (KEEP, "Has the text kept its font, size, colour and place?"),
    # quality
    "sharp": (QUALITY, "Is the edited image as sharp as the source, without blur?"),
    "clean": (QUALITY, "Is the edited image free of noise, speckles and stray patches?"),
    "framed": (QUALITY, "Has the edited image the proportions of the source, without a new border?"),
}
#: Between the things of a list, e.g. of those that a Keep question leaves out.
LIST_WORD: Final = " and "
KINDS: Final = tuple(_TEMPLATES)
_SLOT: Final = re.compile(r"\{(what|value|where)\}")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One measurable question: `kind` is a key of the grammar, the rest fills its slots (unused ones are empty)."""

    kind: str
    what: str = ""
    value: str = ""
    where: str = ""


def read_list(what: str) -> tuple[str, ...]:
    """The things of a `what` slot that may hold several."""
    return tuple(part for part in what.split(LIST_WORD) if part)


def bare_noun(noun: str) -> str:
    """ "a blue square" -> "blue square"."""
    return re.sub(r"^(?:an?|the|some|another) ", "", noun)


def category_of(ask: Ask) -> Category:
    return _TEMPLATES[ask.kind][0]


def subject_of(ask: Ask) -> tuple[str, str]:
    """Which requested change a Follow ask is about: asks with equal subjects are facets of one change."""
    family = _FAMILIES.get(ask.kind, ask.kind.partition("_")[0])
    if family in {"colour", "gone", "becomes"}:
        return family, ask.what
    if family == "added":
        return family, bare_noun(ask.value)
    return family, ask.value or (ask.what if family == "text" else "")


_FAMILIES: Final = {"filled": "gone", "old_gone": "becomes"}


def render(ask: Ask) -> Principle:
    """The ask as a principle.

    Raises:
        ValueError: a slot is missing, or holds words that would make the question read as another one.
    """
    category, template = _TEMPLATES[ask.kind]
    question = _SLOT.sub(lambda slot: str(getattr(ask, slot[1])), template)
    if parse_question(question) != ask:
        raise ValueError(f"{ask} cannot be written as one clear question: {question!r}")
    return Principle(question=question, category=category)


def _pattern(template: str) -> re.Pattern[str]:
    parts = _SLOT.split(template)
    body = "".join(re.escape(part) if i % 2 == 0 else f"(?P<{part}>\\S|\\S.*?\\S)" for i, part in enumerate(parts))
    return re.compile(body, re.IGNORECASE)


_PATTERNS: Final = tuple((kind, _pattern(template)) for kind, (_, template) in _TEMPLATES.items())


@lru_cache(maxsize=4096)
def parse_question(question: str) -> Ask | None:
    """Which ask a question is; None when it is none of this grammar."""
    words = re.sub(r"\s+", " ", question.strip())
    if len(words) > MAX_QUESTION:
        return None
    for kind, pattern in _PATTERNS:
        if match := pattern.fullmatch(words):
            return Ask(kind=kind, **match.groupdict())
    return None
