// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pre-training examples by a mixture of denoisers (UL2), for T5 and for decoders.

#include <algorithm>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/data/batch_arrays.hpp>
#include <linnet/data/denoisers.hpp>
#include <linnet/data/epoch_sampler.hpp>
#include <linnet/data/mixture.hpp>
#include <linnet/data/text_source.hpp>
#include <linnet/model/contract.hpp>

LINNET_NAMESPACE_BEGIN

/// Sizes of a denoiser_stream.
struct denoiser_limits {
  index batch = 1;       ///< examples at a time
  index length = 0;      ///< tokens of text in a window
  bool prefixes = true;  ///< batches of decoders tell how long sources are, for attention::prefix;
                         ///< false for models that see backward alone

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batch", self.batch, detail::count(1));
    f("length", self.length, detail::between(2, 1e9));
    f("prefixes", self.prefixes, detail::one_of(detail::false_or_true));
  }
};

/// Stream of examples by a mixture of denoisers: example i is a pure function of (seed, i), so a
/// cursor is one integer. Worker r of n trains on examples n B t + r B + [0, B) in step t.
///
/// Texts are cut into windows of `length` tokens whatever the denoiser, in the order of
/// denoising_stream. The token of the mode stands in front of the source. `Batch` is t5_batch or
/// decoder_batch. A decoder's row is the source without its end, then the target. Its labels begin
/// with the first token of the target (Tay et al. 2022). All rows are as long as the longest that
/// any of the denoisers makes.
///
/// `Source` has `size()`, `ids()` and `read(first, span<token>)`: byte_source, token_source or your
/// own. What it views must outlive the stream.
template <class Batch = t5_batch, class Source = byte_source>
class denoiser_stream {
  static constexpr bool in_rows = std::is_same_v<Batch, decoder_batch>;
  static_assert(in_rows || std::is_same_v<Batch, t5_batch>,
                "linnet::denoiser_stream: the batch is t5_batch or decoder_batch");

 public:
  /// A stream of one text with memory for its batches. Errors: errc::invalid for no denoisers and
  /// options out of their ranges. Also for weights without a sum, fewer than two tokens of text,
  /// too few sentinels, and a token of a mode that has another meaning.
  static result<denoiser_stream> open(Source text, std::span<const denoiser> denoisers,
                                      const mode_tokens& modes, const denoiser_limits& l,
                                      seed key) LINNET_TRY {
    std::vector<Source> texts;
    texts.push_back(std::move(text));
    return open(std::move(texts), mixture(), denoisers, modes, l, key);
  }
  LINNET_OR_OUT_OF_MEMORY("denoiser_stream::open")
  /// A stream of several texts. Errors: as above; errc::invalid for a mixture of another number of
  /// them.
  static result<denoiser_stream> open(std::vector<Source> texts, mixture which,
                                      std::span<const denoiser> denoisers, const mode_tokens& modes,
                                      const denoiser_limits& l, seed key) LINNET_TRY {
    constexpr const char* where = "denoiser_stream::open";
    const auto wrong = [](std::string what, std::string expected, auto got) {
      return error{errc::invalid, "denoiser_stream::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    if (auto fit = detail::acceptable(where, "denoiser_limits", l); !fit) return fit.error();
    if (which.streams() != std::ssize(texts))
      return wrong("texts", std::to_string(which.streams()) + " as the mixture has",
                   std::ssize(texts));
    if (denoisers.empty()) return wrong("denoisers", "at least 1", 0);
    std::vector<double> weights;
    example_limits sizes{.batch = l.batch};
    index sentinels = 0, row = 0;
    bool any_run = false;  // i.i.d. denoising takes sentinels as long as there are some
    for (std::size_t k = 0; k < denoisers.size(); ++k) {
      const denoiser& d = denoisers[k];
      const std::string name = "denoisers[" + std::to_string(k) + "]";
      if (auto fit = detail::acceptable(where, name, d.how); !fit) return fit.error();
      if (d.mode == denoiser_mode::sequential && d.how.density > 0.5)
        return wrong(name + ".density", "at most 0.5, the mean share of the end of a text",
                     d.how.density);
      const denoised_lengths n = d.lengths(l.length);
      const index mode = modes.of(d.mode) >= 0;
      sizes.source = (std::max)(sizes.source, mode + n.source);
      sizes.target = (std::max)(sizes.target, n.target);
      // The end of a source is left out, and the last token of a target only predicted.
      row = (std::max)(row, mode + longest_row(d, l.length, n));
      sentinels = (std::max)(sentinels, d.sentinels(l.length));
      any_run |= d.mode != denoiser_mode::sequential && d.how.mask == masking::independent;
      weights.push_back(d.weight);
    }
    auto mix = mixture::open(weights, seed{key.value ^ stream_of("linnet::denoisers")});
    if (!mix) return mix.error();
    for (const Source& text : texts) {
      if (text.size() < 2) return wrong("tokens of text", "at least 2", text.size());
      const t5_ids ids = text.ids();
      if (ids.sentinels < sentinels)
        return wrong("sentinels of the vocabulary", "at least " + std::to_string(sentinels),
                     ids.sentinels);
      for (const token mode : {modes.regular, modes.sequential, modes.extreme})
        if (mode >= 0 && (mode == t5_ids::padding || mode == t5_ids::end ||
                          mode > ids.sentinel(any_run ? ids.sentinels : sentinels)))
          return wrong("token of a mode",
                       "an id of the vocabulary that neither pads, ends nor stands for a run",
                       mode);
    }
    const std::size_t bytes =
        in_rows ? detail::array_bytes(l.batch, row, 2 * sizeof(token) + sizeof(index))
                : detail::batch_arrays::bytes(sizes);
    if (!detail::has_memory(bytes) || !detail::has_memory(detail::array_bytes(1, l.length, 16)))
      return detail::out_of_memory(where);
    denoiser_stream made(std::move(texts), std::move(which), *std::move(mix), l, key);
    made.denoisers_.assign(denoisers.begin(), denoisers.end());
    made.modes_ = modes;
    made.allocate(sizes, row);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("denoiser_stream::open")

  /// Longest source and target, or the length of a decoder's rows as `source`, and the batch.
  const example_limits& planned() const { return sizes_; }
  /// Windows of a text.
  index epoch(index text = 0) const {
    return (of(text).size() - 2) / limits_.length + 1;  // one token alone at the end is no window
  }
  /// The text of example `i`.
  index text(std::uint64_t i) const { return which_(i); }
  /// First token of the window of example `i`, in its text.
  index window(std::uint64_t i) const {
    return orders_[static_cast<std::size_t>(text(i))](i) * limits_.length;
  }
  /// The denoiser of example `i`, by its place among those of open().
  index denoiser_of(std::uint64_t i) const { return mix_(i); }

  /// Examples first, first + 1, … of the endless sequence; valid until the next call. Allocates
  /// nothing.
  Batch batch(std::uint64_t first) {
    return fill(limits_.batch, [&](index b) {
      const std::uint64_t i = first + static_cast<std::uint64_t>(b);
      return place{text(i), window(i), i};
    });
  }
  /// Windows first, first + 1, … of a text, fewer at its end and none outside; for evaluation.
  /// Each has one denoiser and mask, whenever it is asked for.
  Batch in_order(index first, index text = 0) {
    const bool known = first >= 0 && text >= 0 && text < std::ssize(texts_);
    const index left = known ? (std::max)(index{0}, epoch(text) - first) : 0;
    return fill((std::min)(limits_.batch, left), [&](index b) {
      return place{text, (first + b) * limits_.length, ~static_cast<std::uint64_t>(first + b)};
    });
  }

 private:
  struct place {
    index text, at;
    std::uint64_t example;
  };
  denoiser_stream(std::vector<Source> texts, mixture which, mixture mix, const denoiser_limits& l,
                  seed key)
      : texts_(std::move(texts)),
        which_(std::move(which)),
        mix_(std::move(mix)),
        limits_(l),
        key_(key),
        arrays_({.batch = 0}) {
    for (index k = 0; k < std::ssize(texts_); ++k)
      orders_.emplace_back(epoch(k), seed{key.value + static_cast<std::uint64_t>(k)});
  }
  const Source& of(index text) const { return texts_[static_cast<std::size_t>(text)]; }
  /// Inputs of the longest row that a denoiser makes, without a token of the mode.
  static index longest_row(const denoiser& d, index length, const denoised_lengths& n) {
    if (d.mode == denoiser_mode::sequential) return length + 2;  // two sentinels
    return n.source + n.target - 2;
  }
  void allocate(example_limits sizes, index row) {
    window_.resize(static_cast<std::size_t>(limits_.length));
    if constexpr (in_rows) {
      source_.resize(static_cast<std::size_t>(sizes.source));
      target_.resize(static_cast<std::size_t>(sizes.target));
      inputs_.resize(static_cast<std::size_t>(limits_.batch * row));
      labels_.resize(inputs_.size());
      prefixes_.resize(static_cast<std::size_t>(limits_.batch));
      sizes.source = row;
      sizes.target = 0;
    } else {
      arrays_ = detail::batch_arrays(sizes);
    }
    sizes_ = sizes;
  }
  /// Source and target of an example, in these places.
  denoised_lengths make(const place& p, std::span<token> source, std::span<token> target) {
    const Source& text = of(p.text);
    const auto raw = std::span(window_).first(
        static_cast<std::size_t>((std::min)(limits_.length, text.size() - p.at)));
    text.read(p.at, raw);
    const denoiser& d = denoisers_[static_cast<std::size_t>(mix_(p.example))];
    const token mode = modes_.of(d.mode);
    if (mode >= 0) source[0] = mode;
    const auto words = philox(key_.value, stream_of("linnet::denoiser_stream"), p.example);
    denoised_lengths n = denoise(d, text.ids(), raw, seed{std::uint64_t{words[1]} << 32 | words[0]},
                                 source.subspan(mode >= 0), target);
    n.source += mode >= 0;
    return n;
  }
  template <class Which>
  Batch fill(index count, Which&& which) {
    if constexpr (in_rows) {
      const index length = sizes_.source;
      for (index b = 0; b < count; ++b) {
        const denoised_lengths n = make(which(b), source_, target_);
        const index prefix = n.source - 1, all = prefix + n.target - 1;
        const auto inputs = inputs_.begin() + b * length, labels = labels_.begin() + b * length;
        std::copy_n(source_.begin(), prefix, inputs);
        std::copy_n(target_.begin(), n.target - 1, inputs + prefix);
        std::fill_n(inputs + all, length - all, t5_ids::padding);
        std::fill_n(labels, length, ignored);
        std::copy_n(target_.begin(), n.target, labels + prefix - 1);
        prefixes_[static_cast<std::size_t>(b)] = prefix;
      }
      return {inputs_.data(), labels_.data(), count, length,
              limits_.prefixes ? prefixes_.data() : nullptr};
    } else {
      arrays_.begin(count, sizes_.source, sizes_.target);
      for (index b = 0; b < count; ++b) {
        const denoised_lengths n = make(which(b), arrays_.source(b), arrays_.labels(b));
        arrays_.pad(b, n.source, n.target);
      }
      return arrays_.view();
    }
  }

  std::vector<Source> texts_;
  mixture which_, mix_;
  std::vector<denoiser> denoisers_{};
  mode_tokens modes_{};
  denoiser_limits limits_;
  example_limits sizes_{};
  seed key_;
  std::vector<epoch_sampler> orders_{};                ///< of each text
  std::vector<token> window_{}, source_{}, target_{};  ///< one example
  std::vector<token> inputs_{}, labels_{};             ///< [batch, length] of decoders
  std::vector<index> prefixes_{};                      ///< [batch]
  detail::batch_arrays arrays_;
};

LINNET_NAMESPACE_END
