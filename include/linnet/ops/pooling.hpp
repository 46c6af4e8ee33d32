// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// One vector of a sequence's rows: their mean, their first or their maximum, and its length made
/// one.

#include <algorithm>
#include <cmath>

#include <linnet/core/portable_math.hpp>
#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN

/// How the hidden states of a sequence become one vector (Reimers and Gurevych 2019, section 3).
enum class sentence_pooling {
  mean,   ///< of all valid tokens
  first,  ///< the first token's, "CLS"
  max     ///< of all valid tokens, column by column
};

namespace ops {

/// Sequences of rows that are pooled.
struct pooled_rows {
  index batch = 0, length = 0;     ///< sequences, and their padded rows
  const index* lengths = nullptr;  ///< [batch] valid rows of each, or null for all
  index d = 0;                     ///< width of a row
};

/// y[batch, d] of x[batch, length, d].
template <class T>
void pool_rows(const execution& on, sentence_pooling how, const pooled_rows& all, const T* x,
               T* y) {
  const index d = all.d;
  on.threads.each(all.batch, [&](index b) {
    const T* const rows = x + b * all.length * d;
    T* const to = y + b * d;
    const index n = all.lengths ? all.lengths[b] : all.length;
    std::copy_n(rows, d, to);
    if (how == sentence_pooling::first) return;
    for (index t = 1; t < n; ++t)
      for (index j = 0; j < d; ++j) {
        const T v = rows[t * d + j];
        if (how == sentence_pooling::mean)
          to[j] += v;
        else
          to[j] = to[j] > v ? to[j] : v;
      }
    if (how == sentence_pooling::mean)
      for (index j = 0; j < d; ++j) to[j] /= static_cast<T>(n);
  });
}
/// Adds the gradient of pool_rows() to dx[batch, length, d]. That of a maximum goes to the first
/// row that has it.
template <class T>
void pool_rows_backward(const execution& on, sentence_pooling how, const pooled_rows& all,
                        const T* x, const T* dy, T* dx) {
  const index d = all.d;
  on.threads.each(all.batch, [&](index b) {
    const T* const rows = x + b * all.length * d;
    const T* const from = dy + b * d;
    T* const to = dx + b * all.length * d;
    const index n = all.lengths ? all.lengths[b] : all.length;
    for (index j = 0; j < d; ++j) {
      if (how == sentence_pooling::mean) {
        for (index t = 0; t < n; ++t) to[t * d + j] += from[j] / static_cast<T>(n);
        continue;
      }
      index best = 0;
      if (how == sentence_pooling::max)
        for (index t = 1; t < n; ++t)
          if (rows[t * d + j] > rows[best * d + j]) best = t;
      to[best * d + j] += from[j];
    }
  });
}

namespace detail {
/// The length of a row, at least 1e-12.
template <class T>
T row_length(index d, const T* x) {
  T sum = 0;
  for (index j = 0; j < d; ++j) sum += linnet::detail::unfused(x[j] * x[j]);
  return (std::max)(std::sqrt(sum), T(1e-12));
}
}  // namespace detail

/// x[rows, d] /= the length of each row, at least 1e-12; keeps them in lengths[rows].
template <class T>
void unit_length(const execution& on, index rows, index d, T* x, T* lengths) {
  on.threads.each(rows, [&](index i) {
    lengths[i] = detail::row_length(d, x + i * d);
    for (index j = 0; j < d; ++j) x[i * d + j] /= lengths[i];
  });
}
/// dx[rows, d]: the gradient of unit_length() in place of that of its output y.
template <class T>
void unit_length_backward(const execution& on, index rows, index d, const T* y, const T* lengths,
                          T* dx) {
  on.threads.each(rows, [&](index i) {
    T along = 0;
    for (index j = 0; j < d; ++j) along += linnet::detail::unfused(y[i * d + j] * dx[i * d + j]);
    for (index j = 0; j < d; ++j)
      dx[i * d + j] = (dx[i * d + j] - linnet::detail::unfused(along * y[i * d + j])) / lengths[i];
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
