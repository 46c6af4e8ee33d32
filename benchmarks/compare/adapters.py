#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares PEFT's outputs with linnet's on adapters that linnet wrote.

Tiny models with random weights are saved for Transformers, and adapters of them for PEFT: low-rank
deltas, soft tokens and prefixes, one of them behind a projection. Both compute the logits of twelve
tokens in f32. PEFT reads a projection folded into a prefix and, but for T5 and interleaved keys, as
the two maps that linnet trained. Prints a table in Markdown; fails where a difference is too large.
"""

import argparse
import itertools
import os
import sys
import tempfile
from pathlib import Path

from compare import CACHE
from sides import HERE, Missing, Sides, quick_flags, run

BOUND = 1e-5  # largest difference over the largest logit


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--families", default="llama,interleaved,t5,bert", help="default: %(default)s")
    p.add_argument("--methods", default="lora,prompt,prefix,projection", help="default: %(default)s")
    p.add_argument("--venv", default=str(CACHE / "peers"), help="Python environment of the peers")
    p.add_argument("--cache", default=str(CACHE / "compare"), help="programs")
    p.add_argument("--compiler", default=os.environ.get("CXX", "c++"), help="for linnet")
    o = p.parse_args()
    sides = Sides(o.cache, o.venv, None, o.compiler, lambda text: print(text, file=sys.stderr))
    for module in "torch", "transformers", "peft":
        sides.once(("module", module), lambda: sides.module(module))
    failed = False
    print("| Family | Method | Largest difference |")
    print("| --- | --- | --- |")
    for family, method in itertools.product(o.families.split(","), o.methods.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            for name in "model", "adapter":
                (Path(folder) / name).mkdir()
            try:
                program = sides.compile_cpp("adapter_side.cpp",
                                            [f"-DSIDE_FAMILY={family}", f"-DSIDE_METHOD={method}",
                                             *quick_flags()])  # fmt: skip
                (Path(folder) / "told.json").write_text(run([program, folder]))
                error = float(run([sides.python, str(HERE / "peers" / "peft_adapter.py"), folder]))
            except Missing as why:
                print(f"| {family} | {method} | missing: {why} |", flush=True)
                failed = True
                continue
        bad = not error <= BOUND
        failed |= bad
        print(f"| {family} | {method} | {error:.1e}{' > %g' % BOUND if bad else ''} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
