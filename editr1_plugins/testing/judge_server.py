"""A scripted judge: a real HTTP server that speaks the OpenAI chat protocol and misbehaves on request.

For tests of verifiers, decomposers and backends, ours and a plugin's. Standard library only.

    with JudgeServer(["<score>7.5</score>"]) as server:
        backend = OpenAIBackend("judge", server.url)
        ...
    assert server.requests[0].texts == (...)

A script is a text, a `Scripted`, a list of them (one per request, the last one again and again), or a function of the
`Received` request that returns one. `Scripted(fault="503")` plays one of `FAULTS` instead of answering.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Final

__all__ = ["FAULTS", "Answer", "JudgeServer", "Received", "Script", "Scripted"]

#: Everything a server is known to do wrong, by name, with what happens.
FAULTS: Final[Mapping[str, str]] = {
    "html200": "status 200 with a web page",
    "cut_json": "status 200 with half of the JSON",
    "no_choices": "no field 'choices'",
    "empty_choices": "an empty list 'choices'",
    "fewer": "one choice less than asked for (at least one)",
    "one_choice": "one choice, whatever n says",
    "null_content": "content null",
    "length": "the text cut in half, finish_reason 'length'",
    "content_filter": "content null, finish_reason 'content_filter'",
    "400": "status 400",
    "401": "status 401; the page repeats the request's Authorization header",
    "403": "status 403",
    "404": "status 404",
    "413": "status 413",
    "422": "status 422",
    "429": "status 429 with Retry-After",
    "500": "status 500",
    "503": "status 503",
    "redirect": "status 307 to another path of this server",
    "reset": "the connection is reset before any answer",
    "stall": "no byte is sent until the server closes",
    "drip": "headers, then one blank every 20 ms for ever",
    "endless": "garbage as fast as it is read, for ever",
}
_STATUS: Final = {"redirect": 307, **{name: int(name) for name in FAULTS if name.isdigit()}}


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """One scripted answer.

    Attributes:
        text: the content of every choice; a sequence gives each choice its own (the last one again and again).
        reasoning: the separate field `reasoning_content` of every choice; "" leaves it out.
        finish_reason: of every choice.
        fault: a name from `FAULTS`; None answers properly.
        latency: seconds before the answer.
        retry_after: value of the header Retry-After, for the statuses that are faults; None leaves it out.
        logprobs: the OpenAI structure `{"content": [...]}` for every choice.
        cached_tokens: what `usage.prompt_tokens_details.cached_tokens` says.

    Raises:
        ValueError: an unknown fault.
    """

    text: str | Sequence[str] = "<score>5.0</score>"
    reasoning: str = ""
    finish_reason: str = "stop"
    fault: str | None = None
    latency: float = 0.0
    retry_after: str | None = None
    logprobs: Mapping[str, Any] | None = None
    cached_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"unknown fault {self.fault!r}; one of: {', '.join(FAULTS)}")


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request as the server saw it.

    Attributes:
        index: how many chat requests came before it.
        path: the URL's path.
        headers: names in lower case.
        body: the JSON body.
        at: `time.monotonic()` when it was complete.
    """

    index: int
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any] = field(repr=False)
    at: float

    @property
    def parts(self) -> tuple[Mapping[str, Any], ...]:
        """Content parts of all messages in order; plain text content is one text part."""
        found: list[Mapping[str, Any]] = []
        for message in self.body.get("messages", ()):
            content = message.get("content") or ()
            found += [{"type": "text", "text": content}] if isinstance(content, str) else content
        return tuple(found)

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the messages, in order."""
        return tuple(part["text"] for part in self.parts if part.get("type") == "text")

    @property
    def images(self) -> tuple[bytes, ...]:
        """The encoded images that came as data URIs, in order."""
        urls = [part["image_url"]["url"] for part in self.parts if part.get("type") == "image_url"]
        return tuple(base64.b64decode(url.partition(",")[2]) for url in urls)


Answer = str | Scripted
Script = Answer | Sequence[Answer] | Callable[[Received], Answer]


class JudgeServer:
    """An HTTP server on 127.0.0.1 with a free port; a context manager.

    Args:
        script: what to answer, see the module's text.
        model: the model's name under `/v1/models` and in replies.
        ignores_n: always give one choice.
        refuses_n: status 422 for a request with `n`.
        refuses: fields for which a request gets status 400 that names the field, as OpenAI's reasoning models do.
        latency: seconds before every answer, besides the script's.

    Attributes:
        requests: the chat requests so far (`Received`), in the order of arrival.
        peak: most chat requests that were being answered at the same time.
    """

    def __init__(
        self,
        script: Script = "<score>5.0</score>",
        *,
        model: str = "judge",
        ignores_n: bool = False,
        refuses_n: bool = False,
        refuses: Sequence[str] = (),
        latency: float = 0.0,
    ) -> None:
        self.model = model
        self.ignores_n = ignores_n
        self.refuses_n = refuses_n
        self.refuses = tuple(refuses)
        self.latency = latency
        self.requests: list[Received] = []
        self.peak = 0
        self._script = script
        self._active = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.judge = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The base URL, ending in /v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> JudgeServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut the open connections; stalled answers end."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._server.shutdown()
        self._server.cut_connections()
        self._server.server_close()
        self._thread.join(timeout=5)

    def _receive(self, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[Received, Scripted]:
        with self._lock:
            request = Received(index=len(self.requests), path=path, headers=headers, body=body, at=time.monotonic())
            self.requests.append(request)
            self._active += 1
            self.peak = max(self.peak, self._active)
        if callable(self._script):
            answer = self._script(request)
        elif isinstance(self._script, (str, Scripted)):
            answer = self._script
        else:
            answer = self._script[min(request.index, len(self._script) - 1)]
        return request, Scripted(text=answer) if isinstance(answer, str) else answer

    def _done(self) -> None:
        with self._lock:
            self._active -= 1

    def _wait(self, seconds: float | None) -> None:
        self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    judge: JudgeServer

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client was faster
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave as two writes; with Nagle's algorithm the second would wait 40 ms.
    disable_nagle_algorithm = True
    server: _Server
    _pages: ClassVar[Mapping[str, str]] = {"html200": "<!DOCTYPE html><html><body>Welcome to nginx!</body></html>"}

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: tests read `requests`."""

    def do_GET(self) -> None:
        if self.path.rstrip("/").endswith("/models"):
            self._send_json(200, {"object": "list", "data": [{"id": self.server.judge.model, "object": "model"}]})
        else:
            self._send_json(404, {"error": {"message": f"no such path: {self.path}"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.path.endswith("/v1/chat/completions"):
            self._send_json(404, {"error": {"message": f"no such path: {self.path}"}})
            return
        judge = self.server.judge
        headers = {name.lower(): value for name, value in self.headers.items()}
        request, answer = judge._receive(self.path, headers, json.loads(body))
        try:
            judge._wait(judge.latency + answer.latency)
            self._answer(request, answer)
        finally:
            judge._done()

    def _answer(self, request: Received, answer: Scripted) -> None:
        judge = self.server.judge
        fault = answer.fault
        refused = next((field for field in judge.refuses if field in request.body), None)
        if refused is not None:
            message = f"Unsupported value: {refused!r} does not support that value with this model."
            self._send_json(400, {"error": {"message": message, "param": refused, "code": "unsupported_value"}})
        elif fault is None and judge.refuses_n and "n" in request.body:
            self._send_json(422, {"detail": [{"loc": ["body", "n"], "msg": "Extra inputs are not permitted"}]})
        elif fault in _STATUS:
            self._send_status(request, answer, _STATUS[fault])
        elif fault == "reset":
            # SO_LINGER with 0 seconds turns close() into a TCP reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault == "stall":
            judge._wait(None)
            self.close_connection = True
        elif fault in ("drip", "endless"):
            self._send_for_ever(fault)
        elif fault == "html200":
            self._send(200, self._pages[fault].encode(), "text/html")
        else:
            data = json.dumps(_completion(request, answer, judge)).encode()
            self._send(200, data[: len(data) // 2] if fault == "cut_json" else data)

    def _send_status(self, request: Received, answer: Scripted, status: int) -> None:
        said = f"scripted status {status}"
        if status == 401:
            said += f"; you sent {request.headers.get('authorization')}"
        headers = {} if answer.retry_after is None else {"Retry-After": answer.retry_after}
        if status == 307:
            headers["Location"] = self.path
        self._send_json(status, {"error": {"message": said, "code": status}}, headers)

    def _send_for_ever(self, fault: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.close_connection = True
        block = b" " if fault == "drip" else b'{"choices": [' * 4096
        while not self.server.judge._closing.is_set():
            self.wfile.write(block)
            if fault == "drip":
                self.server.judge._wait(0.02)

    def _send_json(self, status: int, payload: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(payload).encode(), headers=headers)

    def _send(
        self, status: int, data: bytes, kind: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _completion(request: Received, answer: Scripted, judge: JudgeServer) -> dict[str, Any]:
    count = 1 if judge.ignores_n or answer.fault == "one_choice" else int(request.body.get("n") or 1)
    if answer.fault == "fewer":
        count = max(1, count - 1)
    texts = [answer.text] if isinstance(answer.text, str) else list(answer.text)
    choices = [_choice(index, texts[min(index, len(texts) - 1)], answer) for index in range(count)]
    prompt_tokens = sum(len(text) // 4 for text in request.texts) + 100 * len(request.images)
    completion_tokens = sum(len(choice["message"]["content"] or "") // 4 for choice in choices)
    usage: dict[str, Any] = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    if answer.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": answer.cached_tokens}
    reply = {"id": f"chatcmpl-{request.index}", "object": "chat.completion", "model": judge.model, "usage": usage}
    if answer.fault == "empty_choices":
        choices = []
    return reply if answer.fault == "no_choices" else {**reply, "choices": choices}


def _choice(index: int, text: str, answer: Scripted) -> dict[str, Any]:
    content: str | None = text
    finish_reason = answer.finish_reason
    if answer.fault in ("null_content", "content_filter"):
        content = None
    elif answer.fault == "length":
        content = text[: len(text) // 2]
    if answer.fault in ("length", "content_filter"):
        finish_reason = answer.fault
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    return {"index": index, "message": message, "finish_reason": finish_reason, "logprobs": answer.logprobs}
