#pragma once
/// @file
/// The one boundary between layers and matrix kernels. Shapes stop here: M, N and K are run-time
/// numbers, only the scalar and the storage type are part of the code.

#include <algorithm>

#include <linnet/core/parallel.hpp>
#include <linnet/simd/kernels.hpp>
#include <linnet/storage/types.hpp>

LINNET_NAMESPACE_BEGIN

/// Operations on plain arrays, value and derivative side by side. Called by every thread of a team
/// with the same arguments; each computes its share of the outputs and all meet at the end.
namespace ops {

using simd::panel_width;

/// Where an operation runs: the team of threads and the instruction-set level.
struct machine {
  team threads{};
  simd::level level = simd::level::portable;
};

/// A weight matrix W[N, K] in the form that products read. Panels of 32 output features, K rows
/// each; the last panel is padded with zeros. The layout is the same at every instruction-set
/// level and can be inverted exactly.
template <class T, class S>
struct packed_matrix {
  using value = typename S::value;
  const value* panels = nullptr;
  const float* scales = nullptr;  ///< one per output feature when the storage is scaled
  const value* rows = nullptr;    ///< W itself, row-major; only while training

  /// Codes that the panels of an [n, k] matrix occupy.
  static constexpr index size(index n, index k) { return round_up(n, panel_width) * k; }
  /// W(n, j).
  T at(index n, index j, index k) const {
    const auto x = static_cast<T>(
        S::decode(panels[(n / panel_width * k + j) * panel_width + n % panel_width]));
    if constexpr (S::scaled) return x * static_cast<T>(scales[n]);
    return x;
  }
};

/// Fills panels [N/32][K][32] from W[n, k]; `share` of the team.
template <class Value>
void pack(const machine& on, index n, index k, const Value* rows, Value* panels) {
  on.threads.each(round_up(n, panel_width) / panel_width, [&](index panel) {
    const index count = (std::min)(panel_width, n - panel * panel_width);
    Value* const out = panels + panel * panel_width * k;
    for (index j = 0; j < k; ++j)
      for (index i = 0; i < panel_width; ++i)
        out[j * panel_width + i] = i < count ? rows[(panel * panel_width + i) * k + j] : Value{};
  });
}

namespace detail {

/// Splits the outputs of an [M, N] product over the team in tiles of whole panels and row blocks.
template <class T, class Value>
void split_product(const machine& on, index m, index n, index k, const simd::rows_operand<T>& a,
                   const simd::columns_operand<Value>& b, T* c, index ldc,
                   const simd::epilogue<T>& e, index slack) {
  const index panels = round_up(n, panel_width) / panel_width;
  // Rows are split only where there are too few panels to share out; blocks stay multiples of the
  // register tile, so no output changes its arithmetic.
  const index row_block = m <= 96 ? m : 96;
  const index row_blocks = (m + row_block - 1) / row_block;
  const auto [first, last] = on.threads.share(panels * row_blocks);
  for (index unit = first; unit < last;) {
    // Neighbouring panels of one row block run together.
    const index block = unit / panels, p0 = unit % panels;
    const index p1 = (std::min)(panels, p0 + (last - unit));
    const index i0 = block * row_block, i1 = (std::min)(m, i0 + row_block);
    const index j0 = p0 * panel_width, j1 = (std::min)(n, p1 * panel_width);
    simd::epilogue<T> part = e;
    if (part.bias) part.bias += j0;
    if (part.scale) part.scale += j0;
    simd::dispatch(on.level, [&](auto kernels) {
      decltype(kernels)::template multiply<T, Value>(
          i1 - i0, j1 - j0, k, {a.data + i0 * a.row, a.row, a.column},
          {b.data + p0 * b.panel, b.ld, b.panel}, c + i0 * ldc + j0, ldc, part, slack + n - j1);
    });
    unit += p1 - p0;
  }
  on.threads.wait();
}

}  // namespace detail

/// y[M, N] = x[M, K] W^T (+ bias), or y += ... when `accumulate`.
template <class T, class S>
void matmul(const machine& on, index m, index n, index k, const T* x, const packed_matrix<T, S>& w,
            T* y, const T* bias = nullptr, bool accumulate = false, T alpha = T(1)) {
  simd::epilogue<T> e{bias, S::scaled ? w.scales : nullptr, alpha, accumulate};
  detail::split_product<T>(
      on, m, n, k, {x, k, 1},
      simd::columns_operand<typename S::value>{w.panels, panel_width, panel_width * k}, y, n, e,
      round_up(n, panel_width) - n);
}

/// dx[M, K] += alpha dy[M, N] W: the derivative of matmul() by its input. Reads the canonical rows.
template <class T, class S>
void matmul_dx(const machine& on, index m, index n, index k, const T* dy,
               const packed_matrix<T, S>& w, T* dx, T alpha = T(1)) {
  static_assert(
      !S::scaled,
      "linnet: gradients flow through f32 or f64 weights; train first, quantize afterwards");
  detail::split_product<T>(on, m, k, n, {dy, n, 1},
                           simd::columns_operand<typename S::value>{w.rows, k, panel_width}, dx, k,
                           {nullptr, nullptr, alpha, true}, 0);
}

/// dw[N, K] += alpha dy[M, N]^T x[M, K]: the derivative of matmul() by its weights.
template <class T>
void matmul_dw(const machine& on, index m, index n, index k, const T* dy, const T* x, T* dw,
               T alpha = T(1)) {
  detail::split_product<T>(on, n, k, m, {dy, 1, n}, simd::columns_operand<T>{x, k, panel_width}, dw,
                           k, {nullptr, nullptr, alpha, true}, 0);
}

/// db[N] += column sums of dy[M, N], each sum in ascending row order.
template <class T>
void bias_gradient(const machine& on, index m, index n, const T* dy, T* db) {
  const auto [first, last] = on.threads.share(n);
  for (index i = 0; i < m; ++i)
    for (index j = first; j < last; ++j) db[j] += dy[i * n + j];
  on.threads.wait();
}

}  // namespace ops

LINNET_NAMESPACE_END
