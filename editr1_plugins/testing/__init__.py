"""What plugin authors test with; see `contracts` for the promises a verifier, decomposer or guard makes.

from editr1_plugins.testing import VerifierContract

class TestMine(VerifierContract):
    @pytest.fixture
    def verifier(self):
        return Mine()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contracts import DecomposerContract, GuardContract, VerifierContract, check_plugin_imports_light

__all__ = ["DecomposerContract", "GuardContract", "VerifierContract", "check_plugin_imports_light"]


def __getattr__(name: str) -> Any:
    # Lazy: the other modules here are of use without pytest.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite(f"{__name__}.contracts")
    from . import contracts

    return getattr(contracts, name)
