"""Verifier `openai:MODEL@URL`: any VLM behind an OpenAI-compatible server as the judge.

Everything about the server is `editr1_plugins.backends.openai`, everything about judging is `verifiers.generative`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editr1_plugins.backends.endpoints import split_spec
from editr1_plugins.backends.openai import OpenAIBackend
from editr1_plugins.verifiers.generative import GenerativeVerifier

__all__ = ["OpenAIVerifier"]


class OpenAIVerifier(GenerativeVerifier):
    """`GenerativeVerifier` on an `OpenAIBackend`.

    Picklable; an API key is not carried along, an unpickled verifier reads it from $EDITR1_API_KEY.

    Args:
        model: the model's name as the server knows it.
        base_url: one or several URLs, each usually ending in `/v1`.
        api_key: sent to every URL; default $EDITR1_API_KEY, and for OpenAI's own hosts $OPENAI_API_KEY.
        timeout: seconds for one attempt.
        max_retries: further attempts per request after a failure worth retrying.
        concurrency: most requests in flight at a time.
        extra_body: fields added to every request; a field set to None is left out instead.
        judge: `mode`, `samples`, `aggregate`, `min_samples`, `max_spread`, ... as for `GenerativeVerifier`.

    Raises:
        ConfigError: a setting or URL is wrong.
        MissingExtraError: the `openai` package is not installed.
    """

    backend: OpenAIBackend

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
        **judge: Any,
    ) -> None:
        backend = OpenAIBackend(
            model,
            base_url,
            api_key,
            timeout=timeout,
            max_retries=max_retries,
            concurrency=concurrency,
            extra_body=extra_body,
        )
        super().__init__(backend, **judge)

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> OpenAIVerifier:
        """Build a verifier from what follows `openai:` in a spec string: `MODEL@URL[,URL2]`; options as for the class.

        Raises:
            ConfigError: the model or the URL is missing or wrong.
        """
        model, urls = split_spec(argument)
        return cls(model, urls, **options)

    def close(self) -> None:
        """Close connections and the background thread; the next `verify` opens new ones."""
        self.backend.close()

    def __repr__(self) -> str:
        return f"OpenAIVerifier({self.identity!r})"
