// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Linformer: softmax attention over K mixtures of the keys and values instead of over all of them.

#include <linnet/nn/attention/projections.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Sharing of Linformer's projections: which of them are one matrix.
enum class shared {
  nothing,         ///< E and F for each key head: 2 G K MaxLength parameters
  heads,           ///< one E and one F per layer: 2 K MaxLength
  keys_and_values  ///< one E = F per layer: K MaxLength
};

/// Low-rank attention (Wang et al. 2020): softmax(q (E k)^T / sqrt(h)) (F v), with trained
/// projections E, F [K, MaxLength] along the sequence. Sequences have up to MaxLength tokens, of
/// which the first columns of E and F are used; padding takes no part. For encoders alone: each
/// mixture holds later tokens. A stack's relative bias speaks of pairs of tokens, which there are
/// none of here: it is not applied. E and F start like linear maps from MaxLength values.
template <index K, index MaxLength, shared Shared = shared::heads>
struct linformer : policy {
  static_assert(K > 0 && MaxLength > 0,
                "linnet::attention::linformer<K, MaxLength>: both must be positive");
  static constexpr bool causal = false;
  static constexpr bool supports_cache = false;
  static constexpr bool relative_bias = false;
  static constexpr index longest = MaxLength;
  using kind = linformer;
  static std::string name() {
    return "linformer<" + std::to_string(K) + ", " + std::to_string(MaxLength) +
           (Shared == shared::nothing           ? ", nothing>"
            : Shared == shared::keys_and_values ? ", keys_and_values>"
                                                : ">");
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.causal,
                  "linnet::attention::linformer: its mixtures hold later tokens, so it cannot be "
                  "causal; it fits encoders");
    static_assert(!A.cross,
                  "linnet::attention::linformer: mixes the tokens of one sequence; "
                  "cross-attention is attention::full's");
    using projections = linnet::detail::attention_projections<A>;
    static constexpr index in = projections::in, out = projections::out, n = projections::n,
                           kv = projections::kv, h = A.d_kv;
    /// Matrices E, each for some columns of the keys: all heads, or one.
    static constexpr index parts = Shared == shared::nothing ? A.kv_heads : 1;
    static constexpr index part = kv / parts;
    static constexpr bool one = Shared == shared::keys_and_values;

    template <class Form>
    struct params : projections::template params<Form> {
      typename Form::vector e{};  ///< [parts, K, MaxLength]
      [[no_unique_address]] std::conditional_t<one, std::nullptr_t, typename Form::vector> f{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      projections::visit(f, at, p...);
      constexpr tensor_info info{parts * K, MaxLength, role::position,
                                 1 / linnet::detail::sqrt(MaxLength)};
      f(at / "e" / "weight", info, p.e...);
      if constexpr (!one) f(at / "f" / "weight", info, p.f...);
    }

    template <class T>
    struct cache {
      typename projections::template buffers<T> b{};
      T *k = nullptr, *v = nullptr;    ///< [batch, K, kv] projected
      T *dk = nullptr, *dv = nullptr;  ///< their gradients
      T* columns = nullptr;            ///< [part, 32] per thread
      T* scratch = nullptr;            ///< per thread
      index scratch_size = 0;
      int dropout_id = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index mark = m.scratch.mark(), projected = e.batch * K * kv;
      c.dropout_id = m.dropout_ids++;
      c.b = projections::template plan<T>(m, e);
      c.k = m.saved.take<T>(projected);
      c.v = m.saved.take<T>(projected);
      if (e.training) {
        c.dk = m.scratch.take<T>(projected);
        c.dv = m.scratch.take<T>(projected);
        c.columns = m.scratch.take<T>(e.threads * part * ops::panel_width);
      }
      c.scratch_size = ops::attention_scratch(e.length, K, h, {}, e.training);
      c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      assert(ctx.length <= MaxLength && ctx.past == nullptr &&
             "linnet::attention::linformer: longer than MaxLength, or cached decoding");
      projections::template project<T, S>(p, x, c.b, ctx);
      shorten(p.e, c.b.k, c.k, ctx);
      shorten(second(p), c.b.v, c.v, ctx);
      ops::attention(ctx.on, call(c, ctx));
      projections::template finish<T, S>(p, y, c.b, ctx);
    }
    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      projections::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      ops::fill(ctx.on, ctx.batch * K * kv, T(0), c.dk);
      ops::fill(ctx.on, ctx.batch * K * kv, T(0), c.dv);
      ops::attention_backward(ctx.on, call(c, ctx), {c.b.d_mixed, c.b.dq, c.dk, c.dv, nullptr});
      shorten_backward(p.e, dp.e, c.b.k, c.dk, c.b.dk, c, ctx);
      shorten_backward(second(p), second(dp), c.b.v, c.dv, c.b.dv, c, ctx);
      projections::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// 0: this kind keeps nothing between tokens and needs whole sequences.
    static constexpr index state_values(index) { return 0; }
    static constexpr index flops(const call_shape& e) {
      return projections::flops(e) + 4 * e.rows() * K * kv + 4 * e.rows() * K * n;
    }

   private:
    /// The matrix F, or E where it serves for both.
    template <class P>
    static auto second(const P& p) {
      if constexpr (one)
        return p.e;
      else
        return p.f;
    }
    template <class T>
    static ops::attention_call<T> call(const cache<T>& c, const context<T>& ctx) {
      auto a = projections::call(ctx.batch, ctx.length, c.b.q, K, c.k, c.v, c.b.mixed);
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      a.dropout = ctx.dropout;
      a.dropout_id = c.dropout_id;
      return a;
    }
    /// y[batch, K, kv] = E x over the valid tokens of x[batch, length, kv].
    template <class T>
    static void shorten(const T* e, const T* x, T* y, const context<T>& ctx) {
      ctx.on.threads.each(ctx.batch * parts, [&](index item) {
        const index b = item / parts, g = item % parts;
        ctx.on.with_kernels([&](auto kernels) {
          decltype(kernels)::template multiply<T>(
              K, part, ctx.length_of(b), {e + g * K * MaxLength, MaxLength, 1},
              {x + b * ctx.length * kv + g * part, kv, ops::panel_width}, y + b * K * kv + g * part,
              kv, {});
        });
      });
    }
    /// dx += E^T dy, dE += dy x^T
    template <class T>
    static void shorten_backward(const T* e, T* de, const T* x, const T* dy, T* dx,
                                 const cache<T>& c, const context<T>& ctx) {
      ctx.on.threads.each(ctx.batch * parts, [&](index item) {
        const index b = item / parts, g = item % parts;
        ctx.on.with_kernels([&](auto kernels) {
          decltype(kernels)::template multiply<T>(
              ctx.length_of(b), part, K, {e + g * K * MaxLength, 1, MaxLength},
              {dy + b * K * kv + g * part, kv, ops::panel_width},
              dx + b * ctx.length * kv + g * part, kv, {nullptr, T(1), true});
        });
      });
      // 32 columns of E at a time, the sequences after each other: the same sums on any threads.
      constexpr index wide = ops::panel_width;
      const index blocks = (ctx.length + wide - 1) / wide;
      ctx.on.threads.each(parts * blocks, [&](index item) {
        const index g = item / blocks, t0 = item % blocks * wide;
        T* const columns = c.columns + ctx.on.threads.rank() * part * wide;
        for (index b = 0; b < ctx.batch; ++b) {
          const index count = (std::min)(wide, ctx.length_of(b) - t0);
          if (count <= 0) continue;
          const T* const from = x + (b * ctx.length + t0) * kv + g * part;
          for (index i = 0; i < part; ++i)
            for (index t = 0; t < count; ++t) columns[i * wide + t] = from[t * kv + i];
          ctx.on.with_kernels([&](auto kernels) {
            decltype(kernels)::template multiply<T>(
                K, count, part, {dy + b * K * kv + g * part, kv, 1}, {columns, wide, wide},
                de + g * K * MaxLength + t0, MaxLength, {nullptr, T(1), true}, wide - count);
          });
        }
      });
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
