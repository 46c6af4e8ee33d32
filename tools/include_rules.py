#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the house rules of include/linnet that an include line can break."""

import re
import sys
from pathlib import Path

INCLUDE = Path(__file__).resolve().parent.parent / "include"

# A folder includes only itself and folders before it.
FOLDERS = ["core", "file", "simd", "storage", "text", "ops", "nn", "model", "generate", "compress",
           "adapt", "data", "formats", "train", "distill", "eval", "search",
           "distributed"]
# Headers with one home each.
HOMES = [
    (re.compile(r"omp\.h"), "core/parallel.hpp"),
    (re.compile(r"\w*intrin\.h|arm_\w+\.h"), "simd/"),
    (re.compile(r"Eigen/(?!Core)"), "compress/"),
    (re.compile(r"nlohmann/"), "file/json.hpp"),
    (re.compile(r"xxhash"), ("formats/checkpoint_file.hpp", "train/checkpoint.hpp", "distill/")),
    (re.compile(r"xtensor"), "xtensor.hpp"),
    (re.compile(r"sentencepiece"), "sentencepiece.hpp"),
    (
        re.compile(r"sys/|fcntl\.h|unistd\.h"),
        ("file/", "core/arena.hpp", "core/processors.hpp", "simd/detect.hpp"),
    ),
    (re.compile(r"pthread\.h|sched\.h|time\.h"), "core/processors.hpp"),
    (re.compile(r"mpi\.h"), "distributed/"),
    (re.compile(r"iostream|print"), "nowhere: the library prints nothing"),
]
LONGEST = 400  # lines, about, but of tables that a script wrote
BEGINNING = re.compile(r"(// SPDX-.*\n)?#pragma once\n")
# The names of std that the library uses, by the standard header that has them. Compilers do not
# check this: their standard headers include more of each other than they must.
STANDARD = {
    "algorithm": """adjacent_find all_of any_of clamp copy copy_backward copy_n count count_if equal fill fill_n find find_if
        equal_range lower_bound make_heap max max_element min min_element mismatch none_of nth_element
        partial_sort pop_heap push_heap ranges remove_if reverse rotate sort sort_heap stable_partition stable_sort transform
        unique upper_bound""",
    "array": "array",
    "atomic": "atomic memory_order_acq_rel memory_order_acquire memory_order_relaxed",
    "bit": "bit_cast bit_ceil bit_width countr_zero endian popcount",
    "charconv": "chars_format from_chars from_chars_result to_chars",
    "clocale": "localeconv",
    "cmath": "abs atanh ceil copysign cos erf exp exp2 expm1 fmod ldexp log log1p nearbyint nextafter floor frexp ilogb pow round sin sqrt tanh",
    "concepts": "convertible_to derived_from invocable same_as",
    "cstddef": "byte nullptr_t ptrdiff_t size_t to_integer",
    "cstdint": "int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t uintptr_t",
    "cstdio": "ferror fclose fflush fgetc fopen fread fseek ftell fwrite remove rename",
    "cstdlib": "aligned_alloc free getenv strtod",
    "cstring": "memcmp memcpy",
    "ctime": "clock time",
    "functional": "equal_to greater less reference_wrapper",
    "initializer_list": "initializer_list",
    "iterator": "prev",
    "limits": "numeric_limits",
    "map": "map",
    "memory": "align make_unique unique_ptr",
    "new": "bad_alloc nothrow",
    "numeric": "accumulate iota",
    "numbers": "numbers",
    "optional": "nullopt optional",
    "queue": "priority_queue",
    "ratio": "ratio",
    "set": "set",
    "span": "as_bytes as_writable_bytes span",
    "stdexcept": "length_error",
    "string": "string to_string",
    "string_view": "string_view",
    "system_error": "errc generic_category",
    "thread": "thread",
    "tuple": "apply get tuple tuple_element_t tuple_size_v",
    "type_traits": """conditional_t enable_if_t is_arithmetic_v is_base_of_v is_const_v is_constant_evaluated is_constructible_v is_convertible_v is_copy_constructible_v
        is_floating_point_v is_integral_v is_invocable_v is_lvalue_reference_v is_nothrow_move_constructible_v
        is_pointer_v is_same_v is_signed_v
        is_trivially_copyable_v is_void_v remove_const_t remove_cvref_t remove_reference_t type_identity type_identity_t""",
    "unordered_map": "unordered_map",
    "utility": """as_const declval exchange forward in_range index_sequence index_sequence_for
        integer_sequence make_index_sequence make_integer_sequence move pair swap""",
    "variant": "get_if variant",
    "vector": "vector",
    "iterator array map span string string_view unordered_map vector": "begin data end size ssize",  # any
}


def place(name):
    """Position of a header in the order; those beside the folders come last."""
    folder = name.split("/")[1]
    return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


def includes(text):
    return re.findall(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', text, re.MULTILINE)


def problems(files):
    for name, text in files.items():
        if place(name) == len(FOLDERS) and name.count("/") > 1:
            yield f"{name}: folder is not in the order of tools/include_rules.py"
        if name.endswith(".hpp") and not BEGINNING.match(text):
            yield f"{name}: must begin with #pragma once, behind the licence line"
        if place(name) > place("linnet/ops/") and (call := re.search(r"\bsimd::(dispatch|best|resolve)\b", text)):
            yield f"{name}: {call[0]}: only ops/ calls simd/; see ops::execution::with_kernels"
        if (lines := text.count("\n")) > LONGEST * 1.25 and "Written by" not in text[:400]:
            yield f"{name}: {lines} lines, about {LONGEST} at most"
        for quoted in re.findall(r'#[ \t]*include[ \t]*"[^"]*"', text):
            yield f"{name}: write {quoted} as <linnet/...>"
        for target in includes(text):
            for pattern, home in HOMES:
                homes = tuple("linnet/" + h for h in ([home] if isinstance(home, str) else home))
                if pattern.match(target) and not name.startswith(homes):
                    yield f"{name}: includes <{target}>, which belongs to {home}"
            if not target.startswith("linnet/"):
                continue
            if target.endswith(".h") and (INCLUDE / target).exists():
                continue  # a header of C has no others
            if target not in files:
                yield f"{name}: includes <{target}>, which does not exist"
            elif place(target) > place(name):
                yield f"{name}: includes <{target}>, which stands further down"
    yield from cycles(files)
    yield from unreachable(files)
    yield from missing(files)


def cycles(files):
    done = set()

    def visit(name, path):
        if name in path:
            yield "include cycle: " + " -> ".join([*path[path.index(name):], name])
        elif name in files and name not in done:
            for target in includes(files[name]):
                yield from visit(target, [*path, name])
            done.add(name)

    for name in files:
        yield from visit(name, [])


def reached(names, files):
    """`names` and all headers that including them includes."""
    found, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += includes(files.get(name, ""))
    return found


def unreachable(files):
    found = reached((name for name in files if place(name) == len(FOLDERS)), files)
    for name in sorted(files.keys() - found):
        yield f"{name}: neither linnet.hpp nor an opt-in header beside it includes it"


def missing(files):
    """Names of std and intrinsics without the header that has them, here or in a header included."""
    homes = {word: headers.split() for headers, words in STANDARD.items() for word in words.split()}
    for name, text in files.items():
        if not name.endswith(".hpp"):  # is text of the headers that include it
            continue
        inlined = [files.get(target, "") for target in includes(text) if target.endswith(".inl")]
        code = re.sub(r"//.*", "", "".join([text, *inlined]))
        have = reached([name], files)
        if (word := re.search(r"\b_mm\d*_\w+|\b__m(?:128|256|512)\w*", code)) and "immintrin.h" not in have:
            yield f"{name}: uses {word[0]} without <immintrin.h>"
        for word in sorted(set(re.findall(r"\bstd::([a-z_0-9]+)", code))):
            if word not in homes:
                yield f"{name}: std::{word} is not in the table STANDARD of tools/include_rules.py"
            elif have.isdisjoint(homes[word]):
                yield f"{name}: uses std::{word} without <{homes[word][0]}>"


def main():
    files = {path.relative_to(INCLUDE).as_posix(): path.read_text()
             for path in sorted(INCLUDE.rglob("*")) if path.suffix in (".hpp", ".inl")}
    found = list(problems(files))
    print(*found, f"{len(files)} headers, {len(found)} problems", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
