"""Chat models that a cold start asks: made from specs, and asked one item at a time where a server is behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...backends.chat import ChatBackend, ChatReply, ChatRequest, Sampling
from ...errors import ConfigError
from ...plugins import resolve
from ...principles.asking import ask
from ...types import Verifier
from ...verifiers.generative import GenerativeVerifier
from .store import Line

__all__ = ["THREADS", "ask_one", "backend_of", "is_remote", "threads_of", "usage_of", "verifier_from"]

#: Requests in flight at a time for one model behind a server, unless its options say `concurrency`.
THREADS: Final = 32
_OPENAI: Final = "openai:"


def verifier_from(spec: str | None, given: Verifier | None, options: Mapping[str, Any], where: str) -> Verifier:
    """The verifier that a part of the configuration stands for; `given` is the caller's own.

    Raises:
        ConfigError: neither is there, or options where none are taken.
        PluginError, MissingExtraError, ComponentError: as `plugins.resolve`.
    """
    if given is not None:
        return resolve("verifier", given)
    if spec is None:
        raise ConfigError(f"{where}.spec is missing: name a verifier such as openai:MODEL@URL or measure")
    if not options:
        return resolve("verifier", spec)
    if not spec.startswith(_OPENAI):
        raise ConfigError(f"{where}.options are for openai:MODEL@URL, not for {spec.partition(':')[0]!r}")
    from ...verifiers.openai import OpenAIVerifier

    try:
        return OpenAIVerifier.from_spec(
            spec.removeprefix(_OPENAI), **{"concurrency": THREADS, "max_retries": 4, **options}
        )
    except TypeError as error:
        raise ConfigError(f"{where}.options: {error}") from None


def backend_of(verifier: object) -> ChatBackend | None:
    """The chat model of a verifier, or None where it is no chat model."""
    return verifier.backend if isinstance(verifier, GenerativeVerifier) else None


def is_remote(backend: ChatBackend) -> bool:
    """Whether requests are best sent one by one: a server batches them itself, a local model does not."""
    from ...backends.openai import OpenAIBackend

    return isinstance(backend, OpenAIBackend)


def threads_of(backend: ChatBackend) -> int:
    """Threads that ask at the same time."""
    return int(getattr(backend, "concurrency", THREADS)) if is_remote(backend) else 1


def ask_one(backend: ChatBackend, request: ChatRequest, sampling: Sampling) -> list[ChatReply]:
    """`sampling.samples` replies; what failed is a reply with the reason."""
    return ask(backend, [request], sampling)[0]


def usage_of(replies: list[ChatReply]) -> Line:
    """Tokens of the replies to one request: the prompt once, the completions together; 0 where nobody says."""
    return {
        "prompt": max((reply.prompt_tokens or 0 for reply in replies), default=0),
        "cached": max((reply.cached_tokens or 0 for reply in replies), default=0),
        "completion": sum(reply.completion_tokens or 0 for reply in replies),
    }
