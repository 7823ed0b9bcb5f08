"""Every exception the package raises on purpose.

    Editr1Error
    ├── ConfigError (ValueError)          a setting, argument or spec string is wrong
    │   └── PluginError (LookupError)     a name does not resolve to exactly one registered factory
    ├── MissingExtraError (ImportError)   an optional dependency is not installed; says which extra to install
    ├── DataError (ValueError)            a dataset row, column or file is wrong; says which
    │   └── ImageError                    an image is broken, too large or of an unsupported kind
    ├── ComponentError (RuntimeError)     a plugin's own code raised or broke its protocol; names the plugin
    ├── JudgeUnavailableError (RuntimeError)  a trainer's judge was out of reach for longer than `judge_patience`
    ├── UnscoredError (RuntimeError)      a host that knows only numbers asked for scores, and too many are missing
    └── ReplayError (RuntimeError)        a pipeline cannot be replayed exactly, hence not trained

A judge that fails is data (`Verification(score=None, failure=...)`), not one of these: bad input ends a call with a
clear error, a bad judgement never does. Only a trainer whose judge nobody can reach for `judge_patience` seconds ends,
with `JudgeUnavailableError`. `boundary()` marks the places where code that is not ours is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "ComponentError",
    "ConfigError",
    "DataError",
    "Editr1Error",
    "ImageError",
    "JudgeUnavailableError",
    "MissingExtraError",
    "PluginError",
    "ReplayError",
    "UnscoredError",
    "boundary",
]


class Editr1Error(Exception):
    """Base of all errors raised on purpose by editr1_plugins."""


class ConfigError(Editr1Error, ValueError):
    """A setting, argument or spec string is wrong."""


class PluginError(ConfigError, LookupError):
    """A name does not resolve to exactly one registered factory."""


class MissingExtraError(Editr1Error, ImportError):
    """An optional dependency is missing; the message says which extra to install."""


class DataError(Editr1Error, ValueError):
    """A dataset row, column or file is wrong."""


class ImageError(DataError):
    """An image is broken, too large, or of an unsupported kind."""


class ComponentError(Editr1Error, RuntimeError):
    """Code behind a door (verifier, decomposer, guard, reward) raised, or broke its protocol."""


class JudgeUnavailableError(Editr1Error, RuntimeError):
    """The judge behind a reward could not be reached for as long as the trainer waits; no edit is to blame."""


class UnscoredError(Editr1Error, RuntimeError):
    """A batch cannot be answered with numbers alone: too much of it has no score."""


class ReplayError(Editr1Error, RuntimeError):
    """A pipeline does not replay exactly what it sampled; training it would be silently wrong."""


@contextmanager
def boundary(who: str) -> Iterator[None]:
    """Run code that is not ours: what it raises leaves as `ComponentError` naming `who`.

    Our own errors pass unchanged, and so do KeyboardInterrupt and SystemExit, which are not `Exception`s.
    """
    try:
        yield
    except Editr1Error:
        raise
    except Exception as error:
        raise ComponentError(f"{who} raised {type(error).__name__}: {error}") from error
