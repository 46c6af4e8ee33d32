#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the prose of README.md, of docs/ and of the comments of include/, as far as a script can.

- A sentence of a page or a comment has at most 25 words. Pages that have longer ones are listed in
  LONGER with what they may have: numbers that only fall.
- A paragraph of a page, and a doc comment (`///`), does not begin with "The same", "Those" or "What", which
  need something before them.
- Nothing cites sections of a document that is not in the project.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 25  # words of a sentence
LONGER = {}
LEANS = re.compile(r"\W*(The same|Those|What)\b(?!\?)")
SENTENCE_END = re.compile(r"(?<=[.!?:;])(?<! al\.)(?<!eq\.)(?<!e\.g\.)(?<!i\.e\.)[*\"')]*\s+(?=[A-Z`*\[(\"0-9])"
                          r"|(?<=[.!?:;])$")
OUTSIDE = re.compile(r"\bzoo [A-L]\d+[a-z]?\b")
CITING = ["include", "tests", "docs", "examples", "benchmarks"]
TEXT = {".cpp", ".hpp", ".inl", ".md", ".py", ".txt"}


def bare(text):
    """Text as a reader counts its words: links and code are one word each."""
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"`[^`]*`", "Code", text)


def words(sentence):
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def paragraphs(text):
    """(line, text) of each paragraph and list item; code, tables and headings are left out."""
    blank = lambda match: "\n" * match[0].count("\n")
    text = re.sub(r"^```.*?^```$|<!--.*?-->", blank, text, flags=re.M | re.S)
    start, lines = 1, []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        leaves = not line.strip() or re.match(r"\s*(\||#|    |[-*]{3})", line)
        item = re.match(r"\s*([-*]|\d+\.)\s", line)
        if (leaves or item) and lines:
            yield start, " ".join(lines)
            lines = []
        if not leaves:
            if not lines:
                start = number
            lines.append(re.sub(r"^\s*([-*]|\d+\.)\s+", "", line).strip())


def comments(text):
    """(line, text, whether a doc comment begins with it) of each paragraph; "@file" is left out."""
    start, lines, before, begins = 1, [], "", True
    for number, line in enumerate([*text.split("\n"), ""], 1):
        mark, said = (match[1], match[2]) if (match := re.match(r"\s*(///?)(?![/<]) ?(.*)", line)) else ("", "")
        said = "" if said == "@file" else said
        if lines and (mark != before or not said.strip() or re.match(r"\s|[-*] |@", said)):
            yield start, " ".join(lines), begins and before == "///"
            lines, begins = [], False
        if mark != before:
            before, begins = mark, True
        if said.strip():
            start = start if lines else number
            lines.append(said.strip())


def problems(name, text):
    is_page, longest = name.endswith(".md"), 0
    texts = ((*each, True) for each in paragraphs(text)) if is_page else comments(text)
    for line, paragraph, begins in texts:
        if begins and (match := LEANS.match(paragraph)):
            yield f'{name}:{line}: begins with "{match[1]}"'
        for sentence in SENTENCE_END.split(bare(paragraph)):
            longest = max(longest, count := words(sentence))
            if count > LONGER.get(name, LONGEST):
                yield f"{name}:{line}: {count} words: {sentence[:70]}..."
    if longest < LONGER.get(name, 0):
        yield f"{name}: has at most {longest} words in a sentence now: lower its number in tools/prose.py"


def main():
    names = lambda folder: sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in TEXT)
    prose = [ROOT / "README.md", *(p for p in names("docs") if p.suffix == ".md"), *names("include")]
    found = []
    for path in prose:
        name = path.relative_to(ROOT).as_posix()
        found += problems(name, path.read_text(encoding="utf-8"))
    for path in [ROOT / "README.md", *(path for folder in CITING for path in names(folder))]:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if match := OUTSIDE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: \"{match[0]}\" is no document of "
                             "this project; cite a paper")
    print(*found, f"{len(prose)} texts, {len(found)} problems of prose", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
