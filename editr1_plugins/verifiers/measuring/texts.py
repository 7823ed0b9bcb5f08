"""Text in an image of any kind: was it changed, added or removed as asked, letter by letter?

Both images are read (`text_reader`), and what was read is compared with what the question says (`text_match`: letters
and digits only; case, accents, spaces and look-alikes such as 0 and O do not count). A wanted text must stand in a line
that the source does not have at that place, so an untouched copy earns exactly 0; letters that hang on to it ("ing" on
"open") are errors unless the source has them too. Likeness, 1 - errors / letters, up to 0.25 earns nothing; 0.9 earns
"now reads it" in full; "every letter correct" forgives one error in twenty letters, which is the reader's share.

What the reader cannot tell is not judged: letters that are neither Latin nor Chinese, texts that differ in case of
like letters, spaces or punctuation only, an old text that it does not find in the source or finds twice, fonts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from editr1_plugins.principles.phrases import Ask
from editr1_plugins.principles.words import PLACES
from editr1_plugins.verifiers.measuring.comparison import Finding, unmeasured
from editr1_plugins.verifiers.measuring.passage import Box, Passage, touch
from editr1_plugins.verifiers.measuring.pixels import Array, Mask, distance, drop, rise, soft
from editr1_plugins.verifiers.measuring.text_changes import FOUND, REMOVALS, TextChange, Texts
from editr1_plugins.verifiers.measuring.text_match import Letters, best_match, letters

__all__ = ["TEXT_KINDS", "rest_kept", "text"]

_READER_ERRORS: Final = 0.05  # share of wrong letters that is put down to the reader
_MISSPELT: Final = 0.6  # the most that a text with a wrong letter earns for "every letter correct"
_CONFIDENT: Final = (0.3, 0.7)  # the reader's confidence, for legible
_LEFT: Final = (0.1, 0.6)  # letters left of a removed text, as a share of it
_REMAINS: Final = (0.03, 0.7)  # letters left where all text was to go, as a share of them
_STANDS: Final = (0.3, 0.9)  # likeness of what is read to a line that was to go
_OTHERS: Final = (0.5, 0.95)  # share of the other letters that are still read
_ADDED: Final = (2, 8)  # letters of uncalled-for text: free, and costing 1 - 1/e beyond
_SURE: Final = 0.75  # the reader's confidence in text that nobody asked for
_MOVED: Final = (0.05, 0.08)  # distance between the places of the old and the new text, in sides of the image
_HEIGHT: Final = (0.35, 0.5)  # log ratio of their heights
_MARGIN: Final = 0.05  # a text in the top left may reach a little over the middle
_VISIBLE: Final = 0.10  # RGB distance (rms) from which a pixel has visibly changed
_SHARE: Final = (0.01, 0.04)  # share of what is no text that changed visibly
_DRIFT: Final = (0.025, 0.08)  # its median RGB distance (rms)
_MOST_TEXT: Final = 0.7  # share of the image that text covers from which nothing is left to compare


# --- Follow -----------------------------------------------------------------------------------------------------------


def text(texts: Texts, ask: Ask) -> Finding:
    """The kinds of `TEXT_KINDS`."""
    if ask.kind in ("text_all_removed", "text_all_lines"):
        return _all_removed(texts, ask.kind)
    if ask.kind == "text_others_kept":
        return _others_kept(texts)
    if ask.kind == "text_place_kept":
        return _place_kept(texts)
    if ask.kind in ("text_on", "text_look_kept"):
        return unmeasured("where a text stands on a thing, its font and its colour cannot be measured without a model")
    change = texts.change(ask)
    if isinstance(change, str):
        return unmeasured(change)
    if ask.kind in REMOVALS:
        return _removed(change, ask.kind)
    present, words = change.present(), change.words()
    if ask.kind == "text_legible":
        return Finding(degree=_legible(change), reason=words)
    if ask.kind == "text_at":
        return Finding(degree=min(present, _placed(change, ask.where)), reason=words)
    if ask.kind == "text_added":
        return Finding(degree=present, reason=words)
    gone = change.gone()
    words += f"; the old text is {'gone' if gone == 1 else 'there' if gone == 0 else 'partly gone'}"
    return Finding(degree=gone if ask.kind == "text_old_gone" else min(present, gone), reason=words)


def _legible(change: TextChange) -> float:
    passage, match, likeness = change.found
    if not match:
        return 0.0
    right = 1.0 if likeness >= 1 - _READER_ERRORS else _MISSPELT * rise(likeness, FOUND[0], 1.0)
    return right * rise(passage.confidence(match), *_CONFIDENT)


def _placed(change: TextChange, where: str) -> float:
    passage, match, _ = change.found
    if not match:
        return 0.0
    left, top, right, bottom = passage.box(match)
    x, y = (left + right) / 2, (top + bottom) / 2
    west, north, east, south = PLACES[where]
    inside = west - _MARGIN <= x <= east + _MARGIN and north - _MARGIN <= y <= south + _MARGIN
    return 1.0 if inside else 0.0


def _removed(change: TextChange, kind: str) -> Finding:
    size = len(change.unwanted)
    if kind == "text_removed":
        degree = change.gone()
        return Finding(degree=degree, reason=f"{change.old!r} is {'gone' if degree == 1 else 'still to be read'}")
    stood = change.old_box
    there = [line for line in change.left.lines if stood and touch(line.box, stood)]
    beside = sum(len(part) for number, part in change.before.without(change.old_places) if _in(number, change))
    remaining = max(0, sum(len(letters(line.text)) for line in there) - beside)
    reason = f"{remaining} letters are read where {change.old!r} stood"
    return Finding(degree=drop(remaining / size, *_LEFT), reason=reason)


def _in(number: int, change: TextChange) -> bool:
    return any(number in change.before.lines_of(place) for place in change.old_places)


def _all_removed(texts: Texts, kind: str) -> Finding:
    was, now = (sum(len(letters(line.text)) for line in lines) for lines in (texts.source, texts.edited))
    if not was:
        return unmeasured("no text can be read in the source")
    degree = drop(now / was, *_REMAINS)
    if kind == "text_all_lines":
        edited = Passage.of(texts.edited)
        lines = [row for row in (letters(line.text) for line in texts.source) if len(row)]
        degree = drop(max(best_match(row, edited.row).likeness for row in lines), *_STANDS)
    return Finding(degree=degree, reason=f"{now} letters are read, {was} in the source")


# --- Keep -------------------------------------------------------------------------------------------------------------


def _others_kept(texts: Texts) -> Finding:
    changes = texts.changes()
    if not changes:
        return unmeasured("what text was to change cannot be told")
    before, after = Passage.of(texts.source), Passage.of(texts.edited)
    olds = [place for change in changes for place in change.old_places]
    # Where which text is meant is not said, none can be told to be another one.
    is_open = any(change.is_open for change in changes)
    others = [] if is_open else [part for _, part in before.without(olds) if len(part) > 1]
    total = sum(map(len, others))
    again = {letters(line.text).tobytes() for line in texts.edited}  # most lines are; only the rest is searched
    lost = sum(best_match(part, after.row).errors for part in others if part.tobytes() not in again)
    kept = 1 - lost / total if total else 1.0
    added = sum(map(len, _uncalled_for(texts, changes, before)))
    words = f"{kept:.2f} of the other text is read again; {added} letters that nobody asked for"
    return Finding(degree=rise(kept, *_OTHERS) * soft(added, *_ADDED), reason=words)


def _uncalled_for(texts: Texts, changes: Sequence[TextChange], before: Passage) -> Iterator[Letters]:
    """Words of the edited image that the source lacks and that no change explains."""
    stood = [change.old_box for change in changes if change.old_box]
    wanted = [line for change in changes for line in change.found_lines]
    old = {letters(line.text).tobytes() for line in texts.source}
    for line in texts.edited:
        row = letters(line.text)
        if line.confidence < _SURE or len(row) < 3 or len(set(row[:, 0].tolist())) < 3:
            continue  # stray strokes are read as short or even text
        explained = line in wanted or row.tobytes() in old or any(touch(line.box, box) for box in stood)
        if not explained and not before.places(row):
            yield row


def _place_kept(texts: Texts) -> Finding:
    degrees, words = [], []
    for change in texts.changes():
        passage, match, _ = change.found
        if change.new and match and change.old_box:
            now, was = passage.box(match), change.old_box
            moved = float(np.hypot(now[0] + now[2] - was[0] - was[2], now[1] + now[3] - was[1] - was[3])) / 2
            degree, said = soft(moved, *_MOVED), f"moved by {moved:.2f} of the side"
            if change.old_places:
                size = max(passage.height(match), 1e-3) / max(change.before.height(change.old_places[0]), 1e-3)
                degree, said = degree * soft(abs(float(np.log(size))), *_HEIGHT), f"{said}, {size:.2f} times as high"
            degrees.append(degree)
            words.append(said)
    if not degrees:
        return unmeasured("the places of the old and the new text cannot be compared")
    return Finding(degree=min(degrees), reason="; ".join(words))


def rest_kept(texts: Texts, source: Array, edited: Array) -> Finding:
    """Kind `content_kept_but` of a text edit, from both images (H, W, 3): all but the places of the text."""
    everything = any(ask.kind == "text_all_removed" for ask in texts.asks)
    changes = texts.changes()
    if not changes and not everything:
        return unmeasured("where the text was to change cannot be told")
    zone = [line.box for line in texts.source] if everything else [box for each in changes for box in each.zone()]
    rest = ~_covered(zone, source.shape[:2])
    if rest.mean() < 1 - _MOST_TEXT:
        return unmeasured("the text covers nearly all of the image")
    change = distance(edited[rest], source[rest])
    share, drift = float((change > _VISIBLE).mean()), float(np.median(change))
    words = f"{share:.3f} of what is not that text changed visibly; its colour by {drift:.3f}"
    return Finding(degree=soft(share, *_SHARE) * soft(drift, *_DRIFT), reason=words)


def _covered(boxes: Sequence[Box], shape: tuple[int, ...]) -> Mask:
    """The boxes and a margin around them, in which a sign's ground may be painted anew: (H, W)."""
    height, width = shape[0], shape[1]
    mask = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        more = 0.4 * (bottom - top) * height + 0.02 * max(height, width)
        rows = slice(max(0, int(top * height - more)), int(np.ceil(bottom * height + more)))
        mask[rows, max(0, int(left * width - more)) : int(np.ceil(right * width + more))] = True
    return mask


#: The kinds of question that are answered by reading.
TEXT_KINDS: Final = frozenset(
    {
        *REMOVALS,
        *("text", "text_replaced", "text_old_gone", "text_added", "text_at", "text_on", "text_legible"),
        *("text_all_removed", "text_all_lines", "text_others_kept", "text_place_kept", "text_look_kept"),
    }
)
