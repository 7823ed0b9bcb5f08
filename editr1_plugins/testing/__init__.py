"""What plugin authors test with.

`contracts` tells the promises that a verifier, decomposer or guard makes, `adapter_contract` those of an adapter.

from editr1_plugins.testing import VerifierContract

class TestMine(VerifierContract):
    @pytest.fixture
    def verifier(self):
        return Mine()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter_contract import AdapterContract
    from .contracts import DecomposerContract, GuardContract, VerifierContract, check_plugin_imports_light

__all__ = ["AdapterContract", "DecomposerContract", "GuardContract", "VerifierContract", "check_plugin_imports_light"]


def __getattr__(name: str) -> Any:
    # Lazy: the other modules here are of use without pytest.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite(f"{__name__}.contracts", f"{__name__}.adapter_contract")
    from . import adapter_contract, contracts

    return getattr(adapter_contract if name in adapter_contract.__all__ else contracts, name)
