"""Reading the bodies of requests: bounded each, bounded together, and within a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from editr1_plugins.adapters.server.queueing import BusyError

__all__ = ["Bodies", "BodyTooLargeError", "BodyTooSlowError"]

_SLOWEST: Final = 2**16  # bytes a second that a client must manage, beyond the time that is given to each
_FULL_RETRY: Final = 2  # seconds


class BodyTooLargeError(Exception):
    """A body is larger than it may be."""


class BodyTooSlowError(Exception):
    """A client did not send its body in time."""


class Bodies:
    """The bodies that a server holds at a time.

    Args:
        max_body, max_bodies, read_timeout: see `ServerSettings`.
    """

    def __init__(self, max_body: int, max_bodies: int, read_timeout: float) -> None:
        self._max_body, self._max_bodies, self._timeout = max_body, max_bodies, read_timeout
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes for which there is no room for others now."""
        return self._held

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body of `request`, counted until the context ends.

        Raises:
            BodyTooLargeError, BodyTooSlowError, BusyError: it was not read, or not to its end.
            ClientDisconnect: the client left.
        """
        length = request.headers.get("content-length")
        expected = int(length) if length is not None and length.isdigit() else None
        if expected is not None and expected > self._max_body:
            await self._discard(request)
            raise BodyTooLargeError(f"the body has {expected} bytes, at most {self._max_body} are taken")
        room = self._max_body if expected is None else expected
        if self._held + room > self._max_bodies:
            await self._discard(request)
            raise BusyError(_FULL_RETRY)
        self._held += room
        try:
            yield await self._read(request, room)
        finally:
            self._held -= room

    async def _read(self, request: Request, room: int) -> bytes:
        pieces, size = [], 0
        async for piece in self._pieces(request, self._timeout + room / _SLOWEST):
            size += len(piece)
            if size > room:
                raise BodyTooLargeError(f"the body has more than {room} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def _discard(self, request: Request) -> None:
        """Read what is not wanted, for a while: a client that is cut off while it sends does not see the answer."""
        if request.headers.get("expect"):
            return  # it waits for a word before it sends
        size = 0
        try:
            async for piece in self._pieces(request, self._timeout):
                size += len(piece)
                if size > 4 * self._max_body:
                    return
        except (BodyTooSlowError, ClientDisconnect):
            return

    @staticmethod
    async def _pieces(request: Request, seconds: float) -> AsyncIterator[bytes]:
        end = time.monotonic() + seconds
        more = True
        while more:
            try:
                message = await asyncio.wait_for(request.receive(), max(0.001, end - time.monotonic()))
            except asyncio.TimeoutError:
                raise BodyTooSlowError("the body did not come in time") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            yield message.get("body", b"")
