// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The rows that bottleneck adapters make, and their derivatives.

#include <algorithm>
#include <cstddef>

#include <linnet/adapt/base.hpp>
#include <linnet/ops/elementwise.hpp>
#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Computes h + U f(D h + b) + c. `P` and `G` are an adapter's packed parameters and their
/// gradients.
template <index Width, activation_kind Activation, class T, class P, class G>
struct bottleneck_rows {
  const P& p;
  G* dp = nullptr;
  T *inner = nullptr, *d_inner = nullptr;  ///< [2, rows, Width] while training

  static constexpr index padded = round_up(Width, ops::panel_width);
  /// Rows whose inner values one thread keeps.
  static constexpr index most_rows = (std::max)(index{1}, 96 * 32 / padded);

  /// The hook of branches. It must not outlive this object.
  ops::branch_adapter<T> hook() const {
    return {this,
            [](const void* self, const void* panels) { return of(self).p.base.find(panels) >= 0; },
            [](const void* self, const ops::execution& on, const ops::branch_rows<T>& rows,
               const T* x, T* to) { of(self).change(on, rows, x, to); },
            [](const void* self, const ops::execution& on, const ops::branch_rows<T>& rows,
               const T* x, T* dx) { of(self).backward(on, rows, x, dx); }};
  }
  /// The hook of an adapter that does not train. It reads `packed` as long as it lives.
  static ops::branch_adapter<T> of_packed(const P& packed) {
    return {
        &packed,
        [](const void* tree, const void* panels) {
          return static_cast<const P*>(tree)->base.find(panels) >= 0;
        },
        [](const void* tree, const ops::execution& on, const ops::branch_rows<T>& rows, const T* x,
           T* to) { bottleneck_rows{*static_cast<const P*>(tree)}.change(on, rows, x, to); }};
  }

 private:
  static const bottleneck_rows& of(const void* self) {
    return *static_cast<const bottleneck_rows*>(self);
  }
  /// z[rows, Width] = D x + b, for the calling thread alone.
  void reduce(const ops::execution& on, index part, index d, index rows, const T* x, T* z,
              index ld) const {
    const auto& w = p.parts[part];
    for (index i = 0; i < rows; ++i) std::copy_n(w.down_bias, Width, z + i * ld);
    ops::detail::block_product<T, T, simd::epilogue<T>>{
        rows,
        Width,
        d,
        {x, d, 1},
        {w.down.panels, ops::panel_width, ops::panel_width * d},
        z,
        ld,
        {nullptr, T(1), true},
        ld - Width}
        .run(on.level);
  }
  void change(const ops::execution& on, const ops::branch_rows<T>& all, const T* x, T* to) const {
    const index part = p.base.find(all.panels), d = all.width;
    const auto& w = p.parts[part];
    alignas(64) T z[std::size_t{most_rows * padded}];
    for (index i = 0; i < all.count; i += most_rows) {
      const index rows = (std::min)(most_rows, all.count - i);
      std::fill_n(z, rows * padded, T(0));
      reduce(on, part, d, rows, x + i * d, z, padded);
      on.with_kernels(
          [&](auto k) { decltype(k)::template activation<Activation, T>(rows * padded, z, z); });
      for (index r = i; r < i + rows; ++r)
        for (index j = 0; j < d; ++j) to[r * d + j] = x[r * d + j] + w.up_bias[j];
      ops::detail::block_product<T, T, simd::epilogue<T>>{
          rows,
          d,
          Width,
          {z, padded, 1},
          {w.up.panels, ops::panel_width, ops::panel_width * Width},
          to + i * d,
          d,
          {nullptr, T(1), true},
          0}
          .run(on.level);
    }
  }
  void backward(const ops::execution& on, const ops::branch_rows<T>& all, const T* x, T* dx) const {
    const index part = p.base.find(all.panels), m = all.count, d = all.width;
    const auto& w = p.parts[part];
    const auto& g = dp->parts[part];
    T *const z = inner, *const f = inner + m * Width, *const df = d_inner,
             *const dz = d_inner + m * Width;
    const auto [first, last] = on.threads.range(m);
    reduce(on, part, d, last - first, x + first * d, z + first * Width, Width);
    ops::fill(on, 2 * m * Width, T(0), d_inner);  // and waits
    ops::activation<Activation>(on, m * Width, z, f);
    ops::bias_gradient(on, m, d, dx, g.up_bias);
    ops::matmul_dw(on, m, d, Width, dx, f, g.up);
    ops::matmul_dx(on, m, d, Width, dx, w.up, df);
    ops::activation_backward<Activation>(on, m * Width, z, df, dz);
    ops::bias_gradient(on, m, Width, dz, g.down_bias);
    ops::matmul_dw(on, m, Width, d, dz, x, g.down);
    ops::matmul_dx(on, m, Width, d, dz, w.down, dx);
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
