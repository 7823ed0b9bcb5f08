"""How people write edit instructions: one pattern per way of saying it, in the order in which they are tried.

`<name>` stands for a fragment below, `<name=slot>` for the same fragment as a named group, `<...=slot>` for any words.
"""

from __future__ import annotations

import re
from typing import Final

from editr1_plugins.principles.words import COLOUR_PATTERN, TONE_PATTERN

__all__ = ["BACKGROUND", "CLAUSES"]

_FRAGMENTS: Final = {
    "...": r".+?",
    "image": (
        r"(?:(?:the|this|that|my|your) )?(?:(?:whole|entire|overall|full) )?"
        r"(?:it|everything|(?:image|photo|photograph|picture|pic|scene|shot)"
        r"|(?:colou?rs?|lighting|tones?|colou?r tones?|mood|look|atmosphere)"
        r"(?: (?:of|in) (?:the|this) (?:whole |entire )?(?:image|photo|photograph|picture|scene))?)"
    ),
    "picture": r"(?:it|(?:the|this) (?:whole |entire )?(?:image|photo|picture|scene))",
    "ground": r"(?:the |its |this )?(?:image |whole |entire )?(?:background|backdrop)(?: colou?r)?",
    "change": r"(?:make|turn|change|switch|convert|set|transform|paint|colou?r|dye|recolou?r|tint|alter|modify|have)",
    "set": r"(?:change|switch|set|turn|make|alter|modify)",
    "redo": r"(?:make|turn|convert|change|render|redraw|repaint|paint|draw|transform|put|recreate)",
    "remove": (
        r"(?:remove|delete|erase|eliminate|get rid of|take away|take out|cut out|wipe out|clear away|crop out"
        r"|photoshop out)"
    ),
    "put": r"(?:add|put|place|insert|draw|paint|include|introduce|create)",
    "into": r"(?:to|into|with|by|for)",
    "must": r"(?:should|must|shall|needs to|has to)",
    "much": r"(?:(?:much|far|a lot|clearly|noticeably|significantly|visibly|considerably|way|look|appear|be) )*",
    "more": (r"(?:increase|raise|boost|turn up|enhance|add|more|decrease|reduce|lower|turn down|lessen|cut|less)"),
    "some": r"(?:the |some |more )?(?:overall )?(?:colou?r )?",
    "tone": TONE_PATTERN,
    "colour": COLOUR_PATTERN,
    "old colour": r"(?: from [a-z -]{2,20}?)?",
    "said": r"(?:quote\d+q|(?-i:[A-Z0-9][A-Z0-9!?&'-]*(?: [A-Z0-9][A-Z0-9!?&'-]*){0,5}))",
    "quote": r"quote\d+q",
    "on": r"(?: (?:on|in|of|at) [\w' -]{1,60}?)?",
    "upon": r"(?: (?:on|onto|in|into|to|at|across|over|above|below|under|beside|along) [\w' -]{1,60}?)?",
    "text": (
        r"(?:(?:the|its|an?) )?(?:[\w'-]+ ){0,2}?(?:text|words?|letters|lettering|title|caption|label|sign|writing"
        r"|headline|heading|slogan|logo|name|inscription|message|phrase|number|date|year|price|banner|billboard)"
    ),
    "words": (
        r"(?:(?:the|an?|some) )?(?:[\w-]+ )?(?:text|words?|letters|lettering|title|caption|headline|heading|slogan"
        r"|writing|inscription|message|phrase|watermark)(?: (?:that |which )?(?:says?|saying|reads?|reading))?"
    ),
    "all text": r"(?:(?:all|any|every|each)(?: of)? )?(?:the )?(?:text|words?|letters|lettering|writing)",
    "where": (
        r"(?:(?:top|bottom|upper|lower|left|right|cent(?:er|re)|middle|hand|side|corner|quarter|half|part|edge|area"
        r"|quadrant|of|the|image|picture|photo|scene|canvas)[ -]?){1,9}"
    ),
}

#: (what builds a change from the slots, pattern). Texts and styles come first: their words may hold anything.
_CLAUSES: Final = (
    (
        "text",
        r"(?:replace|edit|update|swap|correct|fix|<set>) <text><on> (?:from )?<said=old><on>"
        r" (?:<into>(?: (?:say|read))?|so (?:that )?it (?:says|reads)|as) <said=new>",
    ),
    ("text", r"(?:replace|edit|update|swap|<set>) <quote=old><on> <into> <quote=new>"),
    ("text", r"(?:edit|update|<set>) <text><on> (?:to|into|so (?:that )?it)?(?: ?(?:be|says?|reads?))? ?<said=new>"),
    ("text", r"replace <text><on> (?:with|by) <said=new>"),
    ("text", r"(?:rewrite|retype|redo) <text><on> (?:as|to) <said=new>"),
    ("text", r"<text><on> (?:<must> (?:be|say|read)|says|reads) <said=new>"),
    ("text", r"(?:make|let|have) <text><on> (?:say|read) <said=new> instead of <quote=old>"),
    (
        "text",
        r"(?:correct|fix|change) (?:the )?(?:spelling|typo)(?: of)? <said=old> (?:to|into|as) <said=new>",
    ),
    ("text_added", r"(?:write|add|put|print|insert|place)(?: <words>)? <quote=new>(?P<on><upon>)"),
    ("text_added", r"(?:write|print) <said=new>(?P<on><upon>)"),
    ("text_removed", r"<remove> (?:<text> )?<quote=old>(?:<on>| from [\w' -]{1,60}?)"),
    ("text_removed", r"<remove> <text> <said=old>(?:<on>| from [\w' -]{1,60}?)"),
    ("text_removed", r"<remove> <all text>(?: (?:from|in|on|of) (?:the|this) (?:image|photo|picture|scene))?"),
    (
        "style",
        r"(?:<redo> <image=image>(?: look| appear| to be)?|make|render|redraw|convert|<image>) ?"
        r"(?P<sure>in(?:to)? the style of|in the manner of|like it was (?:painted|drawn|made) by"
        r"|as if (?:painted|drawn|made) by|like (?:it is )?(?:painted|drawn) by) <...=style>",
    ),
    (
        "style",
        r"<redo> <image=image> (?:look like|look as|to look like|appear like|resemble|into|to|in|as) <...=style>",
    ),
    (
        "style",
        r"(?:apply|use|add|give <picture>)(?: an?| the)? <...=style>"
        r"(?P<sure> style| art style| painting style)(?: (?:to|on) <picture>)?",
    ),
    ("style", r"(?:restyle|stylize|stylise|style) <picture> (?P<sure>as|like|in) <...=style>"),
    ("style", r"(?:(?P<sure>in the style of|in the manner of)|in|as) <...=style>"),
    ("style", r"(?:convert|turn|change|transform) (?:to|into) <...=style>"),
    (
        "tone",
        r"<change>(?: <image=image>)?(?: to| into| in| look| appear| be)? ?(?:an? )?<much><tone=tone>"
        r"(?: (?:tones?|image|photo|photograph|picture|version|colou?rs?|filter|look|mode))?",
    ),
    (
        "tone",
        r"(?:make|give) <image=image> (?:have )?(?:an? )?<much><tone=tone>"
        r" (?:colou?r )?(?:tones?|look|feel|feeling|mood|filter|atmosphere|light|lighting)",
    ),
    (
        "tone",
        r"(?:apply|add|use) (?:an? |the |some )?<tone=tone> (?:colou?r )?"
        r"(?:tones?|look|filter|effect|light|lighting)(?: (?:to|on) <image=image>)?",
    ),
    ("tone", r"<much><tone=tone>(?: (?:image|photo|version))?"),
    ("tone", r"<image=image> <must> (?:be|look|become) <much><tone=tone>"),
    ("brighter/darker", r"(?P<verb>brighten|lighten|darken|dim)(?: up| down)? <image>(?: up| down)?"),
    ("brighter/darker", r"<more=verb> <some>(?:brightness|exposure|light)(?: (?:of|in|to) <image>)?"),
    ("warmer/cooler", r"(?P<verb>warm|cool)(?: up| down)? <image>(?: up| down)?"),
    ("warmer/cooler", r"<more=verb> <some>(?:warmth|warm tones?)(?: (?:of|in|to) <image>)?"),
    ("more saturated/less saturated", r"(?P<verb>saturate|desaturate) <image>"),
    (
        "more saturated/less saturated",
        r"<more=verb> <some>(?:saturation|vibrance|vibrancy|colou?rfulness)(?: (?:of|in|to) <image>)?",
    ),
    ("black and white/", r"<remove=verb> (?:all )?(?:of )?(?:the )?colou?rs?(?: (?:from|of|in) <image>)?"),
    (
        "background",
        r"(?:<change>|replace|swap|exchange|fill) <ground><old colour>"
        r"(?: to be| to| into| with| for| by| in| be| look)? <...=value>",
    ),
    (
        "background",
        r"(?:use|add|give <picture>|put <picture> on|put in|set)(?: an?)? <...=value> (?:background|backdrop)",
    ),
    ("background", r"<ground> <must> (?:be|become) <...=value>"),
    ("remove", r"<remove> <...=what>(?: from (?:the|this) (?:image|photo|picture|scene))?"),
    ("remove", r"(?:make|let|have) <...=what> (?:disappear|vanish|go away|gone|invisible)"),
    ("recolour", r"<set> (?:the )?colou?r of <...=what><old colour> (?:(?:to|into|be) )?<colour=colour>"),
    ("recolour", r"<set> <...=what>(?:'s)? colou?r<old colour> (?:(?:to|into|be) )?<colour=colour>"),
    ("recolour", r"(?:give|paint|let) <...=what> (?:have )?an? <colour=colour> (?:colou?r|paint|coat|tint|hue)"),
    ("recolour", r"(?:<change>) <...=what> from [a-z -]{2,20}? (?:to|into) <colour=colour>"),
    (
        "recolour",
        r"<change> <...=what>(?: to be| to| into| in| be| look)? <colour=colour>(?: in colou?r| colou?r)?",
    ),
    ("recolour", r"(?P<what>(?:the|all|every|this|that) .+?) <must> (?:be|become|turn) <colour=colour>"),
    ("recolour", r"i want <...=what> to (?:be|become) <colour=colour>"),
    ("replace", r"(?:replace|exchange|substitute) <...=what> (?:with|by|for) <...=new>"),
    ("replace", r"(?:swap|switch|swap out) <...=what> (?:with|for|to|out for) <...=new>"),
    ("replace", r"(?:<change>|morph) (?:the )?(?:shape|form) of <...=what> (?:to|into) <...=new>"),
    ("replace", r"(?:turn|change|transform|convert|morph|make) <...=what> (?:into|to) <...=new>"),
    ("replace", r"(?:make|have) <...=what> (?:be(?:come)? )?(?P<new>an? .+)"),
    ("replace", r"(?P<what>the .+?) (?:should|must|shall) (?:be|become) (?P<new>an? .+)"),
    ("add", r"<put> <...=new> (?:(?:in|at|on|to|into|near|inside) )?(?:the )?<where=where>"),
    ("add", r"(?:in|at|on) the <where=where>,? <put> <...=new>"),
    ("add", r"<put> <...=new>(?: (?:to|in|into) (?:the|this) (?:image|photo|picture|scene))?"),
)


def _compile(pattern: str) -> re.Pattern[str]:
    def fill(mark: re.Match[str]) -> str:
        return f"(?P<{mark[2]}>{_FRAGMENTS[mark[1]]})" if mark[2] else _FRAGMENTS[mark[1]]

    return re.compile(re.sub(r"(?<!\?P)<([a-z. ]+)(?:=([a-z]+))?>", fill, pattern), re.IGNORECASE)


CLAUSES: Final = tuple((operation, _compile(pattern)) for operation, pattern in _CLAUSES)
#: What names the background as a whole.
BACKGROUND: Final = _compile("<ground>")
