"""Rewards by dotted path, for hosts that take nothing else: `reward_funcs: [editr1_plugins.rewards.measure]`.

`trl grpo` imports a module and takes an attribute from it. Every registered verifier, also a third party's, is such
an attribute here: an `EditRRMReward` with that verifier, made when it is first asked for (PEP 562), the same object
each time. `-` and `.` in a name become `_`. `edit_rrm` is `EditRRMReward()`, whose verifier is `$EDITR1_VERIFIER`; use
it for verifiers that need an argument. `$EDITR1_DECOMPOSER` names the decomposer of them all. For other settings, write
`my_reward = EditRRMReward(...)` in a module of your own.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from editr1_plugins.plugins import Entry
    from editr1_plugins.reward.rrm import EditRRMReward

    edit_rrm: EditRRMReward

__all__ = ["edit_rrm"]

_DEFAULT: Final = "edit_rrm"


def __getattr__(name: str) -> EditRRMReward:
    # Python asks modules for all kinds of private names (`__path__`, `__wrapped__`); those must not load plugins.
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _reward(name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_entries()])


@cache
def _reward(name: str) -> EditRRMReward:
    from editr1_plugins.plugins import registry
    from editr1_plugins.reward.rrm import EditRRMReward

    if name == _DEFAULT:
        return EditRRMReward()
    entries = _entries()
    if name not in entries:
        failed = "".join(f"; {failure}" for failure in registry().failures)
        raise AttributeError(f"no reward {name!r} in {__name__}; there are: {', '.join(__dir__())}{failed}")
    found = entries[name]
    if len(found) > 1:
        specs = ", ".join(entry.qualified for entry in found)
        raise AttributeError(
            f"reward {name!r} may mean any of: {specs}; set EDITR1_VERIFIER to one and use {__name__}.{_DEFAULT}"
        )
    spec = registry().spec(found[0])
    if not _callable_without_argument(found[0]):
        raise AttributeError(
            f"verifier {spec!r} needs an argument; set EDITR1_VERIFIER={spec}:ARGUMENT and use {__name__}.{_DEFAULT}"
        )
    return EditRRMReward(spec)


def _entries() -> dict[str, list[Entry]]:
    """Verifiers by attribute name."""
    from editr1_plugins.plugins import registry

    named: dict[str, list[Entry]] = {}
    for entry in registry().of("verifier"):
        named.setdefault(re.sub(r"\W", "_", entry.name), []).append(entry)
    return named


def _callable_without_argument(entry: Entry) -> bool:
    try:
        inspect.signature(entry.factory).bind()
    except TypeError:
        return False
    except ValueError:
        return True  # a built-in callable that tells no signature
    return True
