// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Texts cut into words in the ways of a tokenizer's file, one inside the other.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/text/tokenizer_parts.hpp>
#include <linnet/text/unicode_normalization.hpp>
#include <linnet/text/words.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::string_view metaspace = "\xe2\x96\x81";  ///< U+2581, "▁"

/// Cuts texts into words; what a split leaves, the next one cuts.
class splitter {
 public:
  static constexpr std::size_t most_steps = 8;
  /// Texts of the splits that change their words.
  using workspace = std::vector<std::string>;

  splitter() = default;
  /// Takes the splits. Errors: errc::unsupported.
  static result<splitter> make(std::vector<word_split>&& steps, const std::string& where) {
    splitter made;
    made.steps_ = std::move(steps);
    if (made.steps_.size() > most_steps)
      return error{errc::unsupported, where, "pre_tokenizer",
                   "at most " + std::to_string(most_steps) + " steps",
                   std::to_string(made.steps_.size())};
    for (std::size_t i = 1; i < made.steps_.size(); ++i)
      if (const word_split& s = made.steps_[i];
          s.kind == word_split::kinds::metaspace && s.prefix == word_split::prefixes::first)
        return error{errc::unsupported, where, "pre_tokenizer.prepend_scheme",
                     "\"always\" or \"never\" behind other steps", "\"first\""};
    return made;
  }
  /// Whether these are its splits.
  bool makes(const std::vector<word_split>& steps) const { return steps_ == steps; }
  /// Whether the words of a text are together the text.
  bool keeps_all() const {
    return std::none_of(steps_.begin(), steps_.end(), [](const word_split& s) {
      using kinds = word_split::kinds;
      return s.kind == kinds::metaspace || s.kind == kinds::white_space || s.kind == kinds::words ||
             s.kind == kinds::prefix_space;
    });
  }
  /// Whether there is memory for cutting a text of some bytes.
  bool has_memory(std::size_t bytes) const {
    return std::none_of(steps_.begin(), steps_.end(),
                        [](const word_split& s) {
                          return s.kind == word_split::kinds::metaspace ||
                                 s.kind == word_split::kinds::prefix_space;
                        }) ||
           detail::has_memory(metaspace.size() * (bytes + 1));
  }
  /// Calls f(word) for the words of a text, none empty. `first` says that nothing stands before it.
  template <class F>
  void each(std::string_view text, bool first, workspace& space, F&& f) const {
    cut(0, text, first, space, f);
  }

 private:
  std::vector<word_split> steps_;

  template <class F>
  void cut(std::size_t number, std::string_view text, bool first, workspace& space, F& f) const {
    using kinds = word_split::kinds;
    if (text.empty()) return;
    if (number == steps_.size()) return f(text);
    const auto next = [&](std::string_view word) { cut(number + 1, word, first, space, f); };
    const word_split& s = steps_[number];
    switch (s.kind) {
      case kinds::gpt2:
        return each_front(text, gpt2_word, next);
      case kinds::llama3:
        return each_front(
            text, [](std::string_view t) { return llama3_word(t); }, next);
      case kinds::qwen2:
        return each_front(
            text, [](std::string_view t) { return llama3_word(t, 1); }, next);
      case kinds::digits:
      case kinds::digit_runs:
        return each_number(text, s.kind == kinds::digit_runs,
                           [&](std::string_view part, bool) { next(part); });
      case kinds::white_space:
        return each_run(
            text,
            [](const utf8_character& c) {
              return class_of(c.code) == character_class::space ? leave_out : join;
            },
            next);
      case kinds::punctuation:
        return each_run(
            text,
            [](const utf8_character& c) {
              return mark_class_of(c.code) == mark_class::punctuation ? alone : join;
            },
            next);
      case kinds::words:
        return each_group(text, next);
      case kinds::prefix_space: {
        if (text[0] == ' ') return next(text);
        space.resize((std::max)(space.size(), steps_.size()));
        std::string prefixed = std::move(space[number]);
        (prefixed = ' ') += text;
        next(prefixed);
        space[number] = std::move(prefixed);
        return;
      }
      case kinds::metaspace:
        return cut_metaspace(number, text, first, space, next);
    }
  }
  enum role { join, alone, leave_out };
  /// Calls f(word) for runs of characters that join, and for those that stand alone.
  template <class Role, class F>
  static void each_run(std::string_view text, Role&& role_of, F&& f) {
    std::size_t begin = 0;
    for (std::size_t at = 0; at < text.size();) {
      const utf8_character c = utf8_front(text.substr(at));
      const role r = role_of(c);
      if (r != join) {
        if (begin < at) f(text.substr(begin, at - begin));
        if (r == alone) f(text.substr(at, c.size));
        begin = at + c.size;
      }
      at += c.size;
    }
    if (begin < text.size()) f(text.substr(begin));
  }
  /// Calls f(word) for runs of characters of words, and of others but white space.
  template <class F>
  static void each_group(std::string_view text, F&& f) {
    enum group { white, word, other };
    std::size_t begin = 0;
    group now = white;
    for (std::size_t at = 0; at < text.size();) {
      const utf8_character c = utf8_front(text.substr(at));
      const group g = class_of(c.code) == character_class::space ? white
                      : is_word(c.code)                          ? word
                                                                 : other;
      if (g != now) {
        if (now != white) f(text.substr(begin, at - begin));
        begin = at;
        now = g;
      }
      at += c.size;
    }
    if (now != white) f(text.substr(begin));
  }
  template <class F>
  void cut_metaspace(std::size_t number, std::string_view text, bool first, workspace& space,
                     F&& f) const {
    const word_split& s = steps_[number];
    space.resize((std::max)(space.size(), steps_.size()));
    std::string marked = std::move(space[number]);
    marked.clear();
    const bool prefixed = s.prefix == word_split::prefixes::always ||
                          (s.prefix == word_split::prefixes::first && first);
    if (prefixed && text[0] != ' ' && !text.starts_with(metaspace)) marked += metaspace;
    for (const char c : text)
      if (c == ' ')
        marked += metaspace;
      else
        marked += c;
    for (std::string_view rest = marked; !rest.empty();) {
      const std::size_t end =
          s.cut ? (std::min)(rest.find(metaspace, 1), rest.size()) : rest.size();
      f(rest.substr(0, end));
      rest.remove_prefix(end);
    }
    space[number] = std::move(marked);
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
