#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
<<<<<<< HEAD
"""wasi.py MODULE [FOLDER ARGUMENT...]: runs a WebAssembly program under Wasmtime; its exit code is
the program's. FOLDER is the one that it sees."""
=======
"""wasi.py MODULE [FILE...]: runs a WebAssembly program under Wasmtime; its exit code is the program's.

Its arguments are the files, and it sees their folders.
"""
import os
>>>>>>> targets
import sys

import wasmtime

engine = wasmtime.Engine()
linker = wasmtime.Linker(engine)
linker.define_wasi()
store = wasmtime.Store(engine)
settings = wasmtime.WasiConfig()
settings.inherit_stdout()
settings.inherit_stderr()
<<<<<<< HEAD
settings.argv = [sys.argv[1], *sys.argv[3:]]
if len(sys.argv) > 2:
    settings.preopen_dir(sys.argv[2], ".")
=======
settings.argv = sys.argv[1:]
for folder in {os.path.dirname(file) for file in sys.argv[2:]}:
    settings.preopen_dir(folder, folder)
>>>>>>> targets
store.set_wasi(settings)
program = linker.instantiate(store, wasmtime.Module.from_file(engine, sys.argv[1]))
try:
    program.exports(store)["_start"](store)
except wasmtime.ExitTrap as end:
    sys.exit(end.code)
