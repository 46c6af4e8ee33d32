// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pruning while a trainer trains: a little more every so many steps.

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <linnet/compress/prune.hpp>
#include <linnet/train/trainer.hpp>

LINNET_NAMESPACE_BEGIN

/// Prunes by `method` every so many steps of a trainer, to the fraction of a ramp (Zhu and Gupta
/// 2017). Between them the trainer recovers what was lost; its training_options::keep_zeros holds
/// the pruned weights at 0. It keeps nothing, so a run that was resumed goes on with the same bits.
template <class Method = magnitude>
struct gradual_pruning {
  sparsity_schedule ramp{};
  index every = 100;  ///< steps
  Method method{};    ///< its `fraction` is that of the ramp

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("ramp", self.ramp);
    f("every", self.every, detail::count(1));
    f("method", self.method);
  }

  /// Whether weights are pruned after so many steps: at multiples of `every` from ramp.first to the
  /// first one at or behind ramp.last.
  constexpr bool due(index steps) const {
    return steps % every == 0 && steps >= ramp.first && steps - every < ramp.last;
  }
  /// Prunes `w`, which `train` trains, if that is due before its next step; says whether it was.
  /// `statistics` are nothing, or a function that returns result<calibration<M>> for a method that
  /// reads inputs; it is called where pruning is due. Errors: those of the function and of prune();
  /// errc::invalid for a trainer without keep_zeros or of other weights, and a method with a
  /// pattern.
  template <class Trainer, class... Statistics>
  result<bool> before_step(Trainer& train, weights<typename Trainer::model>& w,
                           Statistics&&... statistics) const {
    if (auto fit = detail::acceptable(where, "", *this); !fit) return fit.error();
    if (!train.options().keep_zeros)
      return detail::failure(errc::invalid, where, "training_options.keep_zeros",
                             "true, or pruned weights come back", "false");
    bool trained = false;
    train.visit_state([&](std::string_view name, std::span<std::byte> block) {
      if (name == "weights") trained = block.data() == w.block().data();
    });
    if (!trained)
      return detail::failure(errc::invalid, where, "weights", "those that the trainer trains",
                             "others");
    if (method.pattern)
      return detail::failure(errc::invalid, where, "method.pattern.of",
                             "0, as a ramp is of fractions", std::to_string(method.pattern.of));
    if (!due(train.steps())) return false;
    Method now = method;
    now.fraction = ramp.at(train.steps());
    auto pruned = pruned_by(w, now, statistics...);
    if (!pruned) return pruned.error();
    std::ranges::copy(pruned->block(), w.block().begin());
    train.refresh();
    return true;
  }

 private:
  static constexpr const char* where = "gradual_pruning";

  template <class M>
  static result<weights<M>> pruned_by(const weights<M>& w, const Method& how) {
    return prune(w, how);
  }
  template <class M, class Statistics>
  static result<weights<M>> pruned_by(const weights<M>& w, const Method& how,
                                      Statistics& statistics) {
    const result<calibration<M>> stats = statistics();
    return stats ? prune(w, *stats, how) : result<weights<M>>(stats.error());
  }
};

LINNET_NAMESPACE_END
