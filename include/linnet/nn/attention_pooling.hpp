// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Attention that shortens a sequence: tokens that receive the least attention are left out
/// (Hillier et al. 2024, "next thought" in their code).

#include <algorithm>

#include <linnet/nn/attention/full.hpp>
#include <linnet/nn/ffn.hpp>
#include <linnet/nn/norm.hpp>

LINNET_NAMESPACE_BEGIN

/// A layer from x[batch * length, In] to y[batch * kept(length), Out]:
///  - u = norm1(x + attention(x)), bidirectional, with biases.
///  - Of each sequence the kept(length) tokens stay that receive the most attention, summed over
///    heads and queries. They keep their order; ties go to the earlier token.
///  - y = norm2(W2 gelu(W1 u)), hidden width 4 In, no residual, as the width changes.
/// LayerNorm both times. No gradient flows through the choice of tokens.
template <index In, index Out, index Heads, real Dropped, real Eps>
struct shrinking_attention {
  static_assert(Dropped.value >= 0 && Dropped.value < 1,
                "linnet::shrinking_attention: 0 <= dropped share < 1");
  static constexpr index in = In, out = Out, hidden = 4 * In, h = In / Heads;
  using mixer = attention::full::layer<attention_shape{
      .d_model = In, .heads = Heads, .kv_heads = Heads, .d_kv = h, .bias = true}>;
  using first_norm = norm::layer_norm::layer<In, Eps>;
  using last_norm = norm::layer_norm::layer<Out, Eps>;
  using feed_forward =
      chain<named<"wi", activated_linear<In, hidden, activation_kind::gelu, true, false>>,
            named<"wo", linear<hidden, Out, true>>>;

  /// Tokens that are left of `length`, at least one.
  static constexpr index kept(index length) {
    const auto n = static_cast<index>(static_cast<double>(length) * (1 - Dropped.value) + 1e-9);
    return n > 1 ? n : 1;
  }

  template <class Form>
  struct params {
    typename mixer::template params<Form> attention{};
    typename first_norm::template params<Form> norm1{};
    typename feed_forward::template params<Form> ffn{};
    typename last_norm::template params<Form> norm2{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    mixer::visit(f, at / "attention", p.attention...);
    first_norm::visit(f, at / "norm1", p.norm1...);
    feed_forward::visit(f, at / "ffn", p.ffn...);
    last_norm::visit(f, at / "norm2", p.norm2...);
  }

  template <class T>
  struct cache {
    typename mixer::template cache<T> attention{};
    typename first_norm::template cache<T> norm1{};
    typename feed_forward::template cache<T> ffn{};
    typename last_norm::template cache<T> norm2{};
    T *sum = nullptr, *normed = nullptr;   ///< [rows, In] x + attention(x), u
    T *chosen = nullptr, *made = nullptr;  ///< [kept rows, In], [kept rows, Out] of u, of W2 gelu
    T *d_sum = nullptr, *d_normed = nullptr, *d_chosen = nullptr, *d_made = nullptr;
    T *received = nullptr, *weights = nullptr;  ///< [rows] attention received; of one query
    index *order = nullptr, *from = nullptr;    ///< [rows]; [kept rows] their tokens, or -1
    index* lengths = nullptr;                   ///< [batch] valid tokens that are left
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index rows = e.rows();
    call_shape after = e;
    after.length = kept(e.length);
    cache<T> c;
    c.sum = m.saved.take<T>(rows * In);
    c.normed = m.saved.take<T>(rows * In);
    c.chosen = m.saved.take<T>(after.rows() * In);
    c.made = m.saved.take<T>(after.rows() * Out);
    if (e.training) {
      c.d_sum = m.saved.take<T>(rows * In);
      c.d_normed = m.saved.take<T>(rows * In);
      c.d_chosen = m.saved.take<T>(after.rows() * In);
      c.d_made = m.saved.take<T>(after.rows() * Out);
    }
    c.received = m.saved.take<T>(rows);
    c.weights = m.saved.take<T>(rows);
    c.order = m.saved.take<index>(rows);
    c.from = m.saved.take<index>(after.rows());
    c.lengths = m.saved.take<index>(e.batch);
    c.attention = mixer::template plan<T>(m, e);
    c.norm1 = first_norm::template plan<T>(m, e);
    c.ffn = feed_forward::template plan<T>(m, after);
    c.norm2 = last_norm::template plan<T>(m, after);
    return c;
  }

  /// Computes y; afterwards c.lengths are the lengths of y's sequences.
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, In> x, view<T, Out> y,
                      cache<T>& c, context<T>& ctx) {
    const index rows = ctx.rows(), left = kept(ctx.length), made = ctx.batch * left;
    mixer::template forward<T, S>(p.attention, x, {c.normed, rows}, c.attention, ctx);
    ops::add(ctx.on, rows * In, x.data(), c.normed, c.sum);
    first_norm::template forward<T, S>(p.norm1, {c.sum, rows}, {c.normed, rows}, c.norm1, ctx);
    ctx.on.threads.each(ctx.batch, [&](index b) { choose(b, left, c, ctx); });
    ctx.on.threads.each(made, [&](index i) {
      T* const to = c.chosen + i * In;
      if (c.from[i] < 0)
        std::fill_n(to, In, T(0));
      else
        std::copy_n(c.normed + c.from[i] * In, In, to);
    });
    feed_forward::template forward<T, S>(p.ffn, {c.chosen, made}, {c.made, made}, c.ffn, ctx);
    last_norm::template forward<T, S>(p.norm2, {c.made, made}, y, c.norm2, ctx);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, In> x, view<const T, Out> dy, view<T, In> dx, cache<T>& c,
                       context<T>& ctx) {
    const index rows = ctx.rows(), made = ctx.batch * kept(ctx.length);
    ops::fill(ctx.on, made * Out, T(0), c.d_made);
    last_norm::template backward<T, S>(p.norm2, dp.norm2, {c.made, made}, dy, {c.d_made, made},
                                       c.norm2, ctx);
    ops::fill(ctx.on, made * In, T(0), c.d_chosen);
    feed_forward::template backward<T, S>(p.ffn, dp.ffn, {c.chosen, made}, {c.d_made, made},
                                          {c.d_chosen, made}, c.ffn, ctx);
    ops::fill(ctx.on, rows * In, T(0), c.d_normed);
    ctx.on.threads.each(made, [&](index i) {
      if (c.from[i] >= 0) std::copy_n(c.d_chosen + i * In, In, c.d_normed + c.from[i] * In);
    });
    ops::fill(ctx.on, rows * In, T(0), c.d_sum);
    first_norm::template backward<T, S>(p.norm1, dp.norm1, {c.sum, rows}, {c.d_normed, rows},
                                        {c.d_sum, rows}, c.norm1, ctx);
    ops::add(ctx.on, rows * In, dx.data(), c.d_sum, dx.data());
    mixer::template backward<T, S>(p.attention, dp.attention, x, {c.d_sum, rows}, dx, c.attention,
                                   ctx);
  }

 private:
  /// Fills in c.from and c.lengths of sequence b.
  template <class T>
  static void choose(index b, index left, cache<T>& c, const context<T>& ctx) {
    const index n = ctx.length_of(b), first = b * ctx.length, stay = kept(n);
    T *const received = c.received + first, *const weights = c.weights + first;
    std::fill_n(received, n, T(0));
    for (index head = 0; head < Heads; ++head)
      for (index i = 0; i < n; ++i) {
        const T* const q = c.attention.q + (first + i) * In + head * h;
        T largest = 0, sum = 0;
        for (index j = 0; j < n; ++j) {
          const T* const k = c.attention.k + (first + j) * In + head * h;
          T score = 0;
          for (index l = 0; l < h; ++l) score += q[l] * k[l];
          weights[j] = score * mixer::projections::template scale<T>;
          largest = j == 0 || weights[j] > largest ? weights[j] : largest;
        }
        for (index j = 0; j < n; ++j) sum += weights[j] = std::exp(weights[j] - largest);
        for (index j = 0; j < n; ++j) received[j] += weights[j] / sum;
      }
    index* const order = c.order + first;
    for (index j = 0; j < n; ++j) {
      order[j] = j;
      if (!is_finite(received[j])) received[j] = T(0);  // what is no number has no order
    }
    std::sort(order, order + n, [&](index i, index j) {
      return received[i] > received[j] || (received[i] == received[j] && i < j);
    });
    std::sort(order, order + stay);
    for (index i = 0; i < left; ++i) c.from[b * left + i] = i < stay ? first + order[i] : -1;
    c.lengths[b] = stay;
  }
};

/// latent[batch, Width] = the mean over the valid tokens of x[batch * length, Width].
template <index Width>
struct mean_pooling {
  /// Computes latent[batch, Width].
  template <class T>
  static void forward(const T* x, T* latent, const context<T>& ctx) {
    ctx.on.threads.each(ctx.batch, [&](index b) {
      const index n = ctx.length_of(b);
      std::fill_n(latent + b * Width, Width, T(0));
      for (index t = 0; t < n; ++t)
        for (index j = 0; j < Width; ++j)
          latent[b * Width + j] += x[(b * ctx.length + t) * Width + j] / static_cast<T>(n);
    });
  }
  /// dx += the gradient.
  template <class T>
  static void backward(const T* d_latent, T* dx, const context<T>& ctx) {
    ctx.on.threads.each(ctx.batch, [&](index b) {
      const index n = ctx.length_of(b);
      for (index t = 0; t < n; ++t)
        for (index j = 0; j < Width; ++j)
          dx[(b * ctx.length + t) * Width + j] += d_latent[b * Width + j] / static_cast<T>(n);
    });
  }
};

LINNET_NAMESPACE_END
