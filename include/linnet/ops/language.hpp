// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Both ends of a language model: the token embedding, and the output head fused with the
/// cross-entropy. The head works in chunks, so that the logits of all tokens never exist at once.

#include <cmath>
#include <limits>

#include <linnet/core/portable_math.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

/// Summed loss of a call, in nats, and the number of tokens it is summed over. A call with a batch
/// that does not fit the limits or the vocabulary computes nothing and gives NaN nats.
struct loss_sum {
  double nats = 0;
  index tokens = 0;

  /// Loss per token; `nats` itself without tokens.
  constexpr double mean() const { return tokens > 0 ? nats / static_cast<double>(tokens) : nats; }
  /// Result for a batch that cannot be used: NaN.
  static constexpr loss_sum refused() { return {std::numeric_limits<double>::quiet_NaN(), 0}; }
};

namespace ops {

/// x[rows, d] = table[token], one row per token. Ids must be in the vocabulary.
template <class T, class S>
void embed(const execution& on, index rows, index d, const token* tokens,
           const packed_matrix<T, S>& table, T* x) {
  on.threads.each(rows, [&](index i) {
    for (index j = 0; j < d; ++j) x[i * d + j] = table.at(tokens[i], j, d);
  });
}
/// d_table[token] += dx: split by columns, so repeated tokens meet in one thread, in row order.
/// Nothing without a table, which is that of a frozen one.
template <class T>
void embed_backward(const execution& on, index rows, index d, const token* tokens, const T* dx,
                    T* d_table) {
  if (d_table == nullptr) return;
  const auto [first, last] = on.threads.range(d);
  for (index i = 0; i < rows; ++i)
    for (index j = first; j < last; ++j) d_table[tokens[i] * d + j] += dx[i * d + j];
  on.threads.wait();
}

/// d_table[position] += sum over the batch of dx[batch, length, d] at that position. It is the
/// place in a token's document, where `documents`[batch, length] has the first token of each one's.
template <class T>
void position_backward(const execution& on, index batch, index length, index d, const T* dx,
                       T* d_table, const index* documents = nullptr) {
  on.threads.each(length, [&](index position) {
    for (index row = 0; row < batch * length; row += documents ? 1 : length) {
      if (documents && row % length - documents[row] != position) continue;
      const T* const from = dx + (documents ? row : row + position) * d;
      for (index j = 0; j < d; ++j) d_table[position * d + j] += from[j];
    }
  });
}

/// Rows of logits that are worked on at a time: about four million values.
constexpr index head_rows(index vocabulary) {
  const index rows = (index{1} << 22) / vocabulary;
  return rows < 8 ? 8 : rows > 128 ? 128 : rows;
}

namespace detail {
/// One row of cross_entropy() by the kernels K.
template <class K, class T>
double cross_entropy_row(index vocabulary, token label, T* row, bool gradient, double z_loss) {
  const T target = row[label];
  const T largest = K::template maximum<T>(vocabulary, row);
  const T sum = K::template exp_sum<T>(vocabulary, largest, row);
  const double lse =
      linnet::detail::portable_log(static_cast<double>(sum)) + static_cast<double>(largest);
  if (gradient) {
    K::template scale<T>(vocabulary, T(1 + linnet::detail::unfused(2 * z_loss * lse)) / sum, row);
    row[label] -= T(1);
  }
  return lse - static_cast<double>(target) + linnet::detail::unfused(z_loss * lse * lse);
}
/// losses[i] = f(kernels, i, row) for each row of logits that has a label; the others have no loss
/// and no gradient.
template <class T, class F>
void each_labelled_row(const execution& on, index rows, index vocabulary, const token* labels,
                       T* logits, double* losses, bool gradient, F&& f) {
  on.threads.each(rows, [&](index i) {
    T* const row = logits + i * vocabulary;
    if (labels[i] == ignored) {
      losses[i] = 0;
      if (gradient) std::fill_n(row, vocabulary, T(0));
      return;
    }
    simd::dispatch(on.level, [&](auto k) { losses[i] = f(k, i, row); });
  });
}

}  // namespace detail

/// Cross-entropy of rows of logits: losses[i] = lse - l[label] + z lse^2 with lse = logsumexp(l).
/// The logits are overwritten by its gradient (1 + 2 z lse) softmax(l) - onehot(label). z is t5x's
/// z-loss, usually 0 or 1e-4. Rows labelled `ignored` give 0.
template <class T>
void cross_entropy(const execution& on, index rows, index vocabulary, const token* labels,
                   T* logits, double* losses, bool gradient, double z_loss = 0) {
  detail::each_labelled_row(
      on, rows, vocabulary, labels, logits, losses, gradient, [&](auto k, index i, T* row) {
        return detail::cross_entropy_row<decltype(k)>(vocabulary, labels[i], row, gradient, z_loss);
      });
}

/// Arguments of the output head: y[rows, d] and the table W[vocabulary, d], with logits = alpha y
/// W^T (+ bias).
template <class T, class S>
struct head_call {
  index rows, d, vocabulary;
  const T* y;
  const packed_matrix<T, S>& table;
  T alpha;                  ///< d^-1/2 for T5's tied head, else 1
  const token* labels;      ///< [rows], or `ignored`
  T* chunk;                 ///< scratch [head_rows, vocabulary]
  double* losses;           ///< scratch [rows]
  T* dy = nullptr;          ///< gradient of y, added to; null for the loss alone
  T* d_table = nullptr;     ///< gradient of the table, added to
  T* logits = nullptr;      ///< if given, also receives all logits [rows, vocabulary]
  double z_loss = 0;        ///< weight of the squared logsumexp
  double weight = 1;        ///< of this loss in the gradients
  const T* bias = nullptr;  ///< [vocabulary], for a weight of 1
  T* d_bias = nullptr;      ///< its gradient, added to
};

/// logits[rows, vocabulary] of rows [first, first + rows) of a call.
template <class T, class S>
void head_logits(const execution& on, const head_call<T, S>& h, index first, index rows,
                 T* logits) {
  matmul(on, rows, h.vocabulary, h.d, h.y + first * h.d, h.table, logits, {h.bias, h.alpha});
}

/// Criterion of plain training and scoring: cross_entropy() with the labels. A criterion is called
/// by every thread for each chunk: rows [first, first + rows) of the call, whose logits are in
/// h.chunk. It sets h.losses of these rows. Where h.dy is given, it puts the gradient of their sum
/// in place of the logits.
struct label_cross_entropy {
  template <class T, class S>
  void operator()(const execution& on, const head_call<T, S>& h, index first, index rows) const {
    cross_entropy(on, rows, h.vocabulary, h.labels + first, h.chunk, h.losses + first,
                  h.dy != nullptr, h.z_loss);
  }
};

/// Summed loss of all rows by a criterion; if asked for, also the gradients of that sum times
/// h.weight. Inputs of all tokens have the bits of the compute type here.
template <class T, class S, class Criterion = label_cross_entropy>
loss_sum head_loss(const execution& caller, const head_call<T, S>& h,
                   const Criterion& criterion = {}) {
  execution on = caller;
  on.bits = nullptr;
  const index step = head_rows(h.vocabulary);
  for (index first = 0; first < h.rows; first += step) {
    const index rows = (std::min)(step, h.rows - first);
    head_logits(on, h, first, rows, h.chunk);
    if (h.logits) copy(on, rows * h.vocabulary, h.chunk, h.logits + first * h.vocabulary);
    criterion(on, h, first, rows);
    if constexpr (trainable<S>) {
      if (h.dy && h.d_bias) bias_gradient(on, rows, h.vocabulary, h.chunk, h.d_bias);
      if (h.dy)
        matmul_backward(on, rows, h.vocabulary, h.d, h.chunk, h.y + first * h.d, h.table,
                        {h.d_table, h.dy + first * h.d, h.alpha * static_cast<T>(h.weight)});
    }
  }
  loss_sum sum;
  for (index i = 0; i < h.rows; ++i) {
    sum.nats += h.losses[i];
    sum.tokens += h.labels[i] != ignored;
  }
  return sum;
}

}  // namespace ops

LINNET_NAMESPACE_END
