// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// UTF-8: where its sequences end.

#include <cstddef>
#include <string_view>

#include <linnet/core/platform.hpp>

LINNET_NAMESPACE_BEGIN

/// Bytes of the well-formed UTF-8 sequence that `text` begins with; 1 for a byte that begins
/// none, 0 if more bytes are needed to tell. `text` must not be empty.
constexpr std::size_t utf8_sequence(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  const std::size_t length = lead < 0xc2 || lead > 0xf4 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (length == 1) return 1;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return 0;
    // The second byte has a narrower range behind some leads: no overlong forms, surrogates or
    // numbers above U+10FFFF.
    const unsigned low = i > 1 ? 0x80 : lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned high = i > 1 ? 0xbf : lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (byte(i) < low || byte(i) > high) return 1;
  }
  return length;
}

namespace detail {

/// Whether a text is UTF-8 throughout.
inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t n = utf8_sequence(text);
    if (n == 0 || (n == 1 && static_cast<unsigned char>(text[0]) >= 0x80)) return false;
    text.remove_prefix(n);
  }
  return true;
}

}  // namespace detail

LINNET_NAMESPACE_END
