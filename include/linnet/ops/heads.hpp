// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Heads that are left out.

#include <algorithm>

#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN
namespace ops {

/// Heads of rows with a score each.
template <class T>
struct scored_heads {
  index rows, heads, h;  ///< h: the width of a head
  const T* scores;       ///< [rows, heads]
  T least;               ///< of those that stay
};

/// Sets the heads of x[rows, heads * h] with a lower score to 0; the others stay as they are.
template <class T>
void keep_heads(const execution& on, const scored_heads<T>& by, T* x) {
  on.threads.each(by.rows, [&](index row) {
    for (index head = 0; head < by.heads; ++head)
      if (by.scores[row * by.heads + head] < by.least)
        std::fill_n(x + (row * by.heads + head) * by.h, by.h, T(0));
  });
}

}  // namespace ops
LINNET_NAMESPACE_END
