#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Which model types the matrix test runs: every pair of choices that go together at least once.

    tools/matrix.py                writes tests/matrix/*.cpp
    tools/matrix.py --check        fails if they are not what it would write
    tools/matrix.py --table FILE   writes the tables of docs/matrix.md from what
                                   LINNET_MATRIX=FILE test_matrix has noted. If some types alone have
                                   run, rows of choices stay of which a type has not.

The choices of a family and what does not go together stand below. A new choice is one more word
here: the rows that cross it with all others follow.
"""
import itertools
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "matrix"
MODELS_PER_FILE = 8

# --- choices: name -> policies of the C++ type -----------------------------------------------------

RECURRENT = {"linear", "mamba", "rwkv4", "rwkv7"}  # no keys and values are kept
WITHOUT_POSITIONS = {"mamba", "rwkv4", "rwkv7"}
MAPPABLE = {"full", "prefix", "window", "sinks", "hadamard"}

CACHES = {"exact": "", "bf16": "kv::bf16", "int8": "kv::int8", "int4": "kv::int4"}
STORED = {
    "f32": "",
    "bf16 in bf16": "storage::bf16, compute::bf16",
    "int8 in int8": "storage::int8, compute::int8",
    "int4": "storage::int4<>",
}
ALSO_STORED = {"int4": "storage::int4<>", "nf4": "storage::nf4", "fp8_e4m3": "storage::fp8_e4m3",
               "per role": "storage::per_role<storage::q4_1, storage::embedding<storage::q8_0>, "
                           "storage::attention_v<storage::int3<>>, storage::ffn_down<storage::nf4>>",
               "ternary": "storage::ternary",
               "fp4": "storage::fp4<8>", "f16": "storage::f16", "int8": "storage::int8", "fp8_e5m2": "storage::fp8_e5m2",
               "bf16": "storage::bf16",
               "outlier columns": "storage::outlier_columns<storage::int4<8>, 2>",
               "sparse outliers": "storage::sparse_outliers<storage::spqr<3>, 2>",
               "low rank": "storage::low_rank_correction<storage::nf4_double_per<8>, 2>",
               "2:4": "storage::n_of_m<storage::int4<8>, 2, 4>",
               "bit mask": "storage::bit_mask<storage::int8, 50>"}
ALSO_IN_INT8 = {
    "int8 in int8": "storage::int8, compute::int8",
    "int4 in int8": "storage::int4<>, compute::int8",
    "low rank in int8": "storage::low_rank_correction<storage::int4<8>, 2>, compute::int8",
    "per role in int8": "storage::per_role<storage::q4_1, storage::embedding<storage::q8_0>>, "
                        "compute::int8",
    "q4_0 in int8": "storage::q4_0, compute::int8",
    "ternary in int8": "storage::ternary, compute::int8",
    "int8 groups in int8": "storage::int8_per<storage::granularity::group, "
                           "storage::symmetry::asymmetric>, compute::int8",
    "int8 in mixed int8": "storage::int8, compute::mixed_int8<1.0>",
    "int4 in int4": "storage::int4<8>, compute::int4",
    "fp4 in fp8": "storage::fp4<8, storage::fp4_scales::power_of_two>, compute::fp8",
}
# Caches in 16 bits, which differ by a conversion alone.
ALSO_CACHED = {"bf16": "kv::bf16", "f16": "kv::f16"}
# Storage that goes with few other choices: one model of each family beside the pairs.
ALONE = {"layers": "storage::layers<storage::first<1, storage::int8>, storage::int4<>>"}
ALONE_IN_DECODERS = {"blocks": "storage::block_sparse<storage::int4<8>, 32, 8>"}
# Feed-forwards of decoders that leave out neurons or experts: one model each.
FFN_ALONE = {"top k": "ffn::top_k<4, ffn::swiglu>",
             "experts": "ffn::experts<3, 2>",
             "contextual": "ffn::contextual<6, ffn::gated<activation_kind::relu>>",
             "widths": "ffn::per_layer<ffn::swiglu, 3, 7>"}
# Embeddings that go with few heads: one model.
ENDS_ALONE = {"tensor train": "embedding::tensor_train<tensor_train_cores>, tie::untied"}
# Caches with scales from a calibration: few models, as what reads them is the same for all.
CACHE_ALONE = {"channel int4": "kv::channel_int4", "channel int8": "kv::channel_int8"}
CALIBRATED = [
    {"cache": "channel int4"},
    {"cache": "channel int4", "attention": "prefix", "sharing": "repeat", "position": "none",
     "ends": "untied"},
    {"cache": "channel int8", "attention": "window", "weights": "int8 in int8", "sharing": "lora",
     "position": "rope_half"},
]
# Attention of decoders that leaves out heads, with a cache of two parts, and with heads by layer.
ATTENTION_ALONE = {"contextual": "attention::contextual<3>",
                   "longformer": "attention::longformer_at<6, attention::global_tokens<0, 4, 9>, 1, 2>",
                   "heads": "attention::per_layer<attention::full, 2, 4>"}
# Heads by layer of the other kinds that have them: caches and storage go by turns.
HEADS_BY_LAYER = {"heads of windows": "attention::per_layer<attention::sliding_window<7>, 4, 2>",
                  "heads of sinks": "attention::per_layer<attention::sinks<3, 6>, 2, 4>",
                  "heads of prefixes": "attention::per_layer<attention::prefix, 4, 2>"}
UNLIKE_HEADS = [
    {"attention": "heads of windows", "cache": "f16", "weights": "int8 in int8", "ffn": "widths"},
    {"attention": "heads of sinks", "cache": "int8", "weights": "bf16 in bf16",
     "position": "rope_half"},
    {"attention": "heads of prefixes", "cache": "int4", "weights": "int4", "position": "none",
     "ends": "untied"},
]
# Global queries are products of their own, whose inputs int8 rounds in memory planned for all.
ATTENTION_ALONE_WITH = {"longformer": {"weights": "int8 in int8"}}
# Attention of decoders in blocks, which a session reads whole: its ways are others. Each cache meets
# it once, and so does each storage of the pairs: f32, bf16 in bf16, int8 in int8 and int4. Choices
# that do not look at tokens go by turns. The evaluator is a second truth where the cache is exact,
# so that stands beside most choices: tests/generate/block_mask_test.cpp has f32.
ATTENTION_IN_BLOCKS = {"blocks of 3": "attention::block_causal<3>",
                       "blocks of 4": "attention::block_causal<4>"}
IN_BLOCKS = [
    {"attention": "blocks of 3", "cache": "int8"},
    {"attention": "blocks of 3", "cache": "bf16", "weights": "bf16 in bf16", "sharing": "lora",
     "position": "rope_half"},
    {"attention": "blocks of 4", "weights": "int8 in int8", "sharing": "ffn", "position": "learned",
     "ffn": "gelu"},
    {"attention": "blocks of 4", "cache": "int4", "weights": "int4", "sharing": "repeat",
     "position": "none", "ends": "untied"},
]
# Attention of encoders in blocks: the layer of windows with another mask, so choices that do not
# look at tokens go by turns.
ENCODERS_ALONE = {"blocks alone": "attention::block_diagonal<3>"}
ENCODERS_IN_BLOCKS = [
    {"attention": "blocks alone", "weights": "int8 in int8", "sharing": "ffn", "position": "rope",
     "head": "token"},
    {"attention": "blocks alone", "norms": "pre", "sharing": "lora", "position": "none",
     "ffn": "gated"},
    {"attention": "blocks alone", "weights": "int4", "sharing": "repeat", "ffn": "skip",
     "head": "contrastive"},
]
# All that go with few other choices, by what they are a choice of.
ALSO = {"weights": ALSO_STORED | ALSO_IN_INT8 | ALONE | ALONE_IN_DECODERS, "ffn": FFN_ALONE,
        "ends": ENDS_ALONE, "attention": ATTENTION_ALONE | HEADS_BY_LAYER | ATTENTION_IN_BLOCKS | ENCODERS_ALONE,
        "cache": ALSO_CACHED | CACHE_ALONE}
BY_LAYERS = {"decoder", "t5", "encoder"}

DECODERS = {
    "attention": {
        "full": "",
        "prefix": "attention::prefix",
        "window": "attention::sliding_window<7>",
        "sinks": "attention::sinks<3, 6>",
        "hadamard": "attention::hadamard<>",
        "lsh": "attention::lsh<4, 3>",
        "lsh online": "attention::lsh<4, 3>::online",
        "routing": "attention::routing<5, 6>",
        "routing online": "attention::routing<5, 6>::online",
        "linear": "attention::linear<>",
        "mamba": "mixer::mamba<3, 3>",
        "rwkv4": "mixer::rwkv4",
        "rwkv7": "mixer::rwkv7",
    },
    "cache": CACHES,
    "weights": STORED,
    "depths": {"all": "", "mixture": "depths::mixture_of_depths<0.5>"},
    "sharing": {"none": "", "ffn": "sharing::ffn", "all": "sharing::all", "repeat": "sharing::repeat<2>",
                "lora": "sharing::lora<2>"},
    "position": {"rope": "", "rope_half": "position::rope_half", "learned": "position::learned",
                 "sinusoidal": "position::sinusoidal", "none": "position::none"},
    "ffn": {"swiglu": "", "skip": "ffn::skip", "gelu": "ffn::gelu_tanh, norm::layer_norm, bias::all",
            "reparam": "ffn::reparam<2>", "channel mix": "ffn::rwkv4_channel_mix",
            "hadamard": "ffn::hadamard<>", "sub norm": "ffn::sub_norm<>, attention::sub_norm<>"},
    "ends": {"tied": "", "untied": "tie::untied", "factorised": "embedding::factorised<4>"},
}


def decoder_fits(a):
    kind, sharing, ffn = a.get("attention"), a.get("sharing"), a.get("ffn")
    if ffn == "sub norm" and kind not in (None, "full"):
        return False
    if kind in RECURRENT and a.get("cache", "exact") != "exact":
        return False  # the same model
    if kind in WITHOUT_POSITIONS and a.get("position", "none") != "none":
        return False
    if a.get("depths") == "mixture" and (
            kind not in (None, "full") or sharing not in (None, "none") or ffn == "channel mix"):
        return False
    if sharing == "lora" and (kind is not None and kind not in MAPPABLE
                              or ffn not in (None, "swiglu", "gelu", "skip")):
        return False
    if kind in ("rwkv4", "rwkv7") and ffn == "gelu":
        return False  # it has biases
    return not (kind == "rwkv7" and sharing not in (None, "none"))


T5S = {
    "decoder": {
        "full": "",
        "window": "decoder_stack<attention::sliding_window<4>>",
        "sinks": "decoder_stack<attention::sinks<1, 5>>",
        "lsh": "decoder_stack<attention::lsh<4, 3>>",
        "routing online": "decoder_stack<attention::routing<5, 6>::online>",
        "linear": "decoder_stack<attention::linear<>>",
    },
    "encoder": {
        "full": "",
        "longformer": "encoder_stack<attention::longformer<4, 1>>",
        "lsh": "encoder_stack<attention::lsh<4, 3>>",
        "linear": "encoder_stack<attention::linear<>>",
    },
    "cache": CACHES,
    "weights": STORED,
    "ffn": {"relu": "", "skip": "ffn::skip", "gated": "ffn::gated_gelu",
            "reparam": "ffn::reparam<3>", "channel mix": "ffn::rwkv4_channel_mix"},
    "ends": {"tied": "", "untied": "tie::untied"},
    "keys": {"of each query": "", "grouped": "matrix::grouped"},
}

ENCODERS = {
    "attention": {
        "full": "",
        "window": "attention::sliding_window<3>",
        "longformer": "attention::longformer<4, 1, 1, 2>",
        "linformer": "attention::linformer<3, 40>",
        "nystrom": "attention::nystrom<4, 3>",
        "lsh": "attention::lsh<4, 3>",
        "routing": "attention::routing<5, 6>",
        "linear": "attention::linear<>",
        "fnet": "mixer::fnet",
    },
    "norms": {"post": "", "pre": "norm_placement::pre"},
    "weights": STORED,
    "sharing": DECODERS["sharing"],
    "position": {"learned": "", "rope": "position::rope", "none": "position::none"},
    "ffn": {"gelu": "", "skip": "ffn::skip", "gated": "ffn::swiglu, norm::rms, bias::none",
            "channel mix": "ffn::rwkv4_channel_mix, bias::none"},
    "head": {"masked": "", "untied": "tie::untied", "factorised": "embedding::factorised<4>",
             "sequence": "head::sequence_classification<3>",
             "token": "head::token_classification<3>", "contrastive": "head::contrastive<>"},
}


def encoder_fits(a):
    kind = a.get("attention")
    if kind == "fnet" and a.get("position") == "rope":
        return False
    return not (a.get("sharing") == "lora" and (kind not in (None, "full", "window")
                                                or a.get("ffn") == "channel mix"))


BYTES = {
    "attention": {"full": "", "window": "attention::sliding_window<7>",
                  "linear": "attention::linear<>"},
    "cache": CACHES,
    "weights": {"f32": "", "int8 in int8": "storage::int8, compute::int8"},
}


def bytes_fit(a):
    return not (a.get("attention") == "linear" and a.get("cache", "exact") != "exact")


# --- rows -----------------------------------------------------------------------------------------


def all_pairs(axes, fits):
    """Assignments in which every pair of values that fits occurs, greedily few and always the same."""
    names = list(axes)
    missing = {
        frozenset([(a, x), (b, y)])
        for a, b in itertools.combinations(names, 2)
        for x in axes[a] for y in axes[b] if fits({a: x, b: y})
    }
    rows = []
    while missing:
        row = dict(min(map(sorted, missing)))
        for name in sorted((n for n in names if n not in row), key=lambda n: -len(axes[n])):

            def gain(value):
                trial = row | {name: value}
                if not completes(axes, trial, fits):
                    return -1
                return sum(frozenset([(name, value), pair]) in missing for pair in row.items())

            row[name] = max(axes[name], key=gain)
        before = len(missing)
        missing -= {frozenset(p) for p in itertools.combinations(row.items(), 2)}
        if len(missing) == before:
            raise SystemExit(f"tools/matrix.py: {row} cannot be completed")
        rows.append(row)
    return rows


def completes(axes, row, fits):
    """Whether a part of a row can become a whole one: each missing choice has a value that fits."""
    return fits(row) and all(
        any(fits(row | {n: v}) for v in axes[n]) for n in axes if n not in row)


def policies(axes, row):
    words = [axes[name].get(value) or ALSO.get(name, {}).get(value) for name, value in row.items()]
    parts = [part for word in words if word for part in split(word)]
    parts.sort(key=lambda part: not part.startswith("matrix::"))  # no policy: a shape
    return "".join(", " + part.removeprefix("matrix::") for part in parts)


def split(word):
    """'a<1, 2>, b' -> ['a<1, 2>', 'b'], with the library's namespace in front of each name."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(word):
        depth += (c == "<") - (c == ">")
        if c == "," and depth == 0:
            parts.append(word[start:i].strip())
            start = i + 1
    parts.append(word[start:].strip())
    return [p if p.startswith("matrix::") else "ln::" + re.sub(r"([<, ])(\w+::)", r"\1ln::\2", p)
            for p in parts]


def name_of(family, axes, row):
    """The choices that are not their family's first."""
    chosen = [f"{k} {v}" for k, v in row.items() if v != next(iter(axes[k]))]
    return f"{family}: " + (", ".join(chosen) or "all defaults")


# --- the sources ----------------------------------------------------------------------------------

LICENCE = "// SPDX-License-" + "Identifier: MIT\n"
HEAD = LICENCE + """// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::%s {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_%s)

"""
TAIL = """
BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::%s
"""


FAMILIES = (("decoder", DECODERS, decoder_fits), ("t5", T5S, lambda a: True),
            ("byte_pooled", BYTES, bytes_fit), ("encoder", ENCODERS, encoder_fits))


def families():
    """Each family with its choices and its types."""
    # Weights in 4 bits, and those with inputs in int8, stand for several storage types that only
    # products tell apart, by turns; so do caches in 16 bits.
    by_turns = {"weights": {"int4": itertools.cycle(ALSO_STORED),
                            "int8 in int8": itertools.cycle(ALSO_IN_INT8)},
                "cache": {"bf16": itertools.cycle(ALSO_CACHED)}}
    for family, axes, fits in FAMILIES:
        rows = all_pairs(axes, fits)
        for row in rows:
            for axis, turns in by_turns.items():
                if row.get(axis) in turns:
                    row[axis] = next(turns[row[axis]])
        if family in BY_LAYERS:
            rows += [{"weights": name} for name in ALONE]
        if family == "decoder":
            rows += [{"ffn": name} for name in FFN_ALONE]
            rows += [{"weights": name} for name in ALONE_IN_DECODERS]
            rows += [{"ends": name} for name in ENDS_ALONE]
            rows += [{"attention": name} | ATTENTION_ALONE_WITH.get(name, {})
                     for name in ATTENTION_ALONE]
            rows += IN_BLOCKS
            rows += CALIBRATED
            rows += UNLIKE_HEADS
        if family == "encoder":
            rows += ENCODERS_IN_BLOCKS
        yield family, axes, rows


def sources():
    made = {}
    for family, axes, rows in families():
        for first in range(0, len(rows), MODELS_PER_FILE):
            file = f"{family}_{first // MODELS_PER_FILE + 1}"
            text = HEAD % (file, family)
            for number, row in enumerate(rows[first:first + MODELS_PER_FILE], first + 1):
                text += (f"BOOST_AUTO_TEST_CASE(model_{number:02}) {{\n"
                         f"  check<{family}{policies(axes, row)}>(\"{name_of(family, axes, row)}\");\n}}\n")
            made[f"{file}.cpp"] = text + TAIL % file
    return made


# --- the tables of docs/matrix.md -----------------------------------------------------------------

DOCUMENT = FOLDER.parent.parent / "docs" / "matrix.md"
MARK = "<!-- tables written by tools/matrix.py -->\n"


def tables(file, before):
    """A table for each family: what became of each way in the models that have a choice. Rows of
    `before` stay of which a model has not run."""
    notes, text = {}, ""
    for line in pathlib.Path(file).read_text().splitlines():
        name, layout, _, way, worst, exact, refused = line.split("|")
        notes.setdefault(name, []).append((way, layout, float(worst), exact == "1", refused))
    all_rows = [(family, axes, {name_of(family, axes, row): row for row in rows})
                for family, axes, rows in families()]
    whole = all(n in notes for _, _, rows in all_rows for n in rows)
    old = {} if whole else rows_of(before)
    sentences = [] if whole else re.findall(r"(?m)^\d+\. (.+)$", before)
    for family, axes, rows in all_rows:
        rows = {n: choices_in(family, axes, n) for n in rows}
        ways = list(dict.fromkeys(w for n in rows for w, *_ in notes.get(n, [])))
        if family in old and (old[family][""] != ways or not ways):
            if ways:
                sys.exit(f"tools/matrix.py: ways of {family} are others than before; run all types")
            ways = old[family][""]
        text += f"\n## {family}\n\n{len(rows)} types.\n\n"
        text += "| | " + " | ".join(ways) + " |\n|" + " --- |" * (len(ways) + 1) + "\n"
        for axis, values in axes.items():
            shown = list(values) + [v for v in ALSO.get(axis, {}) if v not in values]
            for value in shown:
                types = [n for n, row in rows.items() if row[axis] == value]
                if not types:
                    continue
                if not all(n in notes for n in types):
                    text += old[family].get(f"{axis} {value}", "")
                    continue
                cells = [cell([x for n in types for x in notes[n] if x[0] == way], sentences)
                         for way in ways]
                text += f"| {axis} {value} | " + " | ".join(cells) + " |\n"
    text += "\n"
    for number, sentence in enumerate(sentences, 1):
        text += f"{number}. {sentence}\n"
    return text


def rows_of(text):
    """The rows of each family's table by their choice, and its ways as that of no choice."""
    made, family = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            family = line[3:]
        elif line.startswith("| | "):
            made[family] = {"": line[4:-2].split(" | ")}
        elif line.startswith("| "):
            made[family][line[2:line.index(" |", 2)]] = line + "\n"
    return made


def choices_in(family, axes, name):
    """The whole row of a name that leaves out first choices."""
    row = {axis: next(iter(values)) for axis, values in axes.items()}
    for part in name[len(family) + 2:].split(", "):
        axis, _, value = part.partition(" ")
        if axis in row:
            row[axis] = value
    return row


def cell(seen, sentences):
    words = []
    ran = [x for x in seen if not x[4] or x[2] > 0]
    if ran:
        worst = max(x[2] for x in ran)
        words.append("=" if all(x[3] for x in ran) and worst == 0 else f"{worst:.0e}")
    for sentence in dict.fromkeys(x[4] for x in seen if x[4]):
        if sentence not in sentences:
            sentences.append(sentence)
        words.append(f"({sentences.index(sentence) + 1})")
    return " ".join(words) or " "


def main():
    if "--table" in sys.argv:
        text, _, before = DOCUMENT.read_text().partition(MARK)
        file = sys.argv[sys.argv.index("--table") + 1]
        DOCUMENT.write_text(text + MARK + tables(file, before))
        return
    made, stale = sources(), []
    for file in FOLDER.glob("*.cpp"):
        if file.name not in made:
            stale.append(file.name)
            if "--check" not in sys.argv:
                file.unlink()
    for name, text in made.items():
        file = FOLDER / name
        if not file.exists() or file.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                file.write_text(text)
    if "--check" in sys.argv and stale:
        sys.exit("tests/matrix: not what tools/matrix.py writes: " + ", ".join(stale))


if __name__ == "__main__":
    main()
