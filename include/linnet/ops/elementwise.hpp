// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Copies, sums and activations of whole arrays, split over the team.

#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

namespace detail {
/// Calls f(first, count) for this thread's share of n values, in whole cache lines, then waits.
template <class T, class F>
void in_slices(const execution& on, index n, F&& f) {
  constexpr index line = 64 / static_cast<index>(sizeof(T));
  const auto [first, last] = on.threads.range((n + line - 1) / line);
  const index begin = first * line, end = (std::min)(n, last * line);
  if (begin < end) f(begin, end - begin);
  on.threads.wait();
}
}  // namespace detail

/// x[n] = value
template <class T>
void fill(const execution& on, index n, T value, T* x) {
  detail::in_slices<T>(on, n, [&](index at, index count) { std::fill_n(x + at, count, value); });
}
/// y[n] = x[n]
template <class T>
void copy(const execution& on, index n, const T* x, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) { std::copy_n(x + at, count, y + at); });
}
/// y[n] = a[n] + b[n]; y may be a or b
template <class T>
void add(const execution& on, index n, const T* a, const T* b, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level,
                   [&](auto k) { decltype(k)::template add<T>(count, a + at, b + at, y + at); });
  });
}
/// y[n] = f(x[n])
template <activation_kind A, class T>
void activation(const execution& on, index n, const T* x, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level,
                   [&](auto k) { decltype(k)::template activation<A, T>(count, x + at, y + at); });
  });
}
/// dx[n] += dy[n] f'(x[n])
template <activation_kind A, class T>
void activation_backward(const execution& on, index n, const T* x, const T* dy, T* dx) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template activation_backward<A, T>(count, x + at, dy + at, dx + at);
    });
  });
}
/// x[n] = log(1 + e^x[n])
template <class T>
void softplus(const execution& on, index n, T* x) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) { decltype(k)::template softplus<T>(count, x + at); });
  });
}
/// dx[n] *= the derivative of softplus at x[n]
template <class T>
void softplus_backward(const execution& on, index n, const T* x, T* dx) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template softplus_backward<T>(count, x + at, dx + at);
    });
  });
}
/// y[n] = f(gate[n]) up[n] (Shazeer 2020)
template <activation_kind A, class T>
void gated(const execution& on, index n, const T* gate, const T* up, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template gated<A, T>(count, gate + at, up + at, y + at);
    });
  });
}
/// dgate[n], dup[n] = the derivatives of gated() (overwritten)
template <activation_kind A, class T>
void gated_backward(const execution& on, index n, const T* gate, const T* up, const T* dy, T* dgate,
                    T* dup) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template gated_backward<A, T>(count, gate + at, up + at, dy + at, dgate + at,
                                                 dup + at);
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
