// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Normalisation of rows, forward and backward.

#include <linnet/core/portable_math.hpp>
#include <linnet/core/view.hpp>
#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// RMSNorm (Zhang and Sennrich 2019): y = weight x / sqrt(mean(x^2) + eps), for x[rows, D]. Keeps
/// 1 / sqrt(...) of each row in inverse[rows].
template <class T, index D>
void rms_norm(const execution& on, T eps, view<const T, D> x, const T* weight, view<T, D> y,
              T* inverse) {
  on.threads.each(x.rows(), [&](index i) {
    on.with_kernels([&](auto k) {
      inverse[i] = decltype(k)::template rms_norm<T>(D, eps, x.row(i), weight, y.row(i));
    });
  });
}

/// Adds the gradients of rms_norm() to d_weight[D] and dx[rows, D].
template <class T, index D>
void rms_norm_backward(const execution& on, view<const T, D> x, const T* weight, const T* inverse,
                       view<const T, D> dy, T* d_weight, view<T, D> dx) {
  const auto [first, last] = on.threads.range(D);
  for (index i = 0; i < x.rows(); ++i)
    for (index j = first; j < last; ++j)
      d_weight[j] += linnet::detail::unfused(dy(i, j) * x(i, j) * inverse[i]);
  on.threads.each(x.rows(), [&](index i) {
    on.with_kernels([&](auto k) {
      decltype(k)::template rms_norm_backward<T>(D, inverse[i], x.row(i), weight, dy.row(i),
                                                 dx.row(i));
    });
  });
}

/// LayerNorm (Ba et al. 2016): y = weight (x - mean) / sqrt(variance + eps) + bias, for x[rows, D].
/// Keeps the mean and the inverse deviation of each row in statistics[rows, 2].
template <class T, index D>
void layer_norm(const execution& on, T eps, view<const T, D> x, const T* weight, const T* bias,
                view<T, D> y, T* statistics) {
  on.threads.each(x.rows(), [&](index i) {
    on.with_kernels([&](auto k) {
      decltype(k)::template layer_norm<T>(D, eps, x.row(i), weight, bias, y.row(i),
                                          statistics + 2 * i);
    });
  });
}

/// Adds the gradients of layer_norm() to d_weight[D], d_bias[D] and dx[rows, D].
template <class T, index D>
void layer_norm_backward(const execution& on, view<const T, D> x, const T* weight,
                         const T* statistics, view<const T, D> dy, T* d_weight, T* d_bias,
                         view<T, D> dx) {
  const auto [first, last] = on.threads.range(D);
  for (index i = 0; i < x.rows(); ++i) {
    const T mean = statistics[2 * i], r = statistics[2 * i + 1];
    for (index j = first; j < last; ++j) {
      d_weight[j] += linnet::detail::unfused(dy(i, j) * (x(i, j) - mean) * r);
      d_bias[j] += dy(i, j);
    }
  }
  on.threads.each(x.rows(), [&](index i) {
    on.with_kernels([&](auto k) {
      decltype(k)::template layer_norm_backward<T>(D, statistics + 2 * i, x.row(i), weight,
                                                   dy.row(i), dx.row(i));
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
