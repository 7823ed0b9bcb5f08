"""Judges by spec: any verifier, and those that only evaluation knows (`viescore:`, `pairwise:`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from editr1_plugins.errors import ConfigError
from editr1_plugins.evaluation.pairwise import Comparer
from editr1_plugins.plugins import parse_spec, resolve
from editr1_plugins.types import FOLLOW, Principle, Verifier
from editr1_plugins.verifiers.prompting import MODES

if TYPE_CHECKING:
    from PIL.Image import Image

    from editr1_plugins.backends.chat import ChatBackend

__all__ = ["WholeEdit", "backend_of", "resolve_judge"]

_QUESTION: Final = "Does the edited image show what the instruction asks for, and nothing else changed?"


class WholeEdit:
    """One question for every edit: the decomposer for verifiers that read none (`needs_principles = False`)."""

    identity: Final = "whole edit"
    thread_safe: Final = True

    def decompose(self, requests: Sequence[tuple[Image, str]]) -> list[tuple[Principle, ...]]:
        """The same question for each request."""
        return [(Principle(question=_QUESTION, category=FOLLOW),)] * len(requests)


def resolve_judge(
    spec: str,
    *,
    mode: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
) -> Verifier | Comparer:
    """The judge that a spec stands for: `viescore:MODEL@URL`, `pairwise:MODEL@URL`, else a registered verifier.

    `transformers:PATH` may stand for MODEL@URL. The options are for judges that ask a VLM.

    Raises:
        ConfigError: an unknown spec or mode, or an option that this judge does not have.
        MissingExtraError, ComponentError: as for `plugins.resolve`.
    """
    options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    options = {name: value for name, value in options.items() if value is not None}
    name, argument = parse_spec(spec)
    if mode is not None and mode not in MODES:
        raise ConfigError(f"unknown mode {mode!r}; one of: {', '.join(MODES)}")
    if name in ("viescore", "pairwise"):
        if argument is None:
            raise ConfigError(f"judge {name!r} needs an argument; write {name}:MODEL@URL or {name}:transformers:PATH")
        if mode is not None:
            raise ConfigError(f"judge {name!r} has no modes")
        return _asking(name, backend_of(argument), options)
    if mode is not None:
        options["mode"] = mode
    return _with_options(resolve("verifier", spec), spec, options) if options else resolve("verifier", spec)


def backend_of(argument: str) -> ChatBackend:
    """The VLM behind `MODEL@URL` or `transformers:PATH_OR_ID`.

    Raises:
        ConfigError, MissingExtraError: as for the backends.
    """
    place, _, model = argument.partition(":")
    if place == "transformers":
        from editr1_plugins.backends.transformers import TransformersBackend

        return TransformersBackend.from_spec(model)
    from editr1_plugins.backends.endpoints import split_spec
    from editr1_plugins.backends.openai import OpenAIBackend

    return OpenAIBackend(*split_spec(argument))


def _asking(name: str, backend: ChatBackend, options: dict[str, Any]) -> Verifier | Comparer:
    if name == "pairwise":
        from editr1_plugins.evaluation.pairwise import PairwiseJudge

        return PairwiseJudge(backend, **options)
    from editr1_plugins.evaluation.viescore import VIEScoreVerifier

    return VIEScoreVerifier(backend, **options)


def _with_options(verifier: Verifier, spec: str, options: dict[str, Any]) -> Verifier:
    """The same model asked in another way, for any verifier that is a `GenerativeVerifier`."""
    from editr1_plugins.verifiers.generative import GenerativeVerifier

    given = verifier if isinstance(verifier, GenerativeVerifier) else None
    # A subclass that judges in its own way would lose it.
    if given is None or type(given).judge is not GenerativeVerifier.judge:
        raise ConfigError(f"verifier {parse_spec(spec)[0]!r} has no settings {', '.join(options)}")
    settings = {"mode": given.mode, "max_tokens": given.sampling.max_tokens, **options}
    return GenerativeVerifier(given.backend, **settings)
