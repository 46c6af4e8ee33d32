// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Virtual tokens that an adapter puts before sequences: their rows in a stream, their keys and
/// values in attention, and the derivatives of both.

#include <algorithm>

#include <linnet/nn/context.hpp>
#include <linnet/ops/adapter.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether row `t` of sequence `b` in this call is one of its virtual tokens.
template <class T>
bool is_virtual(const context<T>& ctx, index b, index t) {
  return t < (std::min)(ctx.front, ctx.length_of(b)) &&
         ctx.past_of(b) + t < ops::adapter_hooks<T>::in(ctx.on)->front_of(b);
}
/// Calls f(b, t, i, virtual_tokens) for the rows of virtual tokens in this call: row t of sequence
/// b is virtual token i. Rows are divided among the threads, and all have finished.
template <class T, class F>
void each_virtual(const context<T>& ctx, F&& f) {
  const auto& hooks = *ops::adapter_hooks<T>::in(ctx.on);
  ctx.on.threads.each(ctx.batch * ctx.front, [&](index at) {
    const index b = at / ctx.front, t = at % ctx.front, i = ctx.past_of(b) + t;
    if (is_virtual(ctx, b, t)) f(b, t, i, hooks.of(b).front);
  });
}

/// Puts an adapter's virtual tokens before the sequences of a call that reads them whole, or those
/// that stand `before_source` before sources.
template <class T>
void begin_virtual(context<T>& ctx, bool before_source = false) {
  if (ctx.on.adapter == nullptr) return;
  const ops::virtual_tokens<T>& front = ops::adapter_hooks<T>::in(ctx.on)->front;
  if (front.count == 0 || front.before_source != before_source) return;
  ctx.front = front.count;
  ctx.length += front.count;
  if (ctx.lengths) ctx.lengths = front.lengths;
}

/// x[rows, d] = the embedding of tokens [batch, length - front]; 0 for virtual tokens and padding.
/// The tokens of a sequence follow its virtual ones, of which others may have more.
template <class T, class Table>
void embed_behind(const context<T>& ctx, index d, const token* tokens, const Table& table, T* x) {
  if (ctx.front == 0) return ops::embed(ctx.on, ctx.rows(), d, tokens, table, x);
  const auto& hooks = *ops::adapter_hooks<T>::in(ctx.on);
  const index real = ctx.length - ctx.front;
  ctx.on.threads.each(ctx.rows(), [&](index row) {
    const index b = row / ctx.length;
    const index lacks = hooks.front_of(b) - ctx.past_of(b);
    const index t = row % ctx.length - (std::clamp)(lacks, index{0}, ctx.front);
    for (index j = 0; j < d; ++j)
      x[row * d + j] = t < 0 || t >= real ? T(0) : table.at(tokens[b * real + t], j, d);
  });
}
/// Puts the rows of virtual tokens into x[rows, d], where adapters have some.
template <class T>
void put_virtual_rows(const context<T>& ctx, index d, T* x) {
  if (ctx.front == 0) return;
  each_virtual(ctx, [&](index b, index t, index i, const ops::virtual_tokens<T>& front) {
    if (front.rows)
      std::copy_n(front.rows + b * front.of_sequence + i * d, d, x + (b * ctx.length + t) * d);
  });
}
/// Adds the derivative of put_virtual_rows() to the adapter's gradient, sequences in order.
template <class T>
void virtual_rows_backward(const context<T>& ctx, index d, const T* dx) {
  if (ctx.front == 0) return;
  const ops::virtual_tokens<T>& front = ops::adapter_hooks<T>::in(ctx.on)->front;
  if (front.d_rows == nullptr) return;
  if (front.of_sequence > 0) {
    ctx.on.threads.each(ctx.batch * ctx.front, [&](index at) {
      const index b = at / ctx.front, t = at % ctx.front;
      for (index j = 0; j < d; ++j)
        front.d_rows[b * front.of_sequence + t * d + j] += dx[(b * ctx.length + t) * d + j];
    });
    return;
  }
  ctx.on.threads.each(ctx.front, [&](index t) {
    for (index b = 0; b < ctx.batch; ++b)
      for (index j = 0; j < d; ++j) front.d_rows[t * d + j] += dx[(b * ctx.length + t) * d + j];
  });
}

/// Moves the rows behind virtual tokens together: x[batch * length, d] becomes [batch * (length -
/// front), d]. Split by columns, as rows take the places of others.
template <class T>
void leave_virtual(const context<T>& ctx, index d, T* x) {
  if (ctx.front == 0) return;
  const index real = ctx.length - ctx.front;
  const auto [first, last] = ctx.on.threads.range(d);
  for (index b = 0; b < ctx.batch; ++b)
    for (index t = 0; t < real; ++t)
      std::copy(x + (b * ctx.length + ctx.front + t) * d + first,
                x + (b * ctx.length + ctx.front + t) * d + last, x + (b * real + t) * d + first);
  ctx.on.threads.wait();
}
/// Moves rows [batch * (length - front), d] back to where leave_virtual() found them; 0 for virtual
/// tokens.
template <class T>
void enter_virtual(const context<T>& ctx, index d, T* x) {
  if (ctx.front == 0) return;
  const index real = ctx.length - ctx.front;
  const auto [first, last] = ctx.on.threads.range(d);
  for (index b = ctx.batch; b-- > 0;) {
    for (index t = real; t-- > 0;)
      std::copy(x + (b * real + t) * d + first, x + (b * real + t) * d + last,
                x + (b * ctx.length + ctx.front + t) * d + first);
    for (index t = 0; t < ctx.front; ++t)
      std::fill(x + (b * ctx.length + t) * d + first, x + (b * ctx.length + t) * d + last, T(0));
  }
  ctx.on.threads.wait();
}

/// Puts keys and values of virtual tokens into those of this call, [rows, kv], where adapters have
/// some for this layer of the stack. They are as a cache has them: no position is added.
template <class T>
void put_virtual_keys(const context<T>& ctx, index kv, T* k, T* v) {
  if (ctx.front == 0) return;
  each_virtual(ctx, [&](index b, index t, index i, const ops::virtual_tokens<T>& front) {
    if (front.keys_values == nullptr) return;
    const T* const from = front.keys_values + i * front.stride + 2 * ctx.stack.layer * kv;
    std::copy_n(from, kv, k + (b * ctx.length + t) * kv);
    std::copy_n(from + kv, kv, v + (b * ctx.length + t) * kv);
  });
}
/// Takes the derivative of put_virtual_keys() out of those of keys and values, sequences in order.
template <class T>
void virtual_keys_backward(const context<T>& ctx, index kv, T* dk, T* dv) {
  if (ctx.front == 0) return;
  const ops::virtual_tokens<T>& front = ops::adapter_hooks<T>::in(ctx.on)->front;
  if (front.keys_values == nullptr) return;
  ctx.on.threads.each(ctx.front, [&](index t) {
    T* const to = front.d_keys_values + t * front.stride + 2 * ctx.stack.layer * kv;
    for (index b = 0; b < ctx.batch; ++b)
      for (index j = 0; j < kv; ++j) {
        T &k = dk[(b * ctx.length + t) * kv + j], &v = dv[(b * ctx.length + t) * kv + j];
        to[j] += k;
        to[kv + j] += v;
        k = v = T(0);
      }
  });
}

}  // namespace detail

LINNET_NAMESPACE_END
