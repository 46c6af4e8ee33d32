// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Importance: scores of what narrow() can leave out, from magnitudes, gradients or calibration.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/compress/calibrate.hpp>
#include <linnet/compress/cut_map.hpp>

LINNET_NAMESPACE_BEGIN

/// Scores of neurons, heads, channels or layers, of which narrow() leaves out the lowest.
struct unit_scores {
  std::string place{};  ///< the first tensor that has them, or what stands before a layer's
                        ///< number
  std::vector<double> scores{};  ///< one for each, such as each head of keys and values
};

/// Scores of all that narrow() can leave out of model `M`: values, which may be changed or put
/// together. `units` has neurons and heads of each layer, and channels of the stream.
template <class M>
struct importance {
  std::vector<unit_scores> units{};   ///< as importance_of() finds them
  std::vector<unit_scores> layers{};  ///< of each stack, see block_influence()
};

/// How the scores of the matrices that have a unit become one (Ma et al. 2023, LLM-Pruner; `even`:
/// Zhang et al. 2023, LoRAPrune).
enum class aggregate {
  sum,      ///< of all of them
  product,  ///< their geometric mean: 0 where one of them is 0
  largest,  ///< the largest one
  readers,  ///< sum of those that read it, such as `down` and `o`
  even      ///< sum of all, each divided by the norm of that matrix's scores of all units
};

namespace detail {

inline constexpr const char* aggregate_names[] = {"sum", "product", "largest", "readers", "even"};
inline constexpr const char* taylor_terms[] = {"first", "second", "both"};

}  // namespace detail

/// Importance from the weights alone: the Euclidean norm of a unit's rows or columns in each
/// matrix. Of a layer, the sum of the norms of its matrices.
struct magnitude_score {
  aggregate members = aggregate::sum;

  static constexpr const char* name = "magnitude_score";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("members", self.members, detail::one_of(detail::aggregate_names));
  }
};

/// Importance by a Taylor expansion of the loss (Molchanov et al. 2017; Ma et al. 2023,
/// arXiv:2305.11627): what leaving out a unit changes the loss by, s = g w in first order. With
/// squares of gradients s = w^2 g^2, or both: s = g w - w^2 g^2 / 2.
struct taylor_score {
  /// Which terms of the expansion are taken.
  enum class terms { first, second, both };

  terms order = terms::first;
  bool signs = false;  ///< |sum of s| of a unit in a matrix instead of the sum of |s|
  aggregate members = aggregate::sum;

  static constexpr const char* name = "taylor_score";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("order", self.order, detail::one_of(detail::taylor_terms));
    f("signs", self.signs, detail::one_of(detail::false_or_true));
    f("members", self.members, detail::one_of(detail::aggregate_names));
  }
};

/// Importance from what matrices read (Muralidharan et al. 2024, Minitron, arXiv:2407.14679).
/// Neurons are scored by the inputs of `down`, heads by those of `o`. Channels of the stream are
/// scored by what norms write, summed over the layers. Layers have no scores.
struct activation_score {
  bool squares = true;  ///< root of the mean square of inputs; else the mean of their magnitudes

  static constexpr const char* name = "activation_score";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("squares", self.squares, detail::one_of(detail::false_or_true));
  }
};

namespace detail {

/// Folds the scores that a unit has in several matrices, one after the other.
class member_scores {
 public:
  explicit member_scores(aggregate how) : how_(how) {}
  void add(double score) {
    ++members_;
    none_ = none_ || !(score > 0);
    sum_ += how_ != aggregate::product ? score : none_ ? 0 : std::log(score);
    largest_ = (std::max)(largest_, score);
  }
  double score() const {
    if (how_ == aggregate::product) return none_ ? 0 : std::exp(sum_ / (std::max)(1, members_));
    return how_ == aggregate::largest ? largest_ : sum_;
  }

 private:
  aggregate how_;
  double sum_ = 0, largest_ = 0;
  int members_ = 0;
  bool none_ = false;  ///< whether one of them is 0
};

/// Whether a tensor's numbers count in scores: norms, biases and tables of positions do not.
inline bool has_scores(role kind) { return kind == role::matrix || kind == role::table; }

/// The place before the first layer's number in a path, with that number and how many there are.
struct layer_place {
  std::string stack{};
  index layer = -1, count = 0;
};
inline layer_place layer_of(const parameter_path& at) {
  for (const parameter_path* p = &at; p; p = p->parent)
    if (p->count > 0) return {p->parent ? p->parent->str() : std::string(), p->number, p->count};
  return {};
}
/// The scores of a stack's layers, all 0 where there were none.
inline std::vector<double>& scores_of_layers(std::vector<unit_scores>& all,
                                             const layer_place& place) {
  for (auto& one : all)
    if (one.place == place.stack) return one.scores;
  all.push_back({place.stack, std::vector<double>(static_cast<std::size_t>(place.count))});
  return all.back().scores;
}

/// Scores of units: `member(side, first, count)` is that of some numbers along a side.
template <class M, class T, class Member>
importance<M> scores_of_units(const cut_map<T>& map, aggregate how, Member&& member) {
  importance<M> made;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    const auto units = static_cast<std::size_t>(set.units);
    std::vector<member_scores> all(units, member_scores(how));
    std::vector<double> of_side(units);
    const auto look = [&](const std::vector<channel_side<T>>& sides) {
      for (const auto& side : sides) {
        if (!has_scores(side.kind)) continue;
        const index span = set.span(side.length());
        double squares = 0;
        for (std::size_t unit = 0; unit < units; ++unit) {
          of_side[unit] = member(side, static_cast<index>(unit) * span, span);
          squares += of_side[unit] * of_side[unit];
        }
        const double length = how == aggregate::even ? std::sqrt(squares) + 1e-8 : 1;
        for (std::size_t unit = 0; unit < units; ++unit) all[unit].add(of_side[unit] / length);
      }
    };
    if (how != aggregate::readers) look(set.writers);
    look(set.readers);
    unit_scores one{set.place, {}};
    for (const member_scores& unit : all) one.scores.push_back(unit.score());
    made.units.push_back(std::move(one));
  }
  return made;
}

/// Scores from numbers: `salience(tensor, i)` of number i of a tensor, `fold` of those of a unit.
template <class M, class T, class Salience, class Fold>
importance<M> scores_of_numbers(const weights<M, T>& w, aggregate how, Salience&& salience,
                                Fold&& fold) {
  const cut_map<T> map(w);
  auto made =
      scores_of_units<M>(map, how, [&](const channel_side<T>& side, index first, index count) {
        double sum = 0;
        for (index j = first; j < first + count; ++j)
          for (index i = 0; i < side.depth(); ++i)
            sum += fold.term(
                salience(static_cast<std::size_t>(side.ordinal), &side.at(j, i) - side.data));
        return fold.score(sum);
      });
  std::size_t ordinal = 0;
  w.visit([&](const parameter_path& at, const tensor_info& info, const auto&) {
    const std::size_t tensor = ordinal++;
    const layer_place place = layer_of(at);
    if (place.count == 0 || !has_scores(info.kind)) return;
    double sum = 0;
    for (index i = 0; i < info.size(); ++i) sum += fold.term(salience(tensor, i));
    scores_of_layers(made.layers, place)[static_cast<std::size_t>(place.layer)] += fold.score(sum);
  });
  return made;
}

struct euclidean {
  static double term(double x) { return x * x; }
  static double score(double sum) { return std::sqrt(sum); }
};
struct absolute {
  bool signs = false;
  double term(double x) const { return signs ? x : std::abs(x); }
  static double score(double sum) { return std::abs(sum); }
};

template <class M, class T>
result<void> fit_for_scores(const char* where, const weights<M, T>& w) {
  static_assert(std::is_floating_point_v<typename weights<M, T>::storage::value>,
                "linnet::importance_of: find scores first, quantize afterwards");
  static_assert(has_channels<M>,
                "linnet::importance_of: this model does not say which channels its tensors share: "
                "it lacks channels(ends, p), see nn/channels.hpp");
  return check_finite(w, where);
}
/// Sums of gradients, as those of sensitivities().
template <class G>
concept gradient_source = requires(const G& g) {
  g.of(index{}).mean(index{});
  g.of(index{}).mean_square(index{});
};
inline error no_squares(const taylor_score& how) {
  return {errc::invalid, taylor_score::name, "taylor_score.order",
          "first, or sums of squares beside those of gradients",
          taylor_terms[(std::min)(2, (std::max)(0, static_cast<int>(how.order)))]};
}

/// Refuses scores that are no numbers.
template <class M>
result<importance<M>> checked_scores(importance<M> made, const char* method) {
  for (const auto* const all : {&made.units, &made.layers})
    for (const auto& one : *all)
      for (const double score : one.scores)
        if (!is_finite(score))
          return failure(errc::invalid, method, one.place, "finite scores", "a NaN or an infinity");
  return made;
}

/// Scores by taylor_score: `first(tensor, i)` is the gradient, `second` its mean square.
template <class M, class T, class First, class Second>
result<importance<M>> taylor_scores(const weights<M, T>& w, const taylor_score& how, First&& first,
                                    Second&& second) {
  constexpr const char* name = taylor_score::name;
  if (auto fit = acceptable("importance_of", name, how); !fit) return fit.error();
  if (auto fit = fit_for_scores(name, w); !fit) return fit.error();
  const auto numbers = numbers_of<const T>(w);
  const auto salience = [&](std::size_t tensor, index i) {
    const auto x = static_cast<double>(numbers[tensor][i]);
    switch (how.order) {
      case taylor_score::terms::second:
        return x * x * second(tensor, i);
      case taylor_score::terms::both:
        return x * first(tensor, i) - x * x * second(tensor, i) / 2;
      default:
        return x * first(tensor, i);
    }
  };
  return checked_scores(scores_of_numbers(w, how.members, salience, absolute{how.signs}), name);
}

}  // namespace detail

/// Scores by magnitude_score. Errors: errc::invalid for options and for weights that are not
/// finite; the error of `w`; errc::out_of_memory.
template <class M, class T>
result<importance<M>> importance_of(const weights<M, T>& w,
                                    const magnitude_score& how = {}) LINNET_TRY {
  constexpr const char* name = magnitude_score::name;
  if (auto fit = detail::acceptable("importance_of", name, how); !fit) return fit.error();
  if (auto fit = detail::fit_for_scores(name, w); !fit) return fit.error();
  const auto numbers = detail::numbers_of<const T>(w);
  const auto weight = [&](std::size_t tensor, index i) {
    return static_cast<double>(numbers[tensor][i]);
  };
  return detail::checked_scores(
      detail::scores_of_numbers(w, how.members, weight, detail::euclidean{}), name);
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

/// Scores by taylor_score in first order, from gradients of the loss by `w`, such as
/// trainer::gradient() after accumulate(). Errors: errc::invalid for options, for weights and
/// gradients that are not finite, and for an `order` that asks for squares; the error of `w`;
/// errc::out_of_memory.
template <class M, class T>
result<importance<M>> importance_of(const weights<M, T>& w, const gradients<M, T>& gradient,
                                    const taylor_score& how) LINNET_TRY {
  if (how.order != taylor_score::terms::first) return detail::no_squares(how);
  const auto slopes = detail::numbers_of<const T>(gradient);
  return detail::taylor_scores(
      w, how, [&](std::size_t tensor, index i) { return static_cast<double>(slopes[tensor][i]); },
      [](std::size_t, index) { return 0.0; });
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

/// Scores by taylor_score from sums over samples, those of sensitivities() or others for which
/// `of(ordinal)` has mean(i) and mean_square(i) of each weight's gradient. Errors: errc::invalid
/// for options, and for weights and gradients that are not finite. Also for sums of no samples, and
/// without the squares that `order` asks for; the error of `w`; errc::out_of_memory.
template <class M, class T, detail::gradient_source G>
result<importance<M>> importance_of(const weights<M, T>& w, const G& gradient,
                                    const taylor_score& how) LINNET_TRY {
  std::vector<decltype(gradient.of(index{}))> sums;
  w.visit([&](const parameter_path&, const tensor_info&, const auto&) {
    sums.push_back(gradient.of(std::ssize(sums)));
  });
  for (const auto& one : sums) {
    if (one.samples == 0)
      return error{errc::invalid, taylor_score::name, "gradient", "sums of at least one sample",
                   "of none"};
    if (how.order != taylor_score::terms::first && !one.squares) return detail::no_squares(how);
  }
  return detail::taylor_scores(
      w, how, [&](std::size_t tensor, index i) { return sums[tensor].mean(i); },
      [&](std::size_t tensor, index i) { return sums[tensor].mean_square(i); });
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

/// Scores by activation_score from statistics of calibrate() on these weights; moments are not
/// needed. Units whose readers it did not see have no scores. Errors: errc::invalid for options and
/// for weights that are not finite; the error of `w`; errc::out_of_memory.
template <class M, class T>
result<importance<M>> importance_of(const weights<M, T>& w, const calibration<M>& stats,
                                    const activation_score& how) LINNET_TRY {
  constexpr const char* name = activation_score::name;
  if (auto fit = detail::acceptable("importance_of", name, how); !fit) return fit.error();
  if (auto fit = detail::fit_for_scores(name, w); !fit) return fit.error();
  const detail::cut_map<T> map(w);
  importance<M> made;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    unit_scores one{set.place, std::vector<double>(static_cast<std::size_t>(set.units))};
    std::vector<const double*> seen;
    for (const auto* const sides : {&set.writers, &set.readers})  // a tied table is in both
      for (const auto& side : *sides) {
        const input_statistics x = stats.of(side.ordinal);
        if (!side.by_columns || x.rows == 0 || x.width != side.length() ||
            std::find(seen.begin(), seen.end(), x.magnitudes) != seen.end())
          continue;
        seen.push_back(x.magnitudes);
        const index span = set.span(side.length());
        for (index unit = 0; unit < set.units; ++unit) {
          double sum = 0;
          for (index j = unit * span; j < (unit + 1) * span; ++j)
            sum += (how.squares ? x.squares[j] : x.magnitudes[j]) / static_cast<double>(x.rows);
          one.scores[static_cast<std::size_t>(unit)] += how.squares ? std::sqrt(sum) : sum;
        }
      }
    if (seen.empty()) one.scores.clear();
    made.units.push_back(std::move(one));
  }
  return detail::checked_scores(std::move(made), name);
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

LINNET_NAMESPACE_END
