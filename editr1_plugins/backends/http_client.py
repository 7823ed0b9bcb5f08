"""The HTTP client under the official OpenAI client: bounded replies, one allow-list of headers, no redirects.

It sits below the OpenAI client so that the key never enters that client's own objects, log lines or exceptions.
"""

from __future__ import annotations

import base64
import ssl
from functools import cache
from typing import Any

import httpx2

__all__ = ["BoundedClient", "ReplyTooLargeError"]

#: Request headers that may leave; everything else (organisation, project, headers from the environment) stays here.
_SENT = frozenset({"accept", "connection", "content-length", "content-type", "host", "transfer-encoding", "user-agent"})
#: Bytes of an error page worth reading.
_MAX_ERROR_BYTES = 64 * 1024


#: Connections per pool.
_LANE = 8


class ReplyTooLargeError(Exception):
    """The server sent more than the limit; reading stopped there."""


class BoundedClient(httpx2.AsyncClient):
    """An `httpx2.AsyncClient` that reads at most `max_bytes` of a reply and adds the credentials itself.

    Args:
        authorization: value of the Authorization header; None sends none.
        max_bytes: most bytes of one decoded reply body; more raises `ReplyTooLargeError`.
        connections: most connections at a time.
        timeout: as for `httpx2.AsyncClient`.
    """

    def __init__(self, *, authorization: str | None, max_bytes: int, connections: int, timeout: httpx2.Timeout) -> None:
        verify = _ssl_context()
        super().__init__(timeout=timeout, verify=verify)
        self._authorization = authorization
        self._secrets = _secrets(authorization)
        self._max_bytes = max_bytes
        # A pool looks at each of its connections for every request, so several small pools are faster than one of 64.
        sizes = [_LANE] * (connections // _LANE) + [connections % _LANE] * (connections % _LANE > 0)
        self._lanes = [
            _Lane(httpx2.AsyncClient(timeout=timeout, limits=_limits(size), verify=verify), size) for size in sizes
        ]

    async def aclose(self) -> None:
        await super().aclose()
        for lane in self._lanes:
            await lane.client.aclose()

    async def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        lane = min(self._lanes, key=lambda lane: lane.load)
        lane.busy += 1
        try:
            return await self._send_by(lane.client, request, **kwargs)
        finally:
            lane.busy -= 1

    async def _send_by(self, client: httpx2.AsyncClient, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        # Redirects are off: a 307 would carry the images, and the key, to a host the user did not name.
        kwargs.update(stream=True, follow_redirects=False, auth=None)
        response = await client.send(self._outgoing(request), **kwargs)
        try:
            body = await self._read(response)
        finally:
            await response.aclose()
        # The body is decoded here, so the headers that describe its encoding no longer apply.
        dropped = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in dropped]
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)

    def _outgoing(self, request: httpx2.Request) -> httpx2.Request:
        headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() in _SENT]
        headers.append(("Accept-Encoding", "identity"))
        if self._authorization is not None:
            headers.append(("Authorization", self._authorization))
        return httpx2.Request(
            request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
        )

    async def _read(self, response: httpx2.Response) -> bytes:
        is_error = response.status_code >= 400
        limit = min(_MAX_ERROR_BYTES, self._max_bytes) if is_error else self._max_bytes
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > limit:
                if is_error:
                    break
                raise ReplyTooLargeError(f"more than {limit} bytes")
        for secret in self._secrets:
            body = body.replace(secret, b"***")
        return bytes(body[:limit])


class _Lane:
    """A client with a few connections, and how many requests it is busy with."""

    def __init__(self, client: httpx2.AsyncClient, size: int) -> None:
        self.client = client
        self.size = size
        self.busy = 0

    @property
    def load(self) -> float:
        return self.busy / self.size


@cache
def _ssl_context() -> ssl.SSLContext:
    # Loading the authorities' certificates takes up to a quarter of a second; one context serves all clients.
    return httpx2.create_ssl_context()


def _limits(size: int) -> httpx2.Limits:
    # Shorter than the 5 s after which uvicorn (vLLM, SGLang) closes an idle connection: no race with a new request.
    return httpx2.Limits(max_connections=size, max_keepalive_connections=size, keepalive_expiry=4.0)


def _secrets(authorization: str | None) -> list[bytes]:
    """What must not come back in a reply (servers echo headers in error pages): the token and the Basic password.

    Words of fewer than 8 characters are placeholders such as "EMPTY", and would damage honest text.
    """
    scheme, _, token = (authorization or "").partition(" ")
    found = [token.encode()]
    if scheme == "Basic":
        found.append(base64.b64decode(token).partition(b":")[2])
    return [secret for secret in found if len(secret) >= 8]
