"""One clause of an instruction -> the changes it asks for. The patterns are in grammar.py; here is what they must hold.

A pattern that matches is not yet understood: its noun phrases, colours, places and styles have to be clear ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from editr1_plugins.principles.grammar import BACKGROUND, CLAUSES
from editr1_plugins.principles.words import colour_name, place_name, read_thing, tone_name

__all__ = ["Change", "Context", "read_clause", "restore_quotes"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One requested change.

    `operation` is one of recolour, remove, replace, add, background, tone, text, text_added, text_removed, style.
    `what` is the thing changed ("the red circle"; for text, the old text or "", which for text_removed means all text),
    `value` what comes out ("blue", "a cat", "warmer"), `where` a place of the vocabulary or ""; for text_added it may
    be another one, with its preposition ("on the wall").
    """

    operation: str
    what: str = ""
    value: str = ""
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a clause may refer to: quoted texts by number, the verb and the thing ("it") of the clause before."""

    quotes: tuple[str, ...] = ()
    verb: str = ""
    thing: str = ""


_Slots = dict[str, str]
_Builder = Callable[[_Slots, Context], list[Change] | None]


def read_clause(clause: str, context: Context) -> list[Change] | None:
    """The changes of one clause, or None when it is not understood as a whole."""
    for operation, pattern in CLAUSES:
        if match := pattern.fullmatch(clause):
            slots = {name: value.strip() for name, value in match.groupdict().items() if value is not None}
            build = _BUILDERS.get(operation) or _tone_of(*operation.split("/"))
            if changes := build(slots, context):
                return changes
    return None


def restore_quotes(text: str, quotes: tuple[str, ...]) -> str:
    """Put the quoted texts back for their placeholders."""
    return re.sub(r"quote(\d+)q", lambda mark: f'"{quotes[int(mark[1])]}"', text)


# --- noun phrases -----------------------------------------------------------------------------------------------------


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


#: A phrase with one of these names nothing in particular, or is no noun phrase.
_NO_NOUNS: Final = _set(
    "it them they this that these those he she and or not then into to from by better nicer good nice best more less "
    "very so too image photo picture everything anything something nothing thing things stuff what who how make turn "
    "change remove add colour color colours colors size position is are be being"
)
#: A phrase that ends in one of these names no object but a time, a season, a degree.
_NO_OBJECTS: Final = _set(
    "day night daytime nighttime morning evening noon summer winter spring autumn bigger smaller larger taller shorter "
    "wider happier sadder older younger faster with of in on at"
)
_PHRASE: Final = re.compile(r"[a-z0-9][a-z0-9'-]*(?: [a-z0-9][a-z0-9'-]*){0,9}")
_ARTICLE: Final = re.compile(r"^(?:(the|an?|some|another|all|every|each|both)(?: the)? )?(.+)$")


def _words(text: str, *, simple: bool = False) -> tuple[str, str] | None:
    """(article or "", the rest) of a noun phrase that names something in particular; `simple`: without a "with"."""
    plain = re.sub(r"^(?:this|that|these|those|my|your) ", "the ", text.lower().strip(" ,."))
    match = _ARTICLE.match(plain)
    if not match or not _PHRASE.fullmatch(plain):
        return None
    words = match[2].split(" ")
    vague = not _NO_NOUNS.isdisjoint(words) or words[-1] in _NO_OBJECTS or tone_name(words[-1]) is not None
    vague = vague or (simple and "with" in words)
    # "the circle blue" is two things side by side, "the orange" is a fruit.
    return None if vague or (len(words) > 1 and colour_name(words[-1])) else (match[1] or "", match[2])


def _old(text: str, context: Context, *, simple: bool = False) -> str | None:
    """Something that is in the source, as a principle names it: "the dog", "all dogs"; "it" is what came before."""
    if text.lower() in {"it", "them"} and context.thing:
        return context.thing
    if not (phrase := _words(text, simple=simple)):
        return None
    article = {"all": "all", "every": "all", "each": "all", "both": "both"}.get(phrase[0], "the")
    return restore_quotes(f"{article} {phrase[1]}", context.quotes)


def _old_list(text: str, context: Context) -> list[str]:
    """One thing or several ("the dog, the cat and the bird"); empty when one of them is not clear."""
    things = [_old(part, context) for part in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", text) if part]
    clear = [thing for thing in things if thing]
    return clear if len(clear) == len(things) else []


def _new(text: str, context: Context, *, simple: bool = False) -> str | None:
    """Something that comes into the image: "a dog", "some flowers", "rain"."""
    if not (phrase := _words(text, simple=simple)):
        return None
    article, words = phrase
    thing = read_thing(words)
    if not article and thing and thing.shape and not thing.plural:
        article = "an" if words[0] in "aeiou" else "a"
    if article in {"all", "every", "each", "both"}:
        return None
    return restore_quotes(f"{article} {words}".strip(), context.quotes)


# --- what each operation needs ----------------------------------------------------------------------------------------


def _recolour(slots: _Slots, context: Context) -> list[Change] | None:
    colour = colour_name(slots["colour"])
    if not colour:
        return None
    return [Change(operation="recolour", what=what, value=colour) for what in _old_list(slots["what"], context)]


def _remove(slots: _Slots, context: Context) -> list[Change] | None:
    if BACKGROUND.fullmatch(slots["what"]):
        return None  # it leaves open what is to be seen instead
    return [Change(operation="remove", what=what) for what in _old_list(slots["what"], context)]


def _replace(slots: _Slots, context: Context) -> list[Change] | None:
    if colour_name(slots["new"]):
        return _recolour({"what": slots["what"], "colour": slots["new"]}, context)
    # "replace the man with the hat with a dog" can be read in two ways.
    what = _old(slots["what"], context, simple=True)
    if not what or BACKGROUND.fullmatch(slots["what"]):
        return None
    one = re.fullmatch(r"(?:a|an|the|another)? ?(.+) one", slots["new"].lower())
    new = _new(f"a {one[1]} {what.split(' ')[-1]}" if one else slots["new"], context, simple=True)
    return [Change(operation="replace", what=what, value=new)] if new else None


def _add(slots: _Slots, context: Context) -> list[Change] | None:
    where = place_name(slots["where"]) if slots.get("where") else ""
    new = _new(slots["new"], context)
    return [Change(operation="add", value=new, where=where)] if new and where is not None else None


def _background(slots: _Slots, context: Context) -> list[Change] | None:
    value = colour_name(re.sub(r"^(?:(?:an?|the) )?(?:(?:plain|solid|pure) )?", "", slots["value"].lower()))
    value = value or _new(slots["value"], context)
    return [Change(operation="background", what="the background", value=value)] if value else None


def _tone(slots: _Slots, context: Context) -> list[Change] | None:
    tone = tone_name(slots["tone"])
    return [Change(operation="tone", value=tone)] if tone and _means_image(slots, context) else None


def _means_image(slots: _Slots, context: Context) -> bool:
    """After "make the circle blue", "make it brighter" means the circle: that is no global tone or style."""
    return not context.thing or slots.get("image", "it").lower() not in {"it", "everything"}


_LESS: Final = re.compile(r"decrease|reduce|lower|turn down|lessen|cut|less|desaturate|darken|dim|cool", re.IGNORECASE)


def _tone_of(up: str, down: str) -> _Builder:
    def build(slots: _Slots, context: Context) -> list[Change] | None:
        tone = down if down and _LESS.fullmatch(slots["verb"]) else up
        return [Change(operation="tone", value=tone)]

    return build


def _text(slots: _Slots, context: Context) -> list[Change] | None:
    new, old = (restore_quotes(slots.get(slot, ""), context.quotes).strip('"') for slot in ("new", "old"))
    return [Change(operation="text", what=old, value=new)] if new and new != old else None


def _text_added(slots: _Slots, context: Context) -> list[Change] | None:
    where = _WHOLE_IMAGE.sub("", slots.get("on", "").lower())
    place = place_name(where.partition(" ")[2]) if where else ""
    where = place or re.sub(r"^(?:to|onto) ", "on ", re.sub(r"^into ", "in ", where))
    value = restore_quotes(slots["new"], context.quotes).strip('"')
    return [Change(operation="text_added", value=value, where=where)]


_WHOLE_IMAGE: Final = re.compile(r"^(?:on|onto|in|into|to|over|at) (?:the|this|my) (?:image|photo\w*|picture|scene)$")


def _text_removed(slots: _Slots, context: Context) -> list[Change] | None:
    old = restore_quotes(slots.get("old", ""), context.quotes).strip('"')
    return [Change(operation="text_removed", what=old)]


_STYLES: Final = re.compile(
    r"\b(?:water ?colou?rs?|oil|painting|sketch|drawing|cartoon|anime|manga|comics?|comic book|pixel art|pop art|mosaic"
    r"|impressionis[mt]|impressionistic|cubis[mt]|surrealis[mt]|expressionis[mt]|art|artwork|origami|clay|claymation"
    r"|stained glass|render|rendering|polaroid|vintage|engraving|etching|woodcut|fresco|graffiti|lego|charcoal|pastels?"
    r"|crayons?|pencil|ghibli|pixar|disney|cyberpunk|steampunk|noir|ukiyo-e|van gogh|monet|picasso|minimalist|low poly"
    r"|line art|illustration|poster|tapestry|embroidery|style)\b",
    re.IGNORECASE,
)


def _style(slots: _Slots, context: Context) -> list[Change] | None:
    style = re.sub(r"^(?:an?|the) ", "", slots["style"].strip(" .,"))
    known = slots.get("sure") is not None or _STYLES.search(style)
    clear = re.fullmatch(r"[\w'-]+(?: [\w'-]+){0,6}", style) and not re.search(r"\b(?:and|or|better|it)\b", style)
    return [Change(operation="style", value=style)] if known and clear and _means_image(slots, context) else None


_BUILDERS: Final[dict[str, _Builder]] = {
    "recolour": _recolour,
    "remove": _remove,
    "replace": _replace,
    "add": _add,
    "background": _background,
    "tone": _tone,
    "text": _text,
    "text_added": _text_added,
    "text_removed": _text_removed,
    "style": _style,
}
