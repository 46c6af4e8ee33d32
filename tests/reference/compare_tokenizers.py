#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare linnet's tokenizers with Hugging Face's tokenizers package.

    compare_tokenizers.py --program ./tokenize [--data DIR] [--file TOKENIZER_JSON]...
                          [--strings 100000] [--golden] [KIND...]

Trains a small tokenizer of each kind, encodes random and real texts with both,
and prints the number of texts whose ids or decoded text differ. --data is a
folder of texts (*.txt) and of GPT-2's and T5's vocabularies, --file another
tokenizer.json. --golden writes tests/golden/tokenizers/kinds.json instead.
See README.md.
"""

import argparse
import base64
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VERSION = "0.23.3"
GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "tokenizers" / "kinds.json"

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPECIALS = ["<|start|>", "<|end|>"]
PIECES = list(" \n\r\t'sStTrReEvVmMlLdDabAB\u00e97\u0966\u00bd!._-\u017f\u3000\u00a0\u6f22\U0001f600\u0301\ufb01"
              "\u1e9b\u0323\uac00\u1100\u1161\u2581\u0130\u00df\u01c5\ufdfa\u00ad\u200b\ufffd\u0000") + [
    "'s", "'LL", "  ", "   ", "\n\n", "\r\n", "123", "1234567", " the", "'re", "n't", " do not", " ' ",
    "e\u0301", "Caf\u00e9", "na\u00efve", "\u4e2d\u6587", "<0x0A>", "##ing", "ing", "[UNK]", "<unk>",
    "\u2581the", "cat", "_", "\u203f", "\u24b6", "a" * 101, "A\u030a\u0327", "\u0915\u094d\u0937", "\U0001d400", "\u2460"]


def agreeing():
    """Code points whose class the package's tables and Unicode 14 have in common."""
    clean = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False,
                                       strip_accents=False, lowercase=False)
    strip = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False,
                                       strip_accents=True, lowercase=False)
    bert = pre_tokenizers.BertPreTokenizer()
    letter = pre_tokenizers.Split(Regex(r"\p{L}"), "isolated")
    number = pre_tokenizers.Split(Regex(r"\p{N}"), "isolated")
    digits = pre_tokenizers.Digits(individual_digits=True)

    words = pre_tokenizers.Whitespace()

    def is_word(code, category):
        return (category[0] in "LM" or category in ("Nd", "Nl", "Pc") or code in (0x200C, 0x200D) or
                any(first <= code <= last for first, last in (
                    (0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))))

    def cut(split, text):
        return len(split.pre_tokenize_str("!" + text + "!")) == 3

    def agrees(code):
        char, category = chr(code), unicodedata.category(chr(code))
        return (
            normalizers.Lowercase().normalize_str(char) == char.lower()
            and all(getattr(normalizers, form)().normalize_str(char) ==
                    unicodedata.normalize(form, char) for form in ("NFC", "NFD", "NFKC", "NFKD"))
            and strip.normalize_str(char) == "".join(
                c for c in unicodedata.normalize("NFD", char) if unicodedata.category(c) != "Mn")
            and (normalizers.StripAccents().normalize_str(char) == "") == (category[0] == "M")
            and (code in (0, 0xFFFD) or
                 (clean.normalize_str(char) == "") == (category in ("Cc", "Cf", "Co") and
                                                       char not in "\t\n\r"))
            and (len(words.pre_tokenize_str("a" + char + "a")) == 1) == is_word(code, category)
            and cut(letter, char) == (category[0] == "L")
            and cut(number, char) == cut(digits, char) == (category[0] == "N")
            and (code < 128 or (len(bert.pre_tokenize_str("a" + char + "b")) == 3) ==
                 (category[0] == "P")))

    return [code for code in range(0x110000) if not 0xD800 <= code < 0xE000 and agrees(code)]


def corpus(data):
    for path in sorted(pathlib.Path(data).rglob("*.txt")) if data else []:
        if path.name != "PROVENANCE.txt" and path.stat().st_size > 10000:
            yield path.read_text(encoding="utf-8", errors="ignore")


SEED = ("The quick brown fox jumps over the lazy dog. It's 1984, isn't it? They'll say we've 123 456. "
        "Caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00fcber Stra\u00dfe. \u4e2d\u6587\u5b57\u7b26 \u0645\u0631\u062d\u0628\u0627 "
        "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440. \ud55c\uad6d\uc5b4 "
        "def f(n):\n    return n  # no\n\n\tThe end, said the man; the other man did not agree.\n")


def texts(count, rng, codes, data, specials):
    found = [""]
    pieces = PIECES + specials * 3
    for i in range(count):
        kind = i % 4
        if kind == 0:
            parts = rng.choices(pieces, k=rng.randint(1, 16))
        elif kind == 1:
            parts = [chr(rng.choice(codes)) if rng.random() < 0.5 else rng.choice(pieces)
                     for _ in range(rng.randint(1, 12))]
        elif kind == 2:
            start = rng.choice([0, 0x80, 0x300, 0x900, 0x1100, 0x1E00, 0x2000, 0x3000, 0xAC00,
                                0xF900, 0xFB00, 0x1D400, 0x2F800])
            near = [c for c in range(start, start + 0x180) if c in texts.known]
            parts = [chr(rng.choice(near)) for _ in range(rng.randint(1, 20))]
        else:
            words = SEED.split(" ")
            parts = [" ".join(rng.choices(words, k=rng.randint(1, 20)))]
        found.append("".join(parts))
    for text in corpus(data):
        at = 0
        text = text[:200000]
        while at < len(text):
            size = rng.choice([20, 200, 2000])
            found.append(text[at:at + size])
            at += size
    known = texts.known
    return ["".join(c for c in t if ord(c) in known) for t in found]


# Kinds of tokenizers, by name.

def trained(model, trainer, lines, **settings):
    t = Tokenizer(model)
    for name, value in settings.items():
        setattr(t, name, value)
    t.train_from_iterator(lines, trainer)
    return t


def byte_level(size, lines, splits, alphabet=True, **settings):
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [])
    return trained(models.BPE(**settings.pop("model", {})), trainer, lines,
                   pre_tokenizer=splits, decoder=decoders.ByteLevel(), **settings)


def plain_bytes(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def sentencepiece_decoder():
    return decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                              decoders.Fuse(), decoders.Strip(" ", 1, 0)])


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def gpt2(size, lines):
    return byte_level(size, lines, plain_bytes(True))


def gpt2_split(size, lines):
    return byte_level(size, lines, pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(GPT2), "isolated"), plain_bytes(False)]))


def smollm(size, lines):
    return byte_level(size, lines, pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), plain_bytes(True)]), alphabet=False)


def llama3(size, lines):
    return byte_level(size, lines, pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), plain_bytes(False)]),
        model={"ignore_merges": True})


def qwen2(size, lines):
    return byte_level(size, lines, pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2), "isolated"), plain_bytes(False)]),
        normalizer=normalizers.NFC())


def bert(size, lines, **options):
    t = trained(models.WordPiece(unk_token="[UNK]"),
                trainers.WordPieceTrainer(vocab_size=size, show_progress=False, special_tokens=[
                    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]), lines,
                normalizer=normalizers.BertNormalizer(**options),
                pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
                decoder=decoders.WordPiece(cleanup=True))
    return t


def bert_cased(size, lines):
    return bert(size, lines, lowercase=False, clean_text=False)


def bert_accents(size, lines):
    return bert(size, lines, lowercase=True, strip_accents=False, handle_chinese_chars=False)


def character_bpe(size, lines, model, fallback, **settings):
    specials = ["<unk>", "<s>", "</s>"] + (BYTES if fallback else [])
    t = trained(models.BPE(**model), trainers.BpeTrainer(
        vocab_size=size + len(specials), show_progress=False, special_tokens=specials), lines,
        pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="never", split=True))
    t.pre_tokenizer = None
    settings.setdefault("decoder", sentencepiece_decoder())
    file = json.loads(t.to_str())
    file["added_tokens"] = file["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(file))
    for name, value in settings.items():
        setattr(t, name, value)
    return t


def llama(size, lines):
    return character_bpe(size, lines, {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"},
                         True, normalizer=normalizers.Sequence(
                             [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]))


def llama_metaspace(size, lines):
    return character_bpe(size, lines, {"byte_fallback": True, "unk_token": "<unk>"}, True,
                         pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first", split=False))


def fused_unknown(size, lines):
    return character_bpe(size, lines, {"fuse_unk": True, "unk_token": "<unk>"}, False,
                         normalizer=normalizers.NFKC(),
                         pre_tokenizer=pre_tokenizers.Sequence(
                             [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
                         decoder=decoders.Metaspace())


def single_unknown(size, lines):
    return character_bpe(size, lines, {"unk_token": "<unk>"}, False,
                         normalizer=normalizers.Sequence(
                             [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
                         pre_tokenizer=pre_tokenizers.Sequence(
                             [pre_tokenizers.Digits(individual_digits=False),
                              pre_tokenizers.Punctuation("isolated"), pre_tokenizers.Metaspace()]),
                         decoder=decoders.Metaspace())


def unigram(size, lines, fallback=False, **settings):
    specials = ["<pad>", "</s>", "<unk>"]
    settings.setdefault("decoder", decoders.Metaspace())
    after = settings.pop("pre_tokenizer", pre_tokenizers.Metaspace())
    settings["pre_tokenizer"] = pre_tokenizers.Metaspace()
    t = trained(models.Unigram(), trainers.UnigramTrainer(
        vocab_size=size, show_progress=False, special_tokens=specials, unk_token="<unk>"), lines,
        **settings)
    t.pre_tokenizer = after
    if fallback:
        file = json.loads(t.to_str())
        file["model"]["vocab"] += [[b, 0.0] for b in BYTES]
        file["model"]["byte_fallback"] = True
        t = Tokenizer.from_str(json.dumps(file))
    return t


def unigram_t5(size, lines):
    return unigram(size, lines, normalizer=normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(left=False),
         normalizers.Replace(Regex(" {2,}"), " ")]))


def unigram_bytes(size, lines):
    return unigram(size, lines, True, normalizer=normalizers.NFKD(), decoder=sentencepiece_decoder())


def unigram_whole(size, lines):
    return unigram(size, lines, pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="never",
                                                                       split=False),
                   decoder=decoders.Metaspace(prepend_scheme="never"))


def roberta(size, lines):
    t = byte_level(size, lines, pre_tokenizers.ByteLevel(add_prefix_space=True))
    t.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<s>", rstrip=True)])
    t.add_tokens([AddedToken("cat", single_word=True, normalized=False),
                  AddedToken("the", single_word=True, lstrip=True, rstrip=True),
                  AddedToken(" ab", rstrip=True), AddedToken("\u00e9 ", lstrip=True)])
    return t


def words(size, lines):
    t = bert(size, lines, lowercase=False)
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.add_tokens([AddedToken("Ab", single_word=True), AddedToken("_", lstrip=True, rstrip=True)])
    return t


def words_between_spaces(size, lines):
    t = bert(size, lines)
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    t.add_tokens([AddedToken("ab", single_word=True), AddedToken("E", single_word=True, normalized=False)])
    return t


KINDS = [gpt2, gpt2_split, smollm, llama3, qwen2, bert, bert_cased, bert_accents, llama,
         llama_metaspace, fused_unknown, single_unknown, unigram, unigram_t5, unigram_bytes,
         unigram_whole, roberta, words, words_between_spaces]


def real_gpt2(data):
    folder = pathlib.Path(data) / "tokenizer_gpt2"
    t = Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    t.pre_tokenizer, t.decoder = plain_bytes(True), decoders.ByteLevel()
    t.add_special_tokens(["<|endoftext|>"])
    return t


def fields(message):
    """Fields of a message of protocol buffers."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(message):
        key = varint()
        if key & 7 == 0:
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            value = message[at:at + size]
            at += size
        yield key >> 3, value


def real_t5(data):
    pieces, charsmap = [], b""
    for number, value in fields((pathlib.Path(data) / "tokenizer_t5" / "spiece.model").read_bytes()):
        if number == 1:
            piece = dict(fields(value))
            pieces.append((piece[1].decode(), struct.unpack("<f", piece[2])[0]))
        elif number == 3:
            charsmap = dict(fields(value))[2]
    t = Tokenizer(models.Unigram(pieces, unk_id=2))
    file = json.loads(t.to_str())
    file["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()},
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}]}
    t = Tokenizer.from_str(json.dumps(file))
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    t.add_special_tokens([p for p, _ in pieces[:3]])
    return t


def bare(t):
    """A tokenizer without its added tokens."""
    file = json.loads(t.to_str())
    known = file["model"]["vocab"]
    names = {p[0] for p in known} if isinstance(known, list) else set(known)
    if any(a["content"] not in names for a in file["added_tokens"]):
        return None
    file["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(file))


def run(program, t, match, lines):
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(t.to_str())
        file.flush()
        payload = b"".join(struct.pack("<I", len(b)) + b for b in (x.encode() for x in lines))
        out = subprocess.run([program, file.name, str(int(match))], input=payload,
                             stdout=subprocess.PIPE, check=True).stdout
    at = 0
    for _ in lines:
        n = struct.unpack_from("<I", out, at)[0]
        ids = list(struct.unpack_from(f"<{n}i", out, at + 4))
        at += 4 + 4 * n
        n = struct.unpack_from("<I", out, at)[0]
        yield ids, out[at + 4:at + 4 + n].decode("utf-8", "replace")
        at += 4 + n


def forges(t):
    """Texts that the package's unigram models turn into special tokens unasked."""
    model = json.loads(t.to_str())["model"]
    if model["type"] != "Unigram":
        return []
    return [p for p, _ in model["vocab"] if p[0] == "<" and p[-1] == ">"]


def compare_sentencepiece(program, t, data, lines):
    """Compares T5's vocabulary with SentencePiece: Hugging Face loses marks behind characters that
    the charsmap changes."""
    import sentencepiece
    model = sentencepiece.SentencePieceProcessor(
        model_file=str(pathlib.Path(data) / "tokenizer_t5" / "spiece.model"))
    lines = [x for x in lines if "\0" not in x]
    wrong = 0
    for line, (ids, back) in zip(lines, run(program, t, False, lines)):
        want = model.encode(line)
        if ids != want:
            wrong += 1
            if wrong < 4:
                print("  other:", ascii(line), ids, want, [model.id_to_piece(i) for i in want])
    print(f"real_t5: {len(lines)} texts, {wrong} with other ids than SentencePiece", flush=True)
    return wrong


def compare(name, program, t, match, lines):
    matched = {a.content for a in t.get_added_tokens_decoder().values()}
    never = [p for p in forges(t) if p not in matched]
    lines = [x for x in lines if not any(p in x for p in never)]
    wrong = [0, 0]
    first = True
    batch = t.encode_batch(lines, add_special_tokens=False)
    special = {i for i, a in t.get_added_tokens_decoder().items() if a.special}
    for line, want, (ids, back) in zip(lines, batch, run(program, t, match, lines)):
        text = t.decode([i for i in want.ids if i not in special], skip_special_tokens=False)
        differs = [ids != want.ids, back != text]
        # Hugging Face drops every space of the first piece, SentencePiece and linnet one; and it
        # shows each byte of broken UTF-8, and the ## of a text that begins with it.
        if back.lstrip(" ") == text.lstrip(" ") or "\ufffd" in text or "##" in line:
            differs[1] = False
        for i in (0, 1):
            wrong[i] += differs[i]
        if any(differs) and first:
            first = False
            print("  first:", ascii(line), ids, want.ids, ascii(back), ascii(text), want.tokens)
    print(f"{name}, added {'matched' if match else 'absent'}: {len(lines)} texts, "
          f"{wrong[0]} with other ids, {wrong[1]} decoded otherwise", flush=True)
    return sum(wrong)


def golden(codes):
    rng = random.Random(2027)
    lines = [SEED] * 3
    cases = []
    for kind in KINDS:
        t = kind(360 if "bert" in kind.__name__ or "uni" in kind.__name__ or
                 "known" in kind.__name__ else 300, lines)
        special = [a.content for a in t.get_added_tokens_decoder().values()]
        some = texts(24, rng, codes, None, special)
        ids = [t.encode(x, add_special_tokens=False).ids for x in some]
        cases.append({"kind": kind.__name__, "file": json.loads(t.to_str()), "texts": some,
                      "ids": ids})
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=True, separators=(",", ":"))
                                         for c in cases) + "\n]\n")


def main():
    if tokenizers.__version__ != VERSION:
        raise SystemExit(f"tokenizers {VERSION} is needed, this is {tokenizers.__version__}")
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program")
    parser.add_argument("--data")
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("--strings", type=int, default=100000)
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("kinds", nargs="*")
    options = parser.parse_args()
    codes = agreeing()
    texts.known = set(codes)
    assigned = sum(unicodedata.category(chr(c)) not in ("Cn", "Cs") for c in range(0x110000))
    print(f"{assigned - sum(unicodedata.category(chr(c)) != 'Cn' for c in codes)} of {assigned} "
          "assigned code points are left out: the package's tables have another Unicode version")
    if options.golden:
        return golden(codes)
    rng = random.Random(1)
    lines = [SEED] * 3 + [t[:30000] for t in corpus(options.data)]
    lines += ["".join(chr(rng.choice(codes)) for _ in range(20)) for _ in range(200)]
    plain = lines[:-200]  # a unigram model needs a piece for each character
    made = [(k.__name__, lambda k=k: k(3000, plain if "unigram" in k.__name__ else lines))
            for k in KINDS]
    if options.data:
        made += [("real_gpt2", lambda: real_gpt2(options.data)), ("real_t5", lambda: real_t5(options.data))]
    made += [(f, lambda f=f: Tokenizer.from_file(f)) for f in options.file]
    wrong = 0
    for name, make in made:
        if options.kinds and name not in options.kinds:
            continue
        t = make()
        t.no_padding()
        t.no_truncation()
        special = [a.content for a in t.get_added_tokens_decoder().values()]
        some = texts(options.strings, rng, codes, options.data, special)
        if name == "real_t5":
            wrong += compare_sentencepiece(options.program, t, options.data, some)
            continue
        wrong += compare(name, options.program, t, True, some)
        without = bare(t)
        if without:
            wrong += compare(name, options.program, without, False, some[:options.strings // 5])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
