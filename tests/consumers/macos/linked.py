#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""linked.py PROGRAM: looks at a Mach-O program of 64 bits that was linked without a C++ library.

Fails unless the system has all that the program asks for, but for names of the C++ library and of the
compiler's own.
"""
import re
import struct
import sys
from pathlib import Path

# std::, its types, operators new and delete, exceptions and guards; which processor this is.
OPEN = re.compile(r"__Z(T[ISV])?(NK?)?St|__Z(n[wa]|d[la])|___cxa_|___gxx_personality_v0$|___cpu_")
SYMBOLS, LIBRARY = 0x2, (0xC, 0x80000018)  # load commands

data = Path(sys.argv[1]).read_bytes()
magic, machine, _, kind, commands = struct.unpack_from("<5I", data)
if magic != 0xFEEDFACF or kind != 2:
    sys.exit(f"{sys.argv[1]}: not a program of 64 bits for macOS")


def text(at):
    return data[at:data.index(b"\0", at)].decode()


at, libraries, wanted = 32, [], []
for _ in range(commands):
    command, size = struct.unpack_from("<2I", data, at)
    if command in LIBRARY:
        libraries.append(text(at + struct.unpack_from("<I", data, at + 8)[0]))
    if command == SYMBOLS:
        symbols, count, names, _ = struct.unpack_from("<4I", data, at + 8)
        for i in range(count):
            name, kind, _, about, _ = struct.unpack_from("<IBBHQ", data, symbols + 16 * i)
            if kind & 0xEF == 1:  # undefined and external
                wanted.append((about >> 8, text(names + name)))
    at += size

found = sorted(name for library, name in wanted if 1 <= library <= len(libraries))
lacking = sorted(name for library, name in wanted if not 1 <= library <= len(libraries))
unknown = [name for name in lacking if not OPEN.match(name)]
print(f"{sys.argv[1]}: {len(data)} bytes, {len(found)} names of {', '.join(libraries)},",
      f"{len(lacking) - len(unknown)} of the C++ library and the compiler,", f"{len(unknown)} unknown", *unknown)
sys.exit(bool(unknown) or not found)
