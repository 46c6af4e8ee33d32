// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Products of matrices as they lie in memory, split over a team of threads.

#include <algorithm>
#include <type_traits>

#include <linnet/ops/packed.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops::detail {

/// Rows of a product's outputs that are computed together, at most: whole tiles of every level.
inline constexpr index block_rows = 8 * 12;

/// Calls f(i0, i1, p0, p1) for this thread's share of the outputs of an [M, N] product: rows
/// [i0, i1) of panels [p0, p1). Each output is one sum, whatever block it falls into.
template <class F>
void each_block(const execution& on, index m, index n, F&& f) {
  const index panels = round_up(n, panel_width) / panel_width;
  const index blocks = round_up(m, block_rows) / block_rows;
  const index height = round_up((m + blocks - 1) / blocks, 12);
  const auto [first, last] = on.threads.range(panels * blocks);
  // Many rows: every thread has its own, which it has in its caches from the last operation. Few
  // rows: every thread has its own panels, so each reads only its part of the weights.
  const bool many = blocks >= 4 * on.threads.size();
  for (index unit = many ? first : 0, step = 1; unit < (many ? last : blocks); unit += step) {
    index block = unit, p0 = first / blocks, p1 = last / blocks;
    if (many) {
      block = unit / panels;
      p0 = unit % panels;
      p1 = (std::min)(panels, p0 + (last - unit));
      step = p1 - p0;
    } else {
      p0 += block < first % blocks;
      p1 += block < last % blocks;
    }
    const index i0 = block * height, i1 = (std::min)(m, i0 + height);
    if (i0 < i1 && p0 < p1) f(i0, i1, p0, p1);  // one call, so one copy of what it does
  }
}

/// Epilogue without effect for a block of a product.
struct as_it_is {
  void operator()(index, index, index, index) const {}
};

/// A product C[m, n] = epilogue(A B) of numbers, of words of bf16 pairs, or, with an integer
/// epilogue, of words of four int8.
template <class Value, class T, class Epilogue>
struct block_product {
  index m, n, k;  ///< k counts what A and B hold
  simd::rows_operand<Value> a;
  simd::columns_operand<Value> b;
  T* c;
  index ldc;
  Epilogue e;
  index slack;  ///< columns behind the last that may be written

  /// Computes it, by this thread alone.
  void run(simd::level level) const {
    const auto by = [&](auto kernels) {
      using K = decltype(kernels);
      if constexpr (std::is_same_v<Value, T>)
        K::template multiply<T>(m, n, k, a, b, c, ldc, e, slack);
      else if constexpr (std::is_same_v<Epilogue, simd::integer_epilogue>)
        K::template multiply_int8<T>(m, n, k, a, b, c, ldc, e, slack);
      else
        K::template multiply_bf16<T>(m, n, k, a, b, c, ldc, e, slack);
    };
    if constexpr (std::is_same_v<Value, T>)
      simd::dispatch(level, by);
    else
      simd::dispatch_dot(level, by);
  }
  /// Splits it over the team. Each block is handed to `finish`.
  template <class Finish = as_it_is>
  void split(const execution& on, const Finish& finish = {}) const {
    each_block(on, m, n, [&](index i0, index i1, index p0, index p1) {
      const index j0 = p0 * panel_width, j1 = (std::min)(n, p1 * panel_width);
      const simd::rows_operand<Value> left{a.data + i0 * a.row, a.row, a.column};
      const simd::columns_operand<Value> right{b.data + p0 * b.panel, b.ld, b.panel};
      T* const to = c + i0 * ldc + j0;
      const block_product part{i1 - i0,        j1 - j0,       k, left, right, to, ldc,
                               e.from(i0, j0), slack + n - j1};
      part.run(on.level);
      finish(i0, i1, j0, j1);
    });
  }
};

/// Steps of a sum whose operands are gathered at a time.
inline constexpr index gathered_steps = 128;

/// Splits C += alpha A B over the team, B[K, N] as it lies in memory, some steps of K at a time.
/// What these steps read of B, and of A where it is a transpose, is copied side by side first.
/// Lines that are far apart displace each other from the first-level cache.
template <class Value, class T>
void split_sum(const execution& on, index m, index n, index k, const simd::rows_operand<Value>& a,
               const Value* b, T* c, T alpha) {
  using product = block_product<Value, T, simd::epilogue<T>>;
  const simd::epilogue<T> add{nullptr, alpha, true};
  if (m < block_rows / 2)  // read once or twice, not worth a copy
    return product{m, n, k, a, {b, n, panel_width}, c, n, add, 0}.split(on);
  each_block(on, m, n, [&](index i0, index i1, index p0, index p1) {
    alignas(64) Value left[gathered_steps * block_rows];
    alignas(64) Value right[gathered_steps * panel_width];
    for (index k0 = 0; k0 < k; k0 += gathered_steps) {
      const index steps = (std::min)(gathered_steps, k - k0);
      simd::rows_operand<Value> rows{a.data + i0 * a.row + k0 * a.column, a.row, a.column};
      if (a.row == 1) {
        for (index s = 0; s < steps; ++s)
          std::copy_n(rows.data + s * a.column, i1 - i0, left + s * block_rows);
        rows = {left, 1, block_rows};
      }
      for (index p = p0; p < p1; ++p) {
        const index j0 = p * panel_width, columns = (std::min)(panel_width, n - j0);
        for (index s = 0; s < steps; ++s) {
          const Value* const from = b + (k0 + s) * n + j0;
          Value* const to = right + s * panel_width;
          if (columns == panel_width) {
            std::copy_n(from, panel_width, to);  // without a call
          } else {
            std::copy_n(from, columns, to);
            std::fill_n(to + columns, panel_width - columns, Value{});
          }
        }
        const product part{i1 - i0,
                           columns,
                           steps,
                           rows,
                           {right, panel_width, 0},
                           c + i0 * n + j0,
                           n,
                           add,
                           panel_width - columns};
        part.run(on.level);
      }
    }
  });
}

}  // namespace ops::detail

LINNET_NAMESPACE_END
