// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The largest values of rows, and zeros elsewhere.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Rows of `width` values of which `kept` stay.
struct top_k_shape {
  index rows, width, kept;
};

namespace detail {

/// The magnitude by which values are chosen; none is above that of a NaN or an infinity.
template <class T>
T chosen_by(T x) {
  return is_finite(x) ? std::abs(x) : (std::numeric_limits<T>::max)();
}
/// Calls f(j) for the `kept` largest magnitudes of a row in ascending order, of equal ones the
/// first. `room` holds a row.
template <class T, class F>
void each_of_largest(index width, index kept, const T* x, T* room, F&& f) {
  for (index j = 0; j < width; ++j) room[j] = chosen_by(x[j]);
  std::nth_element(room, room + kept - 1, room + width, std::greater<T>{});
  const T least = room[kept - 1];
  index equal = std::count(room, room + kept, least);  // of those that are as large as the least
  for (index j = 0; j < width; ++j) {
    const T size = chosen_by(x[j]);
    if (size > least || (size >= least && equal-- > 0)) f(j);
  }
}

}  // namespace detail

/// y = x where it stays, else 0; y may be x. `room` holds as many values.
template <class T>
void top_k(const execution& on, const top_k_shape& s, const T* x, T* room, T* y) {
  on.threads.each(s.rows, [&](index i) {
    const T* const row = x + i * s.width;
    T *const sizes = room + i * s.width, *const to = y + i * s.width;
    index next = 0;
    detail::each_of_largest(s.width, s.kept, row, sizes, [&](index j) {
      std::fill(to + next, to + j, T(0));
      to[j] = row[j];
      next = j + 1;
    });
    std::fill(to + next, to + s.width, T(0));
  });
}
/// dx += dy where x stays.
template <class T>
void top_k_backward(const execution& on, const top_k_shape& s, const T* x, const T* dy, T* room,
                    T* dx) {
  on.threads.each(s.rows, [&](index i) {
    const T* const d = dy + i * s.width;
    T* const to = dx + i * s.width;
    detail::each_of_largest(s.width, s.kept, x + i * s.width, room + i * s.width,
                            [&](index j) { to[j] += d[j]; });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
