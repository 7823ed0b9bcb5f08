"""Any OpenAI-compatible server as a `ChatBackend`: vLLM, SGLang, llama.cpp, `transformers serve`, commercial APIs.

The official `openai` client (extra `[openai]`) speaks the protocol; this module adds what judging needs: many requests
at once with a bound, retries that honour Retry-After, failover between endpoints, whole groups to one endpoint so that
its prefix cache works, and a named failure for everything a server can do wrong. Nothing a server sends raises here.

Which key is sent where: `api_key=`, else $EDITR1_API_KEY, to every given URL; else $OPENAI_API_KEY, to OpenAI's own
hosts (https://api.openai.com and its regions) only. A URL's `user:password@` goes to that URL as Basic authentication.
Keys and passwords are in no repr, log line, failure, identity or pickle; an unpickled backend reads the environment.
Of the official client's other variables only the proxies (HTTPS_PROXY, NO_PROXY, ...) have an effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import logging
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from editr1_plugins.backends.chat import ChatReply, ChatRequest, Sampling
from editr1_plugins.backends.control_tokens import inert
from editr1_plugins.backends.endpoints import Address, Endpoint, EndpointPool, parse_address, resolve_key, split_spec
from editr1_plugins.backends.event_loop import BackgroundLoop
from editr1_plugins.backends.image_uri import ImageURIs
from editr1_plugins.backends.replies import Failure, failed, quote, read_replies
from editr1_plugins.backends.retries import backoff, read_error
from editr1_plugins.errors import ConfigError, ImageError, MissingExtraError

if TYPE_CHECKING:
    import openai

__all__ = ["OpenAIBackend"]

#: Alternatives asked for per token when `Sampling.logprobs`; the most that OpenAI and a stock vLLM give.
_TOP_LOGPROBS = 20
#: Failures that may mean "I do not know the field n".
_REFUSALS = ("bad_request", "unprocessable")
#: Fields that are left out where a server refuses them by name: reasoning models of OpenAI fix their temperature.
_OPTIONAL = ("temperature", "seed")
_log = logging.getLogger(__name__)


class OpenAIBackend:
    """Chat with a model behind one or several OpenAI-compatible endpoints.

    Args:
        model: the model's name as the server knows it.
        base_url: one or several URLs that serve the same model (a sequence, or one string with commas), each usually
            ending in `/v1`; `http://user:password@host/v1` is allowed.
        api_key: sent as Bearer token to every URL; see the module's text for the default. "" sends none.
        timeout: seconds for one attempt, from sending to the last byte; a request that timed out twice is only sent to
            endpoints that it has not tried.
        max_retries: further attempts per request after a failure worth retrying (429, 5xx, broken or lost replies).
        concurrency: most requests in flight at a time, over all endpoints and threads.
        extra_body: fields added to every request; a field set to None is left out instead, for servers that refuse it.
        max_response_bytes: most bytes read of one reply.

    Raises:
        ConfigError: an argument is out of range or a URL is wrong.
        MissingExtraError: the `openai` package is not installed.
    """

    def __init__(
        self,
        model: str,
        base_url: str | Sequence[str],
        api_key: str | None = None,
        *,
        timeout: float = 300.0,
        max_retries: int = 4,
        concurrency: int = 64,
        extra_body: Mapping[str, Any] | None = None,
        max_response_bytes: int = 32 * 2**20,
    ) -> None:
        if not model.strip():
            raise ConfigError("model is blank; give the name that the server lists under GET /models")
        urls = base_url.split(",") if isinstance(base_url, str) else list(base_url)
        if not urls:
            raise ConfigError("base_url is empty; give at least one URL like http://127.0.0.1:8000/v1")
        for name, value, least in (("concurrency", concurrency, 1), ("max_retries", max_retries, 0)):
            if value < least:
                raise ConfigError(f"{name} must be >= {least}, got {value!r}")
        if not 0.0 < timeout < float("inf") or max_response_bytes < 1:
            raise ConfigError(f"timeout and max_response_bytes must be > 0, got {timeout!r}, {max_response_bytes!r}")
        if importlib.util.find_spec("openai") is None:
            raise MissingExtraError("OpenAIBackend requires openai. Install with: pip install 'editr1-plugins[openai]'")
        self.model = model
        self.timeout = timeout
        self.max_retries = max_retries
        self.concurrency = concurrency
        self.extra_body = dict(extra_body or {})
        self.max_response_bytes = max_response_bytes
        self._addresses = tuple(dict.fromkeys(parse_address(url) for url in urls))
        self._key = resolve_key(api_key, self._addresses)
        if self._key and any(address.basic_auth for address in self._addresses):
            raise ConfigError("give either an API key or user:password in base_url, not both; api_key='' sends no key")
        self._start()

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> OpenAIBackend:
        """Build a backend from `MODEL@URL[,URL2]`; options as for the class.

        Raises:
            ConfigError: the model or the URL is missing or wrong.
        """
        model, urls = split_spec(argument)
        return cls(model, urls, **options)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._session: _Session | None = None

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The endpoints, without credentials."""
        return tuple(address.shown for address in self._addresses)

    @property
    def identity(self) -> str:
        """`openai:MODEL@URL[,URL2]`, without credentials; `extra_body`, which changes answers, is in it as a digest."""
        extra = json.dumps(self.extra_body, sort_keys=True, default=str)
        suffix = f" extra_body {hashlib.sha256(extra.encode()).hexdigest()[:8]}" if self.extra_body else ""
        return f"openai:{self.model}@{','.join(self.base_urls)}{suffix}"

    def __repr__(self) -> str:
        key = "'***'" if self._key else None
        return f"OpenAIBackend(model={self.model!r}, base_url={list(self.base_urls)!r}, api_key={key})"

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_session", "_key")}
        state["_addresses"] = tuple(replace(address, basic_auth=None) for address in self._addresses)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._key = resolve_key(None, self._addresses)
        self._start()

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenAIBackend:
        # A copy within the process keeps its credentials; only what is pickled loses them.
        copy = object.__new__(type(self))
        copy.__setstate__(self.__getstate__())
        copy._key, copy._addresses = self._key, self._addresses
        return copy

    def __copy__(self) -> OpenAIBackend:
        return self.__deepcopy__({})

    def complete(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[list[ChatReply]]:
        """Send all requests and wait for all replies; order kept, `sampling.samples` replies per request.

        What fails is a reply with `failure`. Safe from several threads and from code inside a running event loop
        (which waits meanwhile).

        Raises:
            TypeError: a part of a request is neither text nor a PIL image.
        """
        _check_parts(requests)
        if not requests:
            return []
        session = self._live_session()
        return session.loop.run(session.complete(list(requests), sampling))

    def close(self) -> None:
        """Close connections and the background thread; the next `complete` opens new ones."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.loop.close(session.aclose)

    def _live_session(self) -> _Session:
        with self._lock:
            if self._session is None or not self._session.loop.is_usable:
                self._session = _Session(self)
                stop, aclose = self._session.loop.stop, self._session.aclose
                weakref.finalize(self, stop, aclose).atexit = False
            return self._session


def _check_parts(requests: Sequence[ChatRequest]) -> None:
    from PIL.Image import Image

    for index, request in enumerate(requests):
        for part in request.parts:
            if not isinstance(part, (str, Image)):
                raise TypeError(f"request {index}: a part is text or a PIL image, got {type(part).__name__}")


class _Session:
    """The live half of a backend: loop, clients and their state. Its coroutines run on its own loop only."""

    def __init__(self, backend: OpenAIBackend) -> None:
        # No reference to the backend is kept, so that dropping the backend ends the session.
        self._model = backend.model
        self._timeout = backend.timeout
        self._max_retries = backend.max_retries
        self._extra_body = backend.extra_body
        self._pool = EndpointPool([Endpoint(address, _client(backend, address)) for address in backend._addresses])
        self._slots = asyncio.Semaphore(backend.concurrency)
        self._uris = ImageURIs()
        self._asks_for_n = True
        self._left_out: dict[str, None] = {}
        self.loop = BackgroundLoop()

    async def aclose(self) -> None:
        for endpoint in self._pool:
            await endpoint.client.close()

    async def complete(self, requests: list[ChatRequest], sampling: Sampling) -> list[list[ChatReply]]:
        tasks = [asyncio.ensure_future(self._answer(request, sampling)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _answer(self, request: ChatRequest, sampling: Sampling) -> list[ChatReply]:
        """All samples of one request: n=K first, then one request for each sample that did not come."""
        want = sampling.samples
        if want == 1:
            return [await self._single(request, sampling, 0)]
        replies: list[ChatReply] = []
        if self._asks_for_n:
            outcome = await self._send(request, sampling, n=want, index=0)
            if isinstance(outcome, list):
                replies = outcome[:want]
                self._asks_for_n = len(replies) > 1
            elif outcome.word not in _REFUSALS:
                return [failed(outcome)] * want
            else:  # perhaps it is n that is refused: a lone request tells
                first = await self._send(request, sampling, n=1, index=0)
                if isinstance(first, Failure):
                    return [failed(first)] * want
                replies = first[:1]
                self._asks_for_n = False
        rest = (self._single(request, sampling, index) for index in range(len(replies), want))
        return [*replies, *await asyncio.gather(*rest)]

    async def _single(self, request: ChatRequest, sampling: Sampling, index: int) -> ChatReply:
        outcome = await self._send(request, sampling, n=1, index=index)
        return failed(outcome) if isinstance(outcome, Failure) else outcome[0]

    async def _send(self, request: ChatRequest, sampling: Sampling, *, n: int, index: int) -> list[ChatReply] | Failure:
        """One request with its retries, on whichever endpoints it takes."""
        started: float | None = None
        tried: list[Endpoint] = []
        refused: list[str] = []
        timeouts = 0
        while True:
            async with self._slots:
                started = started or time.monotonic()  # waiting for a slot is not the server's latency
                endpoint = self._pool.choose(request.group, avoid=tried)
                outcome = await self._attempt(endpoint, request, sampling, n=n, index=index)
            if isinstance(outcome, list):
                latency = time.monotonic() - started
                return [replace(reply, latency=latency) for reply in outcome]
            if outcome.field in _OPTIONAL and outcome.field not in refused:
                refused.append(outcome.field)
                self._leave_out(outcome.field)
                continue
            tried.append(endpoint)
            timeouts += outcome.word == "timeout"
            hopeless = timeouts > 1 and not self._pool.has_fresh(tried)
            if not outcome.retry or hopeless or len(tried) > self._max_retries:
                times = f" after {len(tried)} attempts" if len(tried) > 1 else ""
                return replace(outcome, detail=f"{outcome.detail} [{endpoint.address.shown}{times}]")
            if outcome.wait is not None:
                endpoint.note_wait(outcome.wait)
            elif not self._pool.has_fresh(tried):
                await asyncio.sleep(backoff(len(tried) - 1))

    def _leave_out(self, field: str) -> None:
        if field not in self._left_out:
            _log.warning("%s refuses the field %r; it is left out from now on", self._model, field)
            self._left_out[field] = None

    async def _attempt(
        self, endpoint: Endpoint, request: ChatRequest, sampling: Sampling, *, n: int, index: int
    ) -> list[ChatReply] | Failure:
        endpoint.in_flight += 1
        try:
            await endpoint.wait_for_permission()
            if endpoint.is_hung:
                return Failure(word="timeout", detail="not asked: the last requests got no reply in time")
            try:
                body = await self._body(endpoint, request, sampling, n=n, index=index)
            except ImageError as error:
                return Failure(word="image", detail=f"not sent: {error}")
            return await self._post(endpoint, body)
        finally:
            endpoint.in_flight -= 1

    async def _post(self, endpoint: Endpoint, body: dict[str, Any]) -> list[ChatReply] | Failure:
        import httpx2
        import openai

        from editr1_plugins.backends.http_client import ReplyTooLargeError

        post = endpoint.client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        try:
            # The client's own timeout restarts with every byte; this one ends a reply that drips for ever.
            response = await asyncio.wait_for(post, self._timeout)
        except (asyncio.TimeoutError, openai.APITimeoutError) as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                endpoint.note_refused()
                return Failure(word="connection", detail="no connection in time", retry=True)
            endpoint.note_timeout()
            return Failure(word="timeout", detail=f"no complete reply within {self._timeout:g} s", retry=True)
        except openai.APIStatusError as error:
            endpoint.note_reply()
            return read_error(error.status_code, error.response.headers, error.response.content)
        except ReplyTooLargeError as error:
            return Failure(word="reply_too_large", detail=f"{error}; reading stopped (see max_response_bytes)")
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, httpx2.ConnectError):
                endpoint.note_refused()
            return Failure(word="connection", detail=f"{type(cause).__name__}: {quote(str(cause))}", retry=True)
        endpoint.note_reply()
        return read_replies(response.content, response.headers.get("content-type", ""))

    async def _body(
        self, endpoint: Endpoint, request: ChatRequest, sampling: Sampling, *, n: int, index: int
    ) -> dict[str, Any]:
        if all(isinstance(part, str) for part in request.parts):
            content = self._content(request)
        else:  # encoding images would hold up the other requests
            content = await asyncio.to_thread(self._content, request)
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if request.system:
            messages.insert(0, {"role": "system", "content": inert(request.system)})
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            # OpenAI renamed the field and its newer models refuse the old name; other servers know the old one.
            "max_completion_tokens" if endpoint.is_openai else "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
        }
        if n > 1:
            body["n"] = n
        if sampling.seed is not None:
            # Samples asked for one by one need seeds of their own, or they would all be the same.
            body["seed"] = sampling.seed + index
        if sampling.logprobs:
            body.update(logprobs=True, top_logprobs=_TOP_LOGPROBS)
        body.update({**self._left_out, **self._extra_body})
        return {name: value for name, value in body.items() if value is not None}

    def _content(self, request: ChatRequest) -> str | list[dict[str, Any]]:
        if len(request.parts) == 1 and isinstance(request.parts[0], str):
            return inert(request.parts[0])  # some servers take only plain text when there is no image
        return [
            {"type": "text", "text": inert(part)}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": self._uris(part)}}
            for part in request.parts
        ]


def _client(backend: OpenAIBackend, address: Address) -> openai.AsyncOpenAI:
    import httpx2
    import openai

    from editr1_plugins.backends.http_client import BoundedClient

    authorization = f"Basic {address.basic_auth}" if address.basic_auth else None
    if backend._key:
        authorization = f"Bearer {backend._key}"
    timeout = httpx2.Timeout(backend.timeout, connect=min(backend.timeout, 10.0), pool=None)
    http_client = BoundedClient(
        authorization=authorization,
        max_bytes=backend.max_response_bytes,
        connections=backend.concurrency,
        timeout=timeout,
    )
    # The key is added below this client (see http_client); retries are ours, because they may change the endpoint.
    return openai.AsyncOpenAI(
        base_url=address.url,
        api_key="added-by-the-http-client",
        admin_api_key="",
        max_retries=0,
        timeout=timeout,
        http_client=http_client,
    )
