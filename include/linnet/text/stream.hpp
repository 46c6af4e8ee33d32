// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Text as it is generated: whole characters only, and nothing that may be the start of a stop
/// string.

#include <algorithm>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/finite.hpp>
#include <linnet/core/utf8.hpp>

LINNET_NAMESPACE_BEGIN

/// Takes a text in pieces of bytes, cut anywhere, and hands on bytes as soon as they are certain.
///  - A UTF-8 sequence is handed on whole. Bytes that belong to no well-formed sequence (Unicode
///    15, table 3-7) are handed on as they are, once it is certain that they belong to none.
///  - What may be the beginning of a stop string waits until that is decided. The text ends before
///    the first stop string to be complete, of several at one byte before the longest. That string
///    and all behind it are dropped.
///
/// Memory is taken by the constructor; nothing allocates afterwards.
class text_stream {
 public:
  /// Ends at any of these strings; empty ones are left out.
  template <class Strings>
  explicit text_stream(const Strings& stops) {
    std::size_t longest = 4;
    for (const auto& s : stops) {
      const std::string_view text(s);
      if (text.empty()) continue;
      stops_.push_back({std::string(text), prefixes_of(text), 0});
      longest = (std::max)(longest, text.size());
    }
    held_.resize(longest + chunk);
  }
  /// @copydoc text_stream(const Strings&)
  text_stream(std::initializer_list<std::string_view> stops = {})
      : text_stream(std::span(stops.begin(), stops.size())) {}

  /// Takes the next bytes. Calls on_text(std::string_view) for what has become certain, no or more
  /// times, never with nothing. Returns whether the text goes on: false from the first stop string
  /// on.
  template <class Emit>
  bool push(std::string_view bytes, Emit&& on_text) {
    for (const char c : bytes) {
      if (stopped_) return false;
      held_[size_++] = c;
      std::size_t possible = 0;  // of the last bytes, those that may begin a stop string
      for (needle& n : stops_) {
        n.advance(c);
        if (n.matched == n.text.size()) {
          stopped_ = true;
          complete_ = (std::max)(complete_, n.matched);
        }
        possible = (std::max)(possible, n.matched);
      }
      if (stopped_) {
        size_ -= complete_;
        release(size_, on_text);
        waiting_ = 0;
        return false;
      }
      waiting_ = possible;
      if (size_ == held_.size()) release(certain(), on_text);
    }
    release(certain(), on_text);
    return !stopped_;
  }
  /// Ends the text: hands on held bytes, and begins a new text.
  template <class Emit>
  void flush(Emit&& on_text) {
    if (!stopped_) release(size_, on_text);
    reset();
  }
  /// Forgets the text and begins a new one.
  void reset() {
    size_ = waiting_ = complete_ = 0;
    stopped_ = false;
    for (needle& n : stops_) n.matched = 0;
  }
  /// Whether a stop string has ended the text.
  bool stopped() const { return stopped_; }

 private:
  static constexpr std::size_t chunk = 256;  ///< bytes that are gathered before they are handed on

  /// A stop string and how much of it the text ends with (Knuth, Morris and Pratt 1977).
  struct needle {
    std::string text;
    std::vector<std::size_t> prefixes;  ///< [i]: longest proper prefix that text[0, i] ends with
    std::size_t matched;

    void advance(char c) {
      while (matched > 0 && text[matched] != c) matched = prefixes[matched - 1];
      if (text[matched] == c) ++matched;
    }
  };
  static std::vector<std::size_t> prefixes_of(std::string_view text) {
    std::vector<std::size_t> all(text.size(), 0);
    for (std::size_t i = 1; i < text.size(); ++i) {
      std::size_t k = all[i - 1];
      while (k > 0 && text[k] != text[i]) k = all[k - 1];
      all[i] = text[k] == text[i] ? k + 1 : 0;
    }
    return all;
  }

  /// Bytes held that can be handed on: whole sequences before what may begin a stop string.
  std::size_t certain() const {
    const std::string_view held(held_.data(), size_);
    std::size_t end = 0;
    while (end < size_ - waiting_) {
      const std::size_t n = utf8_sequence(held.substr(end));
      if (n == 0 || end + n > size_ - waiting_) break;
      end += n;
    }
    return end;
  }
  template <class Emit>
  void release(std::size_t count, Emit& on_text) {
    if (count == 0) return;
    on_text(std::string_view(held_.data(), count));
    std::copy(held_.data() + count, held_.data() + size_, held_.data());
    size_ -= count;
  }

  std::vector<needle> stops_;
  std::string held_;          ///< the last bytes, not handed on yet
  std::size_t size_ = 0;      ///< how many
  std::size_t waiting_ = 0;   ///< the last of them, which may begin a stop string
  std::size_t complete_ = 0;  ///< bytes of the stop string that ended the text
  bool stopped_ = false;
};

LINNET_NAMESPACE_END
