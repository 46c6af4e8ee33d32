// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Losses on self-attention relations (MiniLMv2, Wang et al. 2021): how like each other a
/// sequence's queries, keys or values are. MiniLM also relates queries to keys, which is attention.

#include <algorithm>
#include <cmath>

#include <linnet/ops/attention_match.hpp>
#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Queries, keys or values of all heads: the first `width` numbers of rows `stride` apart.
template <class T>
struct relation_rows {
  const T* x = nullptr;  ///< [batch * tokens] rows
  index tokens = 0, width = 0, stride = 0;
};
/// Queries (0), keys (1) or values (2) of an attention call.
template <class T>
relation_rows<T> relation_rows_of(const attention_call<T>& a, index which) {
  if (which == 0) return {a.q, a.queries, a.heads * a.h, a.heads * a.h};
  const auto& from = which == 1 ? a.k : a.v;
  return {from.data, from.tokens, a.kv_heads * a.h, from.stride};
}
/// Rows that are related, and those that they are related to; often the same.
template <class T>
struct relation_pair {
  relation_rows<T> from{}, to{};
};
/// The relations that are compared: of how many heads, of which tokens.
struct relation_call {
  index batch = 0, heads = 0;
  const index* lengths = nullptr;    ///< [batch] valid tokens, or null for all; 0 adds nothing
  attention_window window{};         ///< tokens relate to those that they see
  const index* prefix = nullptr;     ///< [batch] first tokens that all see, or null
  const index* documents = nullptr;  ///< [batch, tokens] of each one's document, or null for one

  /// Whether token `i` of sequence `b` of `tokens` sees token `j`.
  bool sees(index b, index tokens, index i, index j) const {
    if (documents && documents[b * tokens + i] != documents[b * tokens + j]) return false;
    return (prefix && j < prefix[b]) ||
           (j <= i + window.after && (j + window.before >= i || j < window.first));
  }
};

/// Doubles of scratch that one thread needs for relation_divergence() and its backward.
constexpr index relation_scratch(index tokens) { return 2 * tokens * tokens; }

namespace detail {

/// map[n, n] = the softmax of x y^T / sqrt(d) of head `head` of `heads`, d = width / heads. It is 0
/// where a token does not see another.
template <class T>
void relation_map(const relation_pair<T>& of, const relation_call& c, index b, index head, index n,
                  double* map) {
  const index d = of.from.width / c.heads, step = of.from.stride, other = of.to.stride;
  const T* const x = of.from.x + b * of.from.tokens * step + head * d;
  const T* const y = of.to.x + b * of.to.tokens * other + head * d;
  std::fill_n(map, n * n, 0.0);
  for (index i = 0; i < n; ++i) {
    double* const row = map + i * n;
    double largest = -1e300, sum = 0;
    const auto seen = [&](index j) { return c.sees(b, of.from.tokens, i, j); };
    for (index j = 0; j < n; ++j) {
      if (!seen(j)) continue;
      for (index k = 0; k < d; ++k)
        row[j] += static_cast<double>(x[i * step + k]) * static_cast<double>(y[j * other + k]);
      row[j] /= std::sqrt(static_cast<double>(d));
      largest = (std::max)(largest, row[j]);
    }
    for (index j = 0; j < n; ++j)
      if (seen(j)) sum += row[j] = std::exp(row[j] - largest);
    for (index j = 0; j < n; ++j) row[j] /= sum;
  }
}

}  // namespace detail

/// Computes sums[batch * heads] of KL(teacher || student) of the relations. They are means over a
/// sequence's tokens and over heads: a sequence's sums add up to its loss. `scratch` has
/// relation_scratch() doubles for each thread.
template <class T, class U>
void relation_divergence(const execution& on, const relation_pair<T>& student,
                         const relation_pair<U>& teacher, const relation_call& c, double* scratch,
                         double* sums) {
  const index tokens = student.from.tokens, size = tokens * tokens;
  double* const mine = scratch + on.threads.rank() * 2 * size;
  double* const theirs = mine + size;
  on.threads.each(c.batch * c.heads, [&](index number) {
    const index b = number / c.heads, n = c.lengths ? c.lengths[b] : tokens;
    detail::relation_map(student, c, b, number % c.heads, n, mine);
    detail::relation_map(teacher, c, b, number % c.heads, n, theirs);
    double sum = 0;
    for (index i = 0; i < n * n; ++i)
      if (theirs[i] > 0) sum += theirs[i] * std::log(theirs[i] / mine[i]);
    sums[number] = n > 0 ? sum / static_cast<double>(c.heads * n) : 0;
  });
}
/// Adds the derivative of `factor` times the sum of relation_divergence() to dx and dy. Their rows
/// are as those of student.from and student.to.
template <class T, class U>
void relation_divergence_backward(const execution& on, const relation_pair<T>& student,
                                  const relation_pair<U>& teacher, const relation_call& c,
                                  double factor, double* scratch, T* dx, T* dy) {
  const index tokens = student.from.tokens, size = tokens * tokens;
  const index d = student.from.width / c.heads;
  double* const mine = scratch + on.threads.rank() * 2 * size;
  double* const theirs = mine + size;
  on.threads.each(c.batch * c.heads, [&](index number) {
    const index b = number / c.heads, n = c.lengths ? c.lengths[b] : tokens;
    const auto& [x, y] = student;
    const index x_begin = b * tokens * x.stride + number % c.heads * d;
    const index y_begin = b * tokens * y.stride + number % c.heads * d;
    detail::relation_map(student, c, b, number % c.heads, n, mine);
    detail::relation_map(teacher, c, b, number % c.heads, n, theirs);
    if (n == 0) return;
    const double scale =
        factor / (static_cast<double>(c.heads * n) * std::sqrt(static_cast<double>(d)));
    for (index i = 0; i < n; ++i)
      for (index k = 0; k < d; ++k) {
        double of_row = 0, of_column = 0;
        for (index j = 0; j < n; ++j) {
          of_row += (mine[i * n + j] - theirs[i * n + j]) *
                    static_cast<double>(y.x[y_begin + j * y.stride + k]);
          of_column += (mine[j * n + i] - theirs[j * n + i]) *
                       static_cast<double>(x.x[x_begin + j * x.stride + k]);
        }
        dx[x_begin + i * x.stride + k] += static_cast<T>(scale * of_row);
        dy[y_begin + i * y.stride + k] += static_cast<T>(scale * of_column);
      }
  });
}

/// Computes sums[batch * heads] of KL(teacher || student) of attention maps with their biases, over
/// the student's valid queries. They are means as those of relation_divergence(), whose scratch it
/// needs. Both calls are of self-attention, with as many heads of queries as of keys.
template <class T, class U>
void attention_divergence(const execution& on, const attention_call<T>& student,
                          const attention_call<U>& teacher, double* scratch, double* sums) {
  const index size = student.queries * student.keys;
  double* const mine = scratch + on.threads.rank() * 2 * size;
  double* const theirs = mine + size;
  on.threads.each(student.batch * student.heads, [&](index number) {
    const index b = number / student.heads, head = number % student.heads;
    const index n = detail::valid_queries(student, b);
    attention_map(student, b, head, mine);
    attention_map(teacher, b, head, theirs);
    double sum = 0;
    for (index i = 0; i < n * student.keys; ++i)
      if (theirs[i] > 0) sum += theirs[i] * std::log(theirs[i] / mine[i]);
    sums[number] = n > 0 ? sum / static_cast<double>(student.heads * n) : 0;
  });
}
/// Adds the derivative of `factor` times the sum of attention_divergence() to the student's
/// queries, keys and biases.
template <class T, class U>
void attention_divergence_backward(const execution& on, const attention_call<T>& student,
                                   const attention_call<U>& teacher, double factor, double* scratch,
                                   const attention_gradient<T>& to) {
  constexpr double least = 1e-300;
  const index size = student.queries * student.keys;
  double* const mine = scratch + on.threads.rank() * 2 * size;
  double* const theirs = mine + size;
  on.threads.each(student.batch * student.heads, [&](index number) {
    const index b = number / student.heads, head = number % student.heads;
    const index n = detail::valid_queries(student, b);
    if (n == 0) return;
    attention_map(student, b, head, mine);
    attention_map(teacher, b, head, theirs);
    const double scale = factor / static_cast<double>(student.heads * n);
    for (index i = 0; i < n * student.keys; ++i) theirs[i] *= -scale / (std::max)(mine[i], least);
    attention_map_backward(student, b, head, mine, theirs, to);
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
