// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pre-training examples of T5: windows of one or more texts, denoised.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <linnet/data/batch_arrays.hpp>
#include <linnet/data/denoising.hpp>
#include <linnet/data/epoch_sampler.hpp>
#include <linnet/data/mixture.hpp>
#include <linnet/data/text_source.hpp>

LINNET_NAMESPACE_BEGIN

/// Stream of denoising examples from texts: example i is a pure function of (seed, i). Nothing
/// depends on earlier calls, so a cursor is one integer and a run resumes exactly. Worker r of n
/// trains on examples n B t + r B + [0, B) in step t.
///
/// A text is cut into windows of raw_length() tokens, packed: they run over the ends of documents.
/// Each epoch visits every window once, in an order of its own and with masks of its own; the last
/// window may be shorter. Among several texts a mixture chooses.
///
/// `Source` has `size()`, `ids()` and `read(first, span<token>)`: byte_source, token_source or your
/// own. What it views must outlive the stream.
template <class Source = byte_source>
class denoising_stream {
 public:
  /// A stream of one text with memory for its batches. `l.target` may be 0 for as much as the
  /// objective needs. Errors: errc::invalid, for an objective, lengths or sentinels that do not fit
  /// each other, or fewer than two tokens of text.
  static result<denoising_stream> open(Source text, const denoising& how, const example_limits& l,
                                       seed key) LINNET_TRY {
    std::vector<Source> texts;
    texts.push_back(std::move(text));
    return open(std::move(texts), mixture(), how, l, key);
  }
  LINNET_OR_OUT_OF_MEMORY("denoising_stream::open")
  /// A stream of several texts. Errors: as above; errc::invalid for a mixture of another number of
  /// them.
  static result<denoising_stream> open(std::vector<Source> texts, mixture which,
                                       const denoising& how, example_limits l,
                                       seed key) LINNET_TRY {
    const auto wrong = [](std::string what, std::string expected, auto got) {
      return error{errc::invalid, "denoising_stream::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    for (const auto& fit : {detail::acceptable("denoising_stream::open", "denoising", how),
                            detail::acceptable("denoising_stream::open", "", l)})
      if (!fit) return fit.error();
    if (l.source < 4) return wrong("source", "at least 4 tokens", l.source);
    if (which.streams() != std::ssize(texts))
      return wrong("texts", std::to_string(which.streams()) + " as the mixture has",
                   std::ssize(texts));
    for (const Source& text : texts)
      if (text.size() < 2) return wrong("tokens of text", "at least 2", text.size());
    if (!detail::has_memory(detail::batch_arrays::bytes(l)))
      return detail::out_of_memory("denoising_stream::open");
    const index raw = how.raw_length(l.source);
    const index needs = how.lengths(raw).target;
    if (l.target == 0) l.target = needs;
    const index least = how.mask == masking::spans ? needs : 3;
    if (l.target < least)
      return wrong("target", "at least " + std::to_string(least) + " tokens", l.target);
    const index runs = how.mask == masking::spans ? how.noise_of(raw).runs : 1;
    for (const Source& text : texts)
      if (text.ids().sentinels < runs)
        return wrong("sentinels of the vocabulary", "at least " + std::to_string(runs),
                     text.ids().sentinels);
    if (!detail::has_memory(detail::batch_arrays::bytes(l)))
      return detail::out_of_memory("denoising_stream::open");
    return denoising_stream(std::move(texts), std::move(which), how, l, key, raw);
  }
  LINNET_OR_OUT_OF_MEMORY("denoising_stream::open")

  /// Tokens of a window: 568 for sources of 512.
  index raw_length() const { return std::ssize(raw_); }
  /// Limits of the stream: batch and sources as asked for, and the longest target.
  const example_limits& planned() const { return limits_; }
  /// Windows of a text.
  index epoch(index text = 0) const {
    return (of(text).size() - 2) / raw_length() + 1;  // one token alone at the end is no window
  }
  /// The text of example `i`.
  index text(std::uint64_t i) const { return which_(i); }
  /// First token of the window of example `i`, in its text.
  index window(std::uint64_t i) const {
    return orders_[static_cast<std::size_t>(text(i))](i) * raw_length();
  }

  /// Examples first, first + 1, … of the endless sequence; valid until the next call. Allocates
  /// nothing.
  t5_batch batch(std::uint64_t first) {
    arrays_.begin(limits_.batch, limits_.source, limits_.target);
    for (index b = 0; b < limits_.batch; ++b) {
      const std::uint64_t i = first + static_cast<std::uint64_t>(b);
      fill(b, of(text(i)), window(i), i);
    }
    return arrays_.view();
  }
  /// Windows first, first + 1, … of a text, fewer at its end and none outside; for evaluation.
  /// Each has one mask, whenever it is asked for.
  t5_batch in_order(index first, index text = 0) {
    const bool known = first >= 0 && text >= 0 && text < std::ssize(texts_);
    const index left = known ? (std::max)(index{0}, epoch(text) - first) : 0;
    const index count = (std::min)(limits_.batch, left);
    arrays_.begin(count, limits_.source, limits_.target);
    for (index b = 0; b < count; ++b)
      fill(b, of(text), (first + b) * raw_length(), ~static_cast<std::uint64_t>(first + b));
    return arrays_.view();
  }

 private:
  denoising_stream(std::vector<Source> texts, mixture which, const denoising& how,
                   const example_limits& l, seed key, index raw)
      : texts_(std::move(texts)),
        which_(std::move(which)),
        how_(how),
        limits_(l),
        key_(key),
        raw_(static_cast<std::size_t>(raw)),
        arrays_(l) {
    for (index k = 0; k < std::ssize(texts_); ++k)
      orders_.emplace_back(epoch(k), seed{key.value + static_cast<std::uint64_t>(k)});
  }

  const Source& of(index text) const { return texts_[static_cast<std::size_t>(text)]; }
  /// Row `b`: the window of a text that begins at token `at`, with the mask of an example.
  void fill(index b, const Source& text, index at, std::uint64_t example) {
    const auto raw =
        std::span(raw_).first(static_cast<std::size_t>((std::min)(raw_length(), text.size() - at)));
    text.read(at, raw);
    const auto words = philox(key_.value, stream_of("linnet::denoising_stream"), example);
    const seed key{std::uint64_t{words[1]} << 32 | words[0]};
    const denoised_lengths n =
        denoise(how_, text.ids(), raw, key, arrays_.source(b), arrays_.labels(b));
    arrays_.pad(b, n.source, n.target);
  }

  std::vector<Source> texts_;
  mixture which_;
  denoising how_;
  example_limits limits_;
  seed key_;
  std::vector<token> raw_;             ///< one window
  std::vector<epoch_sampler> orders_;  ///< of each text
  detail::batch_arrays arrays_;
};

LINNET_NAMESPACE_END
