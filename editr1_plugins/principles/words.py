"""The words an instruction or a principle may use for colours, shapes, places and tones, and what they mean.

One vocabulary for both sides: the decomposer that writes a word and the verifier that measures it read it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = [
    "COLOURS",
    "COLOUR_PATTERN",
    "PLACES",
    "SHAPES",
    "TONES",
    "TONE_PATTERN",
    "Thing",
    "colour_name",
    "place_name",
    "read_thing",
    "tone_name",
]

#: Colour word -> sRGB examples (0..255). A colour is "red" when it is nearer to an example of red than to any other.
COLOURS: Final[dict[str, tuple[tuple[int, int, int], ...]]] = {
    "red": ((230, 31, 31), (255, 0, 0), (180, 20, 20), (220, 60, 50)),
    "green": ((26, 178, 51), (0, 128, 0), (0, 255, 0), (60, 179, 113), (144, 238, 144)),
    "blue": ((31, 64, 230), (0, 0, 255), (70, 130, 220), (135, 190, 240), (20, 30, 140)),
    "yellow": ((242, 217, 26), (255, 255, 0), (255, 235, 110)),
    "purple": ((153, 38, 191), (128, 0, 128), (148, 0, 211), (160, 90, 200)),
    "cyan": ((26, 204, 217), (0, 255, 255), (64, 224, 208)),
    "orange": ((255, 140, 0), (255, 165, 0), (230, 115, 20)),
    "pink": ((255, 130, 180), (255, 182, 193), (255, 20, 147)),
    "magenta": ((255, 0, 255), (200, 0, 160)),
    "brown": ((139, 69, 19), (101, 67, 33), (160, 82, 45)),
    "teal": ((0, 128, 128),),
    "navy": ((0, 0, 110),),
    "turquoise": ((64, 224, 208), (26, 204, 217)),
    "violet": ((143, 0, 255), (160, 90, 220)),
    "maroon": ((128, 0, 0),),
    "olive": ((128, 128, 0),),
    "gold": ((255, 215, 0), (212, 175, 55)),
    "silver": ((192, 192, 192),),
    "beige": ((245, 235, 215),),
    "white": ((247, 247, 247), (255, 255, 255), (236, 236, 236)),
    "gray": ((140, 140, 140), (112, 112, 112), (170, 170, 170)),
    "black": ((15, 15, 15), (0, 0, 0), (34, 34, 34)),
}
_COLOUR_ALIASES: Final = {
    "grey": "gray",
    "golden": "gold",
    "aqua": "cyan",
    "scarlet": "red",
    "crimson": "red",
    "lime": "green",
    "azure": "blue",
    "sky blue": "light blue",
    "lime green": "green",
    "royal blue": "blue",
    "navy blue": "navy",
    "hot pink": "pink",
    "lavender": "light purple",
    "indigo": "dark purple",
}
_SHADES: Final = {"light": "light", "pale": "light", "dark": "dark", "deep": "dark", "bright": "", "vivid": ""}

#: Shape word -> its spellings. Only these shapes can be measured without a model.
SHAPES: Final = {
    "circle": ("circle", "circles", "disc", "disk", "discs", "disks"),
    "square": ("square", "squares"),
    "triangle": ("triangle", "triangles"),
}

#: Place -> the part of the image it means, as fractions (left, top, right, bottom).
PLACES: Final[dict[str, tuple[float, float, float, float]]] = {
    "top left": (0.0, 0.0, 0.5, 0.5),
    "top right": (0.5, 0.0, 1.0, 0.5),
    "bottom left": (0.0, 0.5, 0.5, 1.0),
    "bottom right": (0.5, 0.5, 1.0, 1.0),
    "top": (0.0, 0.0, 1.0, 0.5),
    "bottom": (0.0, 0.5, 1.0, 1.0),
    "left": (0.0, 0.0, 0.5, 1.0),
    "right": (0.5, 0.0, 1.0, 1.0),
    "centre": (0.25, 0.25, 0.75, 0.75),
}
_PLACE_ALIASES: Final = {"center": "centre", "middle": "centre", "upper": "top", "lower": "bottom"}

#: Tone word -> spellings of it in an instruction. The key is how a principle says it.
TONES: Final = {
    "warmer": ("warmer", "warm"),
    "cooler": ("cooler", "cool", "colder", "cold"),
    "brighter": ("brighter", "bright", "lighter", "light"),
    "darker": ("darker", "dark", "dimmer", "dim"),
    "black and white": (
        "black and white",
        "black & white",
        "black-and-white",
        "b&w",
        "grayscale",
        "greyscale",
        "gray scale",
        "grey scale",
        "monochrome",
        "monochromatic",
        "desaturated completely",
    ),
    "more saturated": ("more saturated", "more vivid", "more colorful", "more colourful", "more vibrant", "saturated"),
    "less saturated": (
        "less saturated",
        "less vivid",
        "less colorful",
        "less colourful",
        "less vibrant",
        "desaturated",
        "more muted",
        "muted",
        "duller",
    ),
}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word).replace(r"\ ", "[ -]") for word in sorted(words, key=len, reverse=True))


#: Regular expressions (without groups that capture) for one colour phrase and one tone phrase.
COLOUR_PATTERN: Final = rf"(?:(?:{_any_of(_SHADES)})[ -])?(?:{_any_of([*COLOURS, *_COLOUR_ALIASES])})"
TONE_PATTERN: Final = f"(?:{_any_of(spelling for spellings in TONES.values() for spelling in spellings)})"


def colour_name(text: str) -> str | None:
    """The colour a phrase means, as this vocabulary writes it ("sky blue" -> "light blue"); None when it is none."""
    words = text.lower().strip()
    words = re.sub(r"[\s-]+", " ", re.sub(r" colou?r(ed)?$", "", words))
    words = _COLOUR_ALIASES.get(words, words)
    shade, _, base = words.rpartition(" ")
    base = _COLOUR_ALIASES.get(base, base)
    if base not in COLOURS or (shade and shade not in _SHADES):
        return None
    return f"{_SHADES[shade]} {base}".strip() if shade else base


def place_name(text: str) -> str | None:
    """The place a phrase means ("upper-left corner" -> "top left"); None when it is none of `PLACES`."""
    words = [_PLACE_ALIASES.get(word, word) for word in re.findall(r"[a-z]+", text.lower())]
    filler = {"the", "of", "image", "picture", "photo", "scene", "canvas", "corner", "quarter", "side", "half", "part"}
    words = [word for word in words if word not in filler and word not in {"hand", "edge", "area", "quadrant"}]
    if sorted(words) in (["left", "top"], ["right", "top"], ["bottom", "left"], ["bottom", "right"]):
        words.sort(key=("top", "bottom", "left", "right").index)
    name = " ".join(words)
    return name if name in PLACES else None


def tone_name(text: str) -> str | None:
    """The tone a comparative means ("lighter" -> "brighter"); None when it is none of `TONES`."""
    words = re.sub(r"\s+", " ", text.lower().strip())
    return next((tone for tone, spellings in TONES.items() if words in spellings), None)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What a noun phrase refers to; an empty string means "not said"."""

    noun: str
    colour: str = ""
    shape: str = ""
    place: str = ""
    plural: bool = False


_PLACED: Final = re.compile(r"^(?P<head>.+?) (?:in|on|at) the (?P<place>[a-z -]+)$")


def read_thing(text: str) -> Thing | None:
    """Read "the red circle in the top left" into colour, shape and place; None where there is no noun at all."""
    words = re.sub(r"\s+", " ", text.lower().strip())
    place = ""
    if (placed := _PLACED.match(words)) and (name := place_name(placed["place"])):
        words, place = placed["head"], name
    words = re.sub(r"^(?:the|a|an|one|all|every|each|both)(?: the)? ", "", words)
    if not words:
        return None
    parts = words.split(" ")
    noun = parts[-1]
    before = [part for part in parts[:-1] if part not in {"new", "added", "single", "small", "big", "large"}]
    if noun in {"one", "thing", "item"} or noun == "shape":
        noun = "object"
    colour = colour_name(" ".join(before)) or "" if before else ""
    shape = next((shape for shape, spellings in SHAPES.items() if noun in spellings), "")
    plain = bool(colour) or not before
    return Thing(
        noun=noun if plain else " ".join((*before, noun)),
        colour=colour,
        shape=shape if plain else "",
        place=place,
        plural=noun.endswith("s") and not noun.endswith("ss"),
    )
