// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// UTF-8: where its sequences end.

#include <cstddef>
#include <string>
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

/// A character at the front of a text: its code point and its bytes.
struct utf8_character {
  char32_t code;  ///< no_code for a byte that belongs to no well-formed sequence
  std::size_t size;
};
inline constexpr char32_t no_code = 0xffffffff;

/// The character at the front of a text that is not empty.
constexpr utf8_character utf8_front(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return {byte(0), 1};
  const std::size_t n = utf8_sequence(text.substr(0, 4));
  if (n < 2) return {no_code, 1};
  char32_t code = byte(0) & (0xffu >> (n + 1));
  for (std::size_t i = 1; i < n; ++i) code = code << 6 | (byte(i) & 0x3fu);
  return {code, n};
}
/// Appends a code point to a text.
inline void append_utf8(char32_t code, std::string& to) {
  const auto put = [&](char32_t byte) {
    to += static_cast<char>(static_cast<unsigned char>(byte));
  };
  if (code < 0x80) return put(code);
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  put((0xff00u >> (more + 1) & 0xffu) | code >> 6 * more);
  for (int i = more; i-- > 0;) put(0x80 | (code >> 6 * i & 0x3f));
}

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
