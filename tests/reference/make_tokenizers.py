#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write tests/golden/tokenizers/cases.json: random byte-level tokenizers with
added tokens, and the ids that Hugging Face's tokenizers package gives to texts.

A case lacks its vocabulary, which the test makes: the 256 bytes in GPT-2's
order, what the merges make, then the added tokens that have no id yet. Cases
with "refused" have a setting that linnet does not follow, and name it.
See README.md.
"""

import json
import pathlib
import random

import tokenizers

VERSION = "0.23.3"
OUT = pathlib.Path(__file__).resolve().parent.parent / "golden" / "tokenizers" / "cases.json"

PIECES = ["<", ">", "|", "a", "b", "s", "ab", "é", "日", " ", "1", "23", "\n"]
FILLERS = PIECES + ["  ", "'s", "ba", "the", "x1", "..", "\t", " a"]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
              "use_regex": True}
PREFIXED = BYTE_LEVEL | {"add_prefix_space": True}
DIGITS, PREFIXED_DIGITS = ({"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": True}, last]} for last in (BYTE_LEVEL, PREFIXED))


def letters():
    """GPT-2's letter of each byte, in the order of its ids."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in own]
    return {b: chr(b) for b in own} | {b: chr(256 + i) for i, b in enumerate(rest)}


LETTERS = letters()


def spelled(text):
    return "".join(LETTERS[b] for b in text.encode())


def added_text(rng):
    while True:
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 4)))
        if len(text.encode()) > 1 and text.strip() and text not in LETTERS.values():
            return text


def make(rng, refused):
    vocabulary = {letter: i for i, letter in enumerate(LETTERS.values())}
    merges, texts = [], [*"abs<1"] + [spelled(" ")]
    for _ in range(rng.randint(0, 8)):
        a, b = rng.choice(texts), rng.choice(texts)
        if a + b not in vocabulary:
            vocabulary[a + b] = len(vocabulary)
            merges.append([a, b])
            texts.append(a + b)
    added, contents = [], set()
    for _ in range(rng.randint(1, 6)):
        # Texts that overlap, and some that merges make too.
        content = rng.choice([t for t in texts if len(t) > 1 and t.isascii()] or ["<s>"]) \
            if rng.random() < 0.2 else added_text(rng)
        if contents and rng.random() < 0.4:
            content = rng.choice(sorted(contents))[rng.randint(0, 1):] + content
        if content in contents or len(content.encode()) < 2:
            continue
        contents.add(content)
        known = content in vocabulary
        added.append({"id": vocabulary[content] if known else len(vocabulary) + len(
            [t for t in added if t["content"] not in vocabulary]), "content": content,
            "single_word": rng.random() < 0.2, "lstrip": rng.random() < 0.2,
            "rstrip": rng.random() < 0.2, "normalized": rng.random() < 0.5,
            "special": rng.random() < 0.5})
    added.sort(key=lambda t: t["id"])
    case = {"added_tokens": added, "normalizer": None,
            "pre_tokenizer": rng.choice([BYTE_LEVEL, DIGITS, PREFIXED, PREFIXED_DIGITS]),
            "ignore_merges": rng.random() < 0.3, "merges": merges}
    if refused:
        case["refused"] = refused
        if refused == "normalizer":
            case["normalizer"] = rng.choice([{"type": "Nmt"}, {"type": "ByteLevel"}, {
                "type": "Sequence", "normalizers": [{"type": "Nmt"}]}])
        elif refused == "pretokenizers[1]":  # inside letters
            case["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [BYTE_LEVEL, {
                "type": "Digits", "individual_digits": True}]}
        elif refused == "pre_tokenizer":
            case["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁",
                                     "prepend_scheme": "always", "split": True}
        else:  # content: a letter of GPT-2, which is another byte's piece
            added[:] = [added[0] | {"content": "é", "id": vocabulary["é"]}]

    model = {"type": "BPE", "dropout": None, "unk_token": None,
             "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
             "byte_fallback": False, "ignore_merges": case["ignore_merges"],
             "vocab": vocabulary, "merges": merges}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(
        {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
         "normalizer": case["normalizer"], "pre_tokenizer": case["pre_tokenizer"],
         "post_processor": None, "decoder": BYTE_LEVEL, "model": model}))
    for token in added:
        assert tokenizer.token_to_id(token["content"]) == token["id"], token
    if not refused:
        case["texts"] = []
        for _ in range(8):
            parts = rng.choices([t["content"] for t in added] * 2 + FILLERS, k=rng.randint(1, 8))
            # Cut at random, so that beginnings of added texts stand alone.
            case["texts"].append("".join(p[rng.randint(0, 1) if rng.random() < 0.2 else 0:]
                                         for p in parts))
        case["ids"] = [tokenizer.encode(t, add_special_tokens=False).ids for t in case["texts"]]
    return case


def main():
    if tokenizers.__version__ != VERSION:
        raise SystemExit(f"tokenizers {VERSION} is needed, this is {tokenizers.__version__}")
    rng = random.Random(2026)
    cases = [make(rng, None) for _ in range(80)]
    cases += [make(rng, setting) for setting in
              ["normalizer", "normalizer", "pretokenizers[1]", "pre_tokenizer", "content"]]
    OUT.write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n",
                   encoding="utf-8")


if __name__ == "__main__":
    main()
