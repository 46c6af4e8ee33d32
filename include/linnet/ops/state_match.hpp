// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Losses on hidden states: how far a student's are from a teacher's.

#include <cmath>

#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN

/// How two hidden states are compared.
enum class state_loss {
  mean_square,  ///< the mean of (s - t)^2 over the numbers of a state (Liang et al. 2023)
  cosine,       ///< 1 - cos(s, t) (Sanh et al. 2019); 1 where a state is zero
};

namespace ops {

/// Hidden states that are compared, row by row.
template <class T, class U>
struct state_match {
  state_loss kind = state_loss::mean_square;
  index rows = 0, width = 0;
  const T* student = nullptr;  ///< [rows, width]
  const U* teacher = nullptr;  ///< [rows, width]
};

/// Computes losses[rows], of rows for which `counts(row)`; others are 0. With `d`, adds `factor`
/// times their derivatives by the student's states to d[rows, width].
template <class T, class U, class Counts>
void state_losses(const execution& on, const state_match<T, U>& m, double factor, double* losses,
                  T* d, const Counts& counts) {
  const index n = m.width;
  on.threads.each(m.rows, [&](index row) {
    losses[row] = 0;
    if (!counts(row)) return;
    const T* const s = m.student + row * n;
    const U* const t = m.teacher + row * n;
    double ss = 0, tt = 0, st = 0, squares = 0;
    for (index j = 0; j < n; ++j) {
      const auto x = static_cast<double>(s[j]), y = static_cast<double>(t[j]);
      ss += x * x;
      tt += y * y;
      st += x * y;
      squares += (x - y) * (x - y);
    }
    const bool by_angle = m.kind == state_loss::cosine;
    const double both = std::sqrt(ss * tt), cosine = both > 0 ? st / both : 0;
    losses[row] = by_angle ? 1 - cosine : squares / static_cast<double>(n);
    if (!d || (by_angle && !(both > 0))) return;
    for (index j = 0; j < n; ++j) {
      const auto x = static_cast<double>(s[j]), y = static_cast<double>(t[j]);
      const double slope =
          by_angle ? cosine * x / ss - y / both : 2 * (x - y) / static_cast<double>(n);
      d[row * n + j] += static_cast<T>(factor * slope);
    }
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
