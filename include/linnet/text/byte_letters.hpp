// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// GPT-2's spelling of bytes as printable characters (Radford et al. 2019, in their code).
/// vocab.bpe, encoder.json and tokenizer.json spell their pieces so.

#include <array>
#include <string>
#include <string_view>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Bytes that stand for themselves: printable in Latin-1.
constexpr bool is_own_letter(unsigned b) {
  return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}
/// The bytes in the order of GPT-2's ids 0 to 255. Bytes that are their own letter come first, then
/// the others, whose letters are U+0100 on.
inline constexpr std::array<unsigned char, 256> byte_order = [] {
  std::array<unsigned char, 256> order{};
  std::size_t i = 0;
  for (const bool own : {true, false})
    for (unsigned b = 0; b < 256; ++b)
      if (is_own_letter(b) == own) order[i++] = static_cast<unsigned char>(b);
  return order;
}();
inline constexpr unsigned own_letters = 188;  ///< how many are their own letter

/// The code point of each byte's letter.
inline constexpr std::array<std::uint16_t, 256> letter_codes = [] {
  std::array<std::uint16_t, 256> codes{};
  for (unsigned i = 0; i < 256; ++i)
    codes[byte_order[i]] =
        static_cast<std::uint16_t>(i < own_letters ? byte_order[i] : 256 + i - own_letters);
  return codes;
}();

}  // namespace detail

/// Bytes as letters, in UTF-8: a space is "Ġ", a newline "Ċ", and ASCII letters are themselves.
inline std::string letters_of(std::string_view bytes) {
  std::string letters;
  for (const char c : bytes) {
    const unsigned code = detail::letter_codes[static_cast<unsigned char>(c)];
    if (code < 0x80) {
      letters += static_cast<char>(code);
    } else {
      letters += static_cast<char>(0xc0 | code >> 6);
      letters += static_cast<char>(0x80 | (code & 0x3f));
    }
  }
  return letters;
}

/// Appends the bytes that letters stand for. False if there is another character among them; some
/// bytes may have been appended then.
inline bool append_bytes_of(std::string_view letters, std::string& bytes) {
  for (std::size_t i = 0; i < letters.size(); ++i) {
    unsigned code = static_cast<unsigned char>(letters[i]);
    if (code >= 0x80) {
      const unsigned next =
          i + 1 < letters.size() ? static_cast<unsigned char>(letters[i + 1]) : 0u;
      if (code < 0xc2 || code > 0xc5 || (next & 0xc0) != 0x80) return false;
      code = (code & 0x1f) << 6 | (next & 0x3f);
      ++i;
    }
    if (code >= 256) {
      if (code >= 256 + 256 - detail::own_letters) return false;
      code = detail::byte_order[code - 256 + detail::own_letters];
    } else if (!detail::is_own_letter(code)) {
      return false;
    }
    bytes += static_cast<char>(code);
  }
  return true;
}

LINNET_NAMESPACE_END
