// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// SentencePiece's compiled map of characters to their normal form.

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/core/utf8.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A precompiled_charsmap: u32 bytes of a trie, its units of u32, then texts that end with a zero.
/// The trie is a double array (Aoe 1989), as Yata's Darts-clone writes it. Of the keys that a place
/// begins with, the longest counts.
class charsmap {
 public:
  static constexpr std::size_t longest_text = 256;  ///< bytes that one key may become
  static constexpr std::size_t longest_key = 64;    ///< bytes that are compared

  /// Parses a map; an empty one changes nothing. Errors: errc::malformed.
  static result<charsmap> parse(std::string_view bytes, const std::string& where) {
    charsmap made;
    if (bytes.empty()) return made;
    const auto wrong = [&](std::string expected, std::string got) {
      return error{errc::malformed, where, "precompiled_charsmap", std::move(expected),
                   std::move(got)};
    };
    const auto number = [&](std::size_t at) {
      std::uint32_t x = 0;
      for (std::size_t i = 4; i-- > 0;) x = x << 8 | static_cast<unsigned char>(bytes[at + i]);
      return x;
    };
    const std::size_t size = bytes.size() < 4 ? 0 : number(0);
    if (size == 0 || size % 4 != 0 || size > bytes.size() - 4)
      return wrong("a trie within " + std::to_string(bytes.size()) + " bytes",
                   "one of " + std::to_string(size));
    made.units_.resize(size / 4);
    for (std::size_t i = 0; i < size / 4; ++i) made.units_[i] = number(4 + 4 * i);
    made.texts_ = bytes.substr(4 + size);
    if (!made.texts_.ends_with('\0')) return wrong("a zero at the end", "none");
    std::size_t length = 0;
    for (const char c : made.texts_) {
      made.longest_ = (std::max)(made.longest_, length);
      length = c == '\0' ? 0 : length + 1;
    }
    if (made.longest_ > longest_text)
      return wrong("texts of at most " + std::to_string(longest_text) + " bytes",
                   std::to_string(made.longest_));
    return made;
  }
  /// Bytes that one byte becomes at most.
  std::size_t growth() const { return longest_; }
  /// Appends the normal form of a text.
  void apply(std::string_view text, std::string& to) const {
    while (!text.empty()) {
      const found best = longest(text);
      if (best.size > 0) {
        to += std::string_view(texts_.c_str() + best.text);
        text.remove_prefix(best.size);
        continue;
      }
      const std::size_t n = utf8_front(text).size;
      to += text.substr(0, n);
      text.remove_prefix(n);
    }
  }

 private:
  struct found {
    std::size_t size = 0, text = 0;
  };
  std::vector<std::uint32_t> units_;
  std::string texts_;
  std::size_t longest_ = 1;

  static std::size_t offset(std::uint32_t unit) {
    return std::size_t{unit >> 10} << ((unit & 0x200) >> 6);
  }
  found longest(std::string_view text) const {
    found best;
    if (units_.empty()) return best;
    std::size_t at = offset(units_[0]);
    for (std::size_t i = 0; i < (std::min)(text.size(), longest_key); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      at ^= byte;
      if (byte == 0 || at >= units_.size()) break;
      const std::uint32_t unit = units_[at];
      if ((unit & 0x800000ffu) != byte) break;
      at ^= offset(unit);
      if ((unit & 0x100) == 0) continue;
      if (at >= units_.size()) break;
      const std::size_t value = units_[at] & 0x7fffffffu;
      if (value < texts_.size()) best = {i + 1, value};
    }
    return best;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
