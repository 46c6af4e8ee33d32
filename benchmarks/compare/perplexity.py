#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Perplexity of SmolLM2-135M in every storage and compute type, and in llama.cpp.

Texts are WikiText-2's test text and the end of tiny Shakespeare, as far as the folder of --data has
them. Each is scored in windows of --length tokens without anything from the window before. llama.cpp
runs the same file, and the floats that linnet wrote of it. Writes a table in Markdown and one JSON
file.
"""

import argparse
import json
import os
from pathlib import Path

from compare import CACHE
from sides import HERE, ROOT, Missing, Sides, quick_flags, run

# linnet's weights and inputs of products: what is shown, and the type.
ROUNDED = "ln::quantized<Model, ln::storage::%s>"
INTEGERS = "ln::quantized<Model, ln::storage::%s, ln::compute::int8>"
TYPES = {
    ("f32", "f32"): "Model",
    ("bf16", "f32"): ROUNDED % "bf16",
    ("bf16", "bf16"): "ln::quantized<Model, ln::storage::bf16, ln::compute::bf16>",
    ("q4_1, embedding q8_0", "f32"): "ln::quantized<Model, smollm2::kept>",
    ("q4_1, embedding q8_0", "int8"): "ln::quantized<Model, smollm2::kept, ln::compute::int8>",
    ("q8_0", "f32"): ROUNDED % "q8_0",
    ("q8_0", "int8"): INTEGERS % "q8_0",
    ("q4_0", "f32"): ROUNDED % "q4_0",
    ("q4_0", "int8"): INTEGERS % "q4_0",
    ("int8 by row", "f32"): ROUNDED % "int8",
    ("int8 by row", "int8"): INTEGERS % "int8",
    ("int6<32>", "f32"): ROUNDED % "int6<32>",
    ("int5<32>", "f32"): ROUNDED % "int5<32>",
    ("int4<32>", "f32"): ROUNDED % "int4<32>",
    ("int4<32>", "int8"): INTEGERS % "int4<32>",
    ("nf4", "f32"): ROUNDED % "nf4",
    ("int3<32>", "f32"): ROUNDED % "int3<32>",
}
# llama.cpp's weights, inputs of products, cache and flash attention.
LLAMA = [("f32", "f32", "f32", False), ("q4_1, embedding q8_0", "int8", "f32", False),
         ("q4_1, embedding q8_0", "int8", "f16", False),
         ("q4_1, embedding q8_0", "int8", "f16", True)]  # fmt: skip


def texts(data, folder):
    """Paths of the texts by their names."""
    found = {}
    wikitext, shakespeare = Path(data, "wikitext2/test.txt"), Path(data, "tinyshakespeare/input.txt")
    if wikitext.exists():
        found["WikiText-2"] = wikitext
    if shakespeare.exists():  # the last tenth, which models of ours are not trained on
        part = Path(folder, "shakespeare-end.txt")
        whole = shakespeare.read_bytes()
        part.write_bytes(whole[whole.index(b"\n\n", len(whole) * 9 // 10) + 2 :])
        found["Shakespeare"] = part
    return found


def table(rows, names):
    head = ["Program", "Weights", "Inputs", "Cache", "MB", *names]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for r in rows:
        found = [f"{r['perplexity'][n]:.3f}" if n in r["perplexity"] else "" for n in names]
        cells = [r["program"], r["weights"], r["inputs"], r["cache"],
                 f"{r['bytes'] / 1e6:.0f}" if r["bytes"] else "", *found]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--windows", type=int, default=6, help="of each text (default: %(default)s)")
    p.add_argument("--length", type=int, default=512, help="tokens (default: %(default)s)")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--only", metavar="NAME", action="append", default=[],
                   help="weights whose name begins so, such as q4_1, or llama.cpp")
    p.add_argument("--data", default=os.environ.get("LINNET_DATA"), help="folder of texts")
    p.add_argument("--out", default=str(ROOT / "build" / "perplexity"),
                   help="writes OUT.json and OUT.md (default: %(default)s)")
    p.add_argument("--venv", default=str(CACHE / "peers"), help="Python environment of the peers")
    p.add_argument("--cache", default=str(CACHE / "compare"), help="models and programs")
    p.add_argument("--compiler", default=os.environ.get("CXX", "c++"), help="for linnet")
    o = p.parse_args()
    if o.windows < 1 or o.length < 2 or o.threads < 1:
        p.error("--windows and --threads: at least 1; --length: at least 2")
    return o


def main():
    o = parse()
    sides = Sides(o.cache, o.venv, o.data, o.compiler, lambda text: print(text, flush=True))
    model = Path(sides.weights("smollm2"))
    floats = model.with_name("f32.gguf")
    found = texts(o.data or "", model.parent)
    if not found:
        raise SystemExit("no wikitext2/test.txt in the folder that --data or LINNET_DATA names")
    wanted = lambda name: not o.only or any(name.startswith(n) for n in o.only)
    rows, missing = [], []

    def score(row, command):
        try:
            for name, path in found.items():
                said = json.loads(run([*command(str(path))]))
                row["perplexity"][name] = said["perplexity"]
                row["bytes"] = row["bytes"] or said.get("bytes")
            rows.append(row)
            print(table([row], found).splitlines()[-1], flush=True)
        except Missing as why:
            missing.append({**row, "reason": str(why)})
            print(f"missing: {row['program']} {row['weights']} {row['inputs']}: {why}", flush=True)

    sizes = [str(o.windows), str(o.length), str(o.threads)]
    for (weights, inputs), type in TYPES.items():
        if not wanted(weights):
            continue
        try:
            program = sides.compile_cpp("perplexity_side.cpp", [f"-DSIDE_DEPLOYED={type}", *quick_flags()])
        except Missing as why:
            missing.append({"program": "linnet", "weights": weights, "reason": str(why)})
            print(f"missing: linnet {weights} in {inputs}: {why}", flush=True)
            continue
        write = [str(floats)] if type == "Model" else []
        score({"program": "linnet", "weights": weights, "inputs": inputs, "cache": "f32",
               "bytes": 0, "perplexity": {}},
              lambda text: [program, str(model), text, *sizes, *write])  # fmt: skip
    if wanted("llama.cpp"):
        for module in "llama_cpp", "numpy":
            sides.once(("module", module), lambda: sides.module(module))
        script = [sides.python, str(HERE / "peers" / "llamacpp_perplexity.py")]
        for weights, inputs, cache, flash in LLAMA:
            path = str(floats if weights == "f32" else model)
            score({"program": "llama.cpp" + (", flash attention" if flash else ""),
                   "weights": weights, "inputs": inputs, "cache": cache,
                   "bytes": os.path.getsize(path), "perplexity": {}},
                  lambda text: [*script, path, text, *sizes, cache, str(int(flash))])  # fmt: skip
    Path(o.out).parent.mkdir(parents=True, exist_ok=True)
    Path(o.out + ".md").write_text(table(rows, found))
    Path(o.out + ".json").write_text(json.dumps(
        {"windows": o.windows, "length": o.length, "rows": rows, "missing": missing,
         "versions": json.loads(sides.versions())}, indent=1))  # fmt: skip
    print(f"\n{table(rows, found)}\nwritten: {o.out}.md, {o.out}.json")


if __name__ == "__main__":
    main()
