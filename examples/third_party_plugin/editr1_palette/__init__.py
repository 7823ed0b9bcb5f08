"""A plugin for editr1-plugins that judges edits of the palette: "use at most 8 colours", "make it black and white".

This module is what the entry point names. It registers factories and imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editr1_plugins import hookimpl

if TYPE_CHECKING:
    from editr1_plugins.hookspecs import Register
    from editr1_plugins.types import Decomposer, Guard, Verifier

__all__ = ["register_decomposers", "register_guards", "register_verifiers"]


def _verifier() -> Verifier:
    from .verifier import PaletteVerifier

    return PaletteVerifier()


def _decomposer() -> Decomposer:
    from .decomposer import PaletteDecomposer

    return PaletteDecomposer()


def _guard(colours: str = "2") -> Guard:
    # The argument of a spec ("one_colour:3") arrives as text.
    from .guard import FewColoursGuard

    return FewColoursGuard(least=int(colours))


@hookimpl
def register_verifiers(register: Register) -> None:
    register("palette", _verifier, summary="counts colours; judges reduced palettes and black and white")


@hookimpl
def register_decomposers(register: Register) -> None:
    register("palette", _decomposer, summary="reads 'use at most N colours'")


@hookimpl
def register_guards(register: Register) -> None:
    register("few_colours", _guard, summary="objects to an image wiped to fewer colours than N (default 2)")
