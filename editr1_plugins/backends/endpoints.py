"""Where a model is served: base URLs without their secrets, and which of them gets a request."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from editr1_plugins.errors import ConfigError

__all__ = ["Address", "Endpoint", "EndpointPool", "parse_address", "resolve_key", "split_spec"]

#: Seconds that an endpoint which refused a connection is left alone while another one works.
_COOL_DOWN = 15.0
#: Timeouts in a row, with no reply between, after which an endpoint counts as hung.
_STALL_LIMIT = 8
#: Seconds during which nothing more is sent to a hung endpoint, so that a long queue fails fast and the run goes on.
_STALL_PAUSE = 30.0


@dataclass(frozen=True, kw_only=True)
class Address:
    """A base URL in three pieces: what is requested, what people may see, and the credentials it carried."""

    url: str
    shown: str
    basic_auth: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse_address(base_url: str) -> Address:
    """Split a base URL into `Address`; `http://user:password@host/v1` becomes Basic authentication.

    Raises:
        ConfigError: not an http(s) URL with a host, or one with a query or fragment.
    """
    text = base_url.strip()
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ConfigError("base_url contains blanks or control characters; give one like http://127.0.0.1:8000/v1")
    try:
        split = urlsplit(text)
        port = split.port
    except ValueError:
        raise ConfigError("base_url is not a URL; give one like http://127.0.0.1:8000/v1") from None
    # A query may hold a key and would appear in the HTTP library's own log lines, so it is refused, unquoted.
    if split.query or split.fragment:
        raise ConfigError("base_url must have no '?query' or '#fragment'; give the key as api_key=...")
    if split.scheme not in ("http", "https") or not split.hostname:
        raise ConfigError("base_url must start with http:// or https:// and name a host, e.g. http://127.0.0.1:8000/v1")
    host = f"[{split.hostname}]" if ":" in split.hostname else split.hostname
    netloc = host if port is None else f"{host}:{port}"
    url = urlunsplit((split.scheme, netloc, split.path.rstrip("/"), "", ""))
    if split.username is None and split.password is None:
        return Address(url=url, shown=url)
    pair = f"{unquote(split.username or '')}:{unquote(split.password or '')}"
    basic = base64.b64encode(pair.encode()).decode("ascii")
    return Address(url=url, shown=url.replace("://", "://***@", 1), basic_auth=basic)


def split_spec(argument: str) -> tuple[str, tuple[str, ...]]:
    """Split `MODEL@URL[,URL2]` (what follows `openai:` in a spec string) into the model's name and its URLs.

    The split is at the last "@" before "http://" or "https://", so model names may contain "/" and "@".

    Raises:
        ConfigError: the model or the URL is missing. The text is not quoted: it may hold a password.
    """
    places = [found.start() for found in re.finditer(r"@(?=https?://)", argument)]
    model = argument[: places[-1]].strip() if places else ""
    if not model:
        missing = "model" if places or "://" in argument else "URL"
        raise ConfigError(
            f"the {missing} is missing; write MODEL@URL, e.g. openai:Qwen/Qwen2.5-VL-7B-Instruct@http://127.0.0.1:8000/v1"
        )
    return model, tuple(url.strip() for url in argument[places[-1] + 1 :].split(",") if url.strip())


def resolve_key(api_key: str | None, addresses: Iterable[Address]) -> str | None:
    """Which API key is sent: the argument, else $EDITR1_API_KEY, else $OPENAI_API_KEY to OpenAI's own hosts only.

    Raises:
        ConfigError: the key cannot stand in a header.
    """
    key = os.environ.get("EDITR1_API_KEY") if api_key is None else api_key
    if api_key is None and not key and all(_is_openai(address.url) for address in addresses):
        key = os.environ.get("OPENAI_API_KEY")
    key = (key or "").strip()
    # The HTTP library would quote a key with such characters in its error.
    if not key.isascii() or not key.isprintable():
        raise ConfigError("the API key contains characters that no key has; was it read from a file with other text?")
    return key or None


def _is_openai(url: str) -> bool:
    split = urlsplit(url)
    host = split.hostname or ""
    return split.scheme == "https" and (host == "api.openai.com" or host.endswith(".api.openai.com"))


class Endpoint:
    """One server: its address, its client, and how it has behaved lately. Used by one event loop only."""

    def __init__(self, address: Address, client: Any) -> None:
        self.address = address
        self.client = client
        self.is_openai = _is_openai(address.url)
        self.in_flight = 0
        self._resume_at = -math.inf
        self._down_until = -math.inf
        self._stalls = 0

    @property
    def is_up(self) -> bool:
        """Neither refusing connections, nor hung, nor asking to wait."""
        return time.monotonic() >= max(self._down_until, self._resume_at)

    @property
    def is_hung(self) -> bool:
        """No reply to the last requests within the timeout, and the pause is not over."""
        return self._stalls >= _STALL_LIMIT and time.monotonic() < self._down_until

    async def wait_for_permission(self) -> None:
        """Sleep until the server's Retry-After is over, plus a little jitter so that not all come back at once."""
        remaining = self._resume_at - time.monotonic()
        if remaining > 0.0:
            await asyncio.sleep(remaining + random.uniform(0.0, min(1.0, 0.25 * remaining)))

    def note_reply(self) -> None:
        """The server answered something (an error status too): it is alive."""
        self._stalls = 0
        self._down_until = -math.inf

    def note_refused(self) -> None:
        self._down_until = time.monotonic() + _COOL_DOWN

    def note_timeout(self) -> None:
        self._stalls += 1
        if self._stalls >= _STALL_LIMIT:
            self._down_until = time.monotonic() + _STALL_PAUSE

    def note_wait(self, seconds: float) -> None:
        """The server asked everybody to wait (Retry-After)."""
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)


class EndpointPool:
    """Picks the endpoint for a request.

    A group goes to the endpoint that a hash of (group, URL) ranks first, so that all processes of a run agree without
    talking, and the loss of one endpoint moves only its own groups. A request without a group goes to the least busy.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def choose(self, group: str, avoid: Iterable[Endpoint] = ()) -> Endpoint:
        """Return the best endpoint that is up and not in `avoid`; failing that, any that is up; failing that, any."""
        avoided = set(map(id, avoid))
        up = [endpoint for endpoint in self._endpoints if endpoint.is_up]
        fresh = [endpoint for endpoint in up if id(endpoint) not in avoided]
        candidates = (
            fresh or up or [endpoint for endpoint in self._endpoints if not endpoint.is_hung] or self._endpoints
        )
        if group:
            return max(candidates, key=lambda endpoint: _rank(group, endpoint.address.url))
        return min(candidates, key=lambda endpoint: endpoint.in_flight)

    def has_fresh(self, tried: Iterable[Endpoint]) -> bool:
        """Whether an endpoint that is up has not been tried."""
        avoided = set(map(id, tried))
        return any(endpoint.is_up and id(endpoint) not in avoided for endpoint in self._endpoints)


def _rank(group: str, url: str) -> bytes:
    return hashlib.blake2b(f"{group}\n{url}".encode("utf-8", "replace"), digest_size=8).digest()
