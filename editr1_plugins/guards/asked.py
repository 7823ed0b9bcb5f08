"""What an instruction asks for, as far as the guards must know: a hack that was asked for is no hack.

Read from the words of the instruction and of the Follow principles, clause by clause; a clause that only says what has
to stay ("keep the background", "without changing the colours") asks for nothing. The word lists are English; of a text
with hardly any Latin letters nothing can be read, so everything counts as asked for and the guards stay soft.
A missing word makes a guard too strict on that instruction, one too many makes it too mild.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Final

from editr1_plugins.principles.phrases import parse_question
from editr1_plugins.types import FOLLOW, Principle

__all__ = ["Asked", "read_asked"]

_LONGEST: Final = 4000  # characters read; instructions are untrusted and of any length


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which changes the instruction asks for that would otherwise be hacks.

    Attributes:
        style: the whole picture's look (painting, sketch, anime, ...).
        tone: the whole picture's light or colours, weather, time of day, restoration.
        background: the background, or something as large (sky, wall, floor, landscape).
        saturation: stronger colours.
        sharpness: a sharper or clearer picture.
        speckle: small dots or grain (snow, stars, confetti, film grain, freckles).
        text: letters, or things that usually carry some (a sign, a poster, a logo).
        border: a border or frame.
        reframe: another crop, size, position or camera.
        collage: several pictures in one.
    """

    style: bool = False
    tone: bool = False
    background: bool = False
    saturation: bool = False
    sharpness: bool = False
    speckle: bool = False
    text: bool = False
    border: bool = False
    reframe: bool = False
    collage: bool = False

    @property
    def everywhere(self) -> bool:
        """The edit is global: it may rightly change every pixel."""
        return self.style or self.tone or self.background

    @property
    def texture(self) -> bool:
        """The edit may lie in the fine detail alone, so that no area changes its mean colour."""
        return self.style or self.sharpness or self.speckle


_WORDS: Final[dict[str, str]] = {
    "style": r"""
        (?:re)?styl\w+ (?:re)?painting paintings? repaint\w* watercolou?r\w* sketch\w* drawing redraw\w*
        cartoon\w* anime manga comics? ghibli pixar disney pixel\w* voxel\w* illustrat\w+ impressionis\w+
        expressionis\w+ cubis\w+ surreal\w* van-gogh monet picasso pencil charcoal crayons? engraving woodcut
        linocut ukiyo\S* line-art silhouette mosaic stained-glass low-poly clay\w* lego origami vintage retro
        cyberpunk steampunk vaporwave noir pop-art posteri[sz]\w+ reliefs? emboss\w* halftone photorealis\w+
        realistic filters? aesthetic artistic 3d render\w* caricature x-ray blueprint
    """,
    "tone": r"""
        tones? toned tint\w* hues? temperature warm warmer cool cooler colder brighten\w* brighter brightness
        darken\w* darker lighten\w* lighter lighting relight\w* monochrome gr[ae]y-?scale sepia desaturat\w*
        contrast exposure overexpos\w+ underexpos\w+ sunset sunrise sunny dusk dawn twilight night nighttime day
        daytime daylight evening morning golden-hour weather snow snowy snowing rain rainy raining fog foggy
        mist misty haze hazy storm\w* cloudy overcast winter\w* autumn\w* summer\w* spring season\w*
        colou?ri[sz]\w+ restor\w+ denois\w+ dehaz\w+ hdr cinematic moody? atmospher\w+ faded? underwater
        invert\w* negative shadows? highlights? vignette blur\w* bokeh flood\w*
    """,
    "background": r"""
        backgrounds? backdrops? surroundings environments? scenes? scenery setting sky skies walls? floor ground
        landscapes? rooms? beach forest desert ocean sea lake river street grass meadow lawn mountains? cut-?out
        extract\w* isolat\w+ everywhere everything entire whole
    """,
    "saturation": r"""
        saturat\w+ vivid\w* vibran\w+ colou?rful\w* neon psychedelic intens\w+ fluorescent pop pop-art hdr
    """,
    "sharpness": r"""
        sharp\w* crisp\w* clear clearer clarity deblur\w* unblur\w* details? detailed enhanc\w+ restor\w+
        upscal\w+ resolution quality hdr 4k 8k hd focus\w* refocus\w*
    """,
    "speckle": r"""
        grain\w* nois[ey]\w* speckl\w+ dots? dotted pointillis\w+ stippl\w+ halftone snow\w* rain\w* hail
        drop(?:let)?s stars? starry galaxy confetti glitter\w* sparkl\w+ sequins? bubbles? freckl\w+ dust\w*
        sand pebbles splash\w* splatter\w* sparks fireworks fireflies petals sprinkl\w+ polka leopard vintage
        film glitch\w*
    """,
    "text": r"""
        texts? letter\w* words? writ(?:e|es|ing|ten) inscri\w+ captions? titles? subtitles? slogans? logos?
        signs? signage signboards? label\w* watermark\w* typography fonts? numbers? digits? reads? reading
        say(?:s|ing)? spell\w* names? named posters? billboards? banners? placards? newspapers? magazines?
        books? menus? tickets? badges? brand\w* stickers? tattoos? graffiti license-plates? jerseys? screens?
        monitors? keyboards? packag\w+ memes? comics? manga speech quotes? clocks? calendars? maps? charts?
    """,
    "border": r"""
        border\w* frames? framed framing passe-partout polaroids? letterbox\w* edging margins? bars postcards?
        vignette bezels? outlines? padding film stamps? windows?
    """,
    "reframe": r"""
        crop\w* zoom\w* resiz\w+ rescal\w+ aspect rotat\w+ flip\w* mirror\w* tilt\w* straighten\w* shift\w*
        mov(?:e|es|ed|ing) reposition\w* recent\w+ cent(?:er|re)d outpaint\w* uncrop\w* extend\w* expand\w*
        widen\w* wider close-up closer farther further camera viewpoint views? angle perspective panoram\w+
        fisheye wide-angle aerial upside reframe\w* shrink\w* enlarg\w+ larger smaller bigger
    """,
    "collage": r"""
        collage\w* side-by-side before-after diptych\w* triptych\w* grid split\w* montage\w* comparison panels?
        comics? picture-in-picture inset twice cop(?:y|ies) duplicat\w+ repeat\w* mirror\w* reflect\w+
        kaleidoscop\w+ tiled? posters? screens? billboards? frames? framed
    """,
}
_PATTERNS: Final = {
    name: re.compile(rf"(?<![\w-])(?:{'|'.join(words.split())})(?![\w-])") for name, words in _WORDS.items()
}
_TOGETHER: Final = (
    (re.compile(r"black[ -](?:and|&|n)[ -]white|b&w"), "monochrome"),
    (re.compile(r"before[ -](?:and|&|/)[ -]after|before/after"), "before-after"),
    (
        re.compile(
            r"\b(side by side|close up|stained glass|line art|pop art|low poly|license plate|golden hour|van gogh)\b"
        ),
        None,
    ),
)
_CLAUSE: Final = re.compile(
    r"[,.;:!?\n]|\b(?:and|but|while|whilst)\b|(?=\b(?:without|keep|leav|preserv|maintain|retain|do not|don't))"
)
_STAYS: Final = re.compile(
    r"\b(?:keep\w*|kept|leav(?:e|es|ing)|without|preserv\w+|maintain\w*|retain\w*|unchanged|intact|untouched|unaltered|"
    r"unaffected|as (?:is|it is|it was|they are|they were)|do not|don't|not chang\w+|not alter\w*)\b"
)
_TAKES_AWAY: Final = re.compile(r"\b(?:remov|delet|eras|take away|get rid|recolou?r)")
_IN_BACKGROUND: Final = re.compile(r"\b(?:in|from|on|at|against|off|of) the [\w-]+")
# "Convert the picture into ...": whatever follows, the whole picture changes.
_WHOLE_INTO: Final = re.compile(
    r"\b(?:turn|convert|transform|change|make|render|redo) (?:the|this|my) (?:whole |entire )?"
    r"(?:image|photo\w*|picture) (?:in)?to\b"
)


def read_asked(instruction: str, principles: Sequence[Principle] = ()) -> Asked:
    """What the instruction, with the Follow principles made from it, asks for.

    Questions in the fixed wording of the `rules` decomposer add nothing: "Does the background continue cleanly where
    the man was?" asks for no other background.
    """
    questions = [principle.question[:_LONGEST] for principle in principles if principle.category == FOLLOW][:32]
    return _read((instruction[:_LONGEST], *(question for question in questions if not _by_rules(question))))


@lru_cache(maxsize=1024)
def _by_rules(question: str) -> bool:
    return parse_question(question) is not None


@lru_cache(maxsize=1024)
def _read(texts: tuple[str, ...]) -> Asked:
    clauses = [clause for text in texts for clause in _clauses(text)]
    if not _readable(" ".join(texts)):
        return Asked(**{field.name: True for field in fields(Asked)})
    found = {name: any(pattern.search(clause) for clause in clauses) for name, pattern in _PATTERNS.items()}
    found["background"] = any(_asks_background(clause) for clause in clauses)
    found["style"] = found["style"] or any(_WHOLE_INTO.search(clause) for clause in clauses)
    return Asked(**found)


def _clauses(text: str) -> list[str]:
    text = text.lower()
    for pattern, replacement in _TOGETHER:
        text = pattern.sub(replacement or (lambda match: match.group().replace(" ", "-")), text)
    return [clause for clause in _CLAUSE.split(text) if not _STAYS.search(clause)]


def _asks_background(clause: str) -> bool:
    if _TAKES_AWAY.search(clause):  # "remove the man in the background" leaves the background as it is
        clause = _IN_BACKGROUND.sub("", clause)
    return _PATTERNS["background"].search(clause) is not None


def _readable(text: str) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum(letter.isascii() for letter in letters)
    return not letters or latin * 2 >= len(letters)
