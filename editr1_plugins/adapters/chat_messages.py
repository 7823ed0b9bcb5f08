"""What chat messages hold, as inspect_ai and verifiers write them: pictures and text, by the names of their parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["pictures_in", "text_in"]


def pictures_in(messages: Iterable[Any]) -> list[Any]:
    """The images of all messages in order: each a text (a data URI, base64, a path or URL) as the host holds it."""
    found = []
    for part in _parts(messages):
        kind = getattr(part, "type", None)
        if kind == "image":
            found.append(part.image)
        elif kind == "image_url":
            found.append(part.image_url.url)
    return found


def text_in(messages: Iterable[Any]) -> str:
    """The words of all messages, a line break between two parts; "" where there are none."""
    texts = [part if isinstance(part, str) else getattr(part, "text", "") for part in _parts(messages)]
    return "\n".join(text for text in texts if isinstance(text, str) and text.strip())


def _parts(messages: Iterable[Any]) -> Iterable[Any]:
    for message in messages:
        content = message.content
        if isinstance(content, str):
            yield content
        elif content:
            yield from content
