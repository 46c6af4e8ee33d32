// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Texts that a tokenizer cuts out of others and gives an id of their own.

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/core/utf8.hpp>
#include <linnet/text/text_matcher.hpp>
#include <linnet/text/unicode_normalization.hpp>

LINNET_NAMESPACE_BEGIN

/// A token such as "<|im_end|>" that can be cut out of a text before anything else.
struct added_token {
  token id;
  bool special = true;       ///< decodes to nothing, unless merges make it too
  bool normalized = false;   ///< cut out of what the others leave, after normalization
  bool in_model = false;     ///< also a piece of the model
  bool single_word = false;  ///< not cut out beside a character of a word
  bool lstrip = false;       ///< takes the white space before it, too
  bool rstrip = false;       ///< and the white space behind it
};

namespace detail {

/// The added tokens of a vocabulary, found by their texts. Of several at one place the longest
/// counts.
class added_texts {
 public:
  /// Takes the tokens; text(id) is a token's text. Empty ones are never found. False if the texts
  /// have too many different ends.
  template <class Text>
  bool assign(const std::vector<added_token>& tokens, Text&& text) {
    for (const bool later : {false, true}) {
      std::vector<found>& ids = ids_[later];
      ids.clear();
      for (const added_token& t : tokens)
        if (const std::size_t size = text(t.id).size(); size > 0 && t.normalized == later)
          ids.push_back({t.id, size, t.single_word, t.lstrip, t.rstrip});
      if (!matchers_[later].assign(static_cast<std::uint32_t>(ids.size()),
                                   [&](std::uint32_t i) { return text(ids[i].id); }))
        return false;
    }
    return true;
  }
  /// The error of texts that assign() does not take.
  static error too_many(const std::string& where) {
    return {errc::unsupported, where, "added texts",
            "at most " + std::to_string(text_matcher::most_states) + " bytes of different ends",
            "more"};
  }
  /// The id of an added token by its whole text, or -1.
  token find(std::string_view text) const {
    for (const bool later : {false, true}) {
      token id = -1;
      matchers_[later].each(text, [&](std::size_t place, std::uint32_t number) {
        if (const found& f = ids_[later][number]; place == 0 && f.size == text.size()) id = f.id;
      });
      if (id >= 0) return id;
    }
    return -1;
  }
  /// Cuts out the added tokens from left to right, those that are normalized or those that are not.
  /// Calls on_id(id) for them and on_text(text) for what stands between, which may be empty. White
  /// space that a token has taken may still be part of the next.
  template <class OnText, class OnId>
  void each(std::string_view text, bool normalized, OnText&& on_text, OnId&& on_id) const {
    std::vector<std::pair<std::size_t, std::uint32_t>> places;  // the last first
    matchers_[normalized].each(
        text, [&](std::size_t place, std::uint32_t number) { places.emplace_back(place, number); });
    std::size_t begin = 0, end = 0;  // of what stands behind the last one, and of its text
    for (; !places.empty(); places.pop_back()) {
      const auto [place, number] = places.back();
      if (place < end) continue;  // inside the one before
      const found& f = ids_[normalized][number];
      end = place + f.size;
      if (f.single_word && (is_word(last_of(text.substr(0, place)).code) ||
                            is_word(front_of(text.substr(end)).code)))
        continue;
      const std::string_view before = text.substr(begin, (std::max)(begin, place) - begin);
      on_text(f.lstrip ? without_last_spaces(before) : before);
      on_id(f.id);
      begin = end + (f.rstrip ? first_spaces(text.substr(end)) : 0);
    }
    on_text(text.substr(begin));
  }

 private:
  struct found {
    token id;
    std::size_t size;
    bool single_word, lstrip, rstrip;
  };
  static bool is_space(const utf8_character& c) {
    return class_of(c.code) == character_class::space;
  }
  /// The character at an end of a text; of an empty one a code that is none.
  static utf8_character front_of(std::string_view text) {
    return text.empty() ? utf8_character{no_code, 0} : utf8_front(text);
  }
  static utf8_character last_of(std::string_view text) {
    std::size_t at = text.empty() ? 0 : text.size() - 1;
    while (at > 0 && at + 4 > text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80)
      --at;
    const utf8_character c = front_of(text.substr(at));
    return at + c.size == text.size() ? c : utf8_character{no_code, 1};
  }
  static std::size_t first_spaces(std::string_view text) {
    std::size_t size = 0;
    for (utf8_character c = front_of(text); is_space(c); c = front_of(text.substr(size)))
      size += c.size;
    return size;
  }
  static std::string_view without_last_spaces(std::string_view text) {
    for (utf8_character c = last_of(text); is_space(c); c = last_of(text))
      text.remove_suffix(c.size);
    return text;
  }
  std::array<std::vector<found>, 2> ids_;
  std::array<text_matcher, 2>
      matchers_;  ///< of those that are not normalized, and of those that are
};

}  // namespace detail

LINNET_NAMESPACE_END
