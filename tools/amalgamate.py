#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the single headers: single_include/linnet/linnet.hpp, the parts of it that stand alone, and
the opt-in adapters beside it.

Every <linnet/...> include is replaced by the file: an .hpp where it is first included, an .inl
(kernels, included once per instruction set) at each inclusion. With --check nothing is written;
the exit status says whether the files are up to date.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAIN = "linnet/linnet.hpp"
PARTS = {"linnet/inference.hpp": "INFERENCE"}  # of MAIN, alone
ADAPTERS = ["linnet/checkpoint.hpp", "linnet/gguf.hpp", "linnet/json.hpp",
            "linnet/low_rank.hpp", "linnet/compression.hpp", "linnet/search.hpp",
            "linnet/calibration_file.hpp", "linnet/cached_logits.hpp",
            "linnet/generated_data.hpp", "linnet/numpy.hpp", "linnet/mpi.hpp",
            "linnet/mpi_checkpoint.hpp", "linnet/sentencepiece.hpp", "linnet/xtensor.hpp"]

INCLUDE = re.compile(r"\s*#\s*include\s*<([^>]+)>")
CONDITION = re.compile(r"\s*#\s*(if|endif)")
LICENCE = "// SPDX-"  # begins each header's first line
BANNER = LICENCE + """License-Identifier: MIT
// linnet {version}: small language models in C++20.
// Written by tools/amalgamate.py from include/{name}: do not edit.
//
{license}
#pragma once
"""


def read(name):
    return (ROOT / "include" / name).read_text()


class Amalgamation:
    """The expansion of one header; `external` names the single header that holds a header already."""

    def __init__(self, external={}):
        self.external = external
        self.expanded = []  # .hpp files, in the order of their text
        self.conditional = set()  # of these, the ones that stand inside an #if
        self.system = set()  # unconditional includes of other libraries

    def expand(self, name, inside_if=False):
        """The lines of header `name`, with its includes replaced."""
        depth = 0
        for line in read(name).splitlines():
            if line.strip() == "#pragma once" or line.startswith(LICENCE):
                continue
            if match := CONDITION.match(line):
                depth += 1 if match[1] == "if" else -1
            match = INCLUDE.match(line)
            if match is None:
                yield line
            else:
                yield from self.include(name, line, match[1], inside_if or depth > 0)

    def include(self, includer, line, target, inside_if):
        if target in self.external:
            target = self.external[target]
            line = f"#include <{target}>"
        elif target.startswith("linnet/"):
            if target.endswith(".inl"):
                yield from self.expand(target, inside_if)
            elif target not in self.expanded:
                self.expanded.append(target)
                if inside_if:
                    self.conditional.add(target)
                yield from self.expand(target, inside_if)
            elif target in self.conditional:
                sys.exit(f"include/{includer}: {target} has already been expanded inside an #if; "
                         "include it unconditionally and let it hold the #if itself")
            return
        if inside_if:
            yield line
        elif target not in self.system:
            self.system.add(target)
            yield line


def single_header(name, external={}):
    """Text of the single header for `name`, and the headers it contains."""
    amalgamation = Amalgamation(external)
    body = "\n".join(amalgamation.expand(name))
    body = re.sub(r"\n{3,}", "\n\n", body).strip("\n")
    version = ".".join(re.findall(r"define LINNET_VERSION_[A-Z]+ (\d+)", read("linnet/core/platform.hpp")))
    license = re.sub("^", "// ", (ROOT / "LICENSE").read_text().strip(), flags=re.MULTILINE)
    license = license.replace("// \n", "//\n")
    return BANNER.format(name=name, version=version, license=license) + body + "\n", amalgamation.expanded


def guarded(name, text):
    """The single header of MAIN or a part of it: of these, a program includes one."""
    mine = PARTS.get(name, "LINNET")
    others = " || ".join(f"defined(LINNET_SINGLE_{other})"
                         for other in ["LINNET", *PARTS.values()] if other != mine)
    return text.replace("#pragma once\n", f"""#pragma once
#if {others}
#error "linnet: of the single headers linnet.hpp and inference.hpp include one"
#endif
#define LINNET_SINGLE_{mine}
""", 1)


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit("usage: tools/amalgamate.py [--check]")
    text, contained = single_header(MAIN)
    outputs = {MAIN: guarded(MAIN, text)}
    for part in PARTS:
        outputs[part] = guarded(part, single_header(part)[0])
    external = {header: MAIN for header in [MAIN, *contained]}
    for adapter in ADAPTERS:
        if (ROOT / "include" / adapter).exists():
            outputs[adapter], contained = single_header(adapter, external)
            external |= {header: adapter for header in contained}

    for name, text in outputs.items():
        path = ROOT / "single_include" / name
        if path.exists() and path.read_text() == text:
            continue
        if arguments == ["--check"]:
            sys.exit(f"single_include/{name} is out of date: run tools/amalgamate.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"single_include/{name}: {text.count(chr(10))} lines")


if __name__ == "__main__":
    main(sys.argv[1:])
