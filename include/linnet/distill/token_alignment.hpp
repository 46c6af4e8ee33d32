// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Teachers with other tokenizers: which of their tokens stand for which of the student's (MinED of
/// FuseLLM, Wan et al. 2024).

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/core/result.hpp>
#include <linnet/distill/top_logits.hpp>

LINNET_NAMESPACE_BEGIN

/// Tokens [first, first + count) of another text that a token is aligned with.
struct aligned_tokens {
  index first = 0, count = 0;
};

/// Fewest insertions, deletions and replacements of bytes that turn `a` into `b`. A distance of
/// `limit` or more is not computed to its end and gives a number that is at least `limit`.
inline index edit_distance(std::string_view a, std::string_view b,
                           index limit = (std::numeric_limits<index>::max)()) {
  std::vector<index> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<index>(j);
  for (std::size_t i = 0; i < a.size(); ++i) {
    index diagonal = row[0], least = row[0] = static_cast<index>(i) + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const index replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = (std::min)({replaced, diagonal + 1, row[j] + 1});
      least = (std::min)(least, row[j + 1]);
    }
    if (least >= limit) return least;
  }
  return row[b.size()];
}

/// Aligns the tokens of two vocabularies, by their texts. A leading U+2581 or G with a dot above,
/// which stand for a space, are one.
class token_alignment {
 public:
  /// Opens the alignment of another vocabulary with a base; id i is text number i. For each token
  /// of the other, it looks for the base's token with the least edit distance, the lowest id first.
  /// Texts that are in both take no time. Errors: errc::invalid for an empty vocabulary,
  /// errc::out_of_memory.
  static result<token_alignment> open(std::span<const std::string> base,
                                      std::span<const std::string> other) LINNET_TRY {
    for (const auto& [texts, name] : {std::pair{base, "base"}, std::pair{other, "other"}})
      if (texts.empty() || texts.size() > 0x7fffffff)
        return linnet::error{errc::invalid, "token_alignment::open", name, "1 to 2^31 - 1 texts",
                             std::to_string(texts.size())};
    token_alignment made;
    for (const std::string& text : base) made.base_.push_back(spaced(text));
    for (const std::string& text : other) made.other_.push_back(spaced(text));
    std::unordered_map<std::string_view, token> ids;
    for (std::size_t t = 0; t < base.size(); ++t) ids.emplace(made.base_[t], static_cast<token>(t));
    for (const std::string& text : made.other_) {
      const auto found = ids.find(text);
      made.nearest_.push_back(found != ids.end() ? found->second : made.search(text));
    }
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("token_alignment::open")

  /// The base's token that is nearest to one of the other vocabulary; `no_token` for no token of
  /// it.
  token nearest(token other) const {
    return is_in(other, nearest_.size()) ? nearest_[static_cast<std::size_t>(other)] : no_token;
  }

  /// Aligns two tokenized forms of a text by dynamic time warping: the pairs with the least sum of
  /// edit distances, spaces in front left out. Each token of `base` has at least one of `other`.
  /// Errors: errc::invalid for texts without tokens and tokens outside the vocabularies;
  /// errc::out_of_memory.
  result<std::vector<aligned_tokens>> align(std::span<const token> base,
                                            std::span<const token> other) const LINNET_TRY {
    constexpr const char* where = "token_alignment::align";
    const std::size_t n = base.size(), m = other.size();
    if (n == 0 || m == 0)
      return linnet::error{errc::invalid, where, "tokens", "at least one of each", "none"};
    for (const token t : base)
      if (!is_in(t, base_.size())) return outside(where, "base", t);
    for (const token t : other)
      if (!is_in(t, other_.size())) return outside(where, "other", t);
    if (!detail::has_memory(
            detail::array_bytes(static_cast<index>(n), static_cast<index>(m), sizeof(index))))
      return detail::out_of_memory(where);
    constexpr index beyond = (std::numeric_limits<index>::max)() / 4;
    std::vector<index> sums(n * m);
    const auto at = [&](std::size_t i, std::size_t j) { return sums[i * m + j]; };
    const auto diag = [&](std::size_t i, std::size_t j) {
      return i > 0 && j > 0 ? at(i - 1, j - 1) : beyond;
    };
    const auto up = [&](std::size_t i, std::size_t j) { return i > 0 ? at(i - 1, j) : beyond; };
    const auto left = [&](std::size_t i, std::size_t j) { return j > 0 ? at(i, j - 1) : beyond; };
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < m; ++j)
        sums[i * m + j] =
            edit_distance(bare(text_of(base_, base[i])), bare(text_of(other_, other[j]))) +
            (i + j == 0 ? 0 : (std::min)({diag(i, j), up(i, j), left(i, j)}));
    std::vector<aligned_tokens> made(n);
    for (std::size_t i = n - 1, j = m - 1;;) {
      aligned_tokens& one = made[i];
      one.first = static_cast<index>(j);
      ++one.count;
      if (i + j == 0) return made;
      const index d = diag(i, j), u = up(i, j), l = left(i, j);
      if (d <= u && d <= l)
        --i, --j;
      else if (u <= l)
        --i;
      else
        --j;
    }
  }
  LINNET_OR_OUT_OF_MEMORY("token_alignment::align")

  /// Carries the other model's distributions over to the base's tokens. Row j of `of_other` is the
  /// distribution that token j of `other` was predicted by. A token of `base` that is aligned with
  /// one token, of equal text or the nearest, gets its row, each id by nearest(). All others get
  /// themselves alone, with logit 1. Of ids that meet in one, the larger logit stays. Errors: those
  /// of align(), and errc::invalid for as many rows as there are not tokens.
  result<top_logits> carry(std::span<const token> base, std::span<const token> other,
                           const top_logits& of_other) const LINNET_TRY {
    constexpr const char* where = "token_alignment::carry";
    if (of_other.rows() != std::ssize(other) || of_other.logits.size() != of_other.ids.size())
      return linnet::error{errc::invalid, where, "of_other", std::to_string(other.size()) + " rows",
                           std::to_string(of_other.rows())};
    const auto with = align(base, other);
    if (!with) return with.error();
    const auto k = static_cast<std::size_t>(of_other.k);
    top_logits made{of_other.k, std::vector<token>(base.size() * k, no_token),
                    std::vector<float>(base.size() * k)};
    for (std::size_t i = 0; i < base.size(); ++i) {
      token* const ids = made.ids.data() + i * k;
      float* const logits = made.logits.data() + i * k;
      const auto j = static_cast<std::size_t>((*with)[i].first);
      const bool same = (*with)[i].count == 1 &&
                        (nearest(other[j]) == base[i] ||
                         bare(text_of(base_, base[i])) == bare(text_of(other_, other[j])));
      std::size_t kept = 0;
      for (std::size_t c = j * k; same && c < (j + 1) * k; ++c) {
        const token id = nearest(of_other.ids[c]);
        if (id == no_token) continue;
        const auto place = static_cast<std::size_t>(std::find(ids, ids + kept, id) - ids);
        logits[place] =
            place < kept ? (std::max)(logits[place], of_other.logits[c]) : of_other.logits[c];
        ids[place] = id;
        kept = (std::max)(kept, place + 1);
      }
      if (kept > 0) continue;
      ids[0] = base[i];
      logits[0] = 1;
    }
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("token_alignment::carry")

 private:
  token_alignment() = default;
  static bool is_in(token t, std::size_t size) {
    return t >= 0 && static_cast<std::size_t>(t) < size;
  }
  static linnet::error outside(const char* where, const char* which, token t) {
    return {errc::invalid, where, which, "tokens of the vocabulary", std::to_string(t)};
  }
  static const std::string& text_of(const std::vector<std::string>& texts, token t) {
    return texts[static_cast<std::size_t>(t)];
  }
  /// A text with a space for the sign of one.
  static std::string spaced(const std::string& text) {
    for (const std::string_view sign : {"\xe2\x96\x81", "\xc4\xa0"})
      if (std::string_view(text).starts_with(sign)) return ' ' + text.substr(sign.size());
    return text;
  }
  static std::string_view bare(std::string_view text) {
    if (text.starts_with(' ')) text.remove_prefix(1);
    return text;
  }
  token search(std::string_view text) const {
    index best = (std::numeric_limits<index>::max)();
    token id = 0;
    for (std::size_t t = 0; t < base_.size() && best > 1; ++t) {
      const index a = std::ssize(text), b = std::ssize(base_[t]);
      if ((a < b ? b - a : a - b) >= best) continue;
      const index distance = edit_distance(text, base_[t], best);
      if (distance >= best) continue;
      best = distance;
      id = static_cast<token>(t);
    }
    return id;
  }

  std::vector<std::string> base_, other_;
  std::vector<token> nearest_;
};

LINNET_NAMESPACE_END
