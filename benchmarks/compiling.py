#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures what compiling linnet costs: processor time and memory of the entry headers and of whole
programs, what a second model adds, and the sizes of programs.

    benchmarks/compiling.py                 a table in Markdown, of g++ and clang++
    benchmarks/compiling.py --json FILE     and the figures as JSON

Figures are medians of --rounds runs at -O3, by turns. Take them on an idle machine.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++20", "-O3", "-DNDEBUG", f"-I{ROOT}/include", "-isystem", "/usr/include/eigen3"]
STORIES = (ROOT / "tests/consumers/stories.cpp").read_text()

MODELS = """
namespace ln = linnet;
template <ln::index I>
using model = ln::decoder<ln::decoder_shape{.d_model = 64 + 32 * I, .d_ff = 128, .heads = 4,
    .kv_heads = 2, .layers = 2, .vocabulary = 256, .context = 128}>;
const ln::token some[] = {1, 2, 3, 4};
"""
SESSIONS = f"#include <linnet/inference.hpp>\n{MODELS}" + """
template <ln::index I>
int run() {
  static ln::weights<model<I>> w;
  const auto packed = ln::pack(w);
  auto session = ln::session<model<I>>::open(packed, {.target = 64}).value();
  return static_cast<int>(session.feed(some)[0]);
}
"""
TRAINERS = f"#include <linnet/training.hpp>\n{MODELS}" + """
template <ln::index I>
int run() {
  static ln::weights<model<I>> w;
  ln::initialize(w, ln::seed{1});
  auto train = ln::trainer<model<I>>::open(w, {.batch = 1, .target = 4}, ln::adamw{}).value();
  return static_cast<int>(train.step({some, some, 1, 4}));
}
"""
ONE, TWO = "int main() { return run<0>(); }\n", "int main() { return run<0>() + run<1>(); }\n"


def including(header):
    return f"#include <linnet/{header}>\nint main() {{}}\n"


# name: (source, what is subtracted, or nothing)
ROWS = {
    "#include <linnet/linnet.hpp>": (including("linnet.hpp"), None),
    "#include <linnet/training.hpp>": (including("training.hpp"), None),
    "#include <linnet/inference.hpp>": (including("inference.hpp"), None),
    "examples/train_t5.cpp": ((ROOT / "examples/train_t5.cpp").read_text(), None),
    "stories260K, with linnet.hpp": (STORIES.replace("inference.hpp", "linnet.hpp"), None),
    "stories260K, with inference.hpp": (STORIES, None),
    "a decoder's session": (SESSIONS + ONE, None),
    "a second one": (SESSIONS + TWO, "a decoder's session"),
    "a decoder's trainer": (TRAINERS + ONE, None),
    "a second one of these": (TRAINERS + TWO, "a decoder's trainer"),
}
SIZES = {"stories260K, stripped": ["-O3"], "the same, -Os, one level": ["-Os", "-DLINNET_ONLY_LEVEL=avx2"]}


def cost(command, source):
    """Processor seconds and most megabytes of a compilation."""
    read, write = os.pipe()
    with os.fdopen(write, "w") as out:
        process = subprocess.Popen(command, stdin=read, stdout=subprocess.DEVNULL)
        os.close(read)
        out.write(source)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"compiling: {' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measured(compiler, rows, rounds):
    """{row: {"s", "MB", "lines"}}"""
    runs = {name: [] for name in rows}
    for _ in range(rounds):
        for name in rows:
            runs[name].append(cost([compiler, *FLAGS, "-xc++", "-c", "-o", os.devnull, "-"],
                                   ROWS[name][0]))
    found = {}
    for name in rows:
        seconds, memory = (statistics.median(values) for values in zip(*runs[name]))
        found[name] = {"s": round(seconds, 2), "MB": round(memory)}
        if name.startswith("#include"):
            text = subprocess.run([compiler, *FLAGS, "-xc++", "-E", "-"], input=ROWS[name][0],
                                  capture_output=True, text=True, check=True).stdout
            found[name]["lines"] = text.count("\n")
    for name in rows:
        less = ROWS[name][1]
        if less in found:
            found[name]["s"] = round(found[name]["s"] - found[less]["s"], 2)
            found[name]["MB"] -= found[less]["MB"]
    return found


def size(compiler, flags):
    """Bytes of the program without symbols."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        subprocess.run([compiler, *FLAGS, *flags, "-ffunction-sections", "-fdata-sections", "-s",
                        "-Wl,--gc-sections", "-xc++", "-", "-o", program], input=STORIES, text=True,
                       check=True)
        return program.stat().st_size


def main():
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--rows", default="", help="only those whose names hold this text")
    arguments.add_argument("--compilers", default="g++,clang++")
    arguments.add_argument("--json", type=Path, metavar="FILE")
    given = arguments.parse_args()
    compilers = [c for c in given.compilers.split(",") if shutil.which(c)]
    rows = [name for name in ROWS if given.rows in name]
    sizes = [name for name in SIZES if given.rows in name]
    all_found = {c: measured(c, rows, given.rounds) for c in compilers}
    for c in compilers:
        all_found[c] |= {name: {"bytes": size(c, SIZES[name])} for name in sizes}

    def cell(figures):
        if "bytes" in figures:
            return f"{figures['bytes'] / 1000:.0f} kB"
        lines = f", {figures['lines']:,} lines" if "lines" in figures else ""
        return f"{figures['s']:.2f} s, {figures['MB']} MB{lines}"

    print("| |", *(f"{subprocess.run([c, '--version'], capture_output=True, text=True).stdout.splitlines()[0]} |"
                   for c in compilers))
    print("| --- |", *("--- |" for _ in compilers))
    for name in rows + sizes:
        print(f"| {name} |", *(f"{cell(all_found[c][name])} |" for c in compilers))
    if given.json:
        given.json.write_text(json.dumps(all_found, indent=1) + "\n")


if __name__ == "__main__":
    main()
