// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The sigmoid gate of RWKV, "receptance": z = sigmoid(r) y.

#include <cmath>

#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The sigmoid 1 / (1 + e^-x), without overflow.
template <class T>
T sigmoid(T x) {
  const T e = std::exp(-std::abs(x));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

/// z[n] = sigmoid(r[n]) y[n]; r is overwritten by its sigmoid, which gate_backward() takes. z may
/// be y.
template <class T>
void gate(const ops::execution& on, index n, T* r, const T* y, T* z) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) {
      r[i] = sigmoid(r[i]);
      z[i] = r[i] * y[i];
    }
  });
}
/// dr[n], dy[n] = the derivatives of gate() (overwritten); dy may be dz.
template <class T>
void gate_backward(const ops::execution& on, index n, const T* sigmoid_r, const T* y, const T* dz,
                   T* dr, T* dy) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) {
      const T s = sigmoid_r[i], d = dz[i];
      dr[i] = d * y[i] * s * (T(1) - s);
      dy[i] = d * s;
    }
  });
}

}  // namespace detail

LINNET_NAMESPACE_END
