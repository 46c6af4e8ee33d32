#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the notebooks of docs/ and compares what their cells print with what the files say.

usage: notebook.py [--write] [FILE.ipynb...]    with --write the files get the new outputs

No Jupyter is needed: cells run one after the other in one namespace, and the value of a cell's last
expression is shown as a notebook shows it. Models are compiled as LINNET_CXXFLAGS says. It needs
NumPy. python/tests/test_linnet.py runs the notebooks in the same way.
"""

import ast
import contextlib
import difflib
import io
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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


def run_again(path):
    """A notebook with the outputs that its cells have now, and of each that says something else a text."""
    notebook, names, count, different = json.loads(path.read_text(encoding="utf-8")), {"__name__": "__main__"}, 0, []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        count += 1
        new = outputs(*run("".join(cell["source"]), names), count)
        if (new, count) != (cell["outputs"], cell["execution_count"]):
            text = lambda made, count: json.dumps([count, made], indent=1).splitlines()
            different.append("\n".join([f"{path.name}: cell {number} says something else:", *difflib.unified_diff(
                text(cell["outputs"], cell["execution_count"]), text(new, count), "the file", "now", "", "", 1)]))
        cell["outputs"], cell["execution_count"] = new, count
    return notebook, different


def main(arguments):
    sys.path.insert(0, str(ROOT / "python"))
    write = "--write" in arguments
    paths = [Path(a) for a in arguments if a != "--write"] or sorted((ROOT / "docs").glob("*.ipynb"))
    different = []
    for path in paths:
        notebook, some = run_again(path)
        if write:
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            different += some
    print(*different, f"{len(paths)} notebooks, {len(different)} cells that say something else", sep="\n")
    return 1 if different else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
