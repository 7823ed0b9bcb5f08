"""Read, check and encode images: bytes, a path or a PIL image in, a plain RGB PIL image out.

What arrives is untrusted. The header is checked before any pixel is decoded, only common raster formats are opened,
nothing is ever fetched, and whatever is wrong leaves as an `ImageError` in words, never as one of Pillow's errors.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

from .errors import DataError, ImageError

__all__ = [
    "MAX_ASPECT",
    "MAX_BYTES",
    "MAX_PIXELS",
    "check_image",
    "content_hash",
    "encode_png",
    "keep_image",
    "read_image",
    "read_image_cell",
]

#: Default limits of `read_image`: pixels (8192 x 8192), long side / short side, and bytes of the encoded image.
MAX_PIXELS: Final = 8192 * 8192
MAX_ASPECT: Final = 50.0
MAX_BYTES: Final = 256 * 2**20

# Raster formats people exchange. Others (EPS, FITS, PSD, ...) run interpreters or rarely tested parsers.
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
_TAIL: Final = 65536  # bytes in which the end of a file is looked for
_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIXTEEN_BIT: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_image(
    source: bytes | bytearray | memoryview | str | os.PathLike[str] | Image.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    max_aspect: float = MAX_ASPECT,
    max_bytes: int = MAX_BYTES,
) -> Image.Image:
    """Decode `source` to an upright, opaque RGB image.

    EXIF orientation is applied, transparency is composited onto white, palettes and CMYK are converted, and 16-bit
    grey is scaled (65535 becomes 255), not clipped. Of a multi-picture JPEG the first picture is taken. A PIL image
    that already is plain RGB is returned as it is; the given image is never changed.

    Args:
        source: encoded bytes, a path to a regular file, or a PIL image. A string is a path, never a URL. A path is
            read as given, so a path that comes from data must not be passed on to here.
        max_pixels: width x height, checked in the header.
        max_aspect: longer side divided by shorter side, checked in the header.
        max_bytes: size of the encoded image.

    Raises:
        ImageError: not an image of a supported format, empty, animated or of several pages, truncated, over a limit,
            or with pixels that have no agreed range (float, 32-bit). The message names the path, if there is one.
    """
    if isinstance(source, Image.Image):
        return _plain(source, "the image", max_pixels, max_aspect)
    data, where = _bytes_of(source, max_bytes)
    with _opened(data, where) as image:
        return _plain(image, where, max_pixels, max_aspect)


def read_image_cell(cell: Any, column: str, where: str = "") -> Image.Image:
    """Decode an image cell of a dataset: a PIL image, encoded bytes, or a mapping with `bytes`.

    A path or URL in a cell is data and is never opened.

    Args:
        cell: what the row holds.
        column: its name, for messages.
        where: what messages begin with, such as "row 3: ".

    Raises:
        DataError: the cell holds a path, or no image.
        ImageError: as `read_image`.
    """
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if isinstance(data, (Image.Image, bytes)):
        return read_image(data)
    if isinstance(data, (str, os.PathLike)) or (isinstance(cell, Mapping) and cell.get("path")):
        raise DataError(
            f"{where}{column!r} holds a path or URL, and those found in data are never opened; let datasets read "
            f"the files: dataset.cast_column({column!r}, datasets.Image())"
        )
    raise DataError(f"{where}{column!r} holds a {type(cell).__name__}, not an image (PIL, bytes or {{'bytes': ...}})")


def check_image(
    source: bytes | bytearray | memoryview | str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    max_aspect: float = MAX_ASPECT,
    max_bytes: int = MAX_BYTES,
) -> tuple[int, int]:
    """Check an encoded image by its header, many times faster than decoding it; arguments as for `read_image`.

    Where the end of the file does not look like one (a truncated download), or the format tells no end, the pixels are
    decoded after all. What is missed is damage in the middle of a file.

    Returns:
        Width and height as stored, before EXIF orientation.

    Raises:
        ImageError: see `read_image`.
    """
    data, where = _bytes_of(source, max_bytes)
    with _opened(data, where) as image:
        _check_size(image, where, max_pixels, max_aspect)
        with _quiet(), _as_image_error(where):
            _check_single(image, where)
        if not _has_its_end(image.format, data):
            _plain(image, where, max_pixels, max_aspect)
        return image.width, image.height


def encode_png(image: Image.Image) -> bytes:
    """The RGB pixels of `image` as PNG without metadata: the same pixels give the same bytes with one Pillow build.

    Raises:
        ImageError: see `read_image`.
    """
    rgb = read_image(image)
    # A copy made of pixels alone: Pillow would write what `info` carries (profiles, EXIF, text).
    bare = Image.frombytes("RGB", rgb.size, rgb.tobytes())
    buffer = BytesIO()
    bare.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def content_hash(image: Image.Image) -> str:
    """SHA-256, in hexadecimal, of the size and the RGB pixels: what the image shows, whatever file it came from.

    Raises:
        ImageError: see `read_image`.
    """
    rgb = read_image(image)
    digest = hashlib.sha256(f"RGB {rgb.width}x{rgb.height}\n".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def keep_image(image: Image.Image, folder: str | os.PathLike[str]) -> str:
    """Write `image` below `folder` under the name of its content, unless it is there: whole or not at all.

    Returns:
        `images/<2 hex>/<content hash>.png`, its name relative to `folder`.

    Raises:
        ImageError: see `read_image`.
        OSError: the disk is full or gone.
    """
    digest = content_hash(image)
    name = f"images/{digest[:2]}/{digest}.png"
    path = Path(folder, name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        temporary.write_bytes(encode_png(image))
        temporary.replace(path)
    return name


def _bytes_of(source: object, max_bytes: int) -> tuple[bytes, str]:
    """The encoded image and how messages name it; neither empty nor over the limit."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, where = bytes(source), "the image"
    elif isinstance(source, (str, os.PathLike)):
        where = f"image {_shown(source)}"
        data = _read_file(source, where, max_bytes)
    else:
        raise ImageError(f"an image is bytes, a path or a PIL image, got {type(source).__name__}")
    if len(data) > max_bytes:
        raise ImageError(f"{where} has more than {max_bytes} bytes, the limit of max_bytes")
    if not data:
        raise ImageError(f"{where} is empty (0 bytes)")
    return data, where


def _opened(data: bytes, where: str) -> Image.Image:
    with _quiet(), _as_image_error(where):
        return Image.open(BytesIO(data), formats=_FORMATS)


def _has_its_end(kind: str | None, data: bytes) -> bool:
    """Whether the file ends as its format does; False where that cannot be told."""
    if kind == "PNG":
        return b"IEND" in data[-_TAIL:]
    if kind in ("JPEG", "MPO"):  # entropy-coded data never holds this marker; cameras may append to it
        return b"\xff\xd9" in data[-_TAIL:]
    return kind == "WEBP" and len(data) >= int.from_bytes(data[4:8], "little") + 8


def _shown(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return repr(text if len(text) <= 200 else text[:200] + "...")


def _read_file(path: str | os.PathLike[str], where: str, max_bytes: int) -> bytes:
    if isinstance(path, str) and "://" in path:
        raise ImageError(f"{where} is a URL; images are never fetched, pass bytes, a path or a PIL image")
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # a pipe or device could block, or never end
        if regular:
            with open(path, "rb") as file:
                return file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raise ImageError(f"{where} is not a regular file")


def _plain(image: Image.Image, where: str, max_pixels: int, max_aspect: float) -> Image.Image:
    _check_size(image, where, max_pixels, max_aspect)
    with _quiet(), _as_image_error(where):
        _check_single(image, where)
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        rgb = _to_rgb(image, where)
        if upright is not None:
            rgb = rgb.transpose(upright)
        if rgb is image and type(rgb) is Image.Image:
            return rgb
        # A new image made of pixels alone: metadata carried along would turn it a second time.
        return Image.frombytes("RGB", rgb.size, rgb.tobytes())


def _check_single(image: Image.Image, where: str) -> None:
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError(f"{where} is animated or has several pages; pass one frame")


def _check_size(image: Image.Image, where: str, max_pixels: int, max_aspect: float) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{where} has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ImageError(f"{where} has {width}x{height} pixels, more than max_pixels={max_pixels}")
    if max(width, height) > max_aspect * min(width, height):
        raise ImageError(f"{where} is {width}x{height}, more elongated than max_aspect={max_aspect:g}")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # Pillow raises many kinds on corrupt EXIF; the pixels are still good, and viewers ignore it too
        return 1


def _to_rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        return _from_sixteen_bit(image, where)
    if image.mode == "F":
        raise ImageError(f"{where} has float pixels, whose range is not known; convert it to 8 bits first")
    if image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_sixteen_bit(image: Image.Image, where: str) -> Image.Image:
    import numpy as np

    grey = np.asarray(image).astype(np.int32)
    # Mode "I" holds 32 bits, yet Pillow saves it as 16-bit PNG and reads 16-bit PGM into it.
    if grey.min() < 0 or grey.max() > 0xFFFF:
        raise ImageError(f"{where} has 32-bit pixels, whose range is not known; convert it to 8 bits first")
    scaled = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    return scaled.convert("RGB")


@contextmanager
def _as_image_error(where: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{where} is not an image in a supported format ({', '.join(_FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{where} claims too many pixels (a decompression bomb?): {error}") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise ImageError(f"{where} cannot be decoded, it may be broken or truncated: {error}") from error


# `warnings.catch_warnings` is not safe in threads, hence the lock; a forked child must not inherit it locked.
_warnings_lock = threading.Lock()


def _new_lock() -> None:
    global _warnings_lock
    _warnings_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings (bombs, corrupt EXIF, odd palettes): our own checks decide."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
