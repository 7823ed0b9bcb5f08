"""A verifier, decomposer or guard that is built when it is first used, and travels between processes as its spec."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, cast

from editr1_plugins.errors import ConfigError
from editr1_plugins.plugins import parse_spec, registry, resolve
from editr1_plugins.reward.record import identity_of

__all__ = ["Part", "as_parts"]

_T = TypeVar("_T")


class Part(Generic[_T]):
    """What a spec string or an instance stands for.

    The name in a spec is looked up at once, so that a slip of the pen is found before a model is loaded; the factory
    is called on first use. Pickling drops what a factory made (clients, locks, weights) and keeps the spec; an instance
    that was given is pickled with it.

    Raises:
        ConfigError: a malformed spec, or no object of this kind.
        PluginError: the name stands for no factory, or for several.
    """

    def __init__(self, kind: Literal["verifier", "decomposer", "guard"], given: str | _T) -> None:
        self.kind = kind
        self.given = given
        if isinstance(given, str):
            registry().find(kind, parse_spec(given)[0])
        else:
            resolve(kind, cast(Any, given))
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._made: _T | None = None

    @property
    def name(self) -> str:
        """The name in the spec, without its argument (which may hold an address or a key), or the class's name."""
        return parse_spec(self.given)[0] if isinstance(self.given, str) else type(self.given).__name__

    @property
    def label(self) -> str:
        """Kind and name, for messages."""
        return f"{self.kind} {self.name!r}"

    @property
    def identity(self) -> str:
        """See `identity_of`; builds the part."""
        return identity_of(self.get(), self.given if isinstance(self.given, str) else None)

    def get(self) -> _T:
        """The object itself, the same one each time.

        Raises:
            ConfigError, MissingExtraError, ComponentError: as `plugins.resolve`.
        """
        if not isinstance(self.given, str):
            return self.given
        with self._lock:
            if self._made is None:
                self._made = cast(_T, resolve(self.kind, self.given))
            return self._made

    def in_turn(self, method: Callable[..., object], *args: object) -> object:
        """`method(*args)` of the object, by one thread at a time unless the object says `thread_safe = True`."""
        if getattr(self.get(), "thread_safe", False) is True:
            return method(*args)
        with self._turn:
            return method(*args)

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "given": self.given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.kind, self.given = state["kind"], state["given"]
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._made = None


def as_parts(kind: Literal["guard"], given: object) -> tuple[Part[Any], ...]:
    """Several parts from a list of specs and instances."""
    if isinstance(given, str) or not isinstance(given, (list, tuple)):
        raise ConfigError(f"{kind}s must be a list of spec strings and instances, got {given!r}")
    return tuple(Part(kind, each) for each in given)
