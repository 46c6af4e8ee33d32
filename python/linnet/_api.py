# SPDX-License-Identifier: MIT
"""The tables of functions of a compiled model: linnet/c_api.h and unit.hpp by ctypes."""

from __future__ import annotations

import ctypes as c
from pathlib import Path

from . import _build
from ._errors import Error

ABI = 1     # LINNET_ABI of linnet/c_api.h
LAYOUT = 1  # python_layout of unit.hpp
IGNORED = -100

OK, UNSUPPORTED = 0, 3  # of linnet_code
model_at = c.c_void_p
tokens_at = c.POINTER(c.c_int32)
on_token = c.CFUNCTYPE(c.c_int, c.c_int32, c.c_void_p)


class Options(c.Structure):
    """linnet_options."""
    _fields_ = [("size", c.c_size_t), ("context", c.c_int64), ("chunk", c.c_int64), ("batch", c.c_int64),
                ("length", c.c_int64), ("rate", c.c_double), ("threads", c.c_int32)]


class Sampling(c.Structure):
    """linnet_sampling."""
    _fields_ = [("size", c.c_size_t), ("temperature", c.c_double), ("top_k", c.c_int64), ("top_p", c.c_double),
                ("seed", c.c_uint64), ("tokens", c.c_int64)]


def call(*arguments):
    return c.CFUNCTYPE(c.c_int, *arguments)


class Api(c.Structure):
    """linnet_api."""
    _fields_ = [
        ("abi", c.c_uint32), ("vocabulary", c.c_int32), ("version", c.c_char_p),
        ("open_file", call(c.c_char_p, c.POINTER(Options), c.POINTER(model_at))),
        ("open_memory", call(c.c_char_p, c.c_size_t, c.POINTER(Options), c.POINTER(model_at))),
        ("create", call(c.c_uint64, c.POINTER(Options), c.POINTER(model_at))),
        ("close", c.CFUNCTYPE(None, model_at)),
        ("save", call(model_at, c.c_char_p)),
        ("reset", call(model_at)),
        ("feed", call(model_at, tokens_at, c.c_size_t, c.POINTER(c.c_float), c.c_size_t)),
        ("generate", call(model_at, tokens_at, c.c_size_t, c.POINTER(Sampling), on_token, c.c_void_p,
                          c.POINTER(c.c_size_t))),
        ("train", call(model_at, tokens_at, tokens_at, c.c_size_t, c.c_size_t, c.POINTER(c.c_double))),
        ("message", c.CFUNCTYPE(c.c_char_p)),
    ]


class Table(c.Structure):
    """linnet::python_table."""
    _fields_ = [
        ("layout", c.c_uint32), ("api", c.POINTER(Api)), ("parameters", c.c_int64), ("bytes", c.c_int64),
        ("describe", c.CFUNCTYPE(c.c_size_t, c.c_char_p, c.c_size_t)),
        ("score", call(model_at, tokens_at, tokens_at, c.c_size_t, c.c_size_t, c.POINTER(c.c_float),
                       c.POINTER(c.c_double), c.POINTER(c.c_int64))),
        ("save_packed", call(model_at, c.c_char_p)),
        ("make", call(c.c_char_p, c.c_size_t, c.c_char_p)),
    ]


def table_in(path: Path) -> Table | None:
    """The table of a library; None for a file that is none, or one of another interface."""
    try:
        function = c.CDLL(str(path)).linnet_python
    except (OSError, AttributeError):
        return None
    function.restype, function.argtypes = c.POINTER(Table), [c.c_uint32, c.c_uint32]
    found = function(ABI, LAYOUT)
    return found.contents if found else None


def load(source: str, needs_eigen: bool = False) -> Table:
    """The table of a unit. A cached library that is damaged or of another interface is compiled again."""
    table = table_in(_build.library(source, needs_eigen))
    if table is None:
        table = table_in(_build.library(source, needs_eigen, anew=True))
    if table is None:
        raise Error(f"the headers in {_build.headers()} have another interface than this package: install it again")
    return table
