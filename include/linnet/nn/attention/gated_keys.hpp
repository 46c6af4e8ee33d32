// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Attention to an adapter's gated keys, beside that to the text, and its derivatives.

#include <algorithm>
#include <cmath>

#include <linnet/nn/context.hpp>
#include <linnet/ops/adapter.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Most gated keys of a layer.
inline constexpr index most_gated_keys = 256;

/// Attention of one query of a head to gated keys.
template <class T>
struct gated_query {
  const T *keys, *values;  ///< of the head, rows `stride` apart
  index count, stride, h;
  T scale;

  /// p[count] = softmax of the scores of q[h]
  void weigh(const T* q, T* p) const {
    T most = 0, sum = 0;
    for (index j = 0; j < count; ++j) {
      p[j] = scale * dot(q, keys + j * stride);
      most = j == 0 ? p[j] : (std::max)(most, p[j]);
    }
    for (index j = 0; j < count; ++j) sum += p[j] = std::exp(p[j] - most);
    for (index j = 0; j < count; ++j) p[j] /= sum;
  }
  T dot(const T* a, const T* b) const {
    T sum = 0;
    for (index i = 0; i < h; ++i) sum += a[i] * b[i];
    return sum;
  }
};
/// A layer's gated keys and values of one head of keys, `kv` wide in all and `h` each.
template <class T>
gated_query<T> gated_query_of(const ops::gated_keys<T>& all, index layer, index kv, index h,
                              index key_head, T scale) {
  const index at = (layer - all.first) * all.count * kv + key_head * h;
  return {all.keys + at, all.values + at, all.count, kv, h, scale};
}

/// Shapes of a call: q[rows, heads h] and keys of kv_heads heads.
template <class T>
struct gated_shape {
  index heads, kv_heads, h;
  T scale;
};

/// out[rows, heads h] += tanh(gate) softmax(scale q K^T) V, for sequences with gated keys in this
/// layer (Zhang et al. 2023, eq. 7 to 10).
template <class T>
void add_gated(const context<T>& ctx, const gated_shape<T>& s, const T* q, T* out) {
  const auto* const hooks = ops::adapter_hooks<T>::in(ctx.on);
  if (!hooks) return;
  const index layer = ctx.stack.layer, n = s.heads * s.h, group = s.heads / s.kv_heads;
  bool any = false;
  for (index b = 0; b < ctx.batch; ++b) any = any || hooks->of(b).gated.in(layer);
  if (!any) return;
  ctx.on.threads.each(ctx.rows(), [&](index row) {
    const ops::gated_keys<T>& all = hooks->of(row / ctx.length).gated;
    if (!all.in(layer)) return;
    T p[most_gated_keys];
    for (index head = 0; head < s.heads; ++head) {
      const auto one = gated_query_of(all, layer, s.kv_heads * s.h, s.h, head / group, s.scale);
      const T gate = std::tanh(all.gates[(layer - all.first) * s.heads + head]);
      one.weigh(q + row * n + head * s.h, p);
      T* const to = out + row * n + head * s.h;
      for (index j = 0; j < one.count; ++j)
        for (index i = 0; i < s.h; ++i) to[i] += gate * p[j] * one.values[j * one.stride + i];
    }
  });
}
/// Adds the derivatives of add_gated() to dq and to the adapter's gradients. A head of keys belongs
/// to one thread, which goes through the rows in order.
template <class T>
void gated_backward(const context<T>& ctx, const gated_shape<T>& s, const T* q, const T* d_out,
                    T* dq) {
  const auto* const hooks = ops::adapter_hooks<T>::in(ctx.on);
  const index layer = ctx.stack.layer, n = s.heads * s.h, group = s.heads / s.kv_heads;
  if (!hooks || !hooks->gated.in(layer)) return;
  const ops::gated_keys<T>& all = hooks->gated;
  ctx.on.threads.each(s.kv_heads, [&](index key_head) {
    const auto one = gated_query_of(all, layer, s.kv_heads * s.h, s.h, key_head, s.scale);
    T* const dk = all.d_keys + (one.keys - all.keys);
    T* const dv = all.d_values + (one.values - all.values);
    T p[most_gated_keys], dp[most_gated_keys];
    for (index head = key_head * group; head < (key_head + 1) * group; ++head) {
      const index at_gate = (layer - all.first) * s.heads + head;
      const T gate = std::tanh(all.gates[at_gate]);
      T d_gate = 0;
      for (index row = 0; row < ctx.rows(); ++row) {
        const index at = row * n + head * s.h;
        one.weigh(q + at, p);
        T mean = 0;
        for (index j = 0; j < one.count; ++j) {
          dp[j] = one.dot(d_out + at, one.values + j * one.stride);
          mean += p[j] * dp[j];
        }
        d_gate += mean;
        for (index j = 0; j < one.count; ++j) {
          const T ds = gate * p[j] * (dp[j] - mean) * s.scale, pj = gate * p[j];
          for (index i = 0; i < s.h; ++i) {
            dq[at + i] += ds * one.keys[j * one.stride + i];
            dk[j * one.stride + i] += ds * q[at + i];
            dv[j * one.stride + i] += pj * d_out[at + i];
          }
        }
      }
      all.d_gates[at_gate] += d_gate * (1 - gate * gate);
    }
  });
}

}  // namespace detail

LINNET_NAMESPACE_END
