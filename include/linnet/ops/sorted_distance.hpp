// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Distance of distributions over different vocabularies: that of their sorted probabilities
/// (Boizard et al. 2024).

#include <algorithm>
#include <functional>

#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Scratch memory of a thread for sorted_distance().
template <class T>
struct sorted_distance_rows {
  T* q;          ///< [student's vocabulary]
  T* p;          ///< [teacher's vocabulary]
  token* order;  ///< [student's vocabulary]
};

/// The sum of |q_(i) - p_(i)| over sorted probabilities of `logits`[n] and of the teacher's
/// `at.p`[m] logits, which are overwritten. The smaller vocabulary is padded with zeros. `slope`
/// [n], if not null, receives the gradient by the logits, with the order held fixed. It may be
/// `logits`.
template <class K, class T>
double sorted_distance(index n, const T* logits, index m, const sorted_distance_rows<T>& at,
                       T* slope) {
  std::copy_n(logits, n, at.q);
  K::template softmax<T>(n, at.q);
  K::template softmax<T>(m, at.p);
  std::sort(at.p, at.p + m, std::greater<T>());
  for (index i = 0; i < n; ++i) at.order[i] = static_cast<token>(i);
  std::sort(at.order, at.order + n,
            [&](token a, token b) { return at.q[a] > at.q[b] || (at.q[a] == at.q[b] && a < b); });
  double sum = 0;
  for (index i = 0; i < n; ++i) {
    const T x = at.q[at.order[i]] - (i < m ? at.p[i] : T(0));
    sum += static_cast<double>(x < T(0) ? -x : x);
    if (slope) slope[at.order[i]] = static_cast<T>((x > T(0)) - (x < T(0)));
  }
  for (index i = n; i < m; ++i) sum += static_cast<double>(at.p[i]);
  if (slope) K::template softmax_backward<T>(n, at.q, slope, slope);
  return sum;
}

}  // namespace ops

LINNET_NAMESPACE_END
