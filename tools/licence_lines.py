#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Puts the licence line at the beginning of every source file, behind a #! line.

Data, text and images are licensed by REUSE.toml instead. With --check nothing is written: the
exit status says whether every source file has the line, and LICENSES the text of LICENSE.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = "SPDX-License-" + "Identifier: MIT"  # in two, as tools read the line anywhere in a file
COMMENTS = {
    "//": "c cpp h hpp inl".split(),
    "#": "cff cmake in ini py sh toml yaml yml".split(),
}
# Named by themselves; scripts without a suffix are known by their #! line.
NAMES = {"CMakeLists.txt": "#", ".clang-format": "#", ".clang-tidy": "#", ".editorconfig": "#",
         ".gitignore": "#"}
SUFFIXES = {"." + suffix: mark for mark, suffixes in COMMENTS.items() for suffix in suffixes}
# Not the project's: what is built, and what tools keep.
FOREIGN = {".git", ".cache", ".venv", "__pycache__", "build", "corpus", "golden", "node_modules"}


def files():
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(f for f in folders if f not in FOREIGN
                            and not Path(folder, f, "CMakeCache.txt").exists())
        for name in sorted(names):
            yield Path(folder, name)


def comment(path, head):
    """How a comment of this file begins; None if it carries no line."""
    mark = NAMES.get(path.name) or SUFFIXES.get(path.suffix)
    return mark or ("#" if head.startswith(b"#!") else None)


def licensed(path):
    """Text of a source file, and the text with the line; None for both if it carries none."""
    with path.open("rb") as file:
        mark = comment(path, file.read(2))
    if mark is None:
        return None, None
    text = path.read_text()
    shebang, rest = "", text
    if text.startswith("#!"):
        shebang, _, rest = text.partition("\n")
        shebang += "\n"
    line = f"{mark} {LINE}\n"
    return text, text if rest.startswith(line) else shebang + line + rest


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit("usage: tools/licence_lines.py [--check]")
    sources, lacking = 0, []
    for path in files():
        text, wanted = licensed(path)
        if text is None:
            continue
        sources += 1
        if text != wanted:
            lacking.append(path.relative_to(ROOT).as_posix())
            if not arguments:
                path.write_text(wanted)
    if arguments:
        for name in lacking[:20]:
            print(f"{name}: no line \"{LINE}\" at its beginning")
        print(f"{sources} source files, {len(lacking)} without a licence line"
              + (": run tools/licence_lines.py" if lacking else ""))
    else:
        print(f"{len(lacking)} of {sources} source files got a licence line")
    same = (ROOT / "LICENSE").read_text() == (ROOT / "LICENSES/MIT.txt").read_text()
    if not same:
        print("LICENSES/MIT.txt is not a copy of LICENSE")
    return 1 if arguments and lacking or not same else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
