#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What techniques make of stlm-10m in memory and work: the table in docs/seeds.md.

    benchmarks/compare/constraints.py [--cache DIR] [--rows 0,13] [--times]

Bytes are those that the types promise. Work is in instructions, which valgrind counts, so that the
figures do not depend on what else the machine does; the kernels are those of AVX2, one thread.
--times measures on an idle machine instead.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

ROWS = [
    "f32, AdamW",
    "`sharing::ffn`",
    "`sharing::all`, `embedding::factorised<64>`",
    "one key-value head, not four",
    "`attention::sliding_window<64>`",
    "`attention::linear<>`",
    "`compute::bf16` in training",
    "`adafactor`",
    "`adamw_8bit`",
    "`limits::recompute`",
    "`lora<8>` on int8 weights",
    "12 layers, not 18; `d_ff` 192, not 384",
    "the same, from the whole model's logits",
    "2 of 4 numbers in f32",
    "int8 weights and inputs",
    "`int4<64>` weights",
    "int8 weights and inputs, `kv::int8`",
]
AS_FIRST_IN_TRAINING = range(13, 17)  # these rows change what is stored alone,
AS_FIRST_IN_DECODING = range(6, 10)   # these the training


def program(row, cache):
    """Compiles the program of a row, unless it is there."""
    made = cache / f"constraints-{row}"
    source = HERE / "constraints_side.cpp"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["g++", "-std=c++20", "-O2", "-DLINNET_ONLY_LEVEL=avx2", f"-DROW={row}", f"-I{ROOT}/include",
                        "-I/usr/include/eigen3", str(source), "-o", str(made)], check=True)
    return made


def work(made, what, count, cache):
    """Instructions of one token or step."""
    out = cache / "callgrind"
    done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}",
                           "--toggle-collect=int counted<*", str(made), what, str(count)],
                          env={**os.environ, "LINNET_SIMD": "avx2"}, capture_output=True,
                          text=True, check=True)
    out.unlink()
    return int(re.search(r"Collected : (\d+)", done.stderr).group(1)) / count


def seconds(made, what, few, many):
    """Wall time of one token or step: that of more of them, without what comes before."""
    took = []
    for count in (few, many):
        start = time.perf_counter()
        subprocess.run([str(made), what, str(count)], check=True)
        took.append(time.perf_counter() - start)
    return (took[1] - took[0]) / (many - few)


def print_times(rows, cache):
    """Medians of seven, by turns, for an idle machine."""
    made = {row: program(row, cache) for row in rows}
    steps, tokens = ({row: [] for row in rows} for _ in range(2))
    for _ in range(7):
        for row in rows:
            steps[row].append(seconds(made[row], "train", 1, 4))
            tokens[row].append(seconds(made[row], "decode", 20, 320))
    print("| Technique | Step, ms | Token, us |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {ROWS[row]} | {statistics.median(steps[row]) * 1e3:.0f} |"
              f" {statistics.median(tokens[row]) * 1e6:.0f} |")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("/tmp/linnet-constraints"))
    arguments.add_argument("--rows", default=",".join(str(i) for i in range(len(ROWS))))
    arguments.add_argument("--times", action="store_true", help="wall times, on an idle machine")
    given = arguments.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    rows = [int(row) for row in given.rows.split(",")]
    if given.times:
        return print_times(rows, given.cache)
    print("| Technique | File | Training | Inference | Step | Token |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        made = program(row, given.cache)
        size = json.loads(subprocess.run([str(made), "bytes"], capture_output=True, check=True).stdout)
        step = token = ""
        if row not in AS_FIRST_IN_TRAINING:
            step = f"{work(made, 'train', 1, given.cache) / 1e9:.2f}"
        if row not in AS_FIRST_IN_DECODING:
            token = f"{work(made, 'decode', 4, given.cache) / 1e6:.2f}"
        print(f"| {ROWS[row]} | {size['file'] / 1e6:.1f} MB | {size['train'] / 1e6:.0f} MB |"
              f" {size['run'] / 1e6:.1f} MB | {step} | {token} |", flush=True)


if __name__ == "__main__":
    main()
