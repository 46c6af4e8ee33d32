// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Search for the best part of a trained model: evolution of masks of heads and neurons.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <linnet/compress/refit.hpp>
#include <linnet/core/random.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of evolve_subnet(); the numbers are those of Shen et al. 2024.
struct subnet_options {
  index parameters = 0;          ///< most of the part, with all that is not searched
  index least_parameters = 0;    ///< fewer are not tried
  index generations = 50;        ///< 0 judges the start alone
  index population = 100;        ///< parts of a generation
  index parents = 10;            ///< the best of them, which stay and have children
  index mutations = 50;          ///< children of one parent
  index crossovers = 30;         ///< children of two; the rest is new
  double first_mask_rate = 0.6;  ///< chance of a set to get other units, in new parts
  double first_size_rate = 0.3;  ///< chance of a set to get another number of units, in new parts
  double mask_rate = 0.3;        ///< those of children
  double size_rate = 0.1;        ///< those of children
  double overlap = 0.8;          ///< share of units that stay when others are taken, rounded down
  double least_heads = 0.8;      ///< share of a layer's heads that stays
  double least_neurons = 0.4;    ///< share of a layer's neurons that stays
  std::uint64_t seed = 1;

  /// Calls f(name, value, range) for each option, see docs/search.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("parameters", self.parameters, detail::count(1));
    f("least_parameters", self.least_parameters, detail::count(0));
    f("generations", self.generations, detail::count(0));
    f("population", self.population, detail::count(1));
    f("parents", self.parents, detail::count(1));
    f("mutations", self.mutations, detail::count(0));
    f("crossovers", self.crossovers, detail::count(0));
    f("first_mask_rate", self.first_mask_rate, detail::between(0, 1));
    f("first_size_rate", self.first_size_rate, detail::between(0, 1));
    f("mask_rate", self.mask_rate, detail::between(0, 1));
    f("size_rate", self.size_rate, detail::between(0, 1));
    f("overlap", self.overlap, detail::between(0, 1));
    f("least_heads", self.least_heads, detail::between(0, 1));
    f("least_neurons", self.least_neurons, detail::between(0, 1));
  }
};

/// A part of a trained model.
template <class M>
struct subnet {
  importance<M> kept{};   ///< 1 for what stays, 0 for what is left out: for refit() and narrow()
  double loss = 0;        ///< of the part
  double start_loss = 0;  ///< of the part that the scores alone give
  index parameters = 0;   ///< that are left
  index judged = 0;       ///< parts whose loss was asked for
};

namespace detail {

/// Units of each searched set that stay.
using subnet_mask = std::vector<std::vector<bool>>;

/// Makes masks within a budget.
class subnet_masks {
 public:
  /// One searched set.
  struct set_of_units {
    index units = 0, least = 1, parameters = 0;  ///< parameters of one unit
    std::vector<index> order{};                  ///< the most important unit first
  };

  subnet_masks(std::vector<set_of_units> sets, index whole, const subnet_options& how)
      : sets_(std::move(sets)), whole_(whole), how_(how) {}

  /// Parameters that a mask leaves.
  index parameters(const subnet_mask& mask) const {
    index left = whole_;
    for (std::size_t s = 0; s < sets_.size(); ++s)
      left -= (sets_[s].units - count(mask[s])) * sets_[s].parameters;
    return left;
  }
  bool fits(const subnet_mask& mask) const {
    const index left = parameters(mask);
    return left <= how_.parameters && left >= how_.least_parameters;
  }
  /// The most important units of each set, the same share of all sets, as many as the budget has
  /// room for. Sets have no fewer than they must. What fits nowhere is the smallest.
  subnet_mask start() const {
    subnet_mask mask;
    for (index percent = 100; percent >= 0; --percent) {
      mask.clear();
      for (const auto& set : sets_)
        mask.push_back(best(set, (std::max)(set.least, (set.units * percent + 50) / 100)));
      if (parameters(mask) <= how_.parameters) break;
    }
    return mask;
  }
  /// A changed mask.
  subnet_mask mutated(subnet_mask mask, double mask_rate, double size_rate,
                      random_stream& random) const {
    for (std::size_t s = 0; s < sets_.size(); ++s) {
      const auto& set = sets_[s];
      index size = count(mask[s]);
      const bool resize = random.uniform() < size_rate, exchange = random.uniform() < mask_rate;
      if (resize) size = set.least + below(set.units - set.least + 1, random);
      if (resize || exchange) mask[s] = redrawn(mask[s], size, random);
    }
    return mask;
  }
  /// Each set from one of two masks.
  static subnet_mask crossed(const subnet_mask& a, const subnet_mask& b, random_stream& random) {
    subnet_mask mask = a;
    for (std::size_t s = 0; s < mask.size(); ++s)
      if (below(2, random) == 1) mask[s] = b[s];
    return mask;
  }
  /// Takes the least important units from sets by chance until a mask is within the budget, or
  /// adds the most important ones. False where that ends outside of it.
  bool repair(subnet_mask& mask, random_stream& random) const {
    while (parameters(mask) > how_.parameters)
      if (!step(mask, false, random)) return false;
    while (parameters(mask) < how_.least_parameters)
      if (!step(mask, true, random)) return false;
    return fits(mask);
  }
  static index below(index n, random_stream& random) {
    return static_cast<index>(random.below(static_cast<std::uint32_t>(n)));
  }

 private:
  static index count(const std::vector<bool>& mask) {
    return std::count(mask.begin(), mask.end(), true);
  }
  static std::vector<bool> best(const set_of_units& set, index size) {
    std::vector<bool> mask(static_cast<std::size_t>(set.units));
    for (index i = 0; i < size; ++i)
      mask[static_cast<std::size_t>(set.order[static_cast<std::size_t>(i)])] = true;
    return mask;
  }
  /// Units by chance, of which a share was there before; few units all change.
  std::vector<bool> redrawn(const std::vector<bool>& before, index size,
                            random_stream& random) const {
    std::vector<index> old, rest;
    for (index i = 0; i < std::ssize(before); ++i)
      (before[static_cast<std::size_t>(i)] ? old : rest).push_back(i);
    const auto take = [&](std::vector<index>& from) {
      const auto at = from.begin() + below(std::ssize(from), random);
      const index unit = *at;
      from.erase(at);
      return unit;
    };
    std::vector<bool> mask(before.size());
    const index same = (std::min)(
        std::ssize(old), static_cast<index>(std::floor(how_.overlap * static_cast<double>(size))));
    for (index i = 0; i < same; ++i) mask[static_cast<std::size_t>(take(old))] = true;
    rest.insert(rest.end(), old.begin(), old.end());
    for (index i = same; i < size; ++i) mask[static_cast<std::size_t>(take(rest))] = true;
    return mask;
  }
  bool step(subnet_mask& mask, bool add, random_stream& random) const {
    std::vector<std::size_t> open;
    for (std::size_t s = 0; s < sets_.size(); ++s)
      if (add ? count(mask[s]) < sets_[s].units : count(mask[s]) > sets_[s].least)
        open.push_back(s);
    if (open.empty()) return false;
    const std::size_t s =
        open[static_cast<std::size_t>(below(static_cast<index>(open.size()), random))];
    const auto& order = sets_[s].order;
    const auto other = [&](index unit) { return mask[s][static_cast<std::size_t>(unit)] != add; };
    mask[s][static_cast<std::size_t>(add ? *std::find_if(order.begin(), order.end(), other)
                                         : *std::find_if(order.rbegin(), order.rend(), other))] =
        add;
    return true;
  }

  std::vector<set_of_units> sets_;
  index whole_;
  const subnet_options& how_;
};

}  // namespace detail

/// Finds the heads and neurons of trained weights that are worth most within a budget of parameters
/// (Shen et al. 2024). It starts from the highest `scores`, with the same share of each layer. Then
/// it evolves masks. `judge`, a function of weights, gives the loss of those with
/// zeros for what is left out; it may return a result. Equal parts are judged once. Whole heads are
/// left out, not widths of heads, and no layers. Children beyond the budget lose units instead of
/// being dropped. The result is not worse than its start, and the same for the same losses. Errors:
/// errc::invalid for options and scores, and for a budget that the repaired start does not fit.
/// Also for a start whose loss is not finite; errors of `judge` and `w`; errc::out_of_memory.
template <class M, class T, class Judge>
result<subnet<M>> evolve_subnet(const weights<M, T>& w, const importance<M>& scores, Judge&& judge,
                                const subnet_options& how) LINNET_TRY {
  constexpr const char* where = "evolve_subnet";
  if (auto fit = detail::acceptable(where, "subnet_options", how); !fit) return fit.error();
  if (how.parents + how.mutations + how.crossovers > how.population)
    return error{errc::invalid, where, "subnet_options.population",
                 "at least parents + mutations + crossovers", std::to_string(how.population)};
  subnet<M> made;
  made.kept = scores;
  for (auto& one : made.kept.units)
    for (double& x : one.scores) {
      if (!is_finite(x))
        return error{errc::invalid, where, "scores of " + one.place, "finite numbers",
                     "a NaN or an infinity"};
      x = 1;
    }
  made.kept.layers.clear();
  if (auto fit = leave_out(w, made.kept); !fit) return fit.error();  // the scores are of w
  const detail::cut_map<T> map(w);
  std::size_t scored = 0;
  const auto searched = detail::units_in_layers(map, detail::layers_of_tensors(w), scored);
  std::vector<detail::subnet_masks::set_of_units> sets;
  for (const auto& one : searched) {
    const auto& of = scores.units[one.scores].scores;
    std::vector<index> order(of.size());
    for (std::size_t i = 0; i < of.size(); ++i) order[i] = static_cast<index>(i);
    std::stable_sort(order.begin(), order.end(), [&](index a, index b) {
      return of[static_cast<std::size_t>(a)] > of[static_cast<std::size_t>(b)];
    });
    const double share = one.heads() ? how.least_heads : how.least_neurons;
    const auto least =
        static_cast<index>(std::ceil(share * static_cast<double>(one.set->units) - 1e-9));
    sets.push_back({one.set->units, (std::max)(index{1}, least), one.parameters, std::move(order)});
  }
  const detail::subnet_masks masks(std::move(sets), M::parameters(), how);
  detail::subnet_mask start = masks.start();
  if (random_stream random(seed{how.seed}); !masks.repair(start, random))
    return error{
        errc::invalid, where, "subnet_options.parameters",
        "a budget that some part fits; the start has " + std::to_string(masks.parameters(start)),
        std::to_string(how.least_parameters) + " to " + std::to_string(how.parameters)};

  std::map<detail::subnet_mask, double> losses;
  const auto keep = [&](const detail::subnet_mask& mask) {
    for (std::size_t s = 0; s < mask.size(); ++s) {
      auto& to = made.kept.units[searched[s].scores].scores;
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = mask[s][i] ? 1 : 0;
    }
  };
  const auto look = [&](const detail::subnet_mask& mask) -> result<void> {
    if (losses.contains(mask)) return {};
    keep(mask);
    const auto part = leave_out(w, made.kept);
    if (!part) return part.error();
    const result<double> loss = judge(*part);
    if (!loss) return loss.error();
    losses[mask] = is_finite(*loss) ? *loss : (std::numeric_limits<double>::max)();
    return {};
  };
  if (auto done = look(start); !done) return done.error();
  made.start_loss = losses[start];
  if (made.start_loss >= (std::numeric_limits<double>::max)())
    return error{errc::invalid, where, "loss of the start", "a finite number",
                 "a NaN or an infinity"};
  std::vector<detail::subnet_mask> all{start};
  std::uint64_t stream = 0;
  for (index generation = 0; generation < how.generations; ++generation) {
    const auto older = static_cast<index>(all.size());
    for (index i = older; i < how.population; ++i) {
      random_stream random(seed{how.seed}, ++stream);
      const auto parent = [&]() -> const detail::subnet_mask& {
        return all[static_cast<std::size_t>(detail::subnet_masks::below(older, random))];
      };
      const bool fresh = generation == 0 || i >= older + how.mutations + how.crossovers;
      detail::subnet_mask child = fresh ? start : parent();
      if (fresh)
        child = masks.mutated(child, how.first_mask_rate, how.first_size_rate, random);
      else if (i < older + how.mutations)
        child = masks.mutated(child, how.mask_rate, how.size_rate, random);
      else
        child = detail::subnet_masks::crossed(child, parent(), random);
      if (!masks.repair(child, random)) continue;
      if (auto done = look(child); !done) return done.error();
      all.push_back(std::move(child));
    }
    std::sort(all.begin(), all.end(), [&](const auto& a, const auto& b) {
      const double x = losses[a], y = losses[b];
      return x < y || (x <= y && a < b);
    });
    all.erase(std::unique(all.begin(), all.end()), all.end());
    if (std::ssize(all) > how.parents) all.resize(static_cast<std::size_t>(how.parents));
  }
  keep(all.front());
  made.loss = losses[all.front()];
  made.parameters = masks.parameters(all.front());
  made.judged = std::ssize(losses);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("evolve_subnet")

LINNET_NAMESPACE_END
