# SPDX-License-Identifier: MIT
"""Numbers of a caller, which C and C++ take."""

from __future__ import annotations

import contextlib
from typing import Any

from ._errors import Error


def number(name: str, value: Any, kind: type = int, lowest: int = -2**63, highest: int = 2**63 - 1) -> Any:
    """A number of Python or NumPy, as an int or a float and of no class below; or an error.

    ctypes would wrap one that is outside of its C type, and a class of its own may write itself as anything.
    """
    given = value
    try:
        if hasattr(value, "item"):
            given = value.item()  # refused by arrays of several numbers
        if isinstance(given, bool) or not isinstance(given, int if kind is int else (int, float)):
            raise TypeError
        given = kind(given)
    except (TypeError, ValueError, OverflowError):
        raise Error(f"{name}: expected {'an integer' if kind is int else 'a number'}; got {shown(value)}") from None
    if not lowest <= given <= highest:
        raise Error(f"{name}: expected a number from {lowest} to {highest}; got {shown(value)}")
    return given


def shown(value: Any) -> str:
    """A value in one short line of an error."""
    text = type(value).__name__
    with contextlib.suppress(Exception):  # Python writes no integer of 5,000 digits
        text = repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."
