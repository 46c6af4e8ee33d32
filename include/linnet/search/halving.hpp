// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Successive halving: many candidates are trained a little, the better ones longer.

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <linnet/core/arena.hpp>
#include <linnet/core/options.hpp>
#include <linnet/search/halving_file.hpp>

LINNET_NAMESPACE_BEGIN

/// A candidate as far as it was trained.
struct halving_trial {
  index candidate = 0;  ///< its number
  index rounds = 0;     ///< that it was in
  index steps = 0;      ///< of its training
  double loss = 0;      ///< behind them; lower is better
};

namespace detail {

/// Whether a loss is less than another; one that is not finite is more than all that are.
inline bool less_loss(double a, double b) {
  if (!is_finite(a) || !is_finite(b)) return is_finite(a) && !is_finite(b);
  return a < b;
}

/// Stands for no file: a search that is not resumed.
struct no_halving_file {
  const double* find(index, index) const { return nullptr; }
  result<void> add(index, index, double) { return {}; }
};

template <class Train, class File>
result<std::vector<halving_trial>> halve(index candidates, const halving_options& how,
                                         Train&& train, File& file) LINNET_TRY {
  constexpr const char* where = "successive_halving";
  if (auto fit = acceptable(where, "halving_options", how); !fit) return fit.error();
  if (candidates < 1 || candidates > most_halving_candidates)
    return error{errc::invalid, where, "candidates",
                 "1 to " + std::to_string(most_halving_candidates), std::to_string(candidates)};
  std::vector<halving_trial> all;
  for (index i = 0; i < candidates; ++i) all.push_back({i});
  index left = candidates, steps = how.first_steps, before = 0;
  for (index round = 0;; ++round) {
    for (index i = 0; i < left; ++i) {
      halving_trial& one = all[static_cast<std::size_t>(i)];
      if (const double* const known = file.find(round, one.candidate)) {
        one.loss = *known;
      } else {
        const result<double> loss = train(std::as_const(one.candidate), before, steps);
        if (!loss) return loss.error();
        one.loss = *loss;
        if (auto kept = file.add(round, one.candidate, *loss); !kept) return kept.error();
      }
      one.rounds = round + 1;
      one.steps = steps;
    }
    // Trials of this round stand before those that are out.
    std::sort(all.begin(), all.begin() + left, [](const halving_trial& a, const halving_trial& b) {
      if (less_loss(a.loss, b.loss) || less_loss(b.loss, a.loss)) return less_loss(a.loss, b.loss);
      return a.candidate < b.candidate;
    });
    if (!is_finite(all.front().loss))
      return error{errc::invalid, where, "losses of round " + std::to_string(round),
                   "one that is finite", "none; train with a lower rate"};
    if (left <= how.finalists) return all;
    left = (std::max)(how.finalists, left / how.keep_one_of);
    before = steps;
    steps = multiply_sizes(steps, how.keep_one_of);
    if (left == 1) return all;
  }
}
LINNET_OR_OUT_OF_MEMORY("successive_halving")

}  // namespace detail

/// Trains candidates 0 to `candidates` - 1 and finds the best (Jamieson and Talwalkar 2016). All
/// are trained for `first_steps` steps; then one of `keep_one_of` goes on to as many times the
/// steps, and so forth until `finalists` are left. `train(candidate, from, to)` trains one on from
/// step `from` to step `to`, or anew for `to` steps, and returns its loss or a result of it. Of
/// equal losses the lower number is better. A loss that is not finite is the worst. Returns all:
/// those of more rounds first, the best first. A search to one candidate ends when it is known, and
/// does not train it on. Errors: errc::invalid for options and where no loss of a round is finite;
/// those of `train`; errc::out_of_memory.
template <class Train>
result<std::vector<halving_trial>> successive_halving(index candidates, const halving_options& how,
                                                      Train&& train) {
  detail::no_halving_file none;
  return detail::halve(candidates, how, train, none);
}

/// Halving that keeps each loss in `file` as soon as it is there. What the file knows is not
/// trained again, so that an interrupted search ends with the same result. Errors: those without a
/// file; errc::mismatch for a file of other candidates or options; errc::io.
template <class Train>
result<std::vector<halving_trial>> successive_halving(index candidates, const halving_options& how,
                                                      Train&& train, halving_file& file) {
  if (auto fit = file.is_of(candidates, how); !fit) return fit.error();
  return detail::halve(candidates, how, train, file);
}

LINNET_NAMESPACE_END
