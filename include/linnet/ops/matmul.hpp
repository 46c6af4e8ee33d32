// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The one boundary between layers and matrix kernels. Shapes stop here: M, N and K are run-time
/// numbers, only the scalar and the storage type are part of the code.

#include <cassert>
#include <cstddef>
#include <span>

#include <linnet/ops/adapter.hpp>
#include <linnet/ops/blocks.hpp>
#include <linnet/ops/converted.hpp>
#include <linnet/ops/stored_dx.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Whether gradients flow through products of storage `S`: whole numbers, bf16 throughout, or
/// frozen ones of any kind.
template <class S>
inline constexpr bool trainable =
    S::per_word == 1 || std::is_same_v<typename S::compute, compute::bf16> ||
    linnet::detail::is_frozen<S>;

/// Activation of `n` finished values of a product, in place; `gate` are values of another product.
/// See activates() and gates().
template <class T>
using epilogue = void (*)(simd::level level, index n, const T* gate, T* y);

/// y = f(y)
template <activation_kind A, class T>
void activates(simd::level level, index n, const T*, T* y) {
  simd::dispatch(level, [&](auto k) { decltype(k)::template activation<A, T>(n, y, y); });
}
/// y = f(gate) y (Shazeer 2020)
template <activation_kind A, class T>
void gates(simd::level level, index n, const T* gate, T* y) {
  simd::dispatch(level, [&](auto k) { decltype(k)::template gated<A, T>(n, gate, y, y); });
}

/// One product of a batch of products that read one input x[M, K]: y[M, N] = alpha x W^T (+ bias),
/// or y += .... Then y = finish(y), then y = residual + y. A thread does these two on a block that
/// it has just computed and has in its cache. They need no pass over memory and no barrier. They
/// are the row kernels of the separate operations and give the same bits. In the register tiles
/// they would multiply the code and compile time of every tile by the kinds of activations.
template <class T, class S>
struct product {
  const packed_matrix<T, S>& w;
  index n;
  T* y;
  const T* bias = nullptr;
  bool accumulate = false;
  T alpha = T(1);
  epilogue<T> finish = nullptr;
  /// [M, N], or null. It is finished before this call, or by a product of this width earlier in the
  /// batch, whose blocks fall to the same threads.
  const T* gate = nullptr;
  const T* residual = nullptr;  ///< [M, N] finished before this call, or null; not y

  /// How a product is written, before `finish`.
  constexpr simd::epilogue<T> write() const { return {bias, alpha, accumulate}; }
  /// Work that remains for rows [i0, i1) of columns [j0, j1).
  void complete(simd::level level, index i0, index i1, index j0, index j1) const {
    if (finish == nullptr && residual == nullptr) return;
    assert(residual != y && "linnet::ops: a residual is not where its sum goes");
    for (index i = i0; i < i1; ++i) {
      const index first = i * n + j0, count = j1 - j0;
      if (finish) finish(level, count, gate ? gate + first : nullptr, y + first);
      if (residual)
        simd::dispatch(level, [&](auto k) {
          decltype(k)::template add<T>(count, residual + first, y + first, y + first);
        });
    }
  }
};

namespace detail {

/// Shows the tap what a batch of products reads.
template <class S>
void show_inputs(const execution& on, index m, index k, const float* x,
                 const product<float, S>* all, std::size_t count) {
  const auto panels = [](const void* products, index i) -> const void* {
    return static_cast<const product<float, S>*>(products)[i].w.panels;
  };
  on.tap->call(on.tap->object, on, {m, k, x, static_cast<index>(count), all, panels});
}

LINNET_UNFUSED_BEGIN
/// Writes sums[n] of a product to y[n].
LINNET_UNFUSED inline void write_sums(index n, const float* sums, const simd::epilogue<float>& part,
                                      float* y) {
  const float alpha = part.alpha;
  const float* const bias = part.bias;
  for (index j = 0; j < n; ++j)
    y[j] = (part.accumulate ? y[j] : 0.0f) + alpha * sums[j] + (bias ? bias[j] : 0.0f);
}
LINNET_UNFUSED_END

/// Computes rows [i0, i1) of panel `p` of y = x W^T. One row is computed from the codes, and of
/// some storages several; else more rows decode the weights to f32, some inputs at a time.
template <class S, class Kernels>
void decoded_product(Kernels kernels, index i0, index i1, index p, index k, const float* x,
                     const product<float, S>& one) {
  const index n = one.n, j0 = p * panel_width, columns = (std::min)(panel_width, n - j0);
  float* const y = one.y;
  simd::epilogue<float> part = one.write().from(i0, j0);
  constexpr summed_rows codes = rows_summed<Kernels, S>;
  if (codes.most == 0 || i1 - i0 <= codes.most) {
    for (index i = i0; i < i1;) {
      alignas(64) float sums[static_cast<std::size_t>(codes.together * panel_width)] = {};
      const index rows = add_rows(kernels, i1 - i, p, k, x + i * k, one.w, sums);
      for (index r = 0; r < rows; ++r, ++i) {
        float* const out = y + i * n + j0;
        write_sums(columns, sums + r * panel_width, part, out);
      }
    }
    return;
  }
  if constexpr (codes.most > 0) {
    constexpr index step = decoded_step<S>();
    alignas(64) float numbers[static_cast<std::size_t>(step * panel_width)];
    panel_decoder<S> panel(p, k, one.w);
    for (index k0 = 0; k0 < k; k0 += step) {
      const index k1 = (std::min)(k, k0 + step);
      panel.decode(kernels, k0, k1, numbers);
      Kernels::template multiply<float>(i1 - i0, columns, k1 - k0, {x + i0 * k + k0, k, 1},
                                        {numbers, panel_width, 0}, y + i0 * n + j0, n, part,
                                        panel_width - columns);
      part.bias = nullptr;
      part.accumulate = true;
    }
  }
}

/// Computes rows [i0, i1) of panel `p` of y = x W^T from int8 inputs and codes with scales of
/// groups.
template <class S, class Kernels>
void grouped_product(Kernels, index i0, index i1, index p, index k, const converted_rows& x,
                     const product<float, S>& one) {
  using matrix = packed_matrix<float, S>;
  const packed_matrix<float, S>& w = one.w;
  const index n = one.n, j0 = p * panel_width, depth = matrix::depth(k);
  const index groups = row_scales<S>(k), scale = p * groups * panel_width;
  const simd::grouped_rows rows{x.codes.data + i0 * x.codes.row, x.codes.row,
                                x.scales + i0 * groups,
                                reinterpret_cast<const simd::word*>(x.sums + i0 * groups), groups};
  const simd::grouped_panel<typename matrix::scale> panel{
      w.panels + j0 * depth, depth, S::group ? S::group / S::per_word : depth, w.scales + scale,
      S::centred ? w.zeros + scale : nullptr};
  Kernels::template multiply_groups<S::code, offset_of<S>>(i1 - i0, (std::min)(panel_width, n - j0),
                                                           rows, panel, one.y + i0 * n + j0, n,
                                                           one.write().from(i0, j0));
}

/// Adds x W^T of the outliers of rows [i0, i1) to panel `p` of y. An output's sum is the same in
/// any block.
template <class S, class Kernels>
void add_outliers(Kernels, index i0, index i1, index p, index k, const converted_rows& x,
                  const product<float, S>& one) {
  using scale = typename packed_matrix<float, S>::scale;
  const index n = one.n, j0 = p * panel_width, columns = (std::min)(panel_width, n - j0);
  for (index i = i0; i < i1; ++i) {
    const float* const row = x.outliers + i * k;
    const std::int32_t* const blocks = x.blocks + i * (outlier_words<S>(k) - k);
    const std::int32_t count = *blocks;
    if (count == 0) continue;
    alignas(64) float sums[panel_width] = {};
    for (std::int32_t b = 1, next = 1; b <= count; b = next) {
      while (++next <= count && blocks[next] == blocks[next - 1] + 1) {
      }
      const index from = blocks[b] * S::block, to = (blocks[next - 1] + 1) * S::block;
      each_group(p, k, from, (std::min)(k, to), one.w,
                 [&](index first, index last, const simd::word* words, const scale* scales,
                     const scale* zeros) {
                   Kernels::template row_by_panel<S::code, has_minima<S>, scale>(
                       last - first, row + first, words, scales, zeros,
                       static_cast<float>(S::origin), sums);
                 });
    }
    float* const y = one.y + i * n + j0;
    for (index j = 0; j < columns; ++j) y[j] += one.alpha * sums[j];
  }
}

/// The first product of a correction of low rank, x[m, k] right^T, in scratch memory; null for
/// others.
template <class T, class S>
const T* reduce(const execution& on, index m, index k, const T* x, const product<T, S>& one) {
  if constexpr (reduced_inputs<S>(1) == 0) {
    return nullptr;
  } else {
    assert(on.converted && "linnet::ops: this storage type needs execution::converted");
    const index width = reduced_inputs<S>(k);
    const index before = rounded_bytes<S>(m, k, one.n, on.threads.size(), false);
    auto* const z =
        reinterpret_cast<T*>(static_cast<std::byte*>(on.converted) + round_up(before, alignment));
    on.threads.wait();  // until no thread reads what an earlier product put there
    each_block(on, m, width, [&](index i0, index i1, index p0, index p1) {
      simd::dispatch(on.level, [&](auto kernels) {
        for (index p = p0; p < p1; ++p)
          one.w.correction.reduce(kernels, corrected_block<T>{x, k, z, width, T(1), i0, i1, p});
      });
    });
    on.threads.wait();
    return z;
  }
}

}  // namespace detail

/// All products of x[M, K], which is converted once.
template <class T, class S>
void gemm_batch(const execution& on, index m, index k, const T* x,
                std::span<const product<T, S>> all) {
  using matrix = packed_matrix<T, S>;
  if constexpr (std::is_same_v<T, float>)
    if (on.tap) detail::show_inputs(on, m, k, x, std::data(all), std::size(all));
  detail::converted_rows inputs;
  const T* seen = x;
  if constexpr (linnet::detail::is_mixed_precision<S>) {
    // Each matrix notes the inputs, so that all have the scales with which backward rounds them.
    for (const product<T, S>& one : all)
      if (on.converted)
        seen =
            detail::round_operand<false>(on, {m, k, x}, one.w, static_cast<float*>(on.converted));
  } else if constexpr (fakes_inputs<S>)
    seen = detail::fake_inputs<S>(on, m, k, x);
  else if constexpr (converts<S>)
    inputs = detail::convert<S>(on, m, k, x);
  for (product<T, S> one : all) {
    const auto& w = one.w;
    if (on.adapter)
      one.accumulate = detail::adapt_outputs<T>(on, {w.panels, m, one.n, k, x, one.y, one.alpha},
                                                one.accumulate);
    const index n = one.n, depth = matrix::depth(k), padding = round_up(n, panel_width) - n;
    const simd::columns_operand<typename S::word> panels{w.panels, panel_width,
                                                         panel_width * depth};
    [[maybe_unused]] const T* const reduced = detail::reduce(on, m, k, x, one);
    const auto finish = [&](index i0, index i1, index j0, index j1) {
      if constexpr (keeps_outliers<S>())
        simd::dispatch(on.level, [&](auto kernels) {
          for (index p = j0 / panel_width; p * panel_width < j1; ++p)
            detail::add_outliers(kernels, i0, i1, p, k, inputs, one);
        });
      if constexpr (is_corrected<S>)
        simd::dispatch(on.level, [&](auto kernels) {
          for (index p = j0 / panel_width; p * panel_width < j1; ++p)
            w.correction.add(
                kernels, detail::corrected_block<T>{x, k, one.y, n, one.alpha, i0, i1, p}, reduced);
        });
      one.complete(on.level, i0, i1, j0, j1);
    };
    if constexpr (S::per_word == 1) {
      detail::block_product<T, T, simd::epilogue<T>>{m,     n, k,           {seen, k, 1}, panels,
                                                     one.y, n, one.write(), padding}
          .split(on, finish);
    } else if constexpr (multiplies_numbers<S> || in_int8_groups<S>) {
      detail::each_block(on, m, n, [&](index i0, index i1, index p0, index p1) {
        const auto by = [&](auto kernels) {
          for (index p = p0; p < p1; ++p) {
            if constexpr (multiplies_numbers<S>)
              detail::decoded_product(kernels, i0, i1, p, k, seen, one);
            else
              detail::grouped_product(kernels, i0, i1, p, k, inputs, one);
            finish(i0, i1, p * panel_width, (std::min)(n, (p + 1) * panel_width));
          }
        };
        if constexpr (multiplies_numbers<S>)
          simd::dispatch(on.level, by);
        else
          simd::dispatch_dot(on.level, by);
      });
    } else if constexpr (std::is_same_v<typename S::compute, compute::bf16>) {
      detail::block_product<simd::word, T, simd::epilogue<T>>{
          m, n, depth, inputs.codes, panels, one.y, n, one.write(), padding}
          .split(on, finish);
    } else {
      const simd::integer_epilogue scaled{
          one.bias,      one.alpha,  one.accumulate, w.scales, S::centred ? w.zeros : nullptr,
          inputs.scales, inputs.sums};
      detail::block_product<simd::word, T, simd::integer_epilogue>{
          m, n, depth, inputs.codes, panels, one.y, n, scaled, padding}
          .split(on, finish);
    }
  }
  on.threads.wait();
}

/// @copydoc gemm_batch()
template <class T, class S, std::size_t Count>
void gemm_batch(const execution& on, index m, index k, const T* x,
                const product<T, S> (&all)[Count]) {
  gemm_batch(on, m, k, x, std::span<const product<T, S>>(all));
}

/// Products of x[M, K], one after the other; as one batch where all matrices are stored alike.
template <class T, class First, class... Rest>
void gemm_each(const execution& on, index m, index k, const T* x, const First& first,
               const Rest&... rest) {
  if constexpr ((std::is_same_v<First, Rest> && ...)) {
    gemm_batch(on, m, k, x, {first, rest...});
  } else {
    gemm_batch(on, m, k, x, {first});
    gemm_each(on, m, k, x, rest...);
  }
}

/// y[M, N] = alpha x[M, K] W^T (+ bias), or y += ..., as `e` says: {bias, alpha, accumulate}.
template <class T, class S>
void matmul(const execution& on, index m, index n, index k, const T* x,
            const packed_matrix<T, S>& w, T* y, const simd::epilogue<T>& e = {}) {
  gemm_batch<T, S, 1>(on, m, k, x, {{w, n, y, e.bias, e.accumulate, e.alpha}});
}

/// y[M, K] = x[M, N] W[N, K]: a product with W instead of its transpose, of any storage. For small
/// matrices: it reads the panels value by value and keeps nothing in registers. Split over K.
template <class T, class S>
void matmul_transposed(const execution& on, index m, index n, index k, const T* x,
                       const packed_matrix<T, S>& w, T* y) {
  on.threads.each(k, [&](index j) {
    for (index i = 0; i < m; ++i) y[i * k + j] = T(0);
    for (index first = 0; first < n; first += panel_width) {
      const index count = (std::min)(panel_width, n - first);
      T decoded[panel_width];
      const T* column = decoded;  // W(first ..., j)
      if constexpr (S::per_word == 1)
        column = w.panels + first * k + j * panel_width;
      else
        for (index r = 0; r < count; ++r) decoded[r] = w.at(first + r, j, k);
      simd::dispatch(on.level, [&](auto kernels) {
        for (index i = 0; i < m; ++i)
          y[i * k + j] += decltype(kernels)::template dot<T>(count, x + i * n + first, column);
      });
    }
  });
}

/// dx[M, K] += alpha dy[M, N] W: the derivative of matmul() by its input. Reads `w.rows`, W itself,
/// or the panels of a frozen W.
template <class T, class S>
void matmul_dx(const execution& on, index m, index n, index k, const T* dy,
               const packed_matrix<T, S>& w, T* dx, T alpha = T(1)) {
  if constexpr (linnet::detail::is_frozen<S>) {
    detail::stored_dx(on, {m, n, k}, dy, w, dx, alpha);
  } else {
    static_assert(
        S::per_word == 1,
        "linnet: gradients flow through f32 or f64 weights; train first, quantize afterwards");
    detail::split_sum<T>(on, m, k, n, {dy, n, 1}, w.rows, dx, alpha);
  }
  on.threads.wait();
}

/// dw[N, K] += alpha dy[M, N]^T x[M, K]: the derivative of matmul() by its weights. Nothing without
/// dw, which is that of frozen weights.
template <class T>
void matmul_dw(const execution& on, index m, index n, index k, const T* dy, const T* x, T* dw,
               T alpha = T(1)) {
  if (dw == nullptr) return;
  detail::split_sum<T>(on, n, k, m, {dy, 1, n}, x, dw, alpha);
  on.threads.wait();
}

/// Where the derivatives of matmul() are added.
template <class T>
struct matmul_gradient {
  T* dw;           ///< [N, K]
  T* dx;           ///< [M, K]
  T alpha = T(1);  ///< of the product
};

/// Both derivatives of matmul() at once; see matmul_dx() and matmul_dw(). In bf16, dy and x are
/// rounded once for both, and sums stay in f32; `w.rows` holds pairs of rows of W. Gradients pass
/// straight through what fake quantization rounds, weights and inputs (Bengio et al. 2013). Frozen
/// weights have no derivative, but those of an adapter have: deltas, and matrices with dw.
template <class T, class S>
void matmul_backward(const execution& on, index m, index n, index k, const T* dy, const T* x,
                     const packed_matrix<T, S>& w, const matmul_gradient<T>& to) {
  const auto [dw, dx, alpha] = to;
  if constexpr (linnet::detail::is_frozen<S>) {
    if (on.adapter) detail::adapt_backward<T>(on, {w.panels, m, n, k, x, nullptr, alpha}, dy, dx);
    matmul_dw(on, m, n, k, dy, x, dw, alpha);
    matmul_dx(on, m, n, k, dy, w, dx, alpha);
  } else if constexpr (S::per_word == 1) {
    if constexpr (linnet::detail::is_mixed_precision<S>) {
      auto* const inputs = static_cast<float*>(on.converted);
      x = detail::round_operand<false>(on, {m, k, x}, w, inputs);
      dy = detail::round_operand<true>(on, {m, n, dy}, w, inputs + m * k);
    }
    if constexpr (fakes_inputs<S> && !linnet::detail::is_mixed_precision<S>)
      matmul_dw(on, m, n, k, dy, detail::fake_inputs<S>(on, m, k, x), dw, alpha);
    else
      matmul_dw(on, m, n, k, dy, x, dw, alpha);
    matmul_dx(on, m, n, k, dy, w, dx, alpha);
  } else {
    static_assert(trainable<S>,
                  "linnet: gradients flow through f32, f64 or bf16 with "
                  "compute::bf16; train first, quantize afterwards");
    const index pairs = (m + 1) / 2, depth = (n + 1) / 2;
    auto* const x_pairs = static_cast<simd::word*>(on.converted);  // [pairs, k]
    auto* const dy_pairs = x_pairs + pairs * k;                    // [pairs, n]
    auto* const dy_rows = dy_pairs + pairs * n;                    // [m, depth]
    on.threads.each(pairs, [&](index i) {
      simd::dispatch(on.level, [&](auto kernels) {
        using K = decltype(kernels);
        const bool both = 2 * i + 1 < m;
        const auto* const one = dy + 2 * i * n;
        K::template to_bf16_pairs<T>(k, x + 2 * i * k, both ? x + (2 * i + 1) * k : nullptr,
                                     x_pairs + i * k);
        K::template to_bf16_pairs<T>(n, one, both ? one + n : nullptr, dy_pairs + i * n);
        for (index r = 2 * i; r <= 2 * i + both; ++r)
          K::template to_16_bits<T>(n, dy + r * n,
                                    reinterpret_cast<simd::bf16_code*>(dy_rows + r * depth));
      });
    });
    detail::split_sum<simd::word>(on, n, k, pairs, {dy_pairs, 1, n}, x_pairs, dw, alpha);
    detail::split_sum<simd::word>(on, m, k, depth, {dy_rows, depth, 1}, w.rows, dx, alpha);
    on.threads.wait();
  }
}

/// db[N] += column sums of dy[M, N], each sum in ascending row order.
template <class T>
void bias_gradient(const execution& on, index m, index n, const T* dy, T* db) {
  const auto [first, last] = on.threads.range(n);
  for (index i = 0; i < m; ++i)
    for (index j = first; j < last; ++j) db[j] += dy[i * n + j];
  on.threads.wait();
}

}  // namespace ops

LINNET_NAMESPACE_END
