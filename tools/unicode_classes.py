#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes include/linnet/text/unicode_classes.hpp from Python's Unicode tables."""

import sys
import unicodedata
from pathlib import Path

HEADER = Path(__file__).resolve().parent.parent / "include/linnet/text/unicode_classes.hpp"
PINNED = "14.0.0"  # another version gives other tokens for the characters that it adds

# The property White_Space, which unicodedata lacks.
SPACES = {*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
          0x205F, 0x3000}
OTHER, LETTER, NUMBER, SPACE = range(4)

TEXT = "// SPDX-License-" + """Identifier: MIT
#pragma once
/// @file
/// Letters, numbers and white space of Unicode %(version)s. Written by tools/unicode_classes.py.

#include <algorithm>
#include <iterator>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

/// What a tokenizer's patterns know of a character: whether it is a letter (general category L*), a
/// number (N*), white space (White_Space), or another one, such as marks and what is unassigned.
enum class character_class : std::uint8_t { other, letter, number, space };

namespace detail {

/// Where runs of code points of one class begin: 4 x the first code point + the class.
inline constexpr std::uint32_t class_starts[] = {
    // clang-format off
%(rows)s
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


def class_of(code):
    if code in SPACES:
        return SPACE
    return {"L": LETTER, "N": NUMBER}.get(unicodedata.category(chr(code))[0], OTHER)


def rows():
    classes = [class_of(code) for code in range(0x110000)]
    starts = [f"{4 * code + kind:#x}," for code, kind in enumerate(classes)
              if code == 0 or classes[code - 1] != kind]
    line = "   "
    for start in starts:
        if len(line) + len(start) >= 100:
            yield line
            line = "   "
        line += " " + start
    yield line


def main():
    if unicodedata.unidata_version != PINNED:
        sys.exit(f"this Python knows Unicode {unicodedata.unidata_version}; {PINNED} is wanted")
    HEADER.write_text(TEXT % {"version": PINNED, "rows": "\n".join(rows())})


if __name__ == "__main__":
    main()
