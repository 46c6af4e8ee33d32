// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Prefix language modelling for decoders: windows whose beginning is given and whose rest is
/// learned.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/data/window_stream.hpp>

LINNET_NAMESPACE_BEGIN

/// Where windows are cut (Raffel et al. 2020, section 3.2).
struct prefix_split {
  double least = 0;      ///< shortest prefix, as a share of the window; one token at least
  double most = 1;       ///< longest one; at most all inputs, before the last label
  bool prefixes = true;  ///< batches tell how long prefixes are, for attention::prefix; false for
                         ///< models that see backward alone

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("least", self.least, detail::between(0, 1));
    f("most", self.most, detail::between(0, 1));
    f("prefixes", self.prefixes, detail::one_of(detail::false_or_true));
  }
};

/// Stream of windows with a prefix: those of window_stream, example for example. Each is cut at
/// random, and only what follows the prefix has labels: the first label is that of the prefix's
/// last token. Every length from the least to the most is equally likely. Example i is a pure
/// function of (seed, i), so a cursor is one integer.
template <class Source = token_source>
class prefix_stream {
 public:
  /// A stream of one text with memory for its batches. Errors: those of window_stream::open, and
  /// errc::invalid for shares out of their ranges or a least above the most.
  static result<prefix_stream> open(Source text, const prefix_split& how, index batch, index length,
                                    seed key) LINNET_TRY {
    return made_of(how, batch, length, key, [&] {
      return window_stream<Source>::open(std::move(text), batch, length, key);
    });
  }
  LINNET_OR_OUT_OF_MEMORY("prefix_stream::open")
  /// A stream of several texts. Errors: as above; errc::invalid for a mixture of another number of
  /// them.
  static result<prefix_stream> open(std::vector<Source> texts, mixture which,
                                    const prefix_split& how, index batch, index length,
                                    seed key) LINNET_TRY {
    return made_of(how, batch, length, key, [&] {
      return window_stream<Source>::open(std::move(texts), std::move(which), batch, length, key);
    });
  }
  LINNET_OR_OUT_OF_MEMORY("prefix_stream::open")

  /// Windows of a text.
  index epoch(index text = 0) const { return windows_.epoch(text); }
  /// The window of example `i`.
  text_window window(std::uint64_t i) const { return windows_.window(i); }
  /// Tokens of the prefix of example `i`.
  index prefix(std::uint64_t i) const {
    random_stream random(key_, i);
    return least_ + static_cast<index>(random.below(static_cast<std::uint32_t>(choices_)));
  }

  /// Examples first, first + 1, … of the endless sequence; valid until the next call. Allocates
  /// nothing.
  decoder_batch batch(std::uint64_t first) {
    return cut(windows_.batch(first),
               [&](index b) { return prefix(first + static_cast<std::uint64_t>(b)); });
  }
  /// Windows first, first + 1, … of a text, fewer at its end and none outside; for evaluation.
  /// Each has one prefix, whenever it is asked for.
  decoder_batch in_order(index first, index text = 0) {
    return cut(windows_.in_order(first, text),
               [&](index b) { return prefix(~static_cast<std::uint64_t>(first + b)); });
  }

 private:
  prefix_stream(window_stream<Source> windows, const prefix_split& how, index batch, index length,
                seed key)
      : windows_(std::move(windows)),
        tells_(how.prefixes),
        key_{key.value ^ stream_of("linnet::prefix_stream")},
        labels_(static_cast<std::size_t>(batch * length)),
        prefixes_(static_cast<std::size_t>(batch)) {
    const auto share = [&](double of) {
      return (std::clamp)(static_cast<index>(of * static_cast<double>(length)), index{1}, length);
    };
    least_ = share(how.least);
    choices_ = share(how.most) - least_ + 1;
  }
  template <class Open>
  static result<prefix_stream> made_of(const prefix_split& how, index batch, index length, seed key,
                                       Open&& open_windows) {
    constexpr const char* where = "prefix_stream::open";
    if (auto fit = detail::acceptable(where, "prefix_split", how); !fit) return fit.error();
    if (how.least > how.most)
      return error{errc::invalid, where, "prefix_split.least",
                   "at most " + detail::number_text(how.most) + ", which is prefix_split.most",
                   detail::number_text(how.least)};
    auto windows = open_windows();
    if (!windows) return windows.error();
    if (!detail::has_memory(detail::array_bytes(batch, length, sizeof(token) + sizeof(index))))
      return detail::out_of_memory(where);
    return prefix_stream(*std::move(windows), how, batch, length, key);
  }
  template <class Prefix>
  decoder_batch cut(decoder_batch b, Prefix&& prefix_of) {
    for (index i = 0; i < b.batch; ++i) {
      const index prefix = prefix_of(i), at = i * b.length;
      prefixes_[static_cast<std::size_t>(i)] = prefix;
      const auto labels = labels_.begin() + at;
      std::copy_n(b.labels + at, b.length, labels);
      std::fill_n(labels, prefix - 1, ignored);
    }
    b.labels = labels_.data();
    b.prefixes = tells_ ? prefixes_.data() : nullptr;
    return b;
  }

  window_stream<Source> windows_;
  bool tells_;
  seed key_;
  index least_ = 1, choices_ = 1;  ///< lengths of prefixes
  std::vector<token> labels_;      ///< [batch, length]
  std::vector<index> prefixes_;    ///< [batch]
};

LINNET_NAMESPACE_END
