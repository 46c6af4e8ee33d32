#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the notebooks of docs/ and compares what their cells print with what the files say.

usage: notebook.py [--write] [FILE.ipynb...]    with --write the files get the new outputs

No Jupyter is needed: cells run one after the other in one namespace, and the value of a cell's last
expression is shown as a notebook shows it. Models are compiled as LINNET_CXXFLAGS says. It needs
NumPy, and is run by hand, as compiling takes a while.
"""

import ast
import contextlib
import difflib
import io
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))


def run(source, names):
    """What a cell prints, and its last value as a text or None."""
    tree, value = ast.parse(source), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(tree, "<cell>", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    return said.getvalue(), None if value is None else repr(value)


def outputs(said, value, count):
    lines = lambda text: text.splitlines(keepends=True)
    made = [{"name": "stdout", "output_type": "stream", "text": lines(said)}] if said else []
    if value is not None:
        made.append({"data": {"text/plain": lines(value)}, "execution_count": count, "metadata": {},
                     "output_type": "execute_result"})
    return made


def main(arguments):
    write = "--write" in arguments
    paths = [Path(a) for a in arguments if a != "--write"] or sorted((ROOT / "docs").glob("*.ipynb"))
    different = 0
    for path in paths:
        notebook, names, count = json.loads(path.read_text(encoding="utf-8")), {"__name__": "__main__"}, 0
        for number, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] != "code":
                continue
            count += 1
            new = outputs(*run("".join(cell["source"]), names), count)
            if new != cell["outputs"] and not write:
                different += 1
                text = lambda made: json.dumps(made, indent=1).splitlines()
                print(f"{path.name}: cell {number} says something else:",
                      *difflib.unified_diff(text(cell["outputs"]), text(new), "the file", "now", "", "", 1), sep="\n")
            cell["outputs"], cell["execution_count"] = new, count
        if write:
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(paths)} notebooks, {different} cells that say something else")
    return 1 if different else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
