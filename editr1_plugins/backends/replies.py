"""From a server's bytes to `ChatReply`s: pure, and prepared for anything a server, a proxy or a crash may send."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from editr1_plugins.backends.chat import ChatReply, TokenLogprob

__all__ = ["Failure", "error_text", "failed", "quote", "read_replies"]

#: Characters of foreign text quoted in a failure.
_QUOTED = 200


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a request got no reply.

    Attributes:
        word: short, for counters.
        detail: what happened, and the fix.
        retry: whether another try may help.
        wait: seconds the server asked to wait before it.
        field: the field of the request that the server refuses, where it names one.
    """

    word: str
    detail: str
    retry: bool = False
    wait: float | None = None
    field: str | None = None

    def __str__(self) -> str:
        return f"{self.word}: {self.detail}"


def read_replies(body: bytes, content_type: str) -> list[ChatReply] | Failure:
    """Read an OpenAI-compatible chat completion.

    Args:
        body: the reply's bytes, already bounded in size.
        content_type: the reply's media type.

    Returns:
        One `ChatReply` per usable entry of `choices`, in order (at least one); or the `Failure` of the whole reply.
    """
    payload = _load(body, content_type)
    if isinstance(payload, Failure):
        return payload
    error = payload.get("error")
    if error and not payload.get("choices"):
        return Failure(
            word="server_error", detail=f"status 200, but the body says: {quote(error_text(error))}", retry=True
        )
    if not isinstance(payload.get("choices"), list):
        return Failure(
            word="no_choices", detail="the reply has no list 'choices'; is this a chat endpoint?", retry=True
        )
    if not payload["choices"]:
        return Failure(word="empty_choices", detail="the reply's 'choices' is empty", retry=True)
    counts = _usage(payload.get("usage"))
    # The server counts the sum of its choices: the first carries it, so that sums over samples come out right.
    others = {name: count for name, count in counts.items() if name != "completion_tokens"}
    return [_read_choice(choice, others if index else counts) for index, choice in enumerate(payload["choices"])]


def _load(body: bytes, content_type: str) -> dict[str, Any] | Failure:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        start = body[:_QUOTED].decode("utf-8", "replace")
        if "html" in content_type.lower() or start.lstrip().lower().startswith(("<!doctype", "<html")):
            return Failure(
                word="html",
                detail=f"a web page came instead of JSON; is base_url the API (it usually ends in /v1)? {quote(start)}",
                retry=True,
            )
        at = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        return Failure(word="bad_json", detail=f"the reply is not complete JSON{at}: {quote(start)}", retry=True)
    if not isinstance(payload, dict):
        return Failure(
            word="bad_json", detail=f"the reply is a JSON {type(payload).__name__}, not an object", retry=True
        )
    return payload


def _read_choice(choice: object, counts: dict[str, Any]) -> ChatReply:
    """One sample; what is wrong with it is its own failure and leaves its siblings alone."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return failed(Failure(word="no_message", detail="an entry of 'choices' has no 'message'"), **counts)
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or ""
    finish = choice.get("finish_reason")
    finish_reason = finish if isinstance(finish, str) and finish else "stop"
    text = _text(message.get("content"))
    refusal = _text(message.get("refusal"))
    if refusal and not text:
        return failed(Failure(word="refusal", detail=quote(refusal)), reasoning=reasoning, **counts)
    # Cut or filtered replies may have no content; the finish reason says it, and the transport did its work.
    if text is None and finish_reason not in ("length", "content_filter"):
        detail = f"the message has no text content (finish_reason {finish_reason!r})"
        return failed(Failure(word="null_content", detail=detail), reasoning=reasoning, **counts)
    return ChatReply(
        text=text or "",
        reasoning=reasoning,
        finish_reason=finish_reason,
        logprobs=_logprobs(choice.get("logprobs")),
        **counts,
    )


def failed(failure: Failure, *, reasoning: str = "", **counts: Any) -> ChatReply:
    """A reply that carries a failure."""
    return ChatReply(finish_reason="error", failure=str(failure), reasoning=reasoning, **counts)


def _text(content: object) -> str | None:
    """Text of a message's field: a string, or a list of text parts; None for anything else."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str)) if parts else None
    if not isinstance(content, str):
        return None
    # JSON can smuggle lone surrogates, which no file or database would take.
    return content.encode("utf-8", "replace").decode("utf-8")


def _usage(usage: object) -> dict[str, Any]:
    if not isinstance(usage, dict):
        return {}
    details = usage.get("prompt_tokens_details")
    found = {
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "cached_tokens": details.get("cached_tokens") if isinstance(details, dict) else None,
    }
    return {name: value for name, value in found.items() if type(value) is int and value >= 0}


def _logprobs(logprobs: object) -> tuple[TokenLogprob, ...] | None:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return None
    tokens = []
    for entry in content:
        pair = _token(entry)
        if pair is None:  # positions would no longer match the text
            return None
        top = entry.get("top_logprobs")
        alternatives = [_token(other) for other in top] if isinstance(top, list) else []
        found = sorted((other for other in alternatives if other is not None), key=lambda other: -other[1])
        tokens.append(TokenLogprob(token=pair[0], logprob=pair[1], top=tuple(found)))
    return tuple(tokens)


def _token(entry: object) -> tuple[str, float] | None:
    if not isinstance(entry, dict):
        return None
    token, logprob = _text(entry.get("token")), entry.get("logprob")
    if token is None or isinstance(logprob, bool) or not isinstance(logprob, (int, float)):
        return None
    # Rounding makes some servers report a hair above 0; -inf is an honest "never".
    return None if math.isnan(logprob) else (token, min(float(logprob), 0.0))


def error_text(error: object) -> str:
    """The human part of a server's error body: the innermost message, or the validation messages of a list."""
    for _ in range(4):  # {"error": {"message": ...}} is two deep; hostile nesting is not followed
        inner = (
            next((error[key] for key in ("message", "detail", "error") if error.get(key)), None)
            if isinstance(error, dict)
            else None
        )
        if inner is None:
            break
        error = inner
    if isinstance(error, list):
        error = "; ".join(str(item["msg"]) for item in error[:3] if isinstance(item, dict) and "msg" in item) or error
    try:
        return str(error)
    except RecursionError:
        return "(an error nested too deeply to quote)"


def quote(text: str) -> str:
    """Foreign text on one line, cut to a length that fits a log."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _QUOTED else line[:_QUOTED] + "...")
