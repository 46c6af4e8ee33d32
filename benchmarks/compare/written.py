#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares llama.cpp's outputs with linnet's on GGUF files that linnet wrote.

Tiny models of every family with random weights are written in every type. Both read the files and
compute logits of twelve tokens, or hidden states of an encoder. Files of floats must agree closely;
of other types llama.cpp rounds the inputs of products. Prints a table in Markdown; fails where a
difference of floats is too large. T5 has a head of its own: llama.cpp leaves out that tied heads
divide by the root of the width, so logits are larger there, with the same greedy tokens.
"""

import argparse
import json
import os
import sys
import tempfile

from compare import CACHE
from sides import HERE, Missing, Sides, quick_flags, run

# The largest difference over the largest output, in files of floats. llama.cpp looks GELU up in a
# table of numbers in half precision.
BOUND, GELU_BOUND = 1e-5, 1e-3


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--families", default="llama,gpt2,t5,bert", help="default: %(default)s")
    p.add_argument("--venv", default=str(CACHE / "peers"), help="Python environment of the peers")
    p.add_argument("--cache", default=str(CACHE / "compare"), help="programs")
    p.add_argument("--compiler", default=os.environ.get("CXX", "c++"), help="for linnet")
    o = p.parse_args()
    sides = Sides(o.cache, o.venv, None, o.compiler, lambda text: print(text, file=sys.stderr))
    for module in "llama_cpp", "numpy":
        sides.once(("module", module), lambda: sides.module(module))
    failed = False
    print("| Family | File | Largest difference | Most likely tokens equal |")
    print("| --- | --- | --- | --- |")
    for family in o.families.split(","):
        with tempfile.TemporaryDirectory() as folder:
            try:
                program = sides.compile_cpp("written_side.cpp",
                                            [f"-DSIDE_FAMILY={family}", *quick_flags()])  # fmt: skip
                said = run([program, folder])
                told = os.path.join(folder, "told.json")
                with open(told, "w") as file:
                    file.write(said)
                found = run([sides.python, str(HERE / "peers" / "llamacpp_written.py"), family, told])
            except Missing as why:
                print(f"| {family} | missing: {why} | | |", flush=True)
                failed = True
                continue
        for line in found.splitlines():
            r = json.loads(line)
            bound = GELU_BOUND if family in ("gpt2", "bert") else BOUND
            bad = r["type"] == "F32" and not r["error"] <= bound
            failed |= bad
            print(f"| {family} | {r['type']} | {r['error']:.1e}{' > %g' % bound if bad else ''} "
                  f"| {r['same']} of {r['rows']} |", flush=True)  # fmt: skip
    sys.exit(failed)


if __name__ == "__main__":
    main()
