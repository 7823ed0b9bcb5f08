"""The configuration of a cold start from YAML or from nested mappings: every key is known, every value has its type."""

from __future__ import annotations

import math
import os
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from ...errors import ConfigError
from .config import ColdStartConfig

__all__ = ["config_from_mapping", "load_config"]


def load_config(path: str | os.PathLike[str]) -> ColdStartConfig:
    """Read a YAML file.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or has an unknown key or a wrong value (the message names it).
    """
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {os.fspath(path)}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{os.fspath(path)} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{os.fspath(path)} must hold keys and values, such as output, data, candidates, traces")
    return config_from_mapping(data)


def config_from_mapping(data: Mapping[str, Any]) -> ColdStartConfig:
    """The configuration that nested mappings and lists (of YAML, or your own) stand for.

    Raises:
        ConfigError: an unknown key or a wrong value; the message names it.
    """
    made = _built(ColdStartConfig, data, "")
    assert isinstance(made, ColdStartConfig)
    return made


def _built(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`, which is a dataclass or the annotation of a field."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _built(next(each for each in inner if each is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: a list is needed, got {_shown(value)}")
        return tuple(_built(inner[0], each, f"{where}[{place}]") for place, each in enumerate(value))
    if origin is Literal:
        if value not in inner:
            raise ConfigError(f"{where}={_shown(value)}: one of {', '.join(inner)}")
        return value
    if origin is Mapping or kind is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: keys and values are needed, got {_shown(value)}")
        return dict(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ConfigError(f"{where}={_shown(value)}: must be a {_WORDS[kind]}{_hint(kind, value)}")
    return value


_WORDS: Final = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _hint(kind: Any, value: Any) -> str:
    return " (YAML reads 1e-4 as text; write 1.0e-4)" if kind is float and isinstance(value, str) else ""


def _dataclass(kind: type[Any], value: Any, where: str) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: keys and values are needed, got {_shown(value)}")
    known = {each.name: each for each in fields(kind)}
    if unknown := [str(name) for name in value if name not in known]:
        place = f"{where}: unknown" if where else "unknown"
        raise ConfigError(f"{place} key {', '.join(map(repr, unknown))}; there are: {', '.join(known)}")
    needed = [each.name for each in known.values() if each.default is MISSING and each.default_factory is MISSING]
    if missing := [name for name in needed if name not in value]:
        raise ConfigError(f"{where + ': ' if where else ''}{', '.join(missing)} is missing")
    hints = get_type_hints(kind)
    return kind(**{name: _built(hints[name], each, f"{where}.{name}".lstrip(".")) for name, each in value.items()})


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
