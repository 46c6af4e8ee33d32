#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Gathers the texts of stlm_10m: texts.py DATA OUT [WRITTEN...]

DATA has folders tinystories, wikitext2, tinyshakespeare, mnli_train10k, cola and arc_easy, of which
training parts alone are read. (WikiText-2's validation stands for its training part, which DATA
lacks.) No question of a test is among them. WRITTEN are texts that a model wrote; sentences that
have been there are left out of them, since small models repeat themselves.
"""
import csv
import json
import pathlib
import re
import sys


def main():
    data, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)

    def read(name):
        return (data / name).read_text(encoding="utf-8", errors="replace")

    def write(name, text):
        (out / name).write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.encode()):,} bytes")

    write("tinystories.txt", read("tinystories/tiny_stories_train_head.txt"))
    write("wikitext2.txt", read("wikitext2/valid.txt"))
    write("tinyshakespeare.txt", read("tinyshakespeare/input.txt"))

    asked = re.compile(r'For the statement, "(.*)", does the hypothesis "(.*)" represent', re.S)
    lines = dict.fromkeys(
        part.strip() + "."
        for row in csv.DictReader(read("mnli_train10k/mnli_train.csv").splitlines(keepends=True))
        for found in asked.findall(row["Question"])
        for part in found
    )
    write("mnli.txt", "\n".join(lines) + "\n")

    rows = [line.split("\t") for line in read("cola/in_domain_train.tsv").splitlines()]
    write("cola.txt", "\n".join(row[3] for row in rows if row[1] == "1") + "\n")

    items = []
    for item in json.loads(read("arc_easy/train.json")):
        text = item["instruction"]
        question = text.split("question: ", 1)[1].split("\n\nAnswer1:")[0].strip()
        number = item["answer"].removeprefix("answer")
        choice = re.search(rf"Answer{number}: (.*?)(?= Answer\d: |\n\nAnswer format)", text, re.S)
        if choice:
            items.append(question + " " + choice[1].strip())
    seen, written = set(), []
    for name in sys.argv[3:]:
        text = pathlib.Path(name).read_text(encoding="utf-8", errors="replace")
        for paragraph in text.replace("\ufffd", "").split("\n"):
            kept = []
            for sentence in re.split(r"(?<=[.!?]) +", paragraph):
                if sentence and sentence not in seen and sentence[-1] in ".!?:":
                    seen.add(sentence)
                    kept.append(sentence)
            if kept:
                written.append(" ".join(kept))
    print(f"of these, {len(chr(10).join(written).encode()):,} bytes are written by a model:")
    write("questions_and_written.txt", "\n".join(items) + "\n" + "\n".join(written) + "\n")


main()
