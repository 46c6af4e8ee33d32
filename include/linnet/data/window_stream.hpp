// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Next-token examples of decoders: windows of one or more texts.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <linnet/data/epoch_sampler.hpp>
#include <linnet/data/mixture.hpp>
#include <linnet/data/text_source.hpp>
#include <linnet/model/decoder.hpp>

LINNET_NAMESPACE_BEGIN

/// A window of one of several texts.
struct text_window {
  index text = 0, number = 0;
};

/// Stream of next-token examples: example i is a pure function of (seed, i), so a cursor is one
/// integer. Worker r of n trains on examples n B t + r B + [0, B) in step t.
///
/// A text is cut into windows of `length` tokens, packed: they run over the ends of documents. The
/// last one begins earlier, so that it is as long as the others; labels that the one before it had
/// are `ignored`. So the windows of a text have each of its tokens but the first as a label exactly
/// once. An epoch visits all windows of a text, in an order of its own; among several texts a
/// mixture chooses.
///
/// `Source` has `size()` and `read(first, span<token>)`: byte_source, token_source or your own.
/// What it views must outlive the stream.
template <class Source = token_source>
class window_stream {
 public:
  /// A stream of one text with memory for its batches. Errors: errc::invalid for limits below 1 or
  /// a text that is not longer than a window.
  static result<window_stream> open(Source text, index batch, index length, seed key) LINNET_TRY {
    std::vector<Source> texts;
    texts.push_back(std::move(text));
    return open(std::move(texts), mixture(), batch, length, key);
  }
  LINNET_OR_OUT_OF_MEMORY("window_stream::open")
  /// A stream of several texts. Errors: as above; errc::invalid for a mixture of another number of
  /// them.
  static result<window_stream> open(std::vector<Source> texts, mixture which, index batch,
                                    index length, seed key) LINNET_TRY {
    const auto wrong = [](std::string what, std::string expected, index got) {
      return error{errc::invalid, "window_stream::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    if (batch < 1) return wrong("batch", "at least 1", batch);
    if (length < 1) return wrong("length", "at least 1 token", length);
    if (which.streams() != std::ssize(texts))
      return wrong("texts", std::to_string(which.streams()) + " as the mixture has",
                   std::ssize(texts));
    for (const Source& text : texts)
      if (text.size() <= length)
        return wrong("tokens of text", "at least " + std::to_string(length + 1), text.size());
    if (!detail::has_memory(2 * detail::array_bytes(batch, length, sizeof(token))))
      return detail::out_of_memory("window_stream::open");
    return window_stream(std::move(texts), std::move(which), batch, length, key);
  }
  LINNET_OR_OUT_OF_MEMORY("window_stream::open")

  /// Windows of a text.
  index epoch(index text = 0) const { return (at(text).size() - 2) / length_ + 1; }
  /// The window of example `i`.
  text_window window(std::uint64_t i) const {
    const index text = which_(i);
    return {text, orders_[static_cast<std::size_t>(text)](i)};
  }

  /// Examples first, first + 1, … of the endless sequence; valid until the next call. Allocates
  /// nothing.
  decoder_batch batch(std::uint64_t first) {
    return batch(first, [this](std::uint64_t i) { return window(i); });
  }
  /// Windows first, first + 1, … of the order that a callable where(i) -> text_window gives, such
  /// as a curriculum's.
  template <class Where>
  decoder_batch batch(std::uint64_t first, Where&& where) {
    for (index b = 0; b < batch_; ++b) fill(b, where(first + static_cast<std::uint64_t>(b)));
    return view(batch_);
  }
  /// Windows first, first + 1, … of a text, fewer at its end and none outside; for evaluation.
  decoder_batch in_order(index first, index text = 0) {
    if (text < 0 || text >= std::ssize(texts_)) return view(0);
    const index left = first < 0 ? 0 : (std::max)(index{0}, epoch(text) - first);
    const index count = (std::min)(batch_, left);
    for (index b = 0; b < count; ++b) fill(b, {text, first + b});
    return view(count);
  }

 private:
  window_stream(std::vector<Source> texts, mixture which, index batch, index length, seed key)
      : texts_(std::move(texts)),
        which_(std::move(which)),
        batch_(batch),
        length_(length),
        inputs_(static_cast<std::size_t>(batch * length)),
        labels_(inputs_.size()) {
    for (index k = 0; k < std::ssize(texts_); ++k)
      orders_.emplace_back(epoch(k), seed{key.value + static_cast<std::uint64_t>(k)});
  }
  const Source& at(index text) const { return texts_[static_cast<std::size_t>(text)]; }
  std::span<token> row(std::vector<token>& of, index b) {
    return std::span(of).subspan(static_cast<std::size_t>(b * length_),
                                 static_cast<std::size_t>(length_));
  }
  void fill(index b, const text_window& w) {
    const Source& text = at(w.text);
    const index wanted = w.number * length_, first = (std::min)(wanted, text.size() - 1 - length_);
    const auto labels = row(labels_, b);
    text.read(first, row(inputs_, b));
    text.read(first + 1, labels);
    std::fill_n(labels.begin(), wanted - first, ignored);
  }
  decoder_batch view(index count) const { return {inputs_.data(), labels_.data(), count, length_}; }

  std::vector<Source> texts_;
  mixture which_;
  index batch_, length_;
  std::vector<token> inputs_, labels_;  ///< [batch, length]
  std::vector<epoch_sampler> orders_;   ///< of each text
};

LINNET_NAMESPACE_END
