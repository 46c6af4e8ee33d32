// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Duplicates: neurons that nearly repeat another one's output go before those that do not.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <linnet/compress/importance.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of duplicates_first(), after Santacroce et al. 2023 (arXiv:2302.03773).
struct duplicate_options {
  double cosine = 0.8;  ///< of two neurons' outputs over all tokens, either sign; above, one of
                        ///< them is a duplicate

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("cosine", self.cosine, detail::between(0, 1));
  }
};
/// @copydoc duplicate_options
using uniqueness [[deprecated("it is duplicate_options")]] = duplicate_options;

namespace detail {

/// Neurons whose output one that stays nearly repeats, the least important first.
inline std::vector<index> duplicates_of(const std::vector<double>& scores, const double* moments,
                                        double cosine) {
  const index n = std::ssize(scores);
  std::vector<index> order(scores.size()), found;
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<index>(i);
  const auto score = [&](index i) { return scores[static_cast<std::size_t>(i)]; };
  // Of equal ones the last goes first, as in narrow().
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) {
    return score(a) < score(b) || (score(a) == score(b) && a > b);
  });
  std::vector<bool> gone(scores.size());
  for (const index i : order)
    for (index j = 0; j < n; ++j) {
      if (j == i || gone[static_cast<std::size_t>(j)]) continue;
      const double lengths = std::sqrt(moments[i * n + i] * moments[j * n + j]);
      if (!(std::abs(moments[i * n + j]) > cosine * lengths)) continue;
      gone[static_cast<std::size_t>(i)] = true;
      found.push_back(i);
      break;
    }
  return found;
}

}  // namespace detail

/// Lowers the scores of neurons that nearly repeat the output of a more important one, below all
/// others of their layer. `stats` are those of calibrate() on these weights, with moments. Errors:
/// errc::invalid for options, for scores of other weights and for statistics without moments;
/// errc::out_of_memory.
template <class M, class T>
result<importance<M>> duplicates_first(importance<M> scores, const weights<M, T>& w,
                                       const calibration<M>& stats,
                                       const duplicate_options& how = {}) LINNET_TRY {
  constexpr const char* name = "duplicates_first";
  if (auto fit = detail::acceptable(name, "duplicate_options", how); !fit) return fit.error();
  if (auto fit = detail::fit_for_scores(name, w); !fit) return fit.error();
  const detail::cut_map<T> map(w);
  std::size_t next = 0;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    if (next == scores.units.size() || scores.units[next].place != set.place)
      return error{errc::invalid, name, "importance.units",
                   "scores of " + set.place + " in their place", "others"};
    std::vector<double>& all = scores.units[next++].scores;
    input_statistics x{};
    index kinds = 0;  // of inputs: those of neurons are read once, channels of the stream often
    for (const auto& side : set.readers) {
      const input_statistics one = stats.of(side.ordinal);
      if (one.rows == 0 || one.squares == x.squares) continue;
      x = one;
      ++kinds;
    }
    if (kinds != 1 || x.width != set.units || std::ssize(all) != set.units) continue;
    if (auto fit = detail::check_moments(name, x); !fit) return fit.error();
    const auto found = detail::duplicates_of(all, x.moments, how.cosine);
    const double least = *std::min_element(all.begin(), all.end());
    for (std::size_t i = 0; i < found.size(); ++i)
      all[static_cast<std::size_t>(found[i])] =
          least - (1 + std::abs(least)) * static_cast<double>(found.size() - i);
  }
  return scores;
}
LINNET_OR_OUT_OF_MEMORY("duplicates_first")

LINNET_NAMESPACE_END
