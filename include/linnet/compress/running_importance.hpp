// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Scores that are averaged over the steps of a training.

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <linnet/compress/importance.hpp>

LINNET_NAMESPACE_BEGIN

/// A moving average of scores: s <- keep s + (1 - keep) now, from s = 0 (Zhang et al. 2023,
/// LoRAPrune). A run goes on with the same bits from current().
template <class M>
class running_importance {
 public:
  /// Begins with nothing; the share `keep` of an average stays, from 0 to below 1.
  explicit running_importance(double keep = 0.9) : keep_(keep) {}
  /// Goes on from what current() was.
  running_importance(importance<M> scores, double keep)
      : scores_(std::move(scores)), keep_(keep), begun_(true) {}

  /// Takes the scores of a step. Errors: errc::invalid for a `keep` outside of its range. Also for
  /// scores that are not finite, or of other units than those before; the average then stays.
  result<void> follow(const importance<M>& now) LINNET_TRY {
    constexpr const char* where = "running_importance";
    if (!(keep_ >= 0 && keep_ < 1))
      return detail::failure(errc::invalid, where, "keep", "0 <= keep < 1",
                             detail::number_text(keep_));
    if (auto fit = detail::checked_scores(now, where); !fit) return fit.error();
    importance<M> next = begun_ ? scores_ : now;
    if (!begun_) each(next, [](unit_scores& one) { one.scores.assign(one.scores.size(), 0.0); });
    if (!alike(next.units, now.units) || !alike(next.layers, now.layers))
      return detail::failure(errc::invalid, where, "scores", "those of the units before",
                             "scores of others");
    mix(next.units, now.units);
    mix(next.layers, now.layers);
    scores_ = std::move(next);
    begun_ = true;
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY("running_importance")
  /// The average; no scores before the first step.
  const importance<M>& current() const { return scores_; }

 private:
  using list = std::vector<unit_scores>;
  template <class F>
  static void each(importance<M>& all, F&& f) {
    for (auto& one : all.units) f(one);
    for (auto& one : all.layers) f(one);
  }
  static bool alike(const list& a, const list& b) {
    bool same = a.size() == b.size();
    for (std::size_t i = 0; same && i < a.size(); ++i)
      same = a[i].place == b[i].place && a[i].scores.size() == b[i].scores.size();
    return same;
  }
  void mix(list& to, const list& now) const {
    for (std::size_t i = 0; i < to.size(); ++i)
      for (std::size_t j = 0; j < to[i].scores.size(); ++j)
        to[i].scores[j] = keep_ * to[i].scores[j] + (1 - keep_) * now[i].scores[j];
  }

  importance<M> scores_{};
  double keep_;
  bool begun_ = false;
};

LINNET_NAMESPACE_END
