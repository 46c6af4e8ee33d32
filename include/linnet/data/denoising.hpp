// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// T5's unsupervised objectives on token ids (Raffel et al. 2020). Masked runs of a text become
/// sentinels in the source, and the target holds the masked tokens.

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/core/random.hpp>
#include <linnet/text/t5_ids.hpp>

LINNET_NAMESPACE_BEGIN

/// How tokens are chosen to be masked.
enum class masking {
  spans,       ///< span corruption: a fixed share of the tokens, in a fixed number of runs
  independent  ///< i.i.d. denoising: each token by itself
};

/// Tokens of a source and its target, end included.
struct denoised_lengths {
  index source = 0;
  index target = 0;
};

/// A denoising objective.
struct denoising {
  masking mask = masking::spans;
  double density = 0.15;  ///< share of tokens to mask, above 0 and at most 0.95
  double mean_span = 3;   ///< mean length of a masked run, 1 to 1e6; masking::spans alone

  /// Masked tokens and runs of span corruption.
  struct noise {
    index tokens, runs;
  };
  /// Numbers of masked tokens and runs in a text of `length` >= 2 tokens. Rounds to even in float,
  /// as the reference does.
  constexpr noise noise_of(index length) const {
    const double share = static_cast<float>(density), span = static_cast<float>(mean_span);
    const index tokens =
        (std::clamp)(round(static_cast<double>(length) * share), index{1}, length - 1);
    const index runs = round(static_cast<double>(tokens) / span);
    return {tokens, (std::clamp)(runs, index{1}, (std::min)(tokens, length - tokens))};
  }
  /// Lengths for a text of `length` >= 2 tokens: exact for span corruption. For i.i.d. denoising
  /// they are the longest possible source, and the target's mean and six standard deviations, or
  /// rather more. It is too short once in a thousand million texts.
  constexpr denoised_lengths lengths(index length) const {
    if (mask == masking::spans) {
      const noise n = noise_of(length);
      return {length - n.tokens + n.runs + 1, n.tokens + n.runs + 1};
    }
    const double tokens = static_cast<double>(length) * density;
    const double deviation = std::sqrt(tokens * (1 - density));  // each may bring a sentinel
    const auto target = static_cast<index>(tokens * (2 - density) + 12 * deviation) + 3;
    return {length + 1, (std::min)(target, 2 * length + 1)};
  }
  /// The longest text whose source has at most `source` >= 4 tokens: 568 for 512.
  constexpr index raw_length(index source) const {
    // Sources never become shorter where texts become longer.
    index fits = source - 1, beyond = source;
    while (lengths(beyond).source <= source) fits = beyond, beyond *= 2;
    while (beyond - fits > 1) {
      const index middle = fits + (beyond - fits) / 2;
      (lengths(middle).source <= source ? fits : beyond) = middle;
    }
    return fits;
  }
  /// Whether the numbers are in their ranges.
  bool valid() const { return detail::in_range(*this); }
  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("mask", self.mask, detail::one_of(masks));
    f("density", self.density, detail::option_range{.least = 0, .most = 0.95, .above = true});
    f("mean_span", self.mean_span, detail::between(1, 1e6));
  }

 private:
  static constexpr const char* masks[] = {"spans", "independent"};
  /// Rounds a product or quotient of floats, computed in double, to float and then to an integer.
  /// The result does not depend on whether a compiler contracts operations.
  static constexpr index round(double exact) {
    const auto x = static_cast<float>(exact);
    const auto whole = static_cast<index>(x);
    const float rest = x - static_cast<float>(whole);
    return whole + (rest > 0.5f || (rest == 0.5f && whole % 2 != 0));
  }
};

namespace detail {

/// Cuts `total` into `parts` positive numbers, each way equally likely. They come one after
/// another, without memory.
class random_parts {
 public:
  random_parts(index total, index parts, random_stream random)
      : gaps_(total - 1), cuts_(parts - 1), random_(random) {}
  index next() {
    for (index length = 1;; ++length) {
      if (gaps_ == 0) return length;
      const bool cut = random_.below(static_cast<std::uint32_t>(gaps_--)) < cuts_;
      if (!cut) continue;
      --cuts_;
      return length;
    }
  }

 private:
  index gaps_, cuts_;  ///< left: places between tokens, and those of them to be cut
  random_stream random_;
};

}  // namespace detail

/// Writes the source and the target of `text`: kept and masked pieces alternate. Masked run k
/// becomes sentinel k in the source; the target has sentinel k and the run. Both end with `end`.
/// The masks depend on `key` and the text's length only.
///
/// i.i.d. denoising masks no more where the target has no room or the sentinels are used up.
/// @return the tokens written. Zeros, and nothing written, for a text below two tokens, or a
/// density or a mean span outside its range. So it is for spans without room for the lengths that
/// `how` says, or without enough sentinels.
inline denoised_lengths denoise(const denoising& how, const t5_ids& ids,
                                std::span<const token> text, seed key, std::span<token> source,
                                std::span<token> target) {
  const index length = std::ssize(text);
  const bool spans = how.mask == masking::spans;
  if (length < 2 ||
      !(how.density > 0 && how.density < 1 && how.mean_span >= 1 && how.mean_span <= 1e6))
    return {};
  const denoising::noise noise = how.noise_of(length);
  const denoised_lengths room = spans ? how.lengths(length) : denoised_lengths{length + 1, 1};
  if (std::ssize(source) < room.source || std::ssize(target) < room.target ||
      (spans && noise.runs > ids.sentinels))
    return {};

  denoised_lengths done;
  const auto put = [](std::span<token> to, index& n, token id) {
    to[static_cast<std::size_t>(n++)] = id;
  };
  random_stream random(key, 2);
  detail::random_parts kept(length - noise.tokens, noise.runs, random_stream(key, 0)),
      masked(noise.tokens, noise.runs, random_stream(key, 1));
  index left = spans ? kept.next() : 0, runs = 0;
  bool inside = false;  // a masked run
  for (const token id : text) {
    bool mask = inside;
    if (spans) {
      if (left == 0) {
        mask = !inside;
        left = (mask ? masked : kept).next();
      }
      --left;
    } else {
      const index needs = inside ? 2 : 3;  // the token, the end and, of a new run, the sentinel
      mask = random.uniform() < how.density && done.target + needs <= std::ssize(target) &&
             (inside || runs < ids.sentinels);
    }
    if (mask && !inside) {
      put(source, done.source, ids.sentinel(runs));
      put(target, done.target, ids.sentinel(runs++));
    }
    inside = mask;
    if (mask)
      put(target, done.target, id);
    else
      put(source, done.source, id);
  }
  put(source, done.source, t5_ids::end);
  put(target, done.target, t5_ids::end);
  return done;
}

/// Inverse of denoise(): the text whose masked runs `target` gives. Reads both up to their first
/// `end`, the target also up to the first `ignored`. Errors: errc::mismatch for sentinels that do
/// not stand in order in both, as in a model's own wrong prediction.
inline result<std::vector<token>> splice(const t5_ids& ids, std::span<const token> source,
                                         std::span<const token> target) LINNET_TRY {
  const auto wrong = [](const char* what, token expected, std::string got) {
    return error{errc::mismatch, "splice", what, std::to_string(expected), std::move(got)};
  };
  const auto ends = [&](std::span<const token> of, std::size_t i) {
    return i >= of.size() || of[i] == t5_ids::end || of[i] == ignored;
  };
  std::vector<token> text;
  std::size_t from = 0;  // place in the target
  index runs = 0;
  for (std::size_t i = 0; !ends(source, i); ++i) {
    if (!ids.is_sentinel(source[i])) {
      text.push_back(source[i]);
      continue;
    }
    const token next = ids.sentinel(runs++);
    if (source[i] != next) return wrong("sentinel of the source", next, std::to_string(source[i]));
    if (ends(target, from) || target[from] != next)
      return wrong("sentinel of the target", next,
                   ends(target, from) ? "its end" : std::to_string(target[from]));
    for (++from; !ends(target, from) && !ids.is_sentinel(target[from]); ++from)
      text.push_back(target[from]);
  }
  if (!ends(target, from))
    return wrong("the target behind the last run", t5_ids::end, std::to_string(target[from]));
  return text;
}
LINNET_OR_OUT_OF_MEMORY("splice")

LINNET_NAMESPACE_END
