#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks what code and documents cite.

usage: citations.py                    reads all text of the project

- A paper is cited as "Su et al. 2021", "Gu and Dao 2023" or "Elias (1974)". docs/references.md has
  an entry for it, headed by the first author's name and the year: "## su2021".
- Nothing cites a document that is not in the project.
- A relative link in a Markdown document leads to a file, and to a heading of it.
- In the tables of docs/seeds.md each test is there and names what its row has in code under "Here".
  All of that is found in include/, examples/ or benchmarks/.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFERENCES = ROOT / "docs" / "references.md"
SEEDS = ROOT / "docs" / "seeds.md"
TEXT = {".hpp", ".inl", ".cpp", ".md", ".py", ".txt", ".cmake", ".in", ""}
SKIPPED = ("single_include/", "tests/fuzz/corpus/", "tests/golden/")

OUTSIDE = re.compile(r"\bzoo [A-L]\d*[a-z]?\b(?![-\w])|\bzoo(?:-addendum\S*)?\.md\b|\bhouse\.md\b")
NAME = r"[A-Z][a-z]+(?:-[A-Z][a-z]+)?"
CITATION = re.compile(rf"\b({NAME})(?:, {NAME})*(?: et al\.| and {NAME})?(?: \(|, | )((?:19|20)\d\d)\b(?!\.\d|-\d)")
NO_AUTHORS = set("""January February March April May June July August September October November December
    Debian Ubuntu Unicode Version Python Copyright Since Until Table Visual Winter Summer In Of""".split())
COMMENT = re.compile(r"\n[ \t]*(?:///?<?|#|\*)[ \t]?")
INCLUDED = re.compile(r'^#include "([^"]+)"', re.M)
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")


def tracked():
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [n for n in names.split("\0") if n and not n.startswith(SKIPPED)
            and Path(n).suffix in TEXT and Path(n).name != "citations.py" and (ROOT / n).is_file()]


def slugs(text):
    """The anchors of a Markdown document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.M)}


def read(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def words_of_test(path):
    """All words of a test, and of the headers in quotes that it includes."""
    seen, todo, words = set(), [path], set()
    while todo:
        if (file := todo.pop()) not in seen:
            seen.add(file)
            words.update(re.findall(r"\w+", text := read(file)))
            places = (file.parent, ROOT / "tests", ROOT / "examples", ROOT)
            for name in INCLUDED.findall(text):
                todo += [(p / name).resolve() for p in places if (p / name).is_file()][:1]
    return words


def rows(text):
    """(line, code under "Here", code under "Test") of each row of tables with these columns."""
    here = test = None
    for number, line in enumerate(text.split("\n"), 1):
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")] if line.startswith("|") else []
        if "Here" in cells and "Test" in cells:
            here, test = cells.index("Here"), cells.index("Test")
        elif not cells:
            here = None
        elif here is not None and len(cells) > max(here, test):
            yield number, *(re.findall(r"`([^`]+)`", cells[i]) for i in (here, test))


def unproven():
    """What a row of docs/seeds.md names and is not there, or not in the row's tests."""
    code = set()
    for name in tracked():
        if name.startswith(("include/", "examples/", "benchmarks/")):
            code.update(re.findall(r"\w+", name + " " + read(ROOT / name)))
    for line, here, tests in rows(read(SEEDS)):
        at = f"docs/seeds.md:{line}"
        files = {test: ROOT / "tests" / f"{test}.cpp" for test in tests}
        yield from (f"{at}: tests/{test}.cpp is not there" for test in tests if not files[test].is_file())
        names = {name: word[-1] for name in here
                 if (word := re.findall(r"\w+", re.sub(r"<.*>|\.(?:hpp|inl)$", "", name)))}
        yield from (f"{at}: {name} is nowhere in the code" for name, word in names.items() if word not in code)
        words = {test: words_of_test(file) for test, file in files.items() if file.is_file()}
        if words:
            yield from (f"{at}: no test of its row names {name}" for name, word in names.items()
                        if not any(word in of for of in words.values()))
        yield from (f"{at}: {test} names nothing of its row" for test, of in words.items()
                    if names and not any(word in of for word in names.values()))


def main():
    entries = set(re.findall(r"^## (\S+)$", read(REFERENCES), re.M))
    found, cited = list(unproven()), set()
    for name in tracked():
        text = read(ROOT / name)
        for match in OUTSIDE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{name}:{line}: \"{match[0]}\" is no document of this project; cite a paper")
        is_document = name.endswith(".md")
        if (is_document or name.startswith("include/")) and ROOT / name != REFERENCES:
            flat = re.sub(r"\s+", " ", COMMENT.sub(" ", text))
            for author, year in CITATION.findall(flat):
                key = author.replace("-", "").lower() + year
                if author in NO_AUTHORS:
                    continue
                cited.add(key)
                if key not in entries:
                    found.append(f"{name}: {author} {year} has no entry {key} in docs/references.md")
        if is_document:
            bare = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.M | re.S)
            for target, anchor in LINK.findall(bare):
                if re.match(r"\w+:", target):
                    continue
                file = (ROOT / name).parent / target if target else ROOT / name
                if not file.exists():
                    found.append(f"{name}: the link {target} leads nowhere")
                elif anchor and file.suffix == ".md" and anchor not in slugs(read(file)):
                    found.append(f"{name}: {target}#{anchor}: no such heading")
    print(*sorted(set(found)), f"{len(entries)} references, {len(cited)} papers cited, "
          f"{len(set(found))} problems", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
