#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes include/linnet/text/unicode_classes.hpp and unicode_tables.hpp from Python's Unicode tables."""

import sys
import unicodedata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "include/linnet/text"
PINNED = "14.0.0"  # another version gives other tokens for the characters that it adds

# The property White_Space, which unicodedata lacks.
SPACES = {*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
          0x205F, 0x3000}

CLASSES_TEXT = "// SPDX-License-" + """Identifier: MIT
#pragma once
/// @file
/// Letters, numbers and white space of Unicode %(version)s. Written by tools/unicode_tables.py.

#include <algorithm>
#include <iterator>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

/// Class of a character in a tokenizer's patterns: letter (general category L*), number (N*), white
/// space (White_Space) or other. Marks and unassigned code points are other.
enum class character_class : std::uint8_t { other, letter, number, space };

namespace detail {

/// Where runs of code points of one class begin: 4 x the first code point + the class.
inline constexpr std::uint32_t class_starts[] = {
    // clang-format off
%(classes)s
    // clang-format on
};

}  // namespace detail

/// The class of a code point; other for numbers that are none.
constexpr character_class class_of(char32_t c) {
  if (c > 0x10ffff) return character_class::other;
  const auto code = static_cast<std::uint32_t>(c);
  const auto next = std::upper_bound(std::begin(detail::class_starts),
                                     std::end(detail::class_starts), 4 * code + 3);
  return static_cast<character_class>(*std::prev(next) & 3);
}

LINNET_NAMESPACE_END
"""

TABLES_TEXT = "// SPDX-License-" + """Identifier: MIT
#pragma once
/// @file
/// Normal forms, lower case and general categories of Unicode %(version)s. Written by
/// tools/unicode_tables.py. They take %(kilobytes)d KB in programs that normalize text.

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Decompositions of one level, by code point: 64 x the code point, + 32 if the meaning is not kept
/// (compatibility), + how many code points it has.
inline constexpr std::uint32_t decompositions[] = {
    // clang-format off
%(decompositions)s
    // clang-format on
};
/// Where every 16th decomposition begins in decomposed_codes.
inline constexpr std::uint16_t decomposition_starts[] = {
    // clang-format off
%(starts)s
    // clang-format on
};
/// Code points that the decompositions consist of.
inline constexpr std::uint32_t decomposed_codes[] = {
    // clang-format off
%(codes)s
    // clang-format on
};
/// Numbers of the decompositions into two that composing turns back, in the order of the two.
inline constexpr std::uint16_t compositions[] = {
    // clang-format off
%(compositions)s
    // clang-format on
};
/// Where runs of one canonical combining class begin: 256 x the first code point + the class.
inline constexpr std::uint32_t combining_starts[] = {
    // clang-format off
%(combining)s
    // clang-format on
};
/// Where runs of one mark_class begin: 8 x the first code point + the class.
inline constexpr std::uint32_t mark_starts[] = {
    // clang-format off
%(marks)s
    // clang-format on
};
/// Where runs begin of what patterns' \\w takes otherwise than letters, numbers and marks: 2 x the
/// first code point, + 1 inside of a run. Most are numbers that are no digits.
inline constexpr std::uint32_t word_exceptions[] = {
    // clang-format off
%(words)s
    // clang-format on
};

/// Code points first, first + step ... last whose lower case is `add` further on.
struct case_run {
  std::uint32_t first, last, step;
  std::int32_t add;
};
/// Lower case of what has one; U+0130 alone has two code points for it, and is not here.
inline constexpr case_run lower_case_runs[] = {
    // clang-format off
%(lower)s
    // clang-format on
};

}  // namespace detail

LINNET_NAMESPACE_END
"""


def rows(items):
    line = "   "
    for item in items:
        if len(line) + len(item) >= 100:
            yield line
            line = "   "
        line += " " + item
    yield line


def table(values):
    return "\n".join(rows(f"{value:#x}," for value in values))


def runs(kinds, factor):
    return [factor * code + kind for code, kind in enumerate(kinds)
            if code == 0 or kinds[code - 1] != kind]


def character_class(code):
    """0 other, 1 letter, 2 number, 3 white space."""
    if code in SPACES:
        return 3
    return {"L": 1, "N": 2}.get(unicodedata.category(chr(code))[0], 0)


def mark_class(code):
    """0 none, 1 marks without width, 2 other marks, 3 punctuation, 4 control."""
    category = unicodedata.category(chr(code))
    if category[0] == "P" or chr(code) in "$+<=>^`|~":
        return 3
    return {"Mn": 1, "Mc": 2, "Me": 2, "Cc": 4, "Cf": 4, "Co": 4}.get(category, 0)


# Alphabetic symbols, which unicodedata lacks.
ALPHABETIC = {*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A),
              *range(0x1F170, 0x1F18A)}


def word_exception(code):
    """Whether patterns' \\w takes another code point than letters, numbers and marks."""
    category = unicodedata.category(chr(code))
    word = category[0] in "LM" or category in ("Nd", "Nl", "Pc") or code in ALPHABETIC or \
        code in (0x200C, 0x200D)
    return word != (category[0] in "LMN")


def lower_runs():
    found = []
    for code in range(0x110000):
        lower = chr(code).lower()
        if lower == chr(code) or len(lower) > 1:
            continue
        add = ord(lower) - code
        if found:
            first, last, step, before = found[-1]
            if before == add and code - last in ({1, 2} if first == last else {step}):
                found[-1] = (first, code, code - last, add)
                continue
        found.append((code, code, 1, add))
    return found


def main():
    if unicodedata.unidata_version != PINNED:
        sys.exit(f"this Python knows Unicode {unicodedata.unidata_version}; {PINNED} is wanted")
    entries, starts, codes, pairs = [], [], [], []
    for code in range(0x110000):
        text = unicodedata.decomposition(chr(code))
        if not text or 0xAC00 <= code < 0xD7A4:
            continue
        parts = text.split()
        compatible = parts[0][0] == "<"
        parts = [int(part, 16) for part in parts[compatible:]]
        assert len(parts) < 32
        if len(entries) % 16 == 0:
            starts.append(len(codes))
        if len(parts) == 2 and not compatible and \
                unicodedata.normalize("NFC", "".join(map(chr, parts))) == chr(code):
            pairs.append((parts, len(entries)))
        entries.append(64 * code + 32 * compatible + len(parts))
        codes += parts
    combining = runs([unicodedata.combining(chr(code)) for code in range(0x110000)], 256)
    marks = runs([mark_class(code) for code in range(0x110000)], 8)
    words = runs([word_exception(code) for code in range(0x110000)], 2)
    lower = lower_runs()
    assert [c for c in range(0x110000) if len(chr(c).lower()) > 1] == [0x130]
    size = 4 * (len(entries) + len(codes) + len(combining) + len(marks) + len(words) + 4 * len(lower)) + \
        2 * (len(starts) + len(pairs))
    classes = runs([character_class(code) for code in range(0x110000)], 4)
    (FOLDER / "unicode_classes.hpp").write_text(CLASSES_TEXT % {
        "version": PINNED, "classes": table(classes)})
    (FOLDER / "unicode_tables.hpp").write_text(TABLES_TEXT % {
        "version": PINNED, "kilobytes": -(-size // 1000),
        "decompositions": table(entries), "starts": table(starts), "codes": table(codes),
        "compositions": table(number for _, number in sorted(pairs)),
        "combining": table(combining), "marks": table(marks),
        "words": table(words),
        "lower": "\n".join(rows(f"{{{a:#x}, {z:#x}, {step}, {add}}}," for a, z, step, add in lower))})


if __name__ == "__main__":
    main()
