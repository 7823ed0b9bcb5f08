"""Sheets of held-out edits, source beside result with the score below, to look at while a run goes on."""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

__all__ = ["KEPT_SHEETS", "ShownEdit", "as_channels_first", "draw_sheet", "keep_sheet", "shown_edit"]

#: Sheets kept of one set of held-out rows: the first, and the latest ones.
KEPT_SHEETS: Final = 50

_SIDE: Final = 256  # of a picture on the sheet, in pixels
_SMALL: Final = 96  # pictures below this are enlarged without smoothing, so that their pixels can be seen
_COLUMNS: Final = 4  # pairs in a row
_GAP: Final = 8
_FONT_SIZE: Final = 13
_LINES: Final = 3  # of a caption
_LINE: Final = 74  # characters
_NUMBER: Final = re.compile(r"step-(\d+)\.jpg")


@dataclass(frozen=True, kw_only=True)
class ShownEdit:
    """A pair on a sheet: pictures of at most 256 x 256 px, the instruction, the score (NaN: not judged)."""

    source: Image.Image
    edited: Image.Image
    instruction: str
    score: float = math.nan


def shown_edit(source: Image.Image, edited: Image.Image, instruction: str) -> ShownEdit:
    """A pair with its pictures made small."""
    return ShownEdit(source=_small(source), edited=_small(edited), instruction=str(instruction))


def _small(image: Image.Image) -> Image.Image:
    image = image.convert("RGB")
    scale = _SIDE / max(image.size)
    if scale > 1:
        factor = max(1, int(scale)) if max(image.size) <= _SMALL else 1
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def draw_sheet(pairs: Sequence[ShownEdit]) -> Image.Image:
    """One RGB picture of all pairs, at most 4 in a row."""
    font = ImageFont.load_default(size=_FONT_SIZE)
    columns = min(_COLUMNS, len(pairs)) or 1
    width, height = 2 * _SIDE + 3 * _GAP, _SIDE + _GAP + _LINES * (_FONT_SIZE + 4) + _GAP
    rows = math.ceil(len(pairs) / columns) or 1
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, pair in enumerate(pairs):
        left, top = (index % columns) * width + _GAP, (index // columns) * height + _GAP
        for place, image in enumerate((pair.source, pair.edited)):
            middle = ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2)
            sheet.paste(image, (left + place * (_SIDE + _GAP) + middle[0], top + middle[1]))
        draw.multiline_text((left, top + _SIDE + 4), _caption(pair), fill="black", font=font, spacing=4)
    return sheet


def _caption(pair: ShownEdit) -> str:
    score = "not judged" if math.isnan(pair.score) else f"{pair.score:.2f}"
    said = "".join(letter if letter.isprintable() else " " for letter in f"{score} | {pair.instruction}"[:1000])
    return "\n".join(textwrap.wrap(said, _LINE, max_lines=_LINES, placeholder=" ..."))


def keep_sheet(sheet: Image.Image, folder: str | os.PathLike[str], step: int) -> Path:
    """Write the sheet as `step-N.jpg`, whole or not at all, and delete what `KEPT_SHEETS` leaves no room for."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step}.jpg"
    unfinished = folder / f".{path.name}.part"
    sheet.save(unfinished, format="JPEG", quality=88)
    unfinished.replace(path)
    numbers = sorted(int(found[1]) for each in folder.iterdir() if (found := _NUMBER.fullmatch(each.name)))
    for number in numbers[1:][: max(0, len(numbers) - KEPT_SHEETS)]:
        (folder / f"step-{number}.jpg").unlink(missing_ok=True)
    return path


def as_channels_first(sheet: Image.Image) -> Any:
    """The sheet as a (3, height, width) uint8 array, as tensorboard takes it."""
    import numpy as np

    return np.asarray(sheet).transpose(2, 0, 1)
