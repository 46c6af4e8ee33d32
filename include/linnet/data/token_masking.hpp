// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// BERT's masked language modelling on token ids (Devlin et al. 2019, section 3.1): some tokens are
/// chosen to be predicted, most of which are hidden.

#include <algorithm>
#include <span>

#include <linnet/core/options.hpp>
#include <linnet/core/random.hpp>
#include <linnet/core/view.hpp>

LINNET_NAMESPACE_BEGIN

/// Special ids of a BERT's vocabulary: those of bert-base-uncased and MiniLM.
struct bert_ids {
  token padding = 0;         ///< "[PAD]"
  token first = 101;         ///< "[CLS]", in front of a text; negative for none
  token last = 102;          ///< "[SEP]", behind a text; negative for none
  token mask = 103;          ///< "[MASK]"
  index vocabulary = 30522;  ///< ids, the special ones included

  /// Tokens that stand around a text.
  constexpr index around() const { return (first >= 0) + (last >= 0); }
  /// Whether `id` is one of them.
  constexpr bool special(token id) const {
    return id == padding || id == first || id == last || id == mask;
  }
  /// Whether the ids that are used are in the vocabulary.
  constexpr bool valid() const {
    return padding >= 0 && mask >= 0 && padding < vocabulary && first < vocabulary &&
           last < vocabulary && mask < vocabulary;
  }
};

/// Numbers of masked language modelling. They are exact, not expected ones: of n tokens that are
/// not special, round(density n) are chosen, at least one. Of c chosen, round(mask c) are masked
/// and round(random c) replaced; the others stay.
struct token_masking {
  double density = 0.15;  ///< share of tokens to choose
  double mask = 0.8;      ///< of these, share that becomes the mask's id
  double random = 0.1;    ///< of these, share that becomes any id of the vocabulary

  /// Tokens of each kind.
  struct counts {
    index chosen = 0, masked = 0, replaced = 0;
  };
  /// The numbers for a text of `n` tokens that are not special.
  constexpr counts counts_of(index n) const {
    counts c;
    c.chosen = (std::clamp)(share(n, density), index{n > 0}, n);
    c.masked = (std::min)(share(c.chosen, mask), c.chosen);
    c.replaced = (std::min)(share(c.chosen, random), c.chosen - c.masked);
    return c;
  }
  /// Whether the numbers are in their ranges.
  bool valid() const { return detail::in_range(*this) && mask + random <= 1; }
  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("density", self.density, detail::option_range{.least = 0, .most = 1, .above = true});
    f("mask", self.mask, detail::between(0, 1));
    f("random", self.random, detail::between(0, 1));
  }

 private:
  /// Rounds in float, so that the result does not depend on whether a compiler contracts
  /// operations.
  static constexpr index share(index n, double of) {
    const auto x =
        static_cast<float>(static_cast<double>(n) * static_cast<double>(static_cast<float>(of)));
    const auto whole = static_cast<index>(x);
    return whole + (x - static_cast<float>(whole) >= 0.5f);
  }
};

/// Masks `text` in place, and writes what its tokens were to `labels` of the same size: `ignored`
/// where none was chosen. Special tokens are never chosen. The choice depends on `key` and on which
/// tokens are special. False, and nothing written, for numbers out of their ranges or labels of
/// another size.
inline bool mask_tokens(const token_masking& how, const bert_ids& ids, std::span<token> text,
                        seed key, std::span<token> labels) {
  if (!how.valid() || !ids.valid() || text.size() != labels.size()) return false;
  index left = 0;
  for (const token id : text) left += !ids.special(id);
  auto [chosen, masked, replaced] = how.counts_of(left);
  random_stream random(key, 0), other(key, 1);
  const auto below = [&](index n) {
    return static_cast<index>(random.below(static_cast<std::uint32_t>(n)));
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    labels[i] = ignored;
    // Each way to choose as many of those that are left is as likely as another.
    if (ids.special(text[i]) || below(left--) >= chosen) continue;
    labels[i] = text[i];
    const index kind = below(chosen--);
    if (kind < masked) {
      text[i] = ids.mask;
      --masked;
    } else if (kind < masked + replaced) {
      text[i] = static_cast<token>(other.below(static_cast<std::uint32_t>(ids.vocabulary)));
      --replaced;
    }
  }
  return true;
}

LINNET_NAMESPACE_END
