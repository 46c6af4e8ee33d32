#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""wasi.py MODULE [ARGUMENT...]: runs a WebAssembly program under Wasmtime; its exit code is the
program's. It sees the folders of arguments that are paths."""
import os
import sys

import wasmtime

engine = wasmtime.Engine()
linker = wasmtime.Linker(engine)
linker.define_wasi()
store = wasmtime.Store(engine)
settings = wasmtime.WasiConfig()
settings.inherit_stdout()
settings.inherit_stderr()
settings.argv = sys.argv[1:]
for folder in {os.path.dirname(argument) for argument in sys.argv[2:]} - {""}:
    settings.preopen_dir(folder, folder)
store.set_wasi(settings)
program = linker.instantiate(store, wasmtime.Module.from_file(engine, sys.argv[1]))
try:
    program.exports(store)["_start"](store)
except wasmtime.ExitTrap as end:
    sys.exit(end.code)
