"""What the judges of this room read from a reply: the last tag of a name, outside of any thought."""

from __future__ import annotations

from collections.abc import Sequence

from editr1_plugins.backends.chat import ChatReply
from editr1_plugins.types import Usage
from editr1_plugins.verifiers.generative import MAX_TRACE
from editr1_plugins.verifiers.parsing import parse_trace

__all__ = ["number_in", "tagged", "trace_of", "usage_of", "why_missing"]

#: Longest content of a tag; what is longer is prose between two tags.
_MAX_CONTENT = 100


def tagged(text: str, name: str) -> str | None:
    """What stands in the last complete tag of that name, None without one; a thought does not count."""
    _, closed, rest = text.rpartition("</think>")
    spoken = rest if closed else text.partition("<think>")[0]
    _, opening, after = spoken.rpartition(f"<{name}>")
    content, closing, _ = after.partition(f"</{name}>")
    return content.strip() if opening and closing and len(content) <= _MAX_CONTENT else None


def number_in(text: str, name: str) -> float | str:
    """The number in 0..10 in a tag, or a word for why there is none, by the rules of a judge's score."""
    content = tagged(text, name)
    if content is None:
        return "no_score"
    read = parse_trace(f"<score>{content}</score>", ())
    return read.score if read.score is not None else read.failure or "no_score"


def why_missing(reply: ChatReply, otherwise: str) -> str:
    """Why a reply holds no answer: refusal, truncated, empty, else `otherwise`."""
    kind = parse_trace(reply.text, (), reply.finish_reason).failure
    return kind if kind in ("empty", "refusal", "truncated") else otherwise


def trace_of(replies: Sequence[ChatReply]) -> str:
    """What was said, separate reasoning included, bounded; the ends are kept."""
    room = MAX_TRACE // max(1, len(replies))
    said = ["\n\n".join(part for part in (reply.reasoning, reply.text) if part) for reply in replies]
    return "\n\n".join(each if len(each) <= room else "[...] " + each[len(each) - room :] for each in said if each)


def usage_of(requests: Sequence[Sequence[ChatReply]]) -> Usage:
    """Tokens and seconds of several requests with their samples; prompts count once per request."""

    def known(name: str, replies: Sequence[ChatReply]) -> list[float]:
        return [value for reply in replies if (value := getattr(reply, name)) is not None]

    def total(name: str, per_request: bool) -> int | None:
        sums = [max(some) if per_request else sum(some) for replies in requests if (some := known(name, replies))]
        return int(sum(sums)) if sums else None

    latencies = [value for replies in requests for value in known("latency", replies)]
    return Usage(
        prompt_tokens=total("prompt_tokens", True),
        cached_tokens=total("cached_tokens", True),
        completion_tokens=total("completion_tokens", False),
        latency=max(latencies, default=None),
    )
