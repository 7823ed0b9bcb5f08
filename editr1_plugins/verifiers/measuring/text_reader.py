"""Reads the text in an image, by optical character recognition: extra `[ocr]`, rapidocr-onnxruntime.

Its models (PP-OCRv4, Chinese and English) lie in its wheel, so nothing is downloaded. It reads signs and turned lines,
and often leaves out spaces. One reader per process, loaded when the first image is read (about 1 s, 100 MB), with one
thread: spinning threads cost a trainer's cores more than they gain. An image of 512 pixels a side takes about 0.1 s,
one of 1024 about 0.6 s; what was read last is remembered.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from editr1_plugins.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SMALLEST_SIDE", "TextLine", "known_signs", "read_text", "require_reader"]

_ENGINE: Final = "rapidocr_onnxruntime"
#: Pixels of the shorter side below which an image is not read.
SMALLEST_SIDE: Final = 48
_LARGEST: Final = 1600  # pixels of the longer side; larger images are box-averaged first
_READ_AT: Final = 480  # pixels of the shorter side to which the reader enlarges small images
_NOT_INSTALLED: Final = (
    "reading text in images needs an extra: pip install 'editr1-plugins[ocr]' (rapidocr-onnxruntime; Python below 3.13)"
)
_BROKEN: Final = (
    "rapidocr-onnxruntime (extra [ocr]) is installed but cannot be imported: {error}. If that is a library such as "
    "libGL.so.1, opencv-python wants it: install it (Debian, Ubuntu: apt-get install libgl1 libglib2.0-0), or use the "
    "build without windows: pip uninstall opencv-python, then pip install opencv-python-headless"
)
#: What was read last: verifier and guard look at the same images, and all candidates have one source.
_REMEMBERED: Final = 256
_read: OrderedDict[tuple[tuple[int, int], bytes], tuple[TextLine, ...]] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class TextLine:
    """A line of text as read: its bounding box (left, top, right, bottom) in 0..1 of the image, and confidence 0..1."""

    text: str
    box: tuple[float, float, float, float]
    confidence: float


def require_reader() -> None:
    """Import the reader, without loading its models.

    Raises:
        MissingExtraError: the extra is not installed, or a library that it needs is missing; says what to install.
    """
    if failure := _failure():
        raise MissingExtraError(failure)


@lru_cache(maxsize=1)
def _failure() -> str | None:
    if find_spec(_ENGINE) is None:
        return _NOT_INSTALLED
    try:
        import_module(_ENGINE)
    except ImportError as error:
        return _BROKEN.format(error=error)
    return None


def read_text(image: Image) -> list[TextLine]:
    """Lines of text in the image from top to bottom, those read with confidence 0.5 or more; [] for tiny images.

    Raises:
        MissingExtraError: see `require_reader`.
    """
    if min(image.size) < SMALLEST_SIDE:
        return []
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if (factor := -(-max(rgb.size) // _LARGEST)) > 1:
        rgb = rgb.reduce(factor)
    engine = _engine()
    data = rgb.tobytes()
    key = (rgb.size, blake2b(data, digest_size=16).digest())
    with _lock:
        if key not in _read:
            # The reader takes BGR arrays; it is never handed a path or a URL.
            pixels = np.frombuffer(data, np.uint8).reshape(rgb.height, rgb.width, 3)
            found, _ = engine(np.ascontiguousarray(pixels[:, :, ::-1]))
            _read[key] = tuple(_line(corners, text, float(score), rgb.size) for corners, text, score in found or [])
            if len(_read) > _REMEMBERED:
                _read.popitem(last=False)
        _read.move_to_end(key)
        return list(_read[key])


def known_signs() -> frozenset[str]:
    """The characters that the reader can tell; loads it.

    Raises:
        MissingExtraError: see `require_reader`.
    """
    return frozenset(_engine().text_rec.postprocess_op.character)


def _engine() -> Any:
    require_reader()
    with _lock:
        return _loaded()


@lru_cache(maxsize=1)
def _loaded() -> Any:
    options = {"intra_op_num_threads": 1, "inter_op_num_threads": 1, "det_limit_side_len": _READ_AT}
    return import_module(_ENGINE).RapidOCR(**options)


def _line(corners: Sequence[Sequence[float]], text: str, confidence: float, size: tuple[int, int]) -> TextLine:
    xs, ys = zip(*corners, strict=True)
    box = (min(xs) / size[0], min(ys) / size[1], max(xs) / size[0], max(ys) / size[1])
    return TextLine(text=text, box=box, confidence=confidence)
