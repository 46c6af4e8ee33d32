// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pre-training examples of encoders: windows of one or more texts, masked.

#include <string>
#include <utility>
#include <vector>

#include <linnet/data/epoch_sampler.hpp>
#include <linnet/data/mixture.hpp>
#include <linnet/data/text_source.hpp>
#include <linnet/data/token_masking.hpp>
#include <linnet/model/encoder.hpp>

LINNET_NAMESPACE_BEGIN

/// Stream of masked examples: example i is a pure function of (seed, i). Nothing depends on earlier
/// calls, so a cursor is one integer and a run resumes exactly. Worker r of n trains on examples
/// n B t + r B + [0, B) in step t.
///
/// A text is cut into windows, packed: they run over the ends of documents. Special tokens stand
/// around each, which fill its `length` together. Each epoch visits every window once, in an order
/// of its own and with masks of its own; the last window may be shorter. Among several texts a
/// mixture chooses.
///
/// `Source` has `size()` and `read(first, span<token>)`: byte_source, token_source or your own.
/// What it views must outlive the stream.
template <class Source = token_source>
class masking_stream {
 public:
  /// Opens a stream of one text with memory for batches of [batch, length] tokens. Errors:
  /// errc::invalid. It is for numbers out of their ranges, ids outside the vocabulary and a batch
  /// below 1. It is also for a length that leaves no room for a token of text, and for no text.
  static result<masking_stream> open(Source text, const token_masking& how, const bert_ids& ids,
                                     index batch, index length, seed key) LINNET_TRY {
    std::vector<Source> texts;
    texts.push_back(std::move(text));
    return open(std::move(texts), mixture(), how, ids, batch, length, key);
  }
  LINNET_OR_OUT_OF_MEMORY("masking_stream::open")
  /// A stream of several texts. Errors: as above; errc::invalid for a mixture of another number of
  /// them.
  static result<masking_stream> open(std::vector<Source> texts, mixture which,
                                     const token_masking& how, const bert_ids& ids, index batch,
                                     index length, seed key) LINNET_TRY {
    const auto wrong = [](std::string what, std::string expected, auto got) {
      return error{errc::invalid, "masking_stream::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    if (auto fit = detail::acceptable("masking_stream::open", "token_masking", how); !fit)
      return fit.error();
    if (how.mask + how.random > 1)
      return wrong("token_masking.random", "at most 1 - token_masking.mask", how.random);
    if (!ids.valid()) return wrong("ids", "ids below the vocabulary", ids.vocabulary);
    if (batch < 1) return wrong("batch", "at least 1", batch);
    if (length <= ids.around())
      return wrong("length", "at least " + std::to_string(ids.around() + 1) + " tokens", length);
    if (which.streams() != std::ssize(texts))
      return wrong("texts", std::to_string(which.streams()) + " as the mixture has",
                   std::ssize(texts));
    for (const Source& text : texts)
      if (text.size() < 1) return wrong("tokens of text", "at least 1", text.size());
    if (!detail::has_memory(2 * detail::array_bytes(batch, length, sizeof(token))))
      return detail::out_of_memory("masking_stream::open");
    return masking_stream(std::move(texts), std::move(which), how, ids, batch, length, key);
  }
  LINNET_OR_OUT_OF_MEMORY("masking_stream::open")

  /// Tokens of text in a window.
  index raw_length() const { return length_ - ids_.around(); }
  /// Windows of a text, which are its examples in an epoch.
  index epoch(index text = 0) const { return (of(text).size() - 1) / raw_length() + 1; }
  /// The text of example `i`.
  index text(std::uint64_t i) const { return which_(i); }
  /// The window of example `i`, in its text.
  index window(std::uint64_t i) const { return orders_[static_cast<std::size_t>(text(i))](i); }

  /// Examples first, first + 1, … of the endless sequence; valid until the next call. Allocates
  /// nothing.
  encoder_batch batch(std::uint64_t first) {
    for (index b = 0; b < batch_; ++b) {
      const std::uint64_t i = first + static_cast<std::uint64_t>(b);
      fill(b, of(text(i)), window(i), i);
    }
    return view(batch_);
  }
  /// Windows first, first + 1, … of a text, fewer at its end and none outside; for evaluation.
  /// Each has one mask, whenever it is asked for.
  encoder_batch in_order(index first, index text = 0) {
    const bool known = first >= 0 && text >= 0 && text < std::ssize(texts_);
    const index left = known ? (std::max)(index{0}, epoch(text) - first) : 0;
    const index count = (std::min)(batch_, left);
    for (index b = 0; b < count; ++b)
      fill(b, of(text), first + b, ~static_cast<std::uint64_t>(first + b));
    return view(count);
  }

 private:
  masking_stream(std::vector<Source> texts, mixture which, const token_masking& how,
                 const bert_ids& ids, index batch, index length, seed key)
      : texts_(std::move(texts)),
        which_(std::move(which)),
        how_(how),
        ids_(ids),
        batch_(batch),
        length_(length),
        key_(key),
        tokens_(static_cast<std::size_t>(batch * length)),
        labels_(tokens_.size()),
        lengths_(static_cast<std::size_t>(batch)) {
    for (index k = 0; k < std::ssize(texts_); ++k)
      orders_.emplace_back(epoch(k), seed{key.value + static_cast<std::uint64_t>(k)});
  }

  const Source& of(index text) const { return texts_[static_cast<std::size_t>(text)]; }
  void fill(index b, const Source& text, index number, std::uint64_t example) {
    const index at = number * raw_length(), n = (std::min)(raw_length(), text.size() - at);
    const auto row = [&](std::vector<token>& all) {
      return std::span(all).subspan(static_cast<std::size_t>(b * length_),
                                    static_cast<std::size_t>(length_));
    };
    const auto tokens = row(tokens_), labels = row(labels_);
    std::fill(tokens.begin(), tokens.end(), ids_.padding);
    std::fill(labels.begin(), labels.end(), ignored);
    const std::size_t before = ids_.first >= 0 ? 1 : 0, size = static_cast<std::size_t>(n);
    if (before > 0) tokens[0] = ids_.first;
    if (ids_.last >= 0) tokens[before + size] = ids_.last;
    text.read(at, tokens.subspan(before, size));
    const auto words = philox(key_.value, stream_of("linnet::masking_stream"), example);
    (void)mask_tokens(how_, ids_, tokens.subspan(before, size),
                      seed{std::uint64_t{words[1]} << 32 | words[0]}, labels.subspan(before, size));
    lengths_[static_cast<std::size_t>(b)] = n + ids_.around();
  }
  encoder_batch view(index count) const {
    return {tokens_.data(), lengths_.data(), labels_.data(), count, length_};
  }

  std::vector<Source> texts_;
  mixture which_;
  token_masking how_;
  bert_ids ids_;
  index batch_, length_;
  seed key_;
  std::vector<epoch_sampler> orders_;   ///< of each text
  std::vector<token> tokens_, labels_;  ///< [batch, length]
  std::vector<index> lengths_;          ///< [batch]
};

LINNET_NAMESPACE_END
