"""Verifiers: an edit and its principles in, a `Verification` out. Names are imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cached import CachedVerifier
    from .generative import GenerativeVerifier
    from .measure import MeasureVerifier
    from .openai import OpenAIVerifier
    from .parsing import Trace, parse_trace
    from .transformers import TransformersVerifier

__all__ = [
    "CachedVerifier",
    "GenerativeVerifier",
    "MeasureVerifier",
    "OpenAIVerifier",
    "Trace",
    "TransformersVerifier",
    "parse_trace",
]

_HOMES = {
    "CachedVerifier": "cached",
    "GenerativeVerifier": "generative",
    "MeasureVerifier": "measure",
    "OpenAIVerifier": "openai",
    "Trace": "parsing",
    "TransformersVerifier": "transformers",
    "parse_trace": "parsing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
