// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Losses on attention for distillation (EdgeQAT, Shen et al. 2024): likeness of attention maps,
/// and spread of queries and keys.

#include <algorithm>
#include <cmath>

#include <linnet/ops/attention_call.hpp>
#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Doubles of scratch that one thread needs for attention_cosines() and its backward.
constexpr index attention_match_scratch(index queries, index keys) { return 3 * queries * keys; }

namespace detail {

/// The keys of the document of query `i` of sequence `b`, or all.
template <class T>
typename attention_call<T>::token_range document_keys(const attention_call<T>& a, index b,
                                                      index i) {
  const index keys = a.key_lengths ? a.key_lengths[b] : a.keys;
  if (!a.documents) return {0, keys};
  const auto own = a.keys_from(b, a.documents[b * a.queries + i]);
  return {own.first, (std::min)(keys, own.last)};
}
/// Calls f(key) for the keys that query `i` of sequence `b` sees, without those of a cache. The
/// `first` keys of a window are those of the query's document.
template <class T, class F>
void each_seen_key(const attention_call<T>& a, index b, index i, F&& f) {
  const index prefix = a.prefix ? a.prefix[b] : 0;
  const auto own = document_keys(a, b, i);
  for (index j = own.first; j < own.last; ++j)
    if (j < prefix ||
        (j <= i + a.window.after && (j + a.window.before >= i || j - own.first < a.window.first)))
      f(j);
}
/// Row `i` of sequence `b` of queries, one head.
template <class T>
const T* query_of(const attention_call<T>& a, index b, index i, index head) {
  return a.q + ((b * a.queries + i) * a.heads + head) * a.h;
}
/// Row `j` of sequence `b` of keys, the head that a head of queries reads.
template <class T>
const T* key_of(const attention_call<T>& a, index b, index j, index head) {
  return a.k.data + (b * a.k.tokens + j) * a.k.stride + head * a.kv_heads / a.heads * a.k.slot;
}
/// Place of the bias of query `i` and key `j` of sequence `b` in its lines. From the `first` keys
/// of a window a query stands no further than attention_call::kept - 1.
template <class T>
index bias_place(const attention_call<T>& a, index b, index head, index i, index j) {
  const index first = document_keys(a, b, i).first,
              from = j - first < a.window.first ? (std::min)(i, first + a.kept - 1) : i;
  return head * (2 * a.bias_origin + 1) + a.bias_origin +
         (std::clamp)(j - from, -a.bias_origin, a.bias_origin);
}
template <class T>
index valid_queries(const attention_call<T>& a, index b) {
  return a.query_lengths ? a.query_lengths[b] : a.queries;
}

}  // namespace detail

/// Computes the attention map of one head of one sequence, map[queries, keys]: the softmax of its
/// scores. It is 0 where a query does not see a key. Queries and keys are plain rows without a
/// past; there is no dropout.
template <class T>
void attention_map(const attention_call<T>& a, index b, index head, double* map) {
  std::fill_n(map, a.queries * a.keys, 0.0);
  for (index i = 0; i < detail::valid_queries(a, b); ++i) {
    double* const row = map + i * a.keys;
    const T* const q = detail::query_of(a, b, i, head);
    double largest = -1e300, sum = 0;
    detail::each_seen_key(a, b, i, [&](index j) {
      const T* const k = detail::key_of(a, b, j, head);
      double dot = 0;
      for (index c = 0; c < a.h; ++c) dot += static_cast<double>(q[c]) * static_cast<double>(k[c]);
      row[j] = dot * static_cast<double>(a.scale);
      if (a.bias) row[j] += static_cast<double>(a.bias[detail::bias_place(a, b, head, i, j)]);
      largest = (std::max)(largest, row[j]);
    });
    detail::each_seen_key(a, b, i, [&](index j) { sum += row[j] = std::exp(row[j] - largest); });
    detail::each_seen_key(a, b, i, [&](index j) { row[j] /= sum; });
  }
}
/// The derivative of attention_map() by queries, keys and biases of positions: adds to those of
/// `to`. `slopes`[queries, keys] is the derivative by the map.
template <class T>
void attention_map_backward(const attention_call<T>& a, index b, index head, const double* map,
                            const double* slopes, const attention_gradient<T>& to) {
  for (index i = 0; i < detail::valid_queries(a, b); ++i) {
    const double *const row = map + i * a.keys, *const d = slopes + i * a.keys;
    const T* const q = detail::query_of(a, b, i, head);
    T* const to_q = to.dq + (q - a.q);
    double mean = 0;
    for (index j = 0; j < a.keys; ++j) mean += row[j] * d[j];
    detail::each_seen_key(a, b, i, [&](index j) {
      const double raw = row[j] * (d[j] - mean), score = raw * static_cast<double>(a.scale);
      if (a.bias && to.d_bias)
        to.d_bias[b * a.heads * (2 * a.bias_origin + 1) + detail::bias_place(a, b, head, i, j)] +=
            static_cast<T>(raw);
      const T* const k = detail::key_of(a, b, j, head);
      T* const to_k = to.dk + (k - a.k.data);
      for (index c = 0; c < a.h; ++c) {
        to_q[c] += static_cast<T>(score * static_cast<double>(k[c]));
        to_k[c] += static_cast<T>(score * static_cast<double>(q[c]));
      }
    });
  }
}

namespace detail {

struct map_products {
  double both = 0, student = 0, teacher = 0;
  double cosine() const { return both / std::sqrt(student * teacher); }
};
template <class T, class U>
map_products compare_maps(const attention_call<T>& student, const attention_call<U>& teacher,
                          index b, index head, double* mine, double* theirs) {
  attention_map(student, b, head, mine);
  attention_map(teacher, b, head, theirs);
  map_products sum;
  for (index i = 0; i < student.queries * student.keys; ++i) {
    sum.both += mine[i] * theirs[i];
    sum.student += mine[i] * mine[i];
    sum.teacher += theirs[i] * theirs[i];
  }
  return sum;
}

}  // namespace detail

/// Computes cosines[batch, heads] between the attention maps of a student and a teacher, each map
/// as one vector. Both calls have the same numbers of sequences, tokens and heads. `scratch` has
/// attention_match_scratch() doubles for each thread.
template <class T, class U>
void attention_cosines(const execution& on, const attention_call<T>& student,
                       const attention_call<U>& teacher, double* scratch, double* cosines) {
  const index size = student.queries * student.keys;
  double* const mine = scratch + on.threads.rank() * 3 * size;
  on.threads.each(student.batch * student.heads, [&](index n) {
    cosines[n] = detail::compare_maps(student, teacher, n / student.heads, n % student.heads, mine,
                                      mine + size)
                     .cosine();
  });
}
/// The derivative of `factor` times the sum of the cosines: adds to the student's of queries, keys
/// and biases.
template <class T, class U>
void attention_cosines_backward(const execution& on, const attention_call<T>& student,
                                const attention_call<U>& teacher, double factor, double* scratch,
                                const attention_gradient<T>& to) {
  const index size = student.queries * student.keys, group = student.heads / student.kv_heads;
  double* const mine = scratch + on.threads.rank() * 3 * size;
  double *const theirs = mine + size, *const slopes = theirs + size;
  on.threads.each(
      student.batch * student.kv_heads, [&](index n) {  // a head of keys is one thread's
        const index b = n / student.kv_heads, first = n % student.kv_heads * group;
        for (index head = first; head < first + group; ++head) {
          const auto sum = detail::compare_maps(student, teacher, b, head, mine, theirs);
          const double scale = factor / std::sqrt(sum.student * sum.teacher);
          for (index i = 0; i < size; ++i)
            slopes[i] = scale * (theirs[i] - mine[i] * sum.both / sum.student);
          attention_map_backward(student, b, head, mine, slopes, to);
        }
      });
}

namespace detail {

/// The mean of x[n], and the sum of squared differences from it.
struct moments {
  double mean = 0, squares = 0;

  template <class T>
  moments(index n, const T* x) {
    for (index c = 0; c < n; ++c) mean += static_cast<double>(x[c]) / static_cast<double>(n);
    for (index c = 0; c < n; ++c)
      squares += (static_cast<double>(x[c]) - mean) * (static_cast<double>(x[c]) - mean);
  }
};

}  // namespace detail

/// Computes the spread of queries or keys: sums[row] = sum over heads of ln(1 + var) of the row's
/// numbers in x[rows, heads * h]. The variance is over a head's h numbers and divides by h.
template <class T>
void log_variances(const execution& on, index rows, index heads, index h, const T* x,
                   double* sums) {
  on.threads.each(rows, [&](index row) {
    sums[row] = 0;
    for (index head = 0; head < heads; ++head) {
      const detail::moments of(h, x + (row * heads + head) * h);
      sums[row] += std::log1p(of.squares / static_cast<double>(h));
    }
  });
}
/// The derivative of `factor` times the sum of log_variances(): adds to dx.
template <class T>
void log_variances_backward(const execution& on, index rows, index heads, index h, const T* x,
                            double factor, T* dx) {
  on.threads.each(rows * heads, [&](index n) {
    const T* const from = x + n * h;
    const detail::moments of(h, from);
    const double scale = 2 * factor / (static_cast<double>(h) + of.squares);
    for (index c = 0; c < h; ++c)
      dx[n * h + c] += static_cast<T>(scale * (static_cast<double>(from[c]) - of.mean));
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
