// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Products with the rows of a matrix that are chosen for each row of inputs.

#include <algorithm>
#include <cstdint>

#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Neurons that are chosen for each row of inputs, in ascending order, and a value of each.
template <class T>
struct chosen_neurons {
  index width = 0;                 ///< neurons to choose from
  std::int32_t* counts = nullptr;  ///< [rows] how many are chosen
  std::int32_t* chosen = nullptr;  ///< [rows, width] their numbers, `counts` of a row
  T* values = nullptr;             ///< [rows, width] likewise

  index count(index row) const { return counts[row]; }
  std::int32_t* numbers(index row) const { return chosen + row * width; }
  T* values_of(index row) const { return values + row * width; }
};

/// Chooses the neurons whose score is not less than `least`: scores[rows, width].
template <class T>
void choose_neurons(const execution& on, index rows, const T* scores, T least,
                    const chosen_neurons<T>& to) {
  on.threads.each(rows, [&](index i) {
    const T* const score = scores + i * to.width;
    std::int32_t *const numbers = to.numbers(i), count = 0;
    for (index j = 0; j < to.width; ++j) {
      numbers[count] = static_cast<std::int32_t>(j);
      count += !(score[j] < least);
    }
    to.counts[i] = count;
  });
}
/// Leaves out the neurons of the value 0.
template <class T>
void drop_zeros(const execution& on, index rows, const chosen_neurons<T>& of) {
  on.threads.each(rows, [&](index i) {
    std::int32_t *const numbers = of.numbers(i), count = 0;
    T* const values = of.values_of(i);
    for (index a = 0; a < of.count(i); ++a) {
      numbers[count] = numbers[a];
      values[count] = values[a];
      count += values[a] != T(0);
    }
    of.counts[i] = count;
  });
}

namespace detail {
/// Calls f(kernels, row, first, count) for this thread's share of the neurons of each row.
template <class T, class F>
void each_share_of_chosen(const execution& on, index rows, const chosen_neurons<T>& of, F&& f) {
  for (index i = 0; i < rows; ++i) {
    const auto [first, last] = on.threads.range(of.count(i));
    const index begin = first, count = last - first;
    if (count > 0) simd::dispatch(on.level, [&](auto kernels) { f(kernels, i, begin, count); });
  }
  on.threads.wait();
}
}  // namespace detail

/// Values of the chosen neurons: f(x . w[j] + bias[j]), with x[rows, n] and w[width, n]; the bias
/// may be null.
template <activation_kind A, class T>
void activate_chosen(const execution& on, index rows, index n, const T* x, const T* w,
                     const T* bias, const chosen_neurons<T>& to) {
  detail::each_share_of_chosen(on, rows, to, [&](auto kernels, index i, index first, index count) {
    using K = decltype(kernels);
    const std::int32_t* const numbers = to.numbers(i) + first;
    T* const values = to.values_of(i) + first;
    K::template dots_of_chosen<T>(n, x + i * n, w, count, numbers, values);
    for (index a = 0; bias && a < count; ++a) values[a] += bias[numbers[a]];
    K::template activation<A, T>(count, values, values);
  });
}
/// Multiplies the values of the chosen neurons by x . w[j] + bias[j]. `room` is like the values.
template <class T>
void scale_chosen(const execution& on, index rows, index n, const T* x, const T* w, const T* bias,
                  T* room, const chosen_neurons<T>& to) {
  detail::each_share_of_chosen(on, rows, to, [&](auto kernels, index i, index first, index count) {
    const std::int32_t* const numbers = to.numbers(i) + first;
    T *const values = to.values_of(i) + first, *const up = room + i * to.width + first;
    decltype(kernels)::template dots_of_chosen<T>(n, x + i * n, w, count, numbers, up);
    for (index a = 0; a < count; ++a) values[a] *= up[a] + (bias ? bias[numbers[a]] : T(0));
  });
}
/// y[rows, n] = residual + bias + the sum of the values of the chosen neurons times their rows of
/// w[width, n]. The residual [rows, n] and the bias may be null. Split over n.
template <class T>
void sum_chosen(const execution& on, index rows, index n, const T* w, const T* bias,
                const T* residual, const chosen_neurons<T>& of, T* y) {
  constexpr index line = 64 / static_cast<index>(sizeof(T));
  const auto [first, last] = on.threads.range((n + line - 1) / line);
  const index begin = first * line, count = (std::min)(n, last * line) - begin;
  for (index i = 0; i < rows && count > 0; ++i) {
    T* const to = y + i * n + begin;
    for (index j = 0; j < count; ++j)
      to[j] = (residual ? residual[i * n + begin + j] : T(0)) + (bias ? bias[begin + j] : T(0));
    simd::dispatch(on.level, [&](auto kernels) {
      decltype(kernels)::template sum_of_chosen<T>(count, n, w + begin, of.count(i), of.numbers(i),
                                                   of.values_of(i), to);
    });
  }
  on.threads.wait();
}

/// Weights of neurons, or where their gradients are added: rows [width, n] and biases [width]. What
/// is not there is null.
template <class T>
struct neuron_weights {
  T* gate = nullptr;
  T* gate_bias = nullptr;
  T* up = nullptr;
  T* up_bias = nullptr;
  T* down = nullptr;
};
/// Inputs and outputs of neurons_backward().
template <class T>
struct neuron_gradient {
  index rows, n;
  const T *x, *dy;  ///< [rows, n]
  T* dx;            ///< [rows, n] its gradient is added
  T* room;          ///< [3, rows, width]
};

/// Adds the gradients of the neurons of `of` that were computed, and by x. Sums of weights run over
/// rows in their order, split over n.
template <activation_kind A, class T>
void neurons_backward(const execution& on, const neuron_gradient<T>& g,
                      const neuron_weights<const T>& w, const chosen_neurons<T>& of,
                      const neuron_weights<T>& to) {
  const index n = g.n, size = g.rows * of.width;
  detail::each_share_of_chosen(
      on, g.rows, of, [&](auto kernels, index i, index first, index count) {
        using K = decltype(kernels);
        const std::int32_t* const numbers = of.numbers(i) + first;
        T *const pre = g.room + i * of.width + first, *const up = pre + size, *const dh = up + size;
        K::template dots_of_chosen<T>(n, g.dy + i * n, w.down, count, numbers, dh);
        K::template dots_of_chosen<T>(n, g.x + i * n, w.gate ? w.gate : w.up, count, numbers, pre);
        const T* const bias = w.gate ? w.gate_bias : w.up_bias;
        for (index a = 0; bias && a < count; ++a) pre[a] += bias[numbers[a]];
        if (w.gate) {
          K::template dots_of_chosen<T>(n, g.x + i * n, w.up, count, numbers, up);
          for (index a = 0; w.up_bias && a < count; ++a) up[a] += w.up_bias[numbers[a]];
          K::template gated_backward<A, T>(count, pre, up, dh, pre, up);
        } else {
          std::fill_n(up, count, T(0));
          K::template activation_backward<A, T>(count, pre, dh, up);
        }
      });
  constexpr index line = 64 / static_cast<index>(sizeof(T));
  const auto [first, last] = on.threads.range((n + line - 1) / line);
  const index begin = first * line, end = (std::min)(n, last * line);
  for (index i = 0; i < g.rows; ++i)
    for (index a = 0; a < of.count(i); ++a) {
      const index at = of.numbers(i)[a] * n, value = i * of.width + a;
      const T h = of.values[value], d_gate = g.room[value], d_up = g.room[size + value];
      for (index k = begin; k < end; ++k) {
        const T x = g.x[i * n + k];
        to.down[at + k] += h * g.dy[i * n + k];
        to.up[at + k] += d_up * x;
        g.dx[i * n + k] += d_up * w.up[at + k];
        if (w.gate) {
          to.gate[at + k] += d_gate * x;
          g.dx[i * n + k] += d_gate * w.gate[at + k];
        }
      }
    }
  on.threads.once([&] {
    for (index i = 0; to.up_bias && i < g.rows; ++i)
      for (index a = 0; a < of.count(i); ++a) {
        const index j = of.numbers(i)[a], value = i * of.width + a;
        to.up_bias[j] += g.room[size + value];
        if (w.gate) to.gate_bias[j] += g.room[value];
      }
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
