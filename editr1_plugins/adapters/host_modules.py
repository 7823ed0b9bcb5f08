"""Modules of hosts that are in no package index."""

from __future__ import annotations

import importlib
from typing import Any

from editr1_plugins.errors import MissingExtraError

__all__ = ["checkout_module"]


def checkout_module(module: str, host: str, checkout: str) -> Any:
    """Import a module of a host that is installed from a checkout.

    Args:
        host: who cannot be imported, for the message.
        checkout: whose, for the message.

    Raises:
        MissingExtraError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{host} cannot be imported ({error}); it is in no package index: run `pip install -e .` in a checkout of "
            f"{checkout}"
        ) from error
