// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Heads of unit length, for kinds of attention that compare directions.

#include <linnet/nn/attention/projections.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// y = r x with r = (x.x + 1e-6 h)^-1/2 for each row of x[rows, h]; keeps r [rows]. y may be x.
template <class T>
void unit_heads(const ops::execution& on, index rows, index h, const T* x, T* y, T* r) {
  on.threads.each(rows, [&](index i) {
    const T* const from = x + i * h;
    T sum = T(1e-6) * static_cast<T>(h);
    for (index c = 0; c < h; ++c) sum += from[c] * from[c];
    r[i] = T(1) / std::sqrt(sum);
    for (index c = 0; c < h; ++c) y[i * h + c] = r[i] * from[c];
  });
}
/// dx [+]= r (dy - y (y.dy)); dx may be dy.
template <class T>
void unit_heads_backward(const ops::execution& on, index rows, index h, const T* y, const T* r,
                         const T* dy, T* dx, bool add) {
  on.threads.each(rows, [&](index i) {
    T along = T(0);
    for (index c = 0; c < h; ++c) along += y[i * h + c] * dy[i * h + c];
    for (index c = 0; c < h; ++c)
      dx[i * h + c] = (add ? dx[i * h + c] : T(0)) + r[i] * (dy[i * h + c] - along * y[i * h + c]);
  });
}

}  // namespace detail

LINNET_NAMESPACE_END
