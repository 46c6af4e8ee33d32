// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Fourier mixing as a layer: tokens are mixed by a transform without parameters.

#include <bit>

#include <linnet/nn/attention/policy.hpp>
#include <linnet/nn/layer.hpp>
#include <linnet/ops/fourier.hpp>

LINNET_NAMESPACE_BEGIN

/// Mixers: policies that mix the tokens of a sequence by other means than attention. They take the
/// place of an attention:: policy.
namespace mixer {

/// FNet (Lee-Thorp et al. 2021): y = Re(F_T x F_d), discrete Fourier transforms over the
/// tokens and over the columns, not normalised. No parameters; bidirectional, so for encoders. Each
/// sequence is transformed at its own length, so padding changes nothing, and every length works in
/// O(T log T). The map is symmetric: its derivative is the same map.
struct fnet : attention::policy {
  static constexpr bool causal = false, supports_cache = false, rotary = false,
                        relative_bias = false;
  using kind = fnet;
  static std::string name() { return "fnet"; }

  template <attention_shape A>
  struct layer : without_parameters {
    static_assert(!A.causal,
                  "linnet::mixer::fnet: a Fourier transform sees later tokens; it fits encoders");
    static_assert(!A.cross, "linnet::mixer::fnet: mixes one sequence; it has no cross-attention");
    static constexpr index in = A.d_model, out = A.d_model;
    /// Number of columns of the spectrum of real rows that are not conjugates of other columns.
    static constexpr index half = in / 2 + 1;
    /// Transforms computed side by side: a cache line of values.
    template <class T>
    static constexpr index width = 64 / static_cast<index>(sizeof(T));

    template <class T>
    struct cache {
      /// Spectra of the rows, [batch, (half + width - 1) / width, length, width]: blocks of columns
      /// that the second transform reads in one piece. Zeros fill the last block.
      T *real = nullptr, *imaginary = nullptr;
      T* tables = nullptr;                   ///< one per sequence, then the rows' own
      ops::fourier_table<T>* all = nullptr;  ///< [batch + 1] what is in them
      T* scratch = nullptr;                  ///< per thread
      index table_size = 0, scratch_size = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index longest = (std::max)(e.length, in), mark = m.scratch.mark();
      c.real = m.scratch.take<T>(e.rows() * round_up(half, width<T>));
      c.imaginary = m.scratch.take<T>(e.rows() * round_up(half, width<T>));
      c.table_size = ops::fourier_table_values(e.length);
      c.tables = m.scratch.take<T>(e.batch * c.table_size + ops::fourier_table_values(in));
      c.all = m.scratch.take<ops::fourier_table<T>>(e.batch + 1);
      c.scratch_size = ops::fourier_buffers<T>::values(longest, width<T>);
      c.scratch = m.scratch.take<T>(e.threads * c.scratch_size);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>&, view<const T, in> x, view<T, in> y,
                        cache<T>& c, context<T>& ctx) {
      transform<false>(x, y, c, ctx);
    }
    template <class T, class S>
    static void backward(const params<form::packed<T, S>>&, params<form::gradient<T>>&,
                         view<const T, in>, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                         context<T>& ctx) {
      transform<true>(dy, dx, c, ctx);
    }

    /// 0: FNet does not decode.
    static constexpr index state_values(index) { return 0; }

    /// Floating-point operations: 5 n log2 n for a complex transform, halved for real rows and for
    /// conjugate columns; logarithms rounded up.
    static constexpr index flops(const call_shape& e) {
      const auto log2 = [](index n) {
        return static_cast<index>(std::bit_width(static_cast<std::size_t>(n - 1)));
      };
      return 5 * e.rows() * in * (log2(in) + log2(e.length)) / 2;
    }

   private:
    /// y = Re(F_T x F_d), or y += ...; zero at padding.
    template <bool Accumulate, class T>
    static void transform(view<const T, in> x, view<T, in> y, cache<T>& c, context<T>& ctx) {
      constexpr index w = width<T>, column_units = (half + w - 1) / w;
      T* const own = c.scratch + ctx.on.threads.rank() * c.scratch_size;
      ctx.on.threads.each(ctx.batch + 1, [&](index b) {
        const index n = b < ctx.batch ? ctx.length_of(b) : in;
        c.all[b] = ops::make_fourier_table(n, c.tables + b * c.table_size,
                                           {own, ops::fourier_points(n), 1});
      });
      // Two real rows make one complex one: the sums and differences with its mirror are theirs.
      const index row_units = (ctx.length + 2 * w - 1) / (2 * w);
      ctx.on.threads.each(ctx.batch * row_units, [&](index unit) {
        const index b = unit / row_units, first = unit % row_units * 2 * w;
        const index count = (std::min)(2 * w, ctx.length_of(b) - first);
        if (count <= 0) return;
        const index at = b * ctx.length + first;
        ops::fourier_buffers<T> z(own, ops::fourier_points(in), w);
        for (index i = 0; i < w; ++i)
          for (index j = 0; j < in; ++j) {
            z.real[j * w + i] = i < count ? x(at + i, j) : T(0);
            z.imaginary[j * w + i] = i + w < count ? x(at + i + w, j) : T(0);
          }
        ops::fourier(c.all[ctx.batch], w, z);
        for (index j = 0; j < column_units * w; ++j) {
          const index to = ((b * column_units + j / w) * ctx.length + first) * w + j % w;
          const index k = j * w, mirror = (in - j) % in * w;
          for (index i = 0; i < count; ++i) {
            const index one = k + i % w, two = mirror + i % w;
            const bool sums = i < w, real = j < half;
            c.real[to + i * w] = !real  ? T(0)
                                 : sums ? T(0.5) * (z.real[one] + z.real[two])
                                        : T(0.5) * (z.imaginary[one] + z.imaginary[two]);
            c.imaginary[to + i * w] = !real  ? T(0)
                                      : sums ? T(0.5) * (z.imaginary[one] - z.imaginary[two])
                                             : T(0.5) * (z.real[two] - z.real[one]);
          }
        }
      });
      // Column in - j is the conjugate of column j, with the tokens mirrored.
      ctx.on.threads.each(ctx.batch * column_units, [&](index unit) {
        const index b = unit / column_units, first = unit % column_units * w;
        const index count = (std::min)(w, half - first), length = ctx.length_of(b);
        const index at = b * ctx.length;
        const auto put = [](T& to, T value) { to = Accumulate ? to + value : value; };
        ops::fourier_buffers<T> z(own, ops::fourier_points(length), w);
        std::copy_n(c.real + unit * ctx.length * w, length * w, z.real);
        std::copy_n(c.imaginary + unit * ctx.length * w, length * w, z.imaginary);
        ops::fourier(c.all[b], w, z);
        for (index i = 0; i < ctx.length; ++i)
          for (index j = first; j < first + count; ++j) {
            const index mirror = in - j, row = at + (i > 0 && i < length ? length - i : i);
            const T value = i < length ? z.real[i * w + j - first] : T(0);
            put(y(at + i, j), value);
            if (mirror >= half && mirror < in) put(y(row, mirror), value);
          }
      });
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END
