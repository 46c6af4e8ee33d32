// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Loss of vectors of texts that belong together in pairs, against all others of a batch.

#include <algorithm>

#include <linnet/core/options.hpp>
#include <linnet/core/portable_math.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of a contrastive loss. The first n vectors of a batch are anchors, vector n + i is the
/// positive of anchor i, and those behind are negatives of all. With s_ij the cosine of anchor i
/// and of vector n + j over the temperature, a pair's loss is
///   log sum_j exp(s_ij) - s_ii.
/// This is InfoNCE (Oord et al. 2018), the multiple negatives ranking loss of
/// Sentence-Transformers.
struct contrastive_options {
  double temperature = 0.05;  ///< of the cosines, positive
  bool symmetric = false;     ///< half of the loss asks for the anchor of each positive
  index negatives = 0;        ///< hard negatives per pair: n is batch / (2 + negatives)

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("temperature", self.temperature, detail::above(0));
    f("symmetric", self.symmetric, detail::one_of(detail::false_or_true));
    f("negatives", self.negatives, detail::count(0));
  }
};

namespace ops {

/// Arguments of contrastive(): vectors of length one, and scratch memory.
template <class T>
struct contrastive_call {
  index batch = 0, d = 0;    ///< vectors, and their width
  const T* x = nullptr;      ///< [batch, d]
  T* scores = nullptr;       ///< scratch, contrastive_scores(batch)
  double* sums = nullptr;    ///< scratch [batch]: log sums of rows, then of columns
  double* losses = nullptr;  ///< scratch [batch]
  T* dx = nullptr;           ///< receives the gradient [batch, d]; null for the loss alone
  T* cosines = nullptr;      ///< receives each pair's cosine, then zeros [batch]; or null
};
/// Cosines of anchors and candidates in a batch, at most.
constexpr index contrastive_scores(index batch) { return (batch * batch + 3) / 4; }

/// Summed contrastive loss of a batch's pairs, and their number; see contrastive_options. Sums are
/// in ascending order, without fused products, so it has the same bits everywhere. Called by every
/// thread.
template <class T>
loss_sum contrastive(const execution& on, const contrastive_call<T>& c,
                     const contrastive_options& how) {
  const index n = c.batch / (2 + how.negatives), m = c.batch - n, d = c.d;
  const double inverse = 1 / how.temperature, share = how.symmetric ? 0.5 : 1;
  const T* const candidates = c.x + n * d;
  using linnet::detail::portable_exp, linnet::detail::portable_log, linnet::detail::unfused;
  const auto score = [&](index i, index j) { return static_cast<double>(c.scores[i * m + j]); };
  /// log sum_k exp(at(k)), k < count
  const auto log_sum = [](index count, auto&& at) {
    double largest = at(0), sum = 0;
    for (index k = 1; k < count; ++k) largest = (std::max)(largest, at(k));
    for (index k = 0; k < count; ++k) sum += portable_exp(at(k) - largest);
    return largest + portable_log(sum);
  };
  on.threads.each(n, [&](index i) {
    for (index j = 0; j < m; ++j) {
      T cosine = 0;
      for (index k = 0; k < d; ++k) cosine += unfused(c.x[i * d + k] * candidates[j * d + k]);
      c.scores[i * m + j] = cosine * static_cast<T>(inverse);
      if (i == j && c.cosines) c.cosines[i] = cosine;
    }
    c.sums[i] = log_sum(m, [&](index j) { return score(i, j); });
    c.losses[i] = share * (c.sums[i] - score(i, i));
  });
  if (how.symmetric)
    on.threads.each(n, [&](index j) {
      c.sums[n + j] = log_sum(n, [&](index i) { return score(i, j); });
      c.losses[j] += share * (c.sums[n + j] - score(j, j));
    });
  if (c.cosines) on.threads.once([&] { std::fill_n(c.cosines + n, m, T(0)); });
  loss_sum sum;
  for (index i = 0; i < n; ++i) sum.nats += c.losses[i];
  sum.tokens = n;
  if (!c.dx) return sum;

  on.threads.each(n, [&](index i) {
    for (index j = 0; j < m; ++j) {
      const double s = score(i, j), pair = i == j ? 1 : 0;
      double slope = share * (portable_exp(s - c.sums[i]) - pair);
      if (how.symmetric && j < n) slope += share * (portable_exp(s - c.sums[n + j]) - pair);
      c.scores[i * m + j] = static_cast<T>(slope * inverse);
    }
  });
  on.threads.each(c.batch, [&](index r) {
    T* const to = c.dx + r * d;
    std::fill_n(to, d, T(0));
    const bool anchor = r < n;
    for (index other = 0; other < (anchor ? m : n); ++other) {
      const T slope = anchor ? c.scores[r * m + other] : c.scores[other * m + (r - n)];
      const T* const from = anchor ? candidates + other * d : c.x + other * d;
      for (index k = 0; k < d; ++k) to[k] += unfused(slope * from[k]);
    }
  });
  return sum;
}

/// Criterion of contrastive heads; see contrastive_options.
struct contrastive_criterion {
  contrastive_options how{};
};
/// The settings that a criterion has for contrastive heads: the defaults if it is of labels.
template <class Criterion>
constexpr contrastive_options contrastive_settings(const Criterion& criterion) {
  if constexpr (std::is_same_v<Criterion, contrastive_criterion>)
    return criterion.how;
  else
    return {};
}

}  // namespace ops

LINNET_NAMESPACE_END
