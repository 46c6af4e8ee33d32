#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the prose of README.md, of docs/ and of the comments of include/, as far as a script can.

- A sentence of a page or a comment has at most 25 words. Pages that have longer ones are listed in
  LONGER with what they may have: numbers that only fall. Of CHANGELOG.md what is unreleased is looked at.
- A paragraph of a page, and a comment, does not begin with "The same", "Those", "What" or "Likewise", which
  need something before them.
- Nothing cites sections of a document that is not in the project.
- No old name of the table in docs/glossary.md is used, as far as it tells itself from words of today: those
  with "::" or "_", others behind "ln::", and those of GONE in code of pages.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 25  # words of a sentence
LONGER = {}
LEANS = re.compile(r"\W*(The same|Those|What|Likewise)\b(?!\?)")
SENTENCE_END = re.compile(r"(?<=[.!?:;])(?<! al\.)(?<!eq\.)(?<!e\.g\.)(?<!i\.e\.)[*\"')]*\s+(?=[A-Z`*\[(\"0-9])"
                          r"|(?<=[.!?:;])$")
OUTSIDE = re.compile(r"\bzoo [A-L]\d+[a-z]?\b")
CITING = ["include", "tests", "docs", "examples", "benchmarks"]
TEXT = {".cpp", ".hpp", ".inl", ".md", ".py", ".txt"}
GLOSSARY = "docs/glossary.md"
TODAY = {"bf16", "distillation", "int8"}  # words of the table that have another meaning today
GONE = {"contrasting", "foresees", "finisher", "lesson", "mappable", "pausing", "processed", "rewinds"}


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
    """(line, text, whether a comment begins with it) of each paragraph; "@file" is left out."""
    start, lines, before, begins = 1, [], "", True
    for number, line in enumerate([*text.split("\n"), ""], 1):
        mark, said = (match[1], match[2]) if (match := re.match(r"\s*(///?)(?![/<]) ?(.*)", line)) else ("", "")
        said = "" if said == "@file" else said
        if lines and (mark != before or not said.strip() or re.match(r"\s|[-*] |@", said)):
            yield start, " ".join(lines), begins
            lines, begins = [], False
        if mark != before:
            before, begins = mark, True
        if said.strip():
            start = start if lines else number
            lines.append(said.strip())
        elif match := re.match(r"\s*[^\s/].*?\s//+<? (.*)", line):  # behind code
            yield number, match[1], True


def unreleased(changelog):
    """The same lines, those of releases empty."""
    lines = changelog.split("\n")
    end = next((i for i, line in enumerate(lines) if re.match(r"## \[\d", line)), len(lines))
    return "\n".join(lines[:end] + [""] * (len(lines) - end))


def old_names(glossary):
    """Of the first table of the glossary the old names that all texts lack, and a pattern of those of pages."""
    table = re.search(r"(^\|.*\n)+", glossary, re.M)[0]
    rows = re.findall(r"^\|([^|]*)\|", table, re.M)[2:]
    words = {word.strip("…") for row in rows for word in re.findall(r"`([^`<]+)`", row)} - TODAY
    every = {word if re.search(r"::|_", word) else f"ln::{word}" for word in words}
    return every, re.compile("|".join(rf"`{word}\b|\b{word}(\(|->)|auto {word}\b" for word in sorted(GONE)))


def uses(name, text, every, gone):
    """What is wrong with the names in a text."""
    there = [word for word in sorted(every) if word in text]
    ends = lambda word: r"\w" if word.endswith("::") else r"\b(?!::)"
    here = re.compile("|".join([rf"(?<![\w:.>]){re.escape(word)}{ends(word)}" for word in there] or ["(?!)"]))
    for number, line in enumerate(text.split("\n"), 1) if there or name.endswith(".md") else ():
        if "deprecated" in line:
            continue  # an alias
        if match := here.search(line) or (name.endswith(".md") and gone.search(line)):
            yield f'{name}:{number}: "{match[0]}" is an old name, see {GLOSSARY}'


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
    found = list(problems("CHANGELOG.md", unreleased((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))))
    old, gone = old_names((ROOT / GLOSSARY).read_text(encoding="utf-8"))
    for path in prose:
        name = path.relative_to(ROOT).as_posix()
        found += problems(name, path.read_text(encoding="utf-8"))
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(p for folder in CITING for p in names(folder))]:
        name = path.relative_to(ROOT).as_posix()
        found += uses(name, path.read_text(encoding="utf-8"), old, gone) if name != GLOSSARY else []
    for path in [ROOT / "README.md", *(path for folder in CITING for path in names(folder))]:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if match := OUTSIDE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: \"{match[0]}\" is no document of "
                             "this project; cite a paper")
    print(*found, f"{len(prose)} texts, {len(found)} problems of prose", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
