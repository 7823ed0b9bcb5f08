"""One source, one edited image, and the right measurement for each question about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from editr1_plugins.errors import MissingExtraError
from editr1_plugins.principles.phrases import Ask, category_of
from editr1_plugins.types import FOLLOW
from editr1_plugins.verifiers.measuring import additions, keep, objects, quality, text_changes, text_reader, texts
from editr1_plugins.verifiers.measuring.comparison import Comparison, Finding, unmeasured
from editr1_plugins.verifiers.measuring.pixels import Array, clipped_share, distance, to_pixels
from editr1_plugins.verifiers.measuring.scene import Scene, read_scene
from editr1_plugins.verifiers.measuring.tone import ToneChange, tone, tone_kept

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Bench", "SourceImage"]

#: Objects and tone are measured at this many pixels a side at most; sharpness and noise on a cut of the full image.
_SIDE, _DETAIL_SIDE = 96, 288
_LEAST_SIDE: Final = 8
_SAME_ASPECT: Final = 0.02
_PLACES_LOST: Final = "the edited image has other proportions: places in it cannot be compared"
_UNSEEN: Final = 0.03  # largest RGB distance (rms) of any pixel under which the edited image is the source to the eye

_OBJECT_MEASURES: Final[dict[str, Callable[[Comparison, Ask], Finding]]] = {
    **dict.fromkeys(("colour", "colour_everywhere", "colour_clear"), objects.recoloured),
    **dict.fromkeys(("gone", "gone_fully", "filled"), objects.removed),
    **dict.fromkeys(("becomes", "old_gone", "becomes_clear"), objects.becomes),
    **dict.fromkeys(("added", "added_at", "added_shape", "added_solid"), additions.added),
    **dict.fromkeys(("others_colour", "others_colour_but", "others_form", "others_form_but"), keep.others_kept),
    **dict.fromkeys(("ground_kept", "ground_kept_but"), keep.ground_kept),
    **dict.fromkeys(("nothing_new", "nothing_new_but"), keep.nothing_new),
    "form_kept": keep.form_kept,
    **dict.fromkeys(("place_kept", "colour_kept"), keep.replacement_kept),
}
_TONE_MEASURES: Final[dict[str, Callable[[ToneChange, Ask], Finding]]] = {
    **dict.fromkeys(("tone", "tone_state", "tone_everywhere", "tone_visible"), tone),
    **dict.fromkeys(("content_kept", "light_kept", "hues_kept", "detail_kept"), tone_kept),
}


class SourceImage:
    """What is read from a source once, however many candidates are compared with it."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.pixels = to_pixels(image, _SIDE)

    @cached_property
    def scene(self) -> Scene | None:
        return read_scene(self.pixels)

    @cached_property
    def detail(self) -> Array:
        return _cut(self.image)

    @cached_property
    def sharpness(self) -> tuple[float, int]:
        return quality.sharpness(self.detail)

    @cached_property
    def noise(self) -> tuple[float, float]:
        return quality.noise_level(self.detail)

    @cached_property
    def borders(self) -> tuple[float, ...]:
        return quality.borders(self.pixels)

    @cached_property
    def text(self) -> tuple[text_reader.TextLine, ...]:
        return tuple(text_reader.read_text(self.image))


class Bench:
    """Measures the questions about one edit; `flags` says what is odd about the images as a whole."""

    def __init__(self, source: SourceImage, edited: Image, asks: Sequence[Ask]) -> None:
        self.source = source
        self.given = edited
        size = source.image.size
        aspect = (edited.width * size[1]) / (edited.height * size[0])
        self.same_aspect = abs(np.log(aspect)) <= _SAME_ASPECT
        self.too_small = min(*size, *edited.size) < _LEAST_SIDE
        self.edited = edited if edited.size == size or not self.same_aspect else _resized(edited, size)
        self.asks = asks

    @cached_property
    def pair(self) -> Comparison:
        height, width = self.source.pixels.shape[:2]
        edited = to_pixels(self.edited, _SIDE, (width, height))
        return Comparison(source=self.source.pixels, edited=edited, scene=self.source.scene, asks=self.asks)

    @cached_property
    def tone(self) -> ToneChange:
        if self.same_aspect:
            height, width = self.source.pixels.shape[:2]
            clipped = clipped_share(self.edited, (width, height))
            return ToneChange(source=self.pair.source, edited=self.pair.edited, clipped=clipped)
        return _common_tone(self.source.image, self.given)

    @cached_property
    def unchanged(self) -> bool:
        return self.same_aspect and float(distance(self.pair.edited, self.pair.source).max()) < _UNSEEN

    @property
    def flags(self) -> tuple[str, ...]:
        flags = ["size_changed"] if self.given.size != self.source.image.size else []
        if not self.same_aspect:
            flags.append("aspect_changed")
        elif self.unchanged:
            flags.append("no_edit")
        return tuple(flags)

    def measure(self, ask: Ask) -> Finding:
        """The finding for one question; `degree` None with the reason where there is no measure for it."""
        if self.too_small:
            return unmeasured(f"an image under {_LEAST_SIDE}x{_LEAST_SIDE} pixels holds too little to measure")
        finding = self._measured(ask)
        by_reading = ask.kind in texts.TEXT_KINDS  # small letters may change although no pixel of the small image does
        if finding.degree is not None and category_of(ask) == FOLLOW and self.unchanged and not by_reading:
            return Finding(degree=0.0, reason="the edited image is the source, unchanged")
        return finding

    def _measured(self, ask: Ask) -> Finding:
        if ask.kind in texts.TEXT_KINDS:
            return self._of_text(lambda read: texts.text(read, ask))
        if ask.kind == "content_kept_but" and self._only_text:
            if not self.same_aspect:
                return unmeasured(_PLACES_LOST)
            return self._of_text(lambda read: texts.rest_kept(read, self.pair.source, self.pair.edited))
        if ask.kind in _OBJECT_MEASURES:
            if any(other.kind.startswith("tone") for other in self.asks):
                return unmeasured("the tone of the whole image is to change too: objects cannot be measured under that")
            if not self.same_aspect:
                return unmeasured(_PLACES_LOST)
            return _OBJECT_MEASURES[ask.kind](self.pair, ask)
        if ask.kind in _TONE_MEASURES:
            return _TONE_MEASURES[ask.kind](self.tone, ask)
        if ask.kind == "sharp":
            return quality.sharp(self.source.sharpness, quality.sharpness(self._detail), self._noise[0])
        if ask.kind == "clean":
            return quality.clean(self.source.noise, self._noise)
        if ask.kind == "framed":
            sizes = self.source.image.size, self.given.size
            borders = quality.borders(self.pair.edited if self.same_aspect else to_pixels(self.given, _SIDE))
            return quality.framed(self.source.borders, borders, sizes, self.same_aspect)
        return unmeasured("this cannot be measured without a model")

    def _of_text(self, measure: Callable[[text_changes.Texts], Finding]) -> Finding:
        return unmeasured(self._texts) if isinstance(self._texts, str) else measure(self._texts)

    @cached_property
    def _texts(self) -> text_changes.Texts | str:
        """What is read in both images, or why nothing can be."""
        if min(*self.source.image.size, *self.given.size) < text_reader.SMALLEST_SIDE:
            return f"an image under {text_reader.SMALLEST_SIDE} pixels a side is too small to read"
        try:
            source, edited = self.source.text, tuple(text_reader.read_text(self.given))
            return text_changes.Texts(source=source, edited=edited, known=text_reader.known_signs(), asks=self.asks)
        except MissingExtraError as error:
            return str(error)

    @cached_property
    def _only_text(self) -> bool:
        return all(ask.kind in texts.TEXT_KINDS for ask in self.asks if category_of(ask) == FOLLOW)

    @cached_property
    def _detail(self) -> Array:
        return _cut(self.edited)

    @cached_property
    def _noise(self) -> tuple[float, float]:
        return quality.noise_level(self._detail)


def _resized(image: Image, size: tuple[int, int]) -> Image:
    from PIL.Image import Resampling

    return image.resize(size, Resampling.BOX if size[0] <= image.width else Resampling.BICUBIC)


def _cut(image: Image) -> Array:
    """The middle of the image at full resolution, at most `_DETAIL_SIDE` pixels a side."""
    width, height = (min(side, _DETAIL_SIDE) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return to_pixels(image.crop((left, top, left + width, top + height)), _DETAIL_SIDE)


def _common_tone(source: Image, edited: Image) -> ToneChange:
    """The middle of both images in the narrower one's proportions, at one size."""
    aspect = min(source.width / source.height, edited.width / edited.height)
    size = (max(1, round(_SIDE * min(aspect, 1))), max(1, round(_SIDE / max(aspect, 1))))
    cuts = []
    for image in (source, edited):
        width = max(1, min(image.width, round(image.height * aspect)))
        left = (image.width - width) // 2
        cuts.append(image.crop((left, 0, left + width, image.height)))
    was, now = (to_pixels(cut, _SIDE, size) for cut in cuts)
    return ToneChange(source=was, edited=now, clipped=clipped_share(cuts[1], size))
