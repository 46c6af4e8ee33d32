// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Causal convolution of every channel with a filter of its own, forward and backward.

#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Arguments of a convolution: y_t = bias + sum_k weight_k x_(t - taps + 1 + k), per channel.
template <class T>
struct causal_convolution_call {
  index batch, length, channels, taps;
  const T* x;  ///< [batch, length, channels], rows `stride` apart
  index stride;
  const T* weight;      ///< [channels, taps], the last tap for the newest token
  const T* bias;        ///< [channels]
  T* window = nullptr;  ///< [batch, taps - 1, channels] the last inputs, from call to call
  const index* lengths = nullptr;  ///< valid tokens of each sequence, or null for all
  const index* past = nullptr;     ///< tokens of each sequence before this call, or null

  /// The inputs at token t of sequence b, which may be before this call; null before the first.
  const T* input(index b, index t) const {
    if (t >= 0) return x + (b * length + t) * stride;
    return past && past[b] > 0 ? window + (b * (taps - 1) + taps - 1 + t) * channels : nullptr;
  }
};

/// y[batch, length, channels] = the convolution; with `past`, then moves the window on.
template <class T>
void causal_convolution(const execution& on, const causal_convolution_call<T>& call, T* y) {
  const index channels = call.channels, taps = call.taps;
  on.threads.each(call.batch * call.length, [&](index row) {
    T* const out = y + row * channels;
    std::copy_n(call.bias, channels, out);
    for (index k = 0; k < taps; ++k)
      if (const T* const in = call.input(row / call.length, row % call.length - taps + 1 + k))
        for (index c = 0; c < channels; ++c) out[c] += call.weight[c * taps + k] * in[c];
  });
  if (!call.past) return;
  on.threads.each(call.batch, [&](index b) {
    const index valid = call.lengths ? call.lengths[b] : call.length;
    // Rows move towards the front, so none is overwritten before it is read.
    for (index j = 0; j + 1 < taps; ++j) {
      T* const to = call.window + (b * (taps - 1) + j) * channels;
      if (const T* const from = call.input(b, valid - taps + 1 + j))
        std::copy_n(from, channels, to);
      else
        std::fill_n(to, channels, T(0));
    }
  });
}

/// Derivative of a call without `past`: overwrites dx[batch, length, channels], rows `stride`
/// apart, and adds to d_weight and d_bias.
template <class T>
void causal_convolution_backward(const execution& on, const causal_convolution_call<T>& call,
                                 const T* dy, T* dx, T* d_weight, T* d_bias) {
  const index channels = call.channels, taps = call.taps, rows = call.batch * call.length;
  on.threads.each(rows, [&](index row) {
    T* const out = dx + row * call.stride;
    std::fill_n(out, channels, T(0));
    for (index ahead = 0; ahead < taps && row % call.length + ahead < call.length; ++ahead)
      for (index c = 0; c < channels; ++c)
        out[c] += call.weight[c * taps + taps - 1 - ahead] * dy[(row + ahead) * channels + c];
  });
  const auto [first, last] = on.threads.range(channels);
  for (index row = 0; row < rows; ++row) {
    const T* const d = dy + row * channels;
    for (index c = first; c < last; ++c) d_bias[c] += d[c];
    for (index k = 0; k < taps; ++k)
      if (const T* const in = call.input(row / call.length, row % call.length - taps + 1 + k))
        for (index c = first; c < last; ++c) d_weight[c * taps + k] += d[c] * in[c];
  }
  on.threads.wait();
}

}  // namespace ops

LINNET_NAMESPACE_END
