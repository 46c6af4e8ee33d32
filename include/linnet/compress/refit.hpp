// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Leaving out heads and neurons without another type: zeros, and a refit of what is left.

#include <linnet/compress/before_eigen.inl>

#include <Eigen/Cholesky>

#include <linnet/compress/after_eigen.inl>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <linnet/compress/importance.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A set of heads or neurons that stand in one layer alone, so that any of them can be left out.
template <class T>
struct layer_units {
  const cut_set<T>* set = nullptr;
  std::size_t scores = 0;  ///< its place in importance::units
  index parameters = 0;    ///< that go with one of them

  bool heads() const { return set->width > 1; }
};

/// The sets of one layer each, of all that have scores. How many of these there are is `scored`.
template <class T>
std::vector<layer_units<T>> units_in_layers(const cut_map<T>& map,
                                            const std::vector<layer_place>& places,
                                            std::size_t& scored) {
  std::vector<layer_units<T>> made;
  scored = 0;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    layer_units<T> one{&set, scored++, 0};
    const layer_place* first = nullptr;
    bool alone = true;
    for (const auto* const sides : {&set.writers, &set.readers})
      for (const auto& side : *sides) {
        const layer_place& here = places[static_cast<std::size_t>(side.ordinal)];
        if (!first) first = &here;
        alone = alone && here.count > 0 && here.stack == first->stack && here.layer == first->layer;
        one.parameters += set.span(side.length()) * side.depth();
      }
    if (alone && first) made.push_back(one);
  }
  return made;
}
template <class M, class T>
std::vector<layer_place> layers_of_tensors(const weights<M, T>& w) {
  std::vector<layer_place> places;
  w.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
    places.push_back(layer_of(at));
  });
  return places;
}

/// Puts zeros where `kept` has units of score 0, and calls refit(set, the units that stay) before.
template <class M, class T, class Refit>
result<weights<M, T>> left_out(const char* where, const weights<M, T>& w, const importance<M>& kept,
                               Refit&& refit) {
  static_assert(has_channels<M>,
                "linnet::leave_out: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (!w.valid()) return w.error();
  weights<M, T> made = w.clone();
  if (!made.valid()) return made.error();
  const cut_map<T> map(made);
  std::size_t scored = 0;
  const auto sets = units_in_layers(map, layers_of_tensors(w), scored);
  if (kept.units.size() != scored)
    return failure(errc::invalid, where, "importance.units", std::to_string(scored) + " sets",
                   std::to_string(kept.units.size()));
  std::size_t next = 0, number = 0;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    const unit_scores& one = kept.units[number];
    const bool alone = next < sets.size() && sets[next].scores == number;
    next += alone;
    ++number;
    if (one.place != set.place || std::ssize(one.scores) != set.units)
      return failure(errc::invalid, where, "units of " + set.place,
                     std::to_string(set.units) + " scores, as importance_of() gives them",
                     std::to_string(one.scores.size()) + " of " + one.place);
    std::vector<index> stay, gone;
    for (index i = 0; i < set.units; ++i)
      (one.scores[static_cast<std::size_t>(i)] > 0 ? stay : gone).push_back(i);
    if (gone.empty()) continue;
    if (!alone)
      return failure(errc::invalid, where, "units of " + set.place,
                     "scores above 0, as these are in more than one layer",
                     std::to_string(gone.size()) + " of 0");
    if (auto fit = refit(set, stay, gone); !fit) return fit.error();
    for (const auto* const sides : {&set.writers, &set.readers})
      for (const auto& side : *sides)
        for (const index j : kept_numbers(gone, set.span(side.length())))
          for (index i = 0; i < side.depth(); ++i) side.at(j, i) = T(0);
  }
  return made;
}

/// Changes columns `stay` of W[rows, columns] so that W x is nearest to what it was although
/// columns `gone` will be 0: W_S += W_G H_GS (H_SS + damp I)^-1, where H = X^T X.
template <class T>
result<void> refit_columns(const channel_side<T>& w, const std::vector<index>& stay,
                           const std::vector<index>& gone, const double* moments, double damp) {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const index s = std::ssize(stay), g = std::ssize(gone), k = w.columns;
  if (s == 0 || g == 0) return {};
  const auto at = [](const std::vector<index>& all, index i) {
    return all[static_cast<std::size_t>(i)];
  };
  const auto h = [&](index a, index b) { return moments[a * k + b]; };
  double mean = 0;
  for (index i = 0; i < s; ++i) mean += h(at(stay, i), at(stay, i)) / static_cast<double>(s);
  matrix ss(s, s), sg(s, g);
  for (index i = 0; i < s; ++i) {
    for (index j = 0; j < s; ++j) ss(i, j) = h(at(stay, i), at(stay, j));
    ss(i, i) += mean > 0 ? damp * mean : 1;  // nothing was ever read: nothing changes
    for (index j = 0; j < g; ++j) sg(i, j) = h(at(stay, i), at(gone, j));
  }
  const Eigen::LLT<matrix> factor(ss);
  if (static_cast<int>(factor.info()) != 0)
    return failure(errc::invalid, "refit", "",
                   "X^T X that can be inverted: give more text or a larger refit_options.damp",
                   "a singular one");
  const matrix change = factor.solve(sg);  // [stay, gone]
  for (index r = 0; r < w.rows; ++r)
    for (index i = 0; i < s; ++i) {
      double sum = static_cast<double>(w.at(at(stay, i), r));
      for (index j = 0; j < g; ++j) sum += static_cast<double>(w.at(at(gone, j), r)) * change(i, j);
      if (!is_finite(sum))
        return failure(errc::invalid, "refit", "", "finite weights", "a NaN or an infinity");
      w.at(at(stay, i), r) = static_cast<T>(sum);
    }
  return {};
}

}  // namespace detail

/// Options of refit().
struct refit_options {
  double damp = 1e-3;  ///< added to the diagonal of X^T X, over its mean

  /// Calls f(name, value, range) for each option, see docs/search.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("damp", self.damp, detail::at_least(0));
  }
};

/// Weights of the same type in which heads and neurons with the score 0 are zeros: what narrow()
/// would leave out. Of sets that are in several layers, such as the channels of the stream, all
/// scores must be above 0. Errors: errc::invalid for scores that are not those of `w`; the error of
/// `w`; errc::out_of_memory.
template <class M, class T>
result<weights<M, T>> leave_out(const weights<M, T>& w, const importance<M>& kept) LINNET_TRY {
  return detail::left_out("leave_out", w, kept,
                          [](const auto&, const auto&, const auto&) { return result<void>(); });
}
LINNET_OR_OUT_OF_MEMORY("leave_out")

/// Leaves out as leave_out() does, and changes what reads the heads and neurons that stay. Their
/// products on the inputs X of `stats` then change least (Shen et al. 2024). The paper comes near
/// that by ADMM; this is the exact minimum of |W' X - W X|^2 + damp |W' - W|^2. Needs
/// calibration_options::moments. Errors: those of leave_out(); errc::invalid for options, for
/// matrices that were not calibrated, and for X^T X that is singular.
template <class M>
result<weights<M>> refit(const weights<M>& w, const importance<M>& kept,
                         const calibration<M>& stats, const refit_options& how = {}) LINNET_TRY {
  if (auto fit = detail::acceptable("refit", "refit_options", how); !fit) return fit.error();
  return detail::left_out(
      "refit", w, kept,
      [&](const auto& set, const std::vector<index>& stay,
          const std::vector<index>& gone) -> result<void> {
        for (const auto& side : set.readers) {
          if (side.kind != role::matrix || !side.by_columns) continue;
          const input_statistics x = stats.of(side.ordinal);
          if (x.rows == 0 || x.width != side.columns)
            return detail::failure(errc::invalid, "refit", "units of " + set.place,
                                   "inputs that calibrate() saw", "none");
          if (auto fit = detail::check_moments("refit", x); !fit) return fit;
          const index span = set.span(side.length());
          if (auto fit =
                  detail::refit_columns(side, detail::kept_numbers(stay, span),
                                        detail::kept_numbers(gone, span), x.moments, how.damp);
              !fit)
            return fit;
        }
        return {};
      });
}
LINNET_OR_OUT_OF_MEMORY("refit")

LINNET_NAMESPACE_END
