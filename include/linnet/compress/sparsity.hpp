// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Which weights of a matrix are pruned: those with the least scores, of all or of each few inputs.

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

/// A pattern of pruned weights: `kept` of every `of` consecutive inputs stay, in each row. 2 of 4
/// is the one that hardware reads. The default is no pattern.
struct n_of_m {
  index kept = 0;
  index of = 0;  ///< 0: no pattern

  /// Whether there is a pattern.
  constexpr explicit operator bool() const { return of > 0; }
  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("kept", self.kept, detail::count(self.of > 0 ? 1 : 0));
    f("of", self.of,
      detail::count(self.of > 0 ? static_cast<double>(self.kept) : 0,
                    "of so many inputs `kept` stay; 0 prunes by fraction"));
  }
};

namespace detail {

/// The share of weights that a method prunes.
inline constexpr option_range pruned_fraction{.least = 0, .most = 1, .below = true};

/// How many of `n` > 0 weights a fraction is, rounded down: at least one is left.
inline index fraction_of(double fraction, index n) {
  return (std::min)(n - 1, static_cast<index>(fraction * static_cast<double>(n) + 1e-9));
}
/// Refuses a pattern that the inputs of a matrix are no multiple of.
inline result<void> check_pattern(const char* method, const n_of_m& pattern, index columns) {
  if (pattern.of == 0 && pattern.kept > 0)
    return failure(errc::invalid, method, "",
                   "pattern.of to be at least pattern.kept, " + std::to_string(pattern.kept), "0");
  if (!pattern || columns % pattern.of == 0) return {};
  return failure(errc::invalid, method, "",
                 "a number of inputs that is a multiple of pattern.of, " +
                     std::to_string(pattern.of) + ", or another method for this model",
                 std::to_string(columns));
}
/// Marks the `count` of scores[n] that are least, of equals the first. `order` is room.
inline void mark_least(index n, index count, const double* scores, std::vector<index>& order,
                       char* marks) {
  order.resize(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), index{0});
  std::nth_element(order.data(), order.data() + count, order.data() + n, [&](index a, index b) {
    return scores[a] < scores[b] || (scores[a] == scores[b] && a < b);
  });
  std::fill_n(marks, n, char{0});
  for (index i = 0; i < count; ++i) marks[order[static_cast<std::size_t>(i)]] = 1;
}
/// Marks what a pattern or a fraction prunes of scores[n], the inputs of one row.
inline void mark_row(index n, const n_of_m& pattern, double fraction, const double* scores,
                     std::vector<index>& order, char* marks) {
  if (!pattern) return mark_least(n, fraction_of(fraction, n), scores, order, marks);
  for (index j = 0; j < n; j += pattern.of)
    mark_least(pattern.of, pattern.of - pattern.kept, scores + j, order, marks + j);
}

}  // namespace detail

/// The share of the weights of all matrices that are exactly 0, as pruned ones are. Token tables,
/// norms and biases do not count.
template <class M, class T>
double sparsity(const weights<M, T>& w) {
  index zeros = 0, all = 0;
  if (w.valid())
    w.visit([&](const parameter_path&, const tensor_info& info, const auto& leaf) {
      if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>) {
        if (info.kind != role::matrix) return;
        all += info.size();
        for (index r = 0; r < info.rows; ++r)
          for (index j = 0; j < info.columns; ++j) zeros += leaf.at(r, j, info.columns) == 0;
      }
    });
  return all > 0 ? static_cast<double>(zeros) / static_cast<double>(all) : 0;
}

LINNET_NAMESPACE_END
