"""YAML and flags as `trl.TrlParser` takes them, for the commands that train: one-line errors, and near names told."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ConfigError

__all__ = ["parse_dataclasses", "preview", "print_dataclasses", "separated"]


def parse_dataclasses(types: Sequence[type], argv: Sequence[str], command: str) -> tuple[Any, ...]:
    """Parse `--config FILE` and flags into one instance of each dataclass; flags win.

    Raises:
        ConfigError: a flag or key that does not exist, or a wrong value.
    """
    tokens = separated(argv)
    _, keys = preview(tokens, ())
    parser = _parser(types, command)
    unknown = [key for key in keys if key != "env" and key not in parser.names]
    try:
        *found, _, flags = parser.parse_args_and_config(
            tokens, return_remaining_strings=True, separate_remaining_strings=True
        )
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
    unknown += [flag.lstrip("-").partition("=")[0] for flag in flags if flag.startswith("-")] or flags
    if unknown:
        raise ConfigError("; ".join(f"no option {name!r}{_nearest(name, parser.names, command)}" for name in unknown))
    return tuple(found)


def print_dataclasses(types: Sequence[type], command: str) -> None:
    """Print every option with its default."""
    _parser(types, command).print_help()


def separated(argv: Sequence[str]) -> list[str]:
    """`TrlParser` knows `--config FILE` only, not `--config=FILE`."""
    return [part for token in argv for part in (token.split("=", 1) if token.startswith("--config=") else [token])]


def preview(tokens: Sequence[str], names: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The few settings `names` that decide how the others are parsed, and the keys of the YAML file.

    Raises:
        ConfigError: the file cannot be read, or is no YAML with keys and values.
    """
    parser = _ErrorParser(add_help=False, allow_abbrev=False)
    for name in ("config", *names):
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}")
    named, _ = parser.parse_known_args(tokens)
    values = {} if named.config is None else _yaml(Path(named.config))
    for name in names:
        if getattr(named, name) is None:
            setattr(named, name, values.get(name))
    return named, [str(key) for key in values]


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, got {type(values).__name__}")
    return values


def _nearest(name: str, known: Sequence[str], command: str) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return f", did you mean {near[0]!r}?" if near else f" (editr1 {command} --options lists them)"


class _ErrorParser(argparse.ArgumentParser):
    """Raises instead of printing a usage of two hundred options."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def _parser(types: Sequence[type], command: str) -> Any:
    from trl import TrlParser

    texts = {
        each.name: each.metadata["help"]
        for kind in reversed(types[-1].__mro__)
        for each in getattr(kind, "__dataclass_fields__", {}).values()
        if "help" in each.metadata
    }

    class Parser(TrlParser):
        """`TrlParser` with one-line errors; a single value in YAML will do for an option that takes several."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for action in self._actions:  # a subclass's new default of an option comes without the option's text
                action.help = action.help or texts.get(action.dest)

        @property
        def names(self) -> list[str]:
            return [action.dest for action in self._actions]

        def error(self, message: str) -> NoReturn:
            raise ConfigError(message)

        def set_defaults_with_config(self, **values: Any) -> list[str]:
            for action in self._actions:
                value = values.get(action.dest)
                if action.nargs == "+" and value is not None and not isinstance(value, list):
                    values[action.dest] = [value]
            remaining: list[str] = super().set_defaults_with_config(**values)
            return remaining

    return Parser(types, prog=f"editr1 {command}", allow_abbrev=False, add_help=False)
