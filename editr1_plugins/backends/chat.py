"""The one seam between this package and any VLM: a turn of text and images in, sampled replies out.

A backend never raises for what a model or a server did: that is a `ChatReply` with `failure`. It raises for what the
caller did wrong (`ConfigError`, `MissingExtraError`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ChatBackend", "ChatReply", "ChatRequest", "Sampling", "TokenLogprob"]


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One user turn, with an optional system text.

    Attributes:
        parts: text and RGB PIL images, in the order the model shall read them; text is data, never a template.
        system: system text; "" sends none.
        group: requests with the same non-empty group share a prompt prefix, so a backend sends them to one endpoint
            or batches them together; "" means no group.

    Raises:
        ValueError: no part at all.
    """

    parts: tuple[str | Image, ...]
    system: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a chat request needs at least one part (text or image)")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How replies are drawn.

    Attributes:
        temperature: >= 0; 0 is greedy.
        max_tokens: most tokens of one reply, reasoning included; >= 1.
        samples: replies per request; >= 1.
        seed: passed on where the backend supports one; None lets it choose.
        logprobs: ask for `ChatReply.logprobs`; a backend that has none leaves them None.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = 0.0
    max_tokens: int = 2048
    samples: int = 1
    seed: int | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be >= 0 and finite, got {self.temperature!r}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be >= 1, got {self.max_tokens!r}")
        if self.samples < 1:
            raise ValueError(f"samples must be >= 1, got {self.samples!r}")


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """One generated token: its text, its natural-log probability, and the likeliest tokens at that place.

    `top` holds (token text, natural-log probability), likeliest first; it may be empty and may lack `token` itself.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChatReply:
    """One sample, or the reason there is none.

    Attributes:
        text: the answer; never the content of a server's separate reasoning field.
        reasoning: what the server returned as separate reasoning (`reasoning_content` or `reasoning`).
        finish_reason: as the server says it: "stop", "length" (cut at max_tokens), "content_filter", ...; "error" when
            there is a failure.
        failure: None, or short words and a detail: "timeout: no reply within 60 s from http://...". `text` is "" then.
        prompt_tokens: tokens of the prompt, counted once per request (all its samples carry the same number).
        completion_tokens: tokens of this sample. Of several in one request a server counts only the sum: the first
            sample carries it, the others None.
        cached_tokens: prompt tokens served from a prefix cache, where the server says so.
        latency: seconds from the first attempt to the reply, retries included.
        logprobs: one entry per generated token, when asked for and given.
    """

    text: str = ""
    reasoning: str = ""
    finish_reason: str = "stop"
    failure: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    latency: float | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


@runtime_checkable
class ChatBackend(Protocol):
    """Sends turns to a VLM. Batched, synchronous, order kept; usable from several threads at once.

    `identity` names the model and where it runs, without secrets; it goes into records and cache keys.
    `complete` returns, per request, exactly `sampling.samples` replies; what failed is a reply with `failure`.
    """

    @property
    def identity(self) -> str: ...

    def complete(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[list[ChatReply]]: ...
