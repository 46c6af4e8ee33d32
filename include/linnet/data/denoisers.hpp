// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Denoisers of UL2 (Tay et al. 2023): span corruption in several strengths and prefix language
/// modelling, told apart by a token in front.

#include <algorithm>
#include <array>
#include <span>

#include <linnet/data/denoising.hpp>

LINNET_NAMESPACE_BEGIN

/// The kind of question that a denoiser asks a model.
enum class denoiser_mode {
  regular,     ///< R: few tokens in short runs, as in T5
  sequential,  ///< S: the end of a text from its beginning, which is prefix language modelling
  extreme      ///< X: many tokens, or long runs
};

/// Tokens that stand in front of an example and tell a model its mode. Negative for none.
struct mode_tokens {
  token regular = no_token;     ///< "[NLU]"
  token sequential = no_token;  ///< "[S2S]"
  token extreme = no_token;     ///< "[NLG]"

  /// The token of a mode.
  constexpr token of(denoiser_mode mode) const {
    return mode == denoiser_mode::regular      ? regular
           : mode == denoiser_mode::sequential ? sequential
                                               : extreme;
  }
};

/// One denoiser of a mixture.
struct denoiser {
  denoiser_mode mode = denoiser_mode::regular;
  denoising how{};    ///< runs and share of R and X. Of S, `density` is the mean share of a text
                      ///< that its end takes, at most 0.5; the end's length is uniform around it
  double weight = 1;  ///< how often, beside the others

  /// Most tokens that S leaves to be predicted in a text of `length` >= 2. With a mean share of 0.5
  /// they are all or all but one, so that cuts are equally likely.
  constexpr index longest_end(index length) const {
    return (std::clamp)(2 * how.noise_of(length).tokens - 1, index{1}, length - 1);
  }
  /// Longest source and target of a text of `length` >= 2 tokens, without a token of the mode.
  constexpr denoised_lengths lengths(index length) const {
    if (mode != denoiser_mode::sequential) return how.lengths(length);
    return {length + 1, longest_end(length) + 2};
  }
  /// Sentinels that a text of `length` >= 2 tokens needs.
  constexpr index sentinels(index length) const {
    const bool runs = mode != denoiser_mode::sequential && how.mask == masking::spans;
    return runs ? how.noise_of(length).runs : 1;
  }
};

/// The seven settings of the mixture of denoisers, equally often (Tay et al. 2023, table 1).
inline constexpr std::array<denoiser, 7> ul2_denoisers{{
    {denoiser_mode::regular, {.density = 0.15, .mean_span = 3}},
    {denoiser_mode::regular, {.density = 0.15, .mean_span = 8}},
    {denoiser_mode::sequential, {.density = 0.25}},
    {denoiser_mode::extreme, {.density = 0.5, .mean_span = 3}},
    {denoiser_mode::extreme, {.density = 0.5, .mean_span = 8}},
    {denoiser_mode::extreme, {.density = 0.15, .mean_span = 64}},
    {denoiser_mode::extreme, {.density = 0.5, .mean_span = 64}},
}};
/// The settings of UL2R, for a model that was trained on next tokens before (Tay et al. 2022). Half
/// of the examples are S, whose cuts are about equally likely, and a quarter each R and X.
inline constexpr std::array<denoiser, 4> ul2r_denoisers{{
    {denoiser_mode::regular, {.density = 0.15, .mean_span = 3}, 2},
    {denoiser_mode::extreme, {.density = 0.15, .mean_span = 32}, 1},
    {denoiser_mode::extreme, {.density = 0.5, .mean_span = 3}, 1},
    {denoiser_mode::sequential, {.density = 0.5}, 4},
}};

/// Writes the source and the target of `text` as one denoiser makes them, without a token of the
/// mode. S replaces the end of the text by one sentinel, so splice() puts all of them together
/// again. They depend on `key` and the text's length only.
/// @return the tokens written; zeros, and nothing written, where denoise() of `denoising` has them.
inline denoised_lengths denoise(const denoiser& d, const t5_ids& ids, std::span<const token> text,
                                seed key, std::span<token> source, std::span<token> target) {
  if (d.mode != denoiser_mode::sequential) return denoise(d.how, ids, text, key, source, target);
  const index length = std::ssize(text);
  if (length < 2 || ids.sentinels < 1 || !(d.how.density > 0 && d.how.density <= 0.5)) return {};
  random_stream random(key, 3);
  const index end =
      1 + static_cast<index>(random.below(static_cast<std::uint32_t>(d.longest_end(length))));
  const denoised_lengths done{length - end + 2, end + 2};
  if (std::ssize(source) < done.source || std::ssize(target) < done.target) return {};
  const auto after = std::copy_n(text.begin(), length - end, source.begin());
  after[0] = target[0] = ids.sentinel(0);
  after[1] = t5_ids::end;
  *std::copy_n(text.data() + (length - end), end, target.begin() + 1) = t5_ids::end;
  return done;
}

LINNET_NAMESPACE_END
