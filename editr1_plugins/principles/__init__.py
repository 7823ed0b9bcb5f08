"""Decomposers: an instruction and its source image in, principles out. Names are imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache import MemoryCache, PrincipleCache, SqliteCache
    from .chain import FallbackDecomposer
    from .rules import RulesDecomposer
    from .vlm import VlmDecomposer

__all__ = ["FallbackDecomposer", "MemoryCache", "PrincipleCache", "RulesDecomposer", "SqliteCache", "VlmDecomposer"]

_HOMES = {
    "FallbackDecomposer": "chain",
    "MemoryCache": "cache",
    "PrincipleCache": "cache",
    "RulesDecomposer": "rules",
    "SqliteCache": "cache",
    "VlmDecomposer": "vlm",
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
