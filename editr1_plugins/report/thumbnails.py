"""Small copies of recorded images as data URIs: a page that holds a thousand must stay light."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from editr1_plugins.errors import ImageError
from editr1_plugins.images import read_image
from editr1_plugins.reward.edit_rows import file_below

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Thumbnail", "make_thumbnails"]

#: Up to this size, in pixels, an image is kept as it is: lossy formats ruin drawings that small.
_SMALL: Final = 96
_QUALITY: Final = 78


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A data URI, and the width and height in pixels of the image that it was made from."""

    uri: str
    width: int
    height: int


def make_thumbnails(directory: Path, names: Iterable[str], size: int) -> dict[str, Thumbnail | None]:
    """A thumbnail, at most `size` pixels wide and high, per name of an image below `directory`.

    None stands for an image that is missing, broken, or a link that leads out of the directory.
    """
    distinct = list(dict.fromkeys(names))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        made = pool.map(lambda name: _thumbnail(directory, name, size), distinct)
        return dict(zip(distinct, made, strict=True))


def _thumbnail(directory: Path, name: str, size: int) -> Thumbnail | None:
    try:
        image = read_image(file_below(directory, name))
    except ImageError:
        return None
    small = image.copy()
    small.thumbnail((size, size))
    return Thumbnail(uri=_data_uri(small), width=image.width, height=image.height)


def _data_uri(image: Image) -> str:
    from PIL import features

    buffer = BytesIO()
    kind = "PNG" if max(image.size) <= _SMALL else "WEBP" if features.check("webp") else "JPEG"
    image.save(buffer, kind, quality=_QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
