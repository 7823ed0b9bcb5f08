"""What hosts hand over as an image, as an upright RGB PIL image; and a row of theirs as an `Edit`.

An image may be a PIL image, encoded bytes, `{"bytes": ..., "path": ...}` (a `datasets.Image` that is not decoded), a
base64 text or data URI, or pixels: a torch tensor or a numpy array of 8 bits, or of floats in 0..1. A path in a row is
opened below a folder that the user named, and only there; a URL never.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from PIL import Image

from editr1_plugins.errors import DataError, ImageError
from editr1_plugins.images import read_image
from editr1_plugins.reward.edit_rows import file_below
from editr1_plugins.types import Edit

__all__ = ["EditOrReason", "as_edit", "as_image", "first_image", "last_image"]

#: An edit, or why a row has none (its own picture is broken).
EditOrReason = Edit | str

_CHANNELS: Final = (1, 3, 4)
_LONGEST_PATH: Final = 1024  # longer text is base64, also where paths may be opened
_ROUNDING: Final = 0.01  # bfloat16 pixels of a decoder leave 0..1 by that much


def as_edit(
    source: Any, edited: Any, instruction: Any, *, row: int | str, folder: str | os.PathLike[str] | None = None
) -> EditOrReason:
    """The edit of one row of a host's batch, or the reason why this row alone has none: a broken picture.

    Args:
        source, edited: see `as_image`.
        instruction: text.
        row: its number or name, for messages.
        folder: see `as_image`.

    Raises:
        DataError: something is absent or of a wrong type, which the set-up of the job is to blame for.
    """
    if not isinstance(instruction, str) or not instruction.strip():
        raise DataError(f"row {row}: the instruction must be text that is not blank, got {type(instruction).__name__}")
    found = []
    for what, value in (("source image", source), ("edited image", edited)):
        try:
            found.append(as_image(value, f"row {row}: {what}", folder=folder))
        except ImageError as error:
            return f"{what}: {error}"
    return Edit(source=found[0], edited=found[1], instruction=instruction)


def as_image(value: Any, what: str = "the image", *, folder: str | os.PathLike[str] | None = None) -> Image.Image:
    """`value` as RGB, in its own size and proportions.

    Args:
        value: see the module. Tensors are (channels, height, width) and arrays (height, width, channels) where both
            would fit; else the axis of 1, 3 or 4 items is that of the channels.
        what: for messages.
        folder: below which a path may be opened; None: no path is.

    Raises:
        DataError: no image at all, or a path or URL that may not be opened.
        ImageError: an image that is broken, or pixels outside their range.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (Image.Image, bytes, bytearray, memoryview)):
        return read_image(value)
    if isinstance(value, (str, os.PathLike)):
        return read_image(_named(value, what, folder))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _from_pixels(value, what)
    raise DataError(
        f"{what} is a {type(value).__name__}, not an image (PIL, bytes, {{'bytes': ...}}, base64, tensor or array)"
    )


def first_image(value: Any) -> Any:
    """Of several source images the first, which is the one that was edited; anything else as it is."""
    return (value[0] if value else None) if isinstance(value, Sequence) and not _is_encoded(value) else value


def last_image(value: Any) -> Any:
    """Of several edited images the last; anything else as it is."""
    return (value[-1] if value else None) if isinstance(value, Sequence) and not _is_encoded(value) else value


def _is_encoded(value: object) -> bool:
    return isinstance(value, (str, bytes, bytearray, memoryview))


def _named(value: str | os.PathLike[str], what: str, folder: str | os.PathLike[str] | None) -> Any:
    text = os.fspath(value)
    if text.startswith("data:"):
        return _decoded(text.partition(",")[2], what)
    if "://" in text[:32]:
        raise DataError(f"{what} is a URL, and those found in data are never opened; hand over the image itself")
    if folder is not None and len(text) <= _LONGEST_PATH:
        return file_below(folder, text)
    # Base64 has no dots, and no encoded image is as short as a name.
    if len(text) > _LONGEST_PATH or (len(text) > 64 and "." not in text):
        return _decoded(text, what)
    raise DataError(
        f"{what} is a path, and those found in data are opened only below a folder that you name (image_folder=...)"
    )


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{what} is neither base64 nor a path that may be opened: {error}") from error


def _from_pixels(value: Any, what: str) -> Image.Image:
    import numpy as np

    is_tensor = hasattr(value, "detach")
    if is_tensor:
        value = value.detach().cpu()
        # numpy knows no bfloat16
        value = (value.float() if value.is_floating_point() else value).numpy()
    pixels = np.asarray(value)
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ImageError(f"{what} has the shape {tuple(pixels.shape)}; one image has three axes")
    first, last = pixels.shape[0] in _CHANNELS, pixels.shape[-1] in _CHANNELS
    if not first and not last:
        raise ImageError(f"{what} has the shape {tuple(pixels.shape)}; no axis is one of 1, 3 or 4 channels")
    if first and (is_tensor or not last):
        pixels = np.moveaxis(pixels, 0, -1)
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = _from_floats(pixels, what)
    elif pixels.dtype != np.uint8:
        raise ImageError(f"{what} has pixels of {pixels.dtype}; they must be uint8, or floats in 0..1")
    return read_image(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else np.ascontiguousarray(pixels)))


def _from_floats(pixels: Any, what: str) -> Any:
    import numpy as np

    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN fails as well
        raise ImageError(
            f"{what} has float pixels in {low:.3g}..{high:.3g}; they must lie in 0..1 (of -1..1, hand over (x + 1) / 2)"
        )
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8)
