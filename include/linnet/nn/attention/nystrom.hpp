// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Nystromformer: softmax attention through a few landmarks, with a pseudo-inverse between them.

#include <linnet/nn/attention/projections.hpp>
#include <linnet/ops/pseudoinverse.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Attention by the Nystrom method (Xiong et al. 2021), for encoders alone, as landmarks hold later
/// tokens. Landmarks ~q, ~k are the means of m segments of the sequence. The output is
///   softmax(q ~k^T) Z (softmax(~q k^T) v) (+ conv v),   Z ~ softmax(~q ~k^T)^+.
/// Z is made by six iterations that gradients flow through. `Convolution` is the number of taps per
/// head, 0 for none. The valid tokens of a sequence are cut into segments whose lengths differ by
/// one at most.
/// A sequence of fewer than m tokens has each token as a landmark. Dropout of probabilities does
/// not apply, as in the paper's code. A stack's relative bias speaks of pairs of tokens, which
/// there are none of here: it is not applied.
template <index Landmarks = 64, index Convolution = 33>
struct nystrom : policy {
  static_assert(Landmarks > 0, "linnet::attention::nystrom: there must be a landmark");
  static_assert(Convolution == 0 || (Convolution > 0 && Convolution % 2 == 1),
                "linnet::attention::nystrom: the convolution has an odd number of taps, or 0 for "
                "none");
  static constexpr bool causal = false;
  static constexpr bool supports_cache = false;
  static constexpr bool relative_bias = false;
  using kind = nystrom;
  static std::string name() {
    return "nystrom<" + std::to_string(Landmarks) + ", " + std::to_string(Convolution) + ">";
  }

  template <attention_shape A>
  struct layer {
    static_assert(!A.causal,
                  "linnet::attention::nystrom: its landmarks hold later tokens, so it cannot be "
                  "causal; it fits encoders");
    static_assert(!A.cross,
                  "linnet::attention::nystrom: mixes the tokens of one sequence; cross-attention "
                  "is attention::full's");
    static_assert(A.heads == A.kv_heads,
                  "linnet::attention::nystrom: every head has its own keys; give as many kv_heads "
                  "as heads");
    using projections = linnet::detail::attention_projections<A>;
    static constexpr index in = projections::in, out = projections::out, n = projections::n,
                           h = A.d_kv, m = Landmarks;
    static constexpr bool convolves = Convolution > 0;

    template <class Form>
    struct params : projections::template params<Form> {
      [[no_unique_address]] std::conditional_t<convolves, typename Form::vector, std::nullptr_t>
          taps{};  ///< [heads, Convolution]
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      projections::visit(f, at, p...);
      if constexpr (convolves)
        f(at / "taps" / "weight",
          tensor_info{A.heads, Convolution, role::position, 1 / linnet::detail::sqrt(Convolution)},
          p.taps...);
    }

    template <class T>
    struct cache {
      typename projections::template buffers<T> b{};
      T *q = nullptr, *k = nullptr;           ///< landmarks [batch, m, n]
      T *values = nullptr, *mixed = nullptr;  ///< [batch, m, n]: softmax(~q k^T) v, and Z times it
      T *dq = nullptr, *dk = nullptr, *d_values = nullptr, *d_mixed = nullptr;  ///< gradients
      index* landmarks = nullptr;                                               ///< [batch] in use
      T* scratch = nullptr;                                                     ///< per thread
      index scratch_size = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& p, const call_shape& e) {
      cache<T> c;
      const index mark = p.scratch.mark(), size = e.batch * m * n;
      c.b = projections::template plan<T>(p, e);
      c.q = p.saved.take<T>(size);
      c.k = p.saved.take<T>(size);
      c.values = p.saved.take<T>(size);
      c.mixed = p.saved.take<T>(size);
      c.landmarks = p.saved.take<index>(e.batch);
      if (e.training) {
        c.dq = p.scratch.take<T>(size);
        c.dk = p.scratch.take<T>(size);
        c.d_values = p.scratch.take<T>(size);
        c.d_mixed = p.scratch.take<T>(size);
      }
      c.scratch_size =
          (std::max)(ops::attention_scratch((std::max)(e.length, m), (std::max)(e.length, m), h, {},
                                            e.training),
                     ops::pseudoinverse<T>::size(m, e.training));
      c.scratch = p.scratch.take<T>(c.scratch_size * e.threads);
      p.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      assert(ctx.past == nullptr && "linnet::attention::nystrom: no cached decoding");
      projections::template project<T, S>(p, x, c.b, ctx);
      each_segment(c, ctx, [&](index b, index s, index first, index last) {
        if (s == 0) c.landmarks[b] = in_use(ctx, b);
        mean(c.b.q + b * ctx.length * n, first, last, c.q + (b * m + s) * n);
        mean(c.b.k + b * ctx.length * n, first, last, c.k + (b * m + s) * n);
      });
      ops::attention(ctx.on, to_landmarks(c, ctx));
      ctx.on.threads.each(ctx.batch * A.heads, [&](index item) {
        const index b = item / A.heads, at = b * m * n + item % A.heads * h;
        ctx.on.with_kernels([&](auto kernels) {
          const auto inverse = inverse_of(kernels, c, ctx, b, at);
          decltype(kernels)::template multiply<T>(
              inverse.m, h, inverse.m, {inverse.result(), inverse.wide, 1},
              {c.values + at, n, ops::panel_width}, c.mixed + at, n, {});
        });
      });
      ops::attention(ctx.on, from_landmarks(c, ctx));
      if constexpr (convolves)
        ctx.on.threads.each(ctx.rows(), [&](index row) {
          each_tap(ctx, row, [&](index head, index hook, index other) {
            add_scaled(p.taps[head * Convolution + hook], c.b.v + other * n + head * h,
                       c.b.mixed + row * n + head * h);
          });
        });
      projections::template finish<T, S>(p, y, c.b, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      projections::template finish_backward<T, S>(p, dp, dy, c.b, ctx);
      for (T* const gradient : {c.dq, c.dk, c.d_values, c.d_mixed})
        ops::fill(ctx.on, ctx.batch * m * n, T(0), gradient);
      if constexpr (convolves) convolve_backward(p.taps, dp.taps, c, ctx);
      ops::attention_backward(ctx.on, from_landmarks(c, ctx),
                              {c.b.d_mixed, c.b.dq, c.dk, c.d_mixed, nullptr});
      ctx.on.threads.each(ctx.batch * A.heads, [&](index item) {
        const index b = item / A.heads, at = b * m * n + item % A.heads * h;
        ctx.on.with_kernels([&](auto kernels) { invert_backward(kernels, c, ctx, b, at); });
      });
      ops::attention_backward(ctx.on, to_landmarks(c, ctx),
                              {c.d_values, c.dq, c.b.dk, c.b.dv, nullptr});
      each_segment(c, ctx, [&](index b, index s, index first, index last) {
        mean_backward(c.dq + (b * m + s) * n, first, last, c.b.dq + b * ctx.length * n);
        mean_backward(c.dk + (b * m + s) * n, first, last, c.b.dk + b * ctx.length * n);
      });
      projections::template project_backward<T, S>(p, dp, x, dx, c.b, ctx);
    }

    /// 0: this kind keeps nothing between tokens and needs whole sequences.
    static constexpr index state_values(index) { return 0; }
    static constexpr index flops(const call_shape& e) {
      return projections::flops(e) + 8 * e.rows() * m * n + 2 * Convolution * e.rows() * n +
             e.batch * (4 * m * m * n + 6 * 4 * 2 * m * m * m * A.heads);
    }

   private:
    template <class T>
    static index in_use(const context<T>& ctx, index b) {
      return (std::min)(m, ctx.length_of(b));
    }
    /// Calls f(b, s, first, last) for all segments [first, last); those not in use are empty.
    template <class T, class F>
    static void each_segment(const cache<T>&, const context<T>& ctx, F&& f) {
      ctx.on.threads.each(ctx.batch * m, [&](index item) {
        const index b = item / m, s = item % m, used = in_use(ctx, b), valid = ctx.length_of(b);
        if (s < used)
          f(b, s, s * valid / used, (s + 1) * valid / used);
        else
          f(b, s, index{0}, index{0});
      });
    }
    template <class T>
    static void mean(const T* x, index first, index last, T* y) {
      std::fill_n(y, n, T(0));
      for (index t = first; t < last; ++t) add_scaled<n>(T(1) / T(last - first), x + t * n, y);
    }
    template <class T>
    static void mean_backward(const T* dy, index first, index last, T* dx) {
      for (index t = first; t < last; ++t) add_scaled<n>(T(1) / T(last - first), dy, dx + t * n);
    }
    /// y += a x, of one head unless told otherwise.
    template <index Count = h, class T>
    static void add_scaled(T a, const T* x, T* y) {
      for (index i = 0; i < Count; ++i) y[i] += a * x[i];
    }
    /// Attention with landmarks as queries over all tokens as keys.
    template <class T>
    static ops::attention_call<T> to_landmarks(const cache<T>& c, const context<T>& ctx) {
      auto a = projections::call(ctx.batch, m, c.q, ctx.length, c.b.k, c.b.v, c.values);
      a.key_lengths = ctx.lengths;
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      return a;
    }
    /// Attention with all tokens as queries over landmarks as keys.
    template <class T>
    static ops::attention_call<T> from_landmarks(const cache<T>& c, const context<T>& ctx) {
      auto a = projections::call(ctx.batch, ctx.length, c.b.q, m, c.k, c.mixed, c.b.mixed);
      a.key_lengths = c.landmarks;
      a.scratch = c.scratch;
      a.scratch_size = c.scratch_size;
      return a;
    }
    /// softmax(~q ~k^T) of one sequence and head, and its inverse; `at` is the index of its first
    /// value.
    template <class Kernels, class T>
    static ops::pseudoinverse<T> inverse_of(Kernels kernels, const cache<T>& c,
                                            const context<T>& ctx, index b, index at) {
      const index used = in_use(ctx, b);
      const ops::pseudoinverse<T> inverse{used, round_up(used, ops::panel_width),
                                          c.scratch + ctx.on.threads.rank() * c.scratch_size};
      for (index i = 0; i < used; ++i) {
        T* const row = inverse.a() + i * inverse.wide;
        Kernels::template dots<T>(used, h, projections::template scale<T>, c.q + at + i * n,
                                  c.k + at, n, row);
        Kernels::template softmax<T>(used, row);
      }
      inverse.run(kernels);
      return inverse;
    }
    /// d_mixed -> d_values and, through the inverse and the softmax, dq and dk of landmarks.
    template <class Kernels, class T>
    static void invert_backward(Kernels kernels, const cache<T>& c, const context<T>& ctx, index b,
                                index at) {
      const auto z = inverse_of(kernels, c, ctx, b, at);
      constexpr T scale = projections::template scale<T>;
      constexpr index panel = ops::panel_width;
      for (index i = 0; i < z.m; ++i)
        Kernels::template dots<T>(z.m, h, T(1), c.d_mixed + at + i * n, c.values + at, n,
                                  z.d_result() + i * z.wide);
      Kernels::template multiply<T>(z.m, h, z.m, {z.result(), 1, z.wide},
                                    {c.d_mixed + at, n, panel}, c.d_values + at, n,
                                    {nullptr, T(1), true});
      z.backward(kernels);
      for (index i = 0; i < z.m; ++i) {
        T* const row = z.da() + i * z.wide;
        Kernels::template softmax_backward<T>(z.m, z.a() + i * z.wide, row, row);
      }
      Kernels::template multiply<T>(z.m, h, z.m, {z.da(), z.wide, 1}, {c.k + at, n, panel},
                                    c.dq + at, n, {nullptr, scale, true});
      Kernels::template multiply<T>(z.m, h, z.m, {z.da(), 1, z.wide}, {c.q + at, n, panel},
                                    c.dk + at, n, {nullptr, scale, true});
    }
    /// Calls f(head, tap, other) for the rows that the convolution at `row` reads, itself and its
    /// valid neighbours; nothing for padding.
    template <class T, class F>
    static void each_tap(const context<T>& ctx, index row, F&& f) {
      const index b = row / ctx.length, t = row % ctx.length, valid = ctx.length_of(b);
      if (t >= valid) return;
      for (index hook = 0; hook < Convolution; ++hook) {
        const index other = t + hook - Convolution / 2;
        if (other < 0 || other >= valid) continue;
        for (index head = 0; head < A.heads; ++head) f(head, hook, b * ctx.length + other);
      }
    }
    template <class T>
    static void convolve_backward(const T* taps, T* d_taps, const cache<T>& c,
                                  const context<T>& ctx) {
      ctx.on.threads.each(ctx.rows(), [&](index row) {
        // Row `other` was read by `row` through one tap, so `row` is read by it through the mirror.
        each_tap(ctx, row, [&](index head, index hook, index other) {
          add_scaled(taps[head * Convolution + Convolution - 1 - hook],
                     c.b.d_mixed + other * n + head * h, c.b.dv + row * n + head * h);
        });
      });
      ctx.on.threads.each(A.heads * Convolution, [&](index item) {
        const index head = item / Convolution, shift = item % Convolution - Convolution / 2;
        T sum = T(0);
        for (index b = 0; b < ctx.batch; ++b) {
          const index valid = ctx.length_of(b);
          for (index t = (std::max)(index{0}, -shift); t < (std::min)(valid, valid - shift); ++t) {
            const T* const dy = c.b.d_mixed + (b * ctx.length + t) * n + head * h;
            const T* const v = c.b.v + (b * ctx.length + t + shift) * n + head * h;
            for (index i = 0; i < h; ++i) sum += dy[i] * v[i];
          }
        }
        d_taps[item] += sum;
      });
    }
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
