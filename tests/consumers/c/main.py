#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A model that was compiled as C++, from Python by ctypes: main.py LIBRARY FOLDER."""

import ctypes as c
import os
import sys

CODES = "ok io malformed unsupported mismatch missing out_of_memory invalid refused".split()
model = c.c_void_p
on_token = c.CFUNCTYPE(c.c_int, c.c_int32, c.c_void_p)
tokens_at = c.POINTER(c.c_int32)


class Options(c.Structure):
    _fields_ = [("size", c.c_size_t), ("context", c.c_int64), ("chunk", c.c_int64),
                ("batch", c.c_int64), ("length", c.c_int64), ("rate", c.c_double),
                ("threads", c.c_int32)]

    def __init__(self, **given):
        super().__init__(size=c.sizeof(Options), **given)


class Sampling(c.Structure):
    _fields_ = [("size", c.c_size_t), ("temperature", c.c_double), ("top_k", c.c_int64),
                ("top_p", c.c_double), ("seed", c.c_uint64), ("tokens", c.c_int64)]

    def __init__(self, **given):
        super().__init__(size=c.sizeof(Sampling), **given)


def call(*arguments):
    return c.CFUNCTYPE(c.c_int, *arguments)


class Api(c.Structure):
    _fields_ = [
        ("abi", c.c_uint32), ("vocabulary", c.c_int32), ("version", c.c_char_p),
        ("open_file", call(c.c_char_p, c.POINTER(Options), c.POINTER(model))),
        ("open_memory", call(c.c_char_p, c.c_size_t, c.POINTER(Options), c.POINTER(model))),
        ("create", call(c.c_uint64, c.POINTER(Options), c.POINTER(model))),
        ("close", c.CFUNCTYPE(None, model)),
        ("save", call(model, c.c_char_p)),
        ("reset", call(model)),
        ("feed", call(model, tokens_at, c.c_size_t, c.POINTER(c.c_float), c.c_size_t)),
        ("generate", call(model, tokens_at, c.c_size_t, c.POINTER(Sampling), on_token, c.c_void_p,
                          c.POINTER(c.c_size_t))),
        ("train", call(model, tokens_at, tokens_at, c.c_size_t, c.c_size_t,
                       c.POINTER(c.c_double))),
        ("message", c.CFUNCTYPE(c.c_char_p)),
    ]


def ids(*numbers):
    return (c.c_int32 * len(numbers))(*numbers)


def main():
    library = c.CDLL(os.path.abspath(sys.argv[1]))
    library.counting_model.restype = c.POINTER(Api)
    library.counting_model.argtypes = [c.c_uint32]
    assert not library.counting_model(2), "another interface"
    api = library.counting_model(1).contents

    def checked(code, expected="ok"):
        assert CODES[code] == expected, (CODES[code], api.message())

    def written(at, **how):
        got = []
        count = c.c_size_t()
        take = on_token(lambda token, user: got.append(token) or 1)
        checked(api.generate(at, ids(0), 1, Sampling(**how), take, None, count))
        assert count.value == len(got)
        return got

    counter, loss = model(), c.c_double()
    checked(api.create(1, Options(batch=1, length=8, rate=1e-2), counter))
    for _ in range(150):
        checked(api.train(counter, ids(*range(8)), ids(*range(1, 9)), 1, 8, loss))
    assert loss.value < 0.1, loss.value
    assert written(counter) == list(range(1, 9))
    assert written(counter, tokens=3) == [1, 2, 3]
    drawn = written(counter, temperature=3.0, seed=5, tokens=6)
    assert drawn == written(counter, temperature=3.0, seed=5, tokens=6)

    path = os.path.join(sys.argv[2], "counting_of_python.npz")
    checked(api.save(counter, path.encode()))
    again, copy = model(), model()
    checked(api.open_file(path.encode(), None, again))
    with open(path, "rb") as file:
        data = file.read()
    checked(api.open_memory(data, len(data), None, copy))
    assert written(again) == written(copy) == list(range(1, 9))
    logits = (c.c_float * 9)()
    checked(api.reset(again))
    checked(api.feed(again, ids(0, 1, 2), 3, logits, 9))
    assert max(range(9), key=lambda i: logits[i]) == 3

    checked(api.feed(again, ids(0), 1, logits, 8), "invalid")
    checked(api.feed(again, ids(9), 1, logits, 9), "refused")
    assert b"vocabulary" in api.message()
    checked(api.feed(again, None, 1, logits, 9), "invalid")
    nothing = model()
    for size in range(0, len(data), 97):
        checked(api.open_memory(data[:size], size, None, nothing), "malformed")
        assert not nothing.value and b"\n" not in api.message()
    for one in counter, again, copy:
        api.close(one)
    print("counted in Python")


main()
