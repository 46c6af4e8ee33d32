// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pre-training examples of T5: windows of a text, denoised.

#include <string>
#include <utility>

#include <linnet/data/batch_arrays.hpp>
#include <linnet/data/denoising.hpp>
#include <linnet/data/epoch_sampler.hpp>
#include <linnet/data/text_source.hpp>

LINNET_NAMESPACE_BEGIN

/// Stream of denoising examples from a text: example i is a pure function of (seed, i). Nothing
/// depends on earlier calls, so a cursor is one integer and a run resumes exactly. Worker r of n
/// trains on examples n B t + r B + [0, B) in step t.
///
/// A text is cut into windows of raw_length() tokens, packed: they run over the ends of documents.
/// Each epoch visits every window once, in an order of its own and with masks of its own; the last
/// window may be shorter.
///
/// `Source` has `size()`, `ids()` and `read(first, span<token>)`: byte_source, token_source or your
/// own. What it views must outlive the stream.
template <class Source = byte_source>
class denoising_stream {
 public:
  /// Opens a stream with memory for its batches. `l.target` may be 0 for as much as the objective
  /// needs. Errors: errc::invalid, for an objective, lengths or sentinels that do not fit each
  /// other, or fewer than two tokens of text.
  static result<denoising_stream> open(Source text, const denoising& how, example_limits l,
                                       seed key) LINNET_TRY {
    const auto wrong = [](std::string what, std::string expected, auto got) {
      return error{errc::invalid, "denoising_stream::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    for (const auto& fit : {detail::acceptable("denoising_stream::open", "denoising", how),
                            detail::acceptable("denoising_stream::open", "", l)})
      if (!fit) return fit.error();
    if (l.source < 4) return wrong("source", "at least 4 tokens", l.source);
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
    if (text.ids().sentinels < runs)
      return wrong("sentinels of the vocabulary", "at least " + std::to_string(runs),
                   text.ids().sentinels);
    if (!detail::has_memory(detail::batch_arrays::bytes(l)))
      return detail::out_of_memory("denoising_stream::open");
    return denoising_stream(std::move(text), how, l, key, raw);
  }
  LINNET_OR_OUT_OF_MEMORY("denoising_stream::open")

  /// Tokens of a window: 568 for sources of 512.
  index raw_length() const { return std::ssize(raw_); }
  /// Limits of the stream: batch and sources as asked for, and the longest target.
  const example_limits& planned() const { return limits_; }
  /// Examples per epoch.
  index epoch() const { return windows_; }
  /// First token of the window of example `i`.
  index window(std::uint64_t i) const { return order_(i) * raw_length(); }

  /// Examples first, first + 1, … of the endless sequence; valid until the next call. Allocates
  /// nothing.
  t5_batch batch(std::uint64_t first) {
    arrays_.begin(limits_.batch, limits_.source, limits_.target);
    for (index b = 0; b < limits_.batch; ++b) {
      const std::uint64_t i = first + static_cast<std::uint64_t>(b);
      const index at = window(i);
      const auto raw = std::span(raw_).first(
          static_cast<std::size_t>((std::min)(raw_length(), text_.size() - at)));
      text_.read(at, raw);
      const auto words = philox(key_.value, stream_of("linnet::denoising_stream"), i);
      const seed key{std::uint64_t{words[1]} << 32 | words[0]};
      const denoised_lengths n =
          denoise(how_, text_.ids(), raw, key, arrays_.source(b), arrays_.labels(b));
      arrays_.pad(b, n.source, n.target);
    }
    return arrays_.view();
  }

 private:
  denoising_stream(Source text, const denoising& how, const example_limits& l, seed key, index raw)
      : text_(std::move(text)),
        how_(how),
        limits_(l),
        key_(key),
        windows_((text_.size() - 2) / raw + 1),  // one token alone at the end is no window
        order_(windows_, key),
        raw_(static_cast<std::size_t>(raw)),
        arrays_(l) {}

  Source text_;
  denoising how_;
  example_limits limits_;
  seed key_;
  index windows_;
  epoch_sampler order_;
  std::vector<token> raw_;  ///< one window
  detail::batch_arrays arrays_;
};

LINNET_NAMESPACE_END
