"""Find plugins, keep broken ones from breaking anything else, and turn spec strings into objects.

A spec string is `name`, `distribution/name` or `name:argument`; everything after the first colon is the argument, so it
may hold colons, slashes and `@` itself (`openai:Qwen/Qwen2.5-VL-7B-Instruct@http://localhost:8000/v1`).

The environment variable `EDITR1_LOAD_PLUGINS` restricts which installed plugins are loaded: a comma-separated list of
distribution or entry-point names; an empty value loads none. Our own parts are always there.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, Literal, overload

import pluggy

from . import hookspecs
from .errors import ComponentError, ConfigError, MissingExtraError, PluginError, boundary
from .types import Decomposer, Guard, Verifier

__all__ = ["KINDS", "Entry", "Failure", "Origin", "Registry", "parse_spec", "registry", "resolve"]

#: What can be registered; the hook of kind `k` is `register_<k>s`.
KINDS: Final = ("verifier", "decomposer", "guard", "pipeline", "algorithm", "benchmark")

# What an object of a kind must have. Kinds without a line here are checked by the room that uses them.
_MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    "verifier": ("verify",),
    "decomposer": ("decompose",),
    "guard": ("inspect", "needs_judge"),
    "algorithm": ("stochastic", "configured", "prepare", "loss", "idle"),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REQUIREMENT = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\[(?P<extra>[A-Za-z0-9][A-Za-z0-9._-]*)\])?")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a plugin comes from: entry-point name, distribution (in its canonical spelling) and its version."""

    plugin: str
    dist: str
    version: str = ""

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} ({f'{self.dist} {self.version}'.strip()})"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered factory."""

    kind: str
    name: str
    factory: Callable[..., Any]
    summary: str
    requires: tuple[str, ...]
    origin: Origin

    @property
    def qualified(self) -> str:
        """The spec that is never ambiguous: `distribution/name`."""
        return f"{self.origin.dist}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A plugin that could not be loaded, and why; nothing it registered is kept."""

    origin: Origin
    error: BaseException

    @property
    def reason(self) -> str:
        """The error as one line."""
        return f"{type(self.error).__name__}: {' '.join(str(self.error).split())}"

    def __str__(self) -> str:
        return f"{self.origin} failed to load: {self.reason}"


class Registry:
    """All registered factories, and what went wrong while collecting them.

    Args:
        core: origin whose names win when written without a distribution.

    Attributes:
        entries: what loaded, in the order of loading.
        failures: plugins that did not load.
        left_out: installed plugins that `EDITR1_LOAD_PLUGINS` excludes.
    """

    def __init__(self, core: Origin | None = None) -> None:
        self.core = core
        self.entries: tuple[Entry, ...] = ()
        self.failures: tuple[Failure, ...] = ()
        self.left_out: tuple[Origin, ...] = ()

    def load(self, origin: Origin, load: Callable[[], object]) -> None:
        """Add what the plugin that `load()` returns registers: all of it, or nothing and a `Failure`."""
        try:
            added = _collect(load(), origin)
            taken = {(entry.kind, entry.qualified) for entry in self.entries}
            for entry in added:
                if (entry.kind, entry.qualified) in taken:
                    raise PluginError(
                        f"{entry.kind} {entry.qualified!r} is registered by another plugin of {origin.dist}"
                    )
        except (
            Exception,
            SystemExit,
        ) as error:  # a module that calls sys.exit() on import is broken, not a wish to stop
            self.failures += (Failure(origin=origin, error=error),)
        else:
            self.entries += added

    def of(self, kind: str) -> tuple[Entry, ...]:
        """The entries of one kind, by name."""
        if kind not in KINDS:
            raise ConfigError(f"unknown kind {kind!r}; one of: {', '.join(KINDS)}")
        return tuple(sorted((e for e in self.entries if e.kind == kind), key=lambda e: (e.name, e.origin != self.core)))

    def spec(self, entry: Entry) -> str:
        """The shortest spec that means `entry`: its name, or `distribution/name` where the name alone does not."""
        return entry.name if self._named(entry.kind, entry.name) == [entry] else entry.qualified

    def find(self, kind: str, name: str) -> Entry:
        """The one entry that `name` or `distribution/name` stands for.

        Raises:
            PluginError: none or several; the message lists the choices and every plugin that failed to load.
        """
        found = self._named(kind, name)
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(entry.qualified for entry in found)
            raise PluginError(f"{kind} {name!r} is offered by several packages; write one of: {choices}")
        known = [self.spec(entry) for entry in self.of(kind)]
        close = get_close_matches(name, known, n=1)
        parts = [f"no {kind} {name!r}" + (f", did you mean {close[0]!r}?" if close else "")]
        parts.append(f"known: {', '.join(known) or 'none'}")
        parts += [str(failure) for failure in self.failures]
        parts += [f"{origin} is left out by EDITR1_LOAD_PLUGINS" for origin in self.left_out]
        raise PluginError("; ".join(parts))

    def resolve(self, kind: str, spec: object) -> Any:
        """What `spec` stands for: a string is looked up and its factory called, anything else is returned as it is.

        Raises:
            ConfigError: the spec is malformed, has an argument too many or too few, or is no object of this kind.
            PluginError: the name stands for no factory, or for several.
            MissingExtraError: a module that the factory requires is not installed; says what to install.
            ComponentError: the factory raised, or returned something that is no object of this kind.
        """
        if not isinstance(spec, str):
            problem = _misfit(kind, spec)
            if problem:
                raise ConfigError(f"a {kind} is a spec string or an object; {problem}")
            return spec
        name, argument = parse_spec(spec)
        entry = self.find(kind, name)
        _check_requirements(entry)
        _check_call(entry, argument)
        who = f"{kind} {name!r} of {entry.origin}"
        with boundary(who):
            made = entry.factory() if argument is None else entry.factory(argument)
        problem = _misfit(kind, made)
        if problem:
            raise ComponentError(f"{who} broke its protocol: {problem}")
        return made

    def _named(self, kind: str, name: str) -> list[Entry]:
        dist, _, bare = name.rpartition("/")
        dist = _canonical(dist)
        found = [
            e for e in self.of(kind) if e.name == bare and (not dist or _canonical(e.origin.dist) == _canonical(dist))
        ]
        return [e for e in found if e.origin == self.core] or found


def parse_spec(spec: str) -> tuple[str, str | None]:
    """Split a spec string into name (or `distribution/name`) and argument; the argument is None when there is none.

    Raises:
        ConfigError: the name is malformed, or the colon is followed by nothing. The argument is never quoted: it may
            hold a password.
    """
    name, colon, argument = spec.partition(":")
    parts = name.split("/")
    if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise ConfigError(f"malformed spec {name!r}; write name, distribution/name or name:argument")
    if colon and not argument.strip():
        raise ConfigError(f"spec {spec!r} ends in a colon; give the argument after it or drop the colon")
    return name, argument if colon else None


@cache
def registry() -> Registry:
    """The registry of this process: our own parts and every installed plugin. Built once, on first use."""
    dist = "editr1-plugins"
    try:
        version = importlib.metadata.version(dist)
    except importlib.metadata.PackageNotFoundError:
        version = ""  # run from a checkout that is not installed
    core = Origin(plugin="builtin", dist=dist, version=version)
    result = Registry(core)
    # By name, since builtin sits in the last room; not contained, since without our own parts nothing works.
    builtin = importlib.import_module(".builtin", __package__)
    result.entries = _collect(builtin, core)
    _load_installed(result, importlib.metadata.entry_points(group=hookspecs.PROJECT))
    return result


def _load_installed(result: Registry, found: Iterable[importlib.metadata.EntryPoint]) -> None:
    value = os.environ.get("EDITR1_LOAD_PLUGINS")
    wanted = None if value is None else {part.strip() for part in value.split(",") if part.strip()}
    unseen = {_canonical(name): name for name in wanted or ()}
    plugins = [(_origin(point), point) for point in found]
    for origin, point in sorted(plugins, key=lambda pair: (pair[0].dist, pair[0].plugin)):
        names = {_canonical(origin.plugin), _canonical(origin.dist)}
        if wanted is not None and not names & {_canonical(name) for name in wanted}:
            result.left_out += (origin,)
            continue
        for name in names:
            unseen.pop(name, None)
        result.load(origin, point.load)
    for name in unseen.values():
        error = PluginError("EDITR1_LOAD_PLUGINS names it, but no such plugin is installed")
        result.failures += (Failure(origin=Origin(plugin=name, dist="not installed"), error=error),)


@overload
def resolve(kind: Literal["verifier"], spec: str | Verifier) -> Verifier: ...
@overload
def resolve(kind: Literal["decomposer"], spec: str | Decomposer) -> Decomposer: ...
@overload
def resolve(kind: Literal["guard"], spec: str | Guard) -> Guard: ...
@overload
def resolve(kind: str, spec: object) -> Any: ...
def resolve(kind: str, spec: object) -> Any:
    """`Registry.resolve` on this process's registry: `resolve("verifier", "measure")`; an instance passes unchanged."""
    return registry().resolve(kind, spec)


def _origin(point: importlib.metadata.EntryPoint) -> Origin:
    if point.dist is None:
        return Origin(plugin=point.name, dist="unknown")
    return Origin(plugin=point.name, dist=_canonical(point.dist.name), version=point.dist.version)


def _canonical(dist: str) -> str:
    # The comparison form of PEP 503.
    return re.sub(r"[-_.]+", "-", dist).lower()


def _collect(plugin: object, origin: Origin) -> tuple[Entry, ...]:
    """Call the plugin's hooks. A manager of its own per plugin: pluggy's checks then concern this plugin alone."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=origin.plugin)
    manager.check_pending()  # refuses misspelt hooks
    if not manager.get_hookcallers(plugin):
        raise PluginError("no function in it is marked with @hookimpl")
    added: list[Entry] = []
    for kind in KINDS:
        hook = f"register_{kind}s"
        if any(result is not None for result in getattr(manager.hook, hook)(register=_register(kind, origin, added))):
            raise TypeError(f"{hook} must call register(...) and return nothing; is it async or a generator?")
    return tuple(added)


def _register(kind: str, origin: Origin, added: list[Entry]) -> hookspecs.Register:
    def register(name: str, factory: Callable[..., Any], *, summary: str = "", requires: tuple[str, ...] = ()) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(f"{kind} name {name!r} is malformed; use letters, digits, '.', '_' and '-'")
        if any((entry.kind, entry.name) == (kind, name) for entry in added):
            raise PluginError(f"{kind} {name!r} is registered twice")
        if not callable(factory):
            raise TypeError(f"the factory of {kind} {name!r} must be callable, got {type(factory).__name__}")
        if not _takes(factory) and not _takes(factory, "argument"):
            raise TypeError(f"the factory of {kind} {name!r} must be callable as factory() or factory(argument)")
        if isinstance(requires, str):
            raise TypeError(f"requires of {kind} {name!r} must be a tuple of strings, got the string {requires!r}")
        for requirement in requires:
            if not _REQUIREMENT.fullmatch(requirement):
                raise PluginError(f"{kind} {name!r} requires {requirement!r}; write 'module' or 'module[extra]'")
        entry = Entry(kind=kind, name=name, factory=factory, summary=summary, requires=tuple(requires), origin=origin)
        added.append(entry)

    return register


def _takes(factory: Callable[..., Any], *arguments: object) -> bool:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return True  # some built-in callables tell no signature; calling them will
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _check_call(entry: Entry, argument: str | None) -> None:
    if argument is None and not _takes(entry.factory):
        raise ConfigError(f"{entry.kind} {entry.name!r} needs an argument; write {entry.name}:ARGUMENT")
    if argument is not None and not _takes(entry.factory, argument):
        raise ConfigError(f"{entry.kind} {entry.name!r} takes no argument; write {entry.name!r} alone")


def _check_requirements(entry: Entry) -> None:
    missing: list[str] = []
    extras: list[str] = []
    packages: list[str] = []
    for requirement in entry.requires:
        match = _REQUIREMENT.fullmatch(requirement)
        assert match is not None  # checked when it was registered
        if _importable(match["module"]):
            continue
        missing.append(match["module"])
        if match["extra"]:
            extras.append(match["extra"])
        else:
            packages.append(match["module"].partition(".")[0])
    if missing:
        quoted = [f'"{entry.origin.dist}[{",".join(dict.fromkeys(extras))}]"'] if extras else []
        command = " ".join(["pip install", *quoted, *dict.fromkeys(packages)])
        what = f"module{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        raise MissingExtraError(f"{entry.kind} {entry.name!r} needs the {what}; install with: {command}")


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent is missing, or a module in sys.modules has no spec
        return module in sys.modules


def _misfit(kind: str, value: object) -> str | None:
    """Why `value` is no object of this kind; None when it is one."""
    if kind not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}; one of: {', '.join(KINDS)}")
    if value is None:
        return "got None"
    if isinstance(value, type):
        return f"got the class {value.__name__}, not an instance of it"
    missing = [member for member in _MEMBERS.get(kind, ()) if not hasattr(value, member)]
    if missing:
        return f"got {type(value).__name__}, which has no {' and no '.join(missing)}"
    return None
