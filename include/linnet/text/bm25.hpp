// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// BM25 (Robertson and Zaragoza 2009): which of some texts are about a question.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/text/rouge.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of `bm25`.
struct bm25_options {
  double k1 = 1.2;  ///< how soon more of one word stops to count
  double b = 0.75;  ///< how much long texts are held back

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("k1", self.k1, detail::at_least(0));
    f("b", self.b, detail::between(0, 1));
  }
};

/// An index of texts by their words. Each word of a question adds to the score of a text d:
///
///     ln(1 + (N - n + ½) / (n + ½)) · f (k1 + 1) / (f + k1 (1 - b + b |d| / mean |d|))
///
/// Here f is how often d has the word, and n how many of the N texts have it.
class bm25 {
 public:
  /// A text that was found, and its score.
  struct match {
    index text;
    double score;
  };

  /// Indexes texts, which need not outlive it. Errors: errc::invalid for options out of range.
  static result<bm25> open(std::span<const std::string_view> texts,
                           const bm25_options& how = {}) LINNET_TRY {
    if (auto fit = detail::acceptable("bm25::open", "bm25_options", how); !fit) return fit.error();
    bm25 made(how);
    for (const std::string_view text : texts) {
      const index number = std::ssize(made.lengths_);
      const auto words = detail::words_of(text);
      for (const std::uint64_t word : words) {
        auto& postings = made.places_[word];
        if (postings.empty() || postings.back().text != number) postings.push_back({number, 0});
        ++postings.back().times;
      }
      made.lengths_.push_back(static_cast<double>(words.size()));
      made.words_ += static_cast<double>(words.size());
    }
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("bm25::open")

  /// Number of texts.
  index texts() const { return std::ssize(lengths_); }
  /// The `most` texts with the highest scores above 0, the best first; ties go to the first text.
  /// None where memory lacks.
  std::vector<match> find(std::string_view question, index most) const LINNET_TRY {
    std::vector<double> scores(lengths_.size());
    const double n = static_cast<double>(lengths_.size()), mean = words_ / (std::max)(n, 1.0);
    for (const std::uint64_t word : detail::words_of(question)) {
      const auto found = places_.find(word);
      if (found == places_.end()) continue;
      const auto with = static_cast<double>(found->second.size());
      const double rarity = std::log(1 + (n - with + 0.5) / (with + 0.5));
      for (const posting& p : found->second) {
        const auto d = static_cast<std::size_t>(p.text);
        const double damp = how_.k1 * (1 - how_.b + how_.b * lengths_[d] / mean);
        scores[d] += rarity * p.times * (how_.k1 + 1) / (p.times + damp);
      }
    }
    std::vector<match> all;
    for (std::size_t d = 0; d < scores.size(); ++d)
      if (scores[d] > 0) all.push_back({static_cast<index>(d), scores[d]});
    std::stable_sort(all.begin(), all.end(),
                     [](const match& x, const match& y) { return x.score > y.score; });
    if (std::ssize(all) > (std::max)(most, index{0}))
      all.resize(static_cast<std::size_t>((std::max)(most, index{0})));
    return all;
  }
  LINNET_WITHOUT_MEMORY(return {})

 private:
  struct posting {
    index text;
    double times;
  };
  explicit bm25(const bm25_options& how) : how_(how) {}

  bm25_options how_;
  std::unordered_map<std::uint64_t, std::vector<posting>> places_{};
  std::vector<double> lengths_{};  ///< words of each text
  double words_ = 0;               ///< of all
};

LINNET_NAMESPACE_END
