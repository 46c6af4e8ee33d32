#!/usr/bin/env python3
"""Checks the house rules of include/linnet that an include line can break."""

import re
import sys
from pathlib import Path

INCLUDE = Path(__file__).resolve().parent.parent / "include"

# A folder includes only itself and folders before it.
FOLDERS = ["config", "core", "simd", "storage", "ops", "nn", "model", "text", "generate", "data",
           "train", "transform", "eval", "io", "distributed"]
# Headers with one home each.
HOMES = [
    (re.compile(r"omp\.h"), "core/parallel.hpp"),
    (re.compile(r"\w*intrin\.h|arm_\w+\.h"), "simd/"),
    (re.compile(r"Eigen/(?!Core)"), "transform/"),
    (re.compile(r"nlohmann/"), "io/json.hpp"),
    (re.compile(r"xxhash"), "io/"),
    (re.compile(r"xtensor"), "xtensor.hpp"),
    (re.compile(r"sentencepiece"), "sentencepiece.hpp"),
    (re.compile(r"sys/|fcntl\.h|unistd\.h"), "io/"),
    (re.compile(r"mpi\.h"), "distributed/"),
    (re.compile(r"iostream|print"), "nowhere: the library prints nothing"),
]
LONGEST = 400  # lines, about


def place(name):
    """Position of a header in the order; those beside the folders come last."""
    folder = name.split("/")[1]
    return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


def includes(text):
    return re.findall(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', text, re.MULTILINE)


def problems(files):
    for name, text in files.items():
        if place(name) == len(FOLDERS) and name.count("/") > 1:
            yield f"{name}: folder is not in the order of tools/include_rules.py"
        if name.endswith(".hpp") and not text.startswith("#pragma once\n"):
            yield f"{name}: must begin with #pragma once"
        if (lines := text.count("\n")) > LONGEST * 1.25:
            yield f"{name}: {lines} lines, about {LONGEST} at most"
        for quoted in re.findall(r'#[ \t]*include[ \t]*"[^"]*"', text):
            yield f"{name}: write {quoted} as <linnet/...>"
        for target in includes(text):
            for pattern, home in HOMES:
                if pattern.match(target) and not name.startswith("linnet/" + home):
                    yield f"{name}: includes <{target}>, which belongs to {home}"
            if not target.startswith("linnet/"):
                continue
            if target not in files:
                yield f"{name}: includes <{target}>, which does not exist"
            elif place(target) > place(name):
                yield f"{name}: includes <{target}>, which stands further down"
    yield from cycles(files)
    yield from unreachable(files)


def cycles(files):
    done = set()

    def visit(name, path):
        if name in path:
            yield "include cycle: " + " -> ".join([*path[path.index(name):], name])
        elif name in files and name not in done:
            for target in includes(files[name]):
                yield from visit(target, [*path, name])
            done.add(name)

    for name in files:
        yield from visit(name, [])


def unreachable(files):
    reached, todo = set(), [name for name in files if place(name) == len(FOLDERS)]
    while todo:
        name = todo.pop()
        if name in files and name not in reached:
            reached.add(name)
            todo += includes(files[name])
    for name in sorted(files.keys() - reached):
        yield f"{name}: neither linnet.hpp nor an opt-in header beside it includes it"


def main():
    files = {path.relative_to(INCLUDE).as_posix(): path.read_text()
             for path in sorted(INCLUDE.rglob("*")) if path.suffix in (".hpp", ".inl")}
    found = list(problems(files))
    print(*found, f"{len(files)} headers, {len(found)} problems", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
