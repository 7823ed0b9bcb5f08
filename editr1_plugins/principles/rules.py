"""The embedded decomposer: principles from rules, without a model.

It reads the instruction only, never the image, so its questions name what the instruction names and leave it to the
verifier to find the rest ("every other object"). An instruction of which it does not understand every part is a
`NoPrinciples` with the part it stumbled on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from editr1_plugins.principles.clauses import Change
from editr1_plugins.principles.phrases import LIST_WORD, Ask, bare_noun, render
from editr1_plugins.principles.reading import NotUnderstoodError, read_instruction
from editr1_plugins.principles.words import colour_name, place_name, read_thing
from editr1_plugins.types import NoPrinciples, Principle

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["RulesDecomposer", "decompose_instruction"]

_QUALITY: Final = (Ask(kind="sharp"), Ask(kind="clean"), Ask(kind="framed"))


class RulesDecomposer:
    """Decomposer `rules`: English instructions of the common kinds, read by rules.

    Understood: recolour, remove, replace (or turn into), add, background, global tone (warmer, cooler, brighter,
    darker, black and white, more or less saturated), text changes and styles, several of them in one instruction.
    """

    identity = "rules/2"

    def decompose(self, requests: Sequence[tuple[Image, str]]) -> list[tuple[Principle, ...]]:
        """About 3 Follow principles per change, 3-4 Keep, 3 Quality; `NoPrinciples` for what is not understood."""
        return [decompose_instruction(instruction) for _, instruction in requests]


def decompose_instruction(instruction: str) -> tuple[Principle, ...]:
    """The principles of one instruction, or `NoPrinciples` with the reason."""
    try:
        changes = read_instruction(instruction)
    except NotUnderstoodError as error:
        return NoPrinciples(f"rules decomposer: {error}")
    asks = [ask for change in changes for ask in _FOLLOW[change.operation](change)]
    try:
        return tuple(dict.fromkeys(render(ask) for ask in (*asks, *_keep(changes), *_QUALITY)))
    except ValueError as error:
        return NoPrinciples(f"rules decomposer: {error}")


# --- Follow: what was asked for, one function per operation -----------------------------------------------------------


def _recolour(change: Change) -> list[Ask]:
    return [Ask(kind=kind, what=change.what, value=change.value) for kind in _COLOUR_KINDS]


_COLOUR_KINDS: Final = ("colour", "colour_everywhere", "colour_clear")


def _remove(change: Change) -> list[Ask]:
    return [Ask(kind=kind, what=change.what) for kind in ("gone", "gone_fully", "filled")]


def _replace(change: Change) -> list[Ask]:
    new = _the(change.value)
    return [
        Ask(kind="becomes", what=change.what, value=change.value),
        Ask(kind="old_gone", what=change.what, value=new),
        Ask(kind="becomes_clear", what=change.what, value=new),
    ]


def _add(change: Change) -> list[Ask]:
    asks = [Ask(kind="added", value=change.value)]
    if change.where:
        asks.append(Ask(kind="added_at", value=_the(change.value), where=change.where))
    thing = read_thing(change.value)
    if thing and thing.shape and not thing.plural:
        asks.append(Ask(kind="added_shape", value=bare_noun(change.value), what=f"a {thing.shape}"))
    asks.append(Ask(kind="added_solid", value=bare_noun(change.value)))
    return asks


def _background(change: Change) -> list[Ask]:
    return _recolour(change) if colour_name(change.value) else _replace(change)


def _tone(change: Change) -> list[Ask]:
    first = "tone_state" if change.value == "black and white" else "tone"
    return [Ask(kind=kind, value=change.value) for kind in (first, "tone_everywhere", "tone_visible")]


def _text(change: Change) -> list[Ask]:
    if not change.what:
        return [Ask(kind="text", value=change.value), Ask(kind="text_legible", value=change.value)]
    return [
        Ask(kind="text_replaced", what=change.what, value=change.value),
        Ask(kind="text_old_gone", what=change.what, value=change.value),
        Ask(kind="text_legible", value=change.value),
    ]


def _text_added(change: Change) -> list[Ask]:
    asks = [Ask(kind="text_added", value=change.value), Ask(kind="text_legible", value=change.value)]
    if change.where:
        kind = "text_at" if place_name(change.where) == change.where else "text_on"
        asks.append(Ask(kind=kind, value=change.value, where=change.where))
    return asks


def _text_removed(change: Change) -> list[Ask]:
    if not change.what:
        return [Ask(kind=kind) for kind in ("text_all_removed", "text_all_lines")]
    return [Ask(kind=kind, what=change.what) for kind in ("text_removed", "text_traces")]


def _style(change: Change) -> list[Ask]:
    return [Ask(kind=kind, value=change.value) for kind in ("style", "style_marks")]


_FOLLOW: Final = {
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


# --- Keep: what nobody asked to change --------------------------------------------------------------------------------


def _keep(changes: Sequence[Change]) -> list[Ask]:
    operations = {change.operation for change in changes}
    touched = _list_of(_subject(change) for change in changes if change.operation not in _TOUCH_NO_OBJECT)
    if operations <= {"style"}:
        return [Ask(kind="content_kept"), Ask(kind="layout_kept")]
    if operations <= _TEXTS:
        area = _list_of(_subject(change) for change in changes)
        return [Ask(kind="content_kept_but", what=area), *_text_kept(changes), Ask(kind="layout_kept")]
    if operations & {"tone", "style"}:
        content = Ask(kind="content_kept_but", what=touched) if touched else Ask(kind="content_kept")
        return [content, *_tone_keeps({change.value for change in changes if change.operation == "tone"})]
    return [*_others_kept(touched), *_ground_kept(changes), *_subjects_kept(changes), *_text_kept(changes)]


_TEXTS: Final = frozenset({"text", "text_added", "text_removed"})


def _text_kept(changes: Sequence[Change]) -> list[Ask]:
    texts = [change for change in changes if change.operation in _TEXTS]
    all_goes = any(change.operation == "text_removed" and not change.what for change in texts)
    kinds = ["text_others_kept"] if texts and not all_goes else []
    if any(change.operation == "text" for change in texts):
        kinds += ["text_place_kept", "text_look_kept"]
    return [Ask(kind=kind) for kind in kinds]


_TOUCH_NO_OBJECT: Final = frozenset({"tone", "style", "background", "add", "text_added"})


def _tone_keeps(tones: set[str]) -> list[Ask]:
    keeps = [Ask(kind="detail_kept")]
    if not tones & {"brighter", "darker"}:
        keeps.append(Ask(kind="light_kept"))
    if not tones & {"warmer", "cooler", "black and white"}:
        keeps.append(Ask(kind="hues_kept"))
    return keeps


def _others_kept(touched: str) -> list[Ask]:
    if touched:
        return [Ask(kind="others_colour_but", what=touched), Ask(kind="others_form_but", what=touched)]
    return [Ask(kind="others_colour"), Ask(kind="others_form")]


def _ground_kept(changes: Sequence[Change]) -> list[Ask]:
    if any(change.operation == "background" for change in changes):
        new = _list_of(_subject(change) for change in changes if change.operation in {"add", "text_added"})
        return [Ask(kind="nothing_new_but", what=new) if new else Ask(kind="nothing_new")]
    areas = _list_of(_subject(change) for change in changes)
    return [Ask(kind="ground_kept_but", what=areas)]


def _subjects_kept(changes: Sequence[Change]) -> list[Ask]:
    """What stays of a thing that is changed: a recoloured one its form, a reshaped one its colour and place."""
    reshaped = {change.what for change in changes if change.operation in {"replace", "remove"}}
    recoloured = {change.what for change in changes if change.operation == "recolour"}
    asks: list[Ask] = []
    for change in changes:
        if change.operation == "recolour" and change.what not in reshaped:
            asks.append(Ask(kind="form_kept", what=change.what))
        elif change.operation == "replace":
            asks.append(Ask(kind="place_kept", what=change.what, value=_the(change.value)))
            thing = read_thing(change.value)
            if thing and thing.shape and not thing.colour and change.what not in recoloured:
                asks.append(Ask(kind="colour_kept", what=change.what, value=_the(change.value)))
    return asks


def _subject(change: Change) -> str:
    if change.operation == "add":
        where = f" in the {change.where}" if change.where else ""
        return f"{_the(change.value)} that is new{where}"
    if change.operation == "text":
        return f'the text "{change.what}"' if change.what else "the text"
    if change.operation == "text_removed":
        return f'the text "{change.what}"' if change.what else "all text"
    if change.operation == "text_added":
        return f'the text "{change.value}"'
    return change.what


def _list_of(things: Iterable[str]) -> str:
    """ "the dog", "the dog and the cat", ...: what `phrases.read_list` reads back."""
    return LIST_WORD.join(dict.fromkeys(things))


def _the(noun: str) -> str:
    """ "a blue square" -> "the blue square"."""
    return f"the {bare_noun(noun)}"
