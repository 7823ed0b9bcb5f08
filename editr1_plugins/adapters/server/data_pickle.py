"""Plain data out of a pickle, for the one client that sends nothing else; whatever could run code is refused.

A pickle is a program. `read_data` first walks through its opcodes without running any and accepts only those that build
None, booleans, numbers, text, bytes, lists, tuples and dicts. What passes is loaded by an unpickler that can find no
class at all, so that even a mistake in the list of opcodes gives nobody a callable.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, Final, NoReturn

from editr1_plugins.errors import DataError

__all__ = ["read_data"]

_PLAIN: Final = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS"),
    }
)


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(f"the pickle names {module}.{name}; only plain data is read")

    def persistent_load(self, pid: object) -> NoReturn:
        raise DataError("the pickle holds a persistent id; only plain data is read")


def read_data(body: bytes, max_opcodes: int = 200_000) -> Any:
    """The data in a pickle of protocol 3 to 5 made of None, bool, int, float, str, bytes, list, tuple and dict.

    Args:
        body: the pickle.
        max_opcodes: a longer program is refused.

    Raises:
        DataError: anything else is in it, or it is broken.
    """
    end = _check_opcodes(body, max_opcodes)
    if end != len(body):
        raise DataError(f"the pickle ends at byte {end} of {len(body)}")
    try:
        return _DataUnpickler(io.BytesIO(body)).load()
    except DataError:
        raise
    except Exception as error:  # a stack that is empty, an unhashable key, text that is no UTF-8, ...
        raise DataError(f"the pickle is broken: {type(error).__name__}: {error}") from error


def _check_opcodes(body: bytes, max_opcodes: int) -> int:
    """Where the program ends; see `read_data`."""
    end = 0
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(body), start=1):
            if opcode.name not in _PLAIN:
                raise DataError(f"the pickle has the opcode {opcode.name} at byte {position}; only plain data is read")
            if count > max_opcodes:
                raise DataError(f"the pickle has more than {max_opcodes} opcodes")
            # The memo is a table that grows to its largest index.
            if opcode.name in ("BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
                raise DataError(f"the pickle has the memo index {argument} at byte {position}")
            end = (position or 0) + 1
    except DataError:
        raise
    except Exception as error:  # genops raises ValueError, UnicodeDecodeError, struct.error, OverflowError, ...
        raise DataError(f"the pickle is broken: {type(error).__name__}: {error}") from error
    return end
