"""Every door of the house: the ways in which an installed package can add something.

A package declares an entry point in the group `editr1` that names a module. The module implements any of the hooks
below, each marked with `editr1_plugins.hookimpl`; every hook is handed `register` and calls it once per thing it adds.
A plugin module must import fast and without torch: it registers factories, and heavy imports belong inside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from pluggy import HookimplMarker, HookspecMarker

__all__ = [
    "PROJECT",
    "Register",
    "hookimpl",
    "register_algorithms",
    "register_benchmarks",
    "register_decomposers",
    "register_guards",
    "register_pipelines",
    "register_verifiers",
]

#: The entry-point group, and the name under which pluggy knows us.
PROJECT: Final = "editr1"

hookimpl = HookimplMarker(PROJECT)
_hookspec = HookspecMarker(PROJECT)


class Register(Protocol):
    """What a hook is handed; called once for each thing the plugin adds."""

    def __call__(
        self, name: str, factory: Callable[..., Any], *, summary: str = "", requires: tuple[str, ...] = ()
    ) -> None:
        """Add `factory` under `name`.

        Args:
            name: letters, digits, `.`, `_` and `-`; what users write in a spec string.
            factory: called as `factory()` for the spec `name`, as `factory(argument)` for `name:argument`.
            summary: one line for `editr1 plugins`.
            requires: modules that must be importable before the factory is called. `"module"` is installed by
                `pip install module`; `"module[extra]"` by `pip install "DISTRIBUTION[extra]"`, where DISTRIBUTION is
                the one the plugin comes from.

        Raises:
            PluginError, TypeError: a bad name, factory or requirement, or a name this plugin already used.
        """


@_hookspec
def register_verifiers(register: Register) -> None:
    """Add judges of edits; the factory returns a `Verifier`."""


@_hookspec
def register_decomposers(register: Register) -> None:
    """Add ways to turn a source image and an instruction into principles; the factory returns a `Decomposer`."""


@_hookspec
def register_guards(register: Register) -> None:
    """Add detectors of one reward hack each; the factory returns a `Guard`."""


@_hookspec
def register_pipelines(register: Register) -> None:
    """Add what cannot be found in a diffusers pipeline; the factory returns `training.pipelines.PipelineFacts`.

    The name is that of the pipeline class, whose subclasses have the same facts.
    """


@_hookspec
def register_algorithms(register: Register) -> None:
    """Add objectives for `EditGRPOTrainer`; the factory returns an algorithm."""


@_hookspec
def register_benchmarks(register: Register) -> None:
    """Add benchmarks for `editr1 eval`: the factory returns one of judges (`evaluation.items.Benchmark`) or of editors
    (`evaluation.editors.items.EditorBenchmark`).
    """
