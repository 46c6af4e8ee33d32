#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Extracts the C++ blocks of Markdown documents as programs, to be compiled and run.

usage: snippets.py FOLDER DOCUMENT...

Every ```cpp block becomes the program <document>_<number>. One without `int main` is made a
program: its includes come first, its declarations (types, templates, functions, using, inline) at
file scope as far as its first statement, and the rest is the body of main. FOLDER gets the sources
of one executable, whose argument names the program to run; their names are printed, separated by
semicolons. An HTML comment before a block says what else there is to know, in phrases separated by
semicolons:

    <!-- snippet: name model -->                 call it model
    <!-- snippet: continues model -->            put the text of block `model` before it
    <!-- snippet: compile -->                    do not run it
    <!-- snippet: skip a fragment of a class --> leave it out, for this reason
    <!-- snippet: hidden
    bool keep_going(linnet::token) { return true; }
    -->                                          code the reader need not see, put before it
"""

import re
import sys
from pathlib import Path

BLOCK = re.compile(r"<!-- snippet:(?P<comment>.*?)-->|^```cpp\n(?P<code>.*?)^```$", re.M | re.S)
MOST_IN_ONE = 21  # programs in one source, for less than 2 GB of memory
PRELUDE = ["#include <linnet/linnet.hpp>", "namespace ln = linnet;"]

FILE_SCOPE_ONLY = re.compile(r"(inline|template|namespace|concept|extern)\b")
DECLARATION = re.compile(r"(struct|class|enum|union|using|typedef|constexpr|static_assert|static)\b")
STATEMENT = re.compile(r"(if|for|while|do|switch|try|return|throw)\b|\{")
STRING_OR_COMMENT = re.compile(r'"(\\.|[^"\\])*"|\'(\\.|[^\'\\])\'|//.*')


class Chunk:
    """Whole lines of a document: a declaration, a statement or a preprocessor line."""

    def __init__(self, document, line):
        self.document, self.line, self.text = document, line, ""

    def __str__(self):
        return f'#line {self.line} "{self.document}"\n{self.text}'

    def code(self):
        """The text without the comments and blank lines before it."""
        return re.sub(r"^(\s*(//.*)?\n)*", "", self.text).lstrip()


def split(document, line, text):
    """Splits the text of a block, which begins at `line`, into chunks."""
    chunk, depth = Chunk(document, line), 0
    for number, source in enumerate(text.splitlines(keepends=True), line):
        bare = STRING_OR_COMMENT.sub("", source).rstrip()
        depth += len(re.findall(r"[({[]", bare)) - len(re.findall(r"[)}\]]", bare))
        chunk.text += source
        if depth == 0 and (bare.endswith((";", "}")) or not chunk.code() or bare.startswith("#")):
            yield chunk
            chunk = Chunk(document, number + 1)
    if chunk.text:
        yield chunk


def is_function(code):
    head = code.partition("{")[0]
    return "(" in head and "=" not in head.partition("(")[0] and code.rstrip().endswith("}")


def program(chunks):
    """Makes a program of the chunks of one block: its includes, and the rest with its main."""
    complete = any(chunk.code().startswith("int main(") for chunk in chunks)
    includes, outside, body = [], [], []
    for chunk in chunks:
        code = chunk.code()
        if code.startswith("#include"):
            includes.append(code.strip())
        elif complete:  # nothing moves; unlike the true main, that of a namespace has to return
            is_main = code.startswith("int main(")
            outside.append(re.sub(r"\}\s*$", "return 0; }\n", str(chunk)) if is_main else chunk)
        elif code.strip() in ("", *PRELUDE):
            continue
        elif FILE_SCOPE_ONLY.match(code) or code.startswith("#"):
            outside.append(chunk)
        elif STATEMENT.match(code) or (body and DECLARATION.match(code)):
            body.append(chunk)
        else:
            (outside if DECLARATION.match(code) or is_function(code) else body).append(chunk)
    if complete:
        return frozenset(includes), "".join(map(str, outside))
    return frozenset([*includes, PRELUDE[0]]), "".join(
        [PRELUDE[1] + "\n", *map(str, outside), "int main() {\n", *map(str, body), "return 0;\n}\n"])


def programs(document):
    """Yields (name, whether to run it, program) for every block of one document."""
    text = Path(document).read_text()
    blocks, number, name, words, before = {}, 0, "", [], []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 2  # the line after the fence or comment's start
        if match["comment"] is not None:
            kind, _, hidden = match["comment"].strip().partition("\n")
            if kind == "hidden":
                before += split(document, line, hidden + "\n")
            else:
                words += [phrase.split() for phrase in kind.split(";")]
            continue
        number += 1
        directives = {word[0]: word[1:] for word in words}
        if unknown := directives.keys() - {"name", "continues", "compile", "skip"}:
            sys.exit(f"{document}:{line}: unknown in a snippet's comment: {', '.join(unknown)}")
        if "skip" not in directives:
            name = (directives.get("name") or [f"{Path(document).stem.lower()}_{number}"])[0]
            if "continues" in directives:
                before = blocks[directives["continues"][0]] + before
            blocks[name] = before + list(split(document, line, match["code"]))
            yield name, "compile" not in directives, program(blocks[name])
        words, before = [], []


def units(wanted):
    """Yields (file name, text) of sources that hold all programs, each in a namespace of its own.

    In one source are only programs that include the same headers, so none hides what another lacks.
    """
    together = {}
    for name, (includes, text) in wanted.items():
        together.setdefault(tuple(sorted(includes)), []).append(
            f"namespace {space(name)} {{\n{text}}}\n")
    for includes, texts in together.items():
        for start in range(0, len(texts), MOST_IN_ONE):
            part = texts[start:start + MOST_IN_ONE]
            name = "_".join(re.findall(r"(\w+)(?:\.hpp)?>", " ".join(includes)))
            yield f"{name}_{start // MOST_IN_ONE + 1}.cpp", "\n".join([*includes, *part])


def space(name):
    return "snippet_" + name.replace("-", "_")


def runner(names):
    """Makes the program that runs the one whose name is its argument."""
    return "".join(["#include <string_view>\n",
                    *(f"namespace {space(name)} {{ int main(); }}\n" for name in names),
                    "int main(int, char** argument) {\n  const std::string_view name = argument[1];\n",
                    *(f'  if (name == "{name}") return {space(name)}::main();\n' for name in names),
                    "  return 2;\n}\n"])


def main(folder, documents):
    wanted, to_run = {}, []
    for document in documents:
        for name, runs, made in programs(document):
            if name in wanted:
                sys.exit(f"{document}: a second snippet has the name {name}")
            wanted[name] = made
            if runs:
                to_run.append(name)
    files = {**dict(units(wanted)), "main.cpp": runner(to_run)}
    for stale in set(Path(folder).glob("*.cpp")) - {Path(folder, name) for name in files}:
        stale.unlink()
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = Path(folder, name)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    print(";".join(to_run), end="")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
