// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Normalisation of rows, forward and backward.

#include <linnet/core/view.hpp>
#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

LINNET_UNFUSED_BEGIN
namespace detail {

/// sum[n] += dy x scale, of rows dy[n] and x[n].
template <class T>
LINNET_UNFUSED void add_scaled_products(index n, const T* dy, const T* x, T scale, T* sum) {
  for (index j = 0; j < n; ++j) sum[j] += dy[j] * x[j] * scale;
}
/// sum[n] += dy (x - mean) scale and plain[n] += dy; statistics[2] are the mean and the scale.
template <class T>
LINNET_UNFUSED void add_centred_products(index n, const T* dy, const T* x, const T* statistics,
                                         T* sum, T* plain) {
  const T mean = statistics[0], scale = statistics[1];
  for (index j = 0; j < n; ++j) sum[j] += dy[j] * (x[j] - mean) * scale, plain[j] += dy[j];
}

}  // namespace detail
LINNET_UNFUSED_END

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
    detail::add_scaled_products<T>(last - first, dy.row(i) + first, x.row(i) + first, inverse[i],
                                   d_weight + first);
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
  for (index i = 0; i < x.rows(); ++i)
    detail::add_centred_products<T>(last - first, dy.row(i) + first, x.row(i) + first,
                                    statistics + 2 * i, d_weight + first, d_bias + first);
  on.threads.each(x.rows(), [&](index i) {
    on.with_kernels([&](auto k) {
      decltype(k)::template layer_norm_backward<T>(D, statistics + 2 * i, x.row(i), weight,
                                                   dy.row(i), dx.row(i));
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
