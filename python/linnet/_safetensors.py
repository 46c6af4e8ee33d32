# SPDX-License-Identifier: MIT
"""Safetensors files: arrays under names, and texts."""

from __future__ import annotations

import json
import math
import os
import secrets
from pathlib import Path
from typing import Mapping

import numpy as np

from ._errors import Error

LONGEST_HEADER = 512 * 1024  # as the library's own reader has it
MOST_NUMBERS = 2**48  # of a tensor, its sides of 0 left out: NumPy refuses more
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Writes arrays as F32 with texts as metadata. Equal arrays and texts give equal bytes."""
    header: dict = {"__metadata__": dict(sorted(texts.items()))}
    parts, at = [], 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        parts.append(array)
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    replace(path, [len(text).to_bytes(8, "little"), text, *(part.tobytes() for part in parts)])


def replace(path: str | os.PathLike, parts: list[bytes]) -> None:
    """Writes a file under another name, forces it to the disk and renames it."""
    temporary = Path(f"{os.fspath(path)}.{secrets.token_hex(8)}.partial")  # no other writer's
    try:
        try:
            with temporary.open("xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as fault:
        raise Error(f"{os.fspath(path)}: {fault.strerror}") from None


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file as f32, and its texts. Nothing in the file is trusted."""
    def wrong(why: str) -> Error:
        return Error(f"{os.fspath(path)}: no safetensors file: {why}")

    try:
        data = Path(path).read_bytes()
    except OSError as fault:
        raise Error(f"{os.fspath(path)}: {fault.strerror}") from None
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(LONGEST_HEADER, len(data) - 8):
        raise wrong("its header is longer than the file, or than 512 KiB")
    try:
        header = json.loads(data[8:8 + size].decode("utf-8"))
    except (ValueError, RecursionError):
        raise wrong("its header is no JSON") from None
    if not isinstance(header, dict):
        raise wrong("its header is no JSON object")
    texts = header.pop("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise wrong("its metadata are no texts")
    values, arrays, places = memoryview(data)[8 + size:], {}, []
    for name, about in header.items():
        try:
            kind, shape, (begin, after) = TYPES[about["dtype"]], about["shape"], about["data_offsets"]
            numbers = [begin, after, *shape]
        except (KeyError, TypeError, ValueError):
            raise wrong(f"{name!r} is no tensor of F64, F32, F16 or BF16") from None
        if not isinstance(shape, list) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in numbers) \
                or after > len(values) or after - begin != math.prod(shape) * np.dtype(kind).itemsize \
                or math.prod(n or 1 for n in shape) > MOST_NUMBERS:
            raise wrong(f"the shape or the place of {name!r} does not fit the file")
        array = np.frombuffer(values[begin:after], kind)
        if about["dtype"] == "BF16":
            array = (array.astype("<u4") << 16).view("<f4")
        arrays[name] = array.astype("<f4").reshape(shape)
        places.append((begin, after))
    places.sort()
    if [0, *(after for _, after in places)] != [*(begin for begin, _ in places), len(values)]:
        raise wrong("its tensors overlap or leave bytes over")
    return arrays, texts
