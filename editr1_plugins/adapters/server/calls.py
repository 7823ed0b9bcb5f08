"""What all wire forms share: edits as they arrive, encoded and checked by their headers, and calls to answer."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from editr1_plugins.errors import DataError, ImageError
from editr1_plugins.images import check_image
from editr1_plugins.types import Verification

__all__ = ["Answer", "Call", "EncodedEdit", "Form", "ImageReader", "json_object", "list_of", "problem", "text_of"]

_MAX_TEXT: Final = 20_000  # characters of an instruction; longer ones are no instructions, and judges pay for each


@dataclass(frozen=True, kw_only=True)
class EncodedEdit:
    """An edit whose images are still encoded; `pixels` is how many both have together, by their headers."""

    source: bytes
    edited: bytes
    instruction: str
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is sent back: a status, a body, its type; `filled` counts rewards that stand in for missing scores."""

    status: int
    body: bytes
    media_type: str = "application/json"
    filled: int = 0

    @classmethod
    def json(cls, content: object, status: int = 200, filled: int = 0) -> Answer:
        """`content` as JSON; NaN and infinity, which are no JSON, raise ValueError."""
        body = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        return cls(status=status, body=body.encode("utf-8", "replace"), filled=filled)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, read.

    Attributes:
        edits: in the request's order; the reason as text where there is no edit to judge.
        answer: makes the answer out of one verification per edit.
    """

    edits: Sequence[EncodedEdit | str]
    answer: Callable[[Sequence[Verification]], Answer]


class Form(Protocol):
    """How one kind of client asks and wants to be answered."""

    route: str

    def read(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            DataError: the request as a whole is malformed.
        """

    def problem(self, status: int, message: str, request_id: str) -> Answer:
        """The answer to a request that is not judged, or not answered with scores; `status` is what HTTP has for it."""


class ImageReader:
    """Encoded images out of JSON or pickled data, within limits.

    Args:
        max_pixels, max_bytes: of one image.
    """

    def __init__(self, max_pixels: int, max_bytes: int) -> None:
        self._max_pixels, self._max_bytes = max_pixels, max_bytes

    def edit(self, source: object, edited: object, instruction: object) -> EncodedEdit | str:
        """An edit, or why there is none.

        Args:
            source, edited: bytes of an encoded image, or base64 of them, also as a data URI.
            instruction: text.
        """
        try:
            text = text_of(instruction, "the instruction")
            before, pixels_before = self._image(source, "source image")
            after, pixels_after = self._image(edited, "edited image")
        except DataError as error:
            return f"bad_request: {error}"
        return EncodedEdit(source=before, edited=after, instruction=text, pixels=pixels_before + pixels_after)

    def _image(self, value: object, what: str) -> tuple[bytes, int]:
        data = value if isinstance(value, bytes) else self._decoded(value, what)
        try:
            width, height = check_image(data, max_pixels=self._max_pixels, max_bytes=self._max_bytes)
        except ImageError as error:
            raise DataError(f"{what}: {error}") from error
        return data, width * height

    def _decoded(self, value: object, what: str) -> bytes:
        if value is None:
            raise DataError(f"there is no {what}")
        if not isinstance(value, str):
            raise DataError(f"the {what} is a {type(value).__name__}, not base64 text")
        if value[:64].lstrip().startswith(("http:", "https:", "file:")):
            raise DataError(f"the {what} is a URL, and those found in data are never opened; send base64")
        if value.startswith("data:"):
            value = value[value.find(",") + 1 :]
        if len(value) > (self._max_bytes + 2) // 3 * 4 + 4:
            raise DataError(f"the {what} has more than {self._max_bytes} bytes")
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"the {what} is not base64: {error}") from error


def text_of(value: object, what: str) -> str:
    """`value`, which must be text that is not blank.

    Raises:
        DataError: it is not, or it is too long.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{what} must be text that is not blank, got {type(value).__name__}")
    if len(value) > _MAX_TEXT:
        raise DataError(f"{what} has more than {_MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON may carry half of a surrogate pair
        raise DataError(f"{what} is no Unicode text: {error.reason}") from error
    return value


def json_object(body: bytes) -> Mapping[str, Any]:
    """The JSON object in a body.

    Raises:
        DataError: it holds none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"the body must be a JSON object, got {type(value).__name__}")
    return value


def list_of(value: Mapping[str, Any], key: str, length: int | None = None) -> list[Any]:
    """The list under `key`, of `length` where one is given.

    Raises:
        DataError: there is none.
    """
    found = value.get(key)
    if not isinstance(found, list):
        raise DataError(f"{key!r} must be a list, got {type(found).__name__}")
    if length is not None and len(found) != length:
        raise DataError(f"{key!r} has {len(found)} entries, expected {length}")
    return found


def problem(status: int, message: str, request_id: str) -> Answer:
    """The usual answer to what went wrong: `{"error", "request_id"}` with an HTTP status that says so."""
    return Answer.json({"error": message, "request_id": request_id}, status)
