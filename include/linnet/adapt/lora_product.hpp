// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Products with low-rank deltas, and their derivatives.

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <linnet/adapt/base.hpp>
#include <linnet/adapt/expert_gates.hpp>
#include <linnet/core/options.hpp>
#include <linnet/ops/dropout.hpp>
#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of an adapter with low-rank deltas, with PEFT's names and defaults.
struct lora_options {
  double alpha = 8;     ///< the delta is alpha / rank B A
  bool rslora = false;  ///< alpha / sqrt(rank) B A instead (Kalajdzievski 2023)
  double dropout = 0;   ///< probability of dropping an input of A while training

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("alpha", self.alpha, detail::at_least(0));
    f("rslora", self.rslora, detail::one_of(detail::false_or_true));
    f("dropout", self.dropout, detail::option_range{.least = 0, .most = 1, .below = true});
  }
  /// Calls f(key, value) for the options that decide what weights compute, which files note.
  template <class F>
  void describe(F&& f) const {
    f("alpha", alpha);
    f("rslora", rslora);
  }
  /// The factor of B A.
  double scale(index rank) const {
    const auto r = static_cast<double>(rank);
    return alpha / (rslora ? std::sqrt(r) : r);
  }
};

/// The base that an adapter of `Count` matrices was made for, and its options.
template <std::size_t Count>
struct lora_base : detail::panels_base<Count> {
  lora_options how{};  ///< of low-rank deltas
};

namespace detail {

/// Adds s B (A x) to products of the matrices of an adapter. `P` and `G` are its packed parameters
/// and their gradients. With `Gates`, Rank is that of all experts together, and a router's gates
/// stand between A and B.
template <index Rank, class T, class P, class G, class Gates = no_gates>
struct lora_product {
  const P& p;
  G* dp = nullptr;
  T *inner = nullptr, *d_inner = nullptr;  ///< [rows, Rank] while training, and
                                           ///< with gates [rows, 2 Rank + experts]
  dropout_key key{};                       ///< of the inputs of A
  index sequences = 1;                     ///< of the batch

  static constexpr index padded = round_up(Rank, ops::panel_width);
  /// Rows whose inner values one thread keeps.
  static constexpr index most_rows = (std::max)(index{1}, 96 * 32 / padded);
  static constexpr index stretch = 128;  ///< inputs that are dropped at a time
  static constexpr index experts = Gates::experts;
  static constexpr bool gated = experts > 0;
  static constexpr index own_rank = Rank / (std::max)(experts, index{1});  ///< of one expert

  /// The hook of products. It must not outlive this object.
  ops::product_adapter<T> hook() const { return {this, &covers, &add, dp ? &backward : nullptr}; }

  /// The hook of an adapter that does not train. It reads `packed` as long as it lives.
  static ops::product_adapter<T> of_packed(const P& packed) {
    return {&packed,
            [](const void* tree, const void* panels) {
              return static_cast<const P*>(tree)->base.find(panels) >= 0;
            },
            [](const void* tree, const ops::execution& on, const ops::adapted_product<T>& to,
               const ops::output_block& block) {
              const lora_product by{*static_cast<const P*>(tree)};
              add(&by, on, to, block);
            }};
  }

  static bool covers(const void* self, const void* panels) {
    return of(self).p.base.find(panels) >= 0;
  }
  static void add(const void* self, const ops::execution& on, const ops::adapted_product<T>& to,
                  const ops::output_block& block) {
    const lora_product& by = of(self);
    const index map = by.p.base.find(to.panels);
    const T scale = T(by.p.base.how.scale(own_rank)) * to.alpha;
    alignas(64) T some[std::size_t{most_rows * padded}];
    for (index i = block.i0; i < block.i1; i += most_rows) {
      const index rows = (std::min)(most_rows, block.i1 - i);
      by.reduce(on, map, to, i, rows, some, padded);
      if constexpr (gated) {
        alignas(64) T gates[std::size_t{most_rows * padded_experts}];
        by.route(on, map, to, i, rows, gates, padded_experts);
        for (index r = 0; r < rows; ++r)
          Gates::apply(gates + r * padded_experts, own_rank, some + r * padded);
      }
      by.expand(on, map, to, block, i, rows, some, scale);
    }
  }
  static void backward(const void* self, const ops::execution& on,
                       const ops::adapted_product<T>& of_y, const T* dy, T* dx) {
    const lora_product& by = of(self);
    const index map = by.p.base.find(of_y.panels), m = of_y.m, n = of_y.n;
    const auto& w = by.p.maps[map];
    auto& g = by.dp->maps[map];
    const T scale = T(by.p.base.how.scale(own_rank)) * of_y.alpha;
    const auto [first, last] = on.threads.range(m);
    T* const passed = by.inner + (gated ? m * Rank : 0);
    [[maybe_unused]] T* const gates = passed + (gated ? m * Rank : 0);
    [[maybe_unused]] T* const d_scores = by.d_inner + (gated ? m * Rank : 0);
    by.reduce(on, map, of_y, first, last - first, by.inner + first * Rank, Rank);
    if constexpr (gated) {
      std::copy(by.inner + first * Rank, by.inner + last * Rank, passed + first * Rank);
      by.route(on, map, of_y, first, last - first, gates + first * experts, experts);
      for (index i = first; i < last; ++i)
        Gates::apply(gates + i * experts, own_rank, passed + i * Rank);
    }
    ops::fill(on, m * Rank, T(0), by.d_inner);  // and waits
    ops::matmul_dw(on, m, n, Rank, dy, passed, g.b, scale);
    ops::matmul_dx(on, m, n, Rank, dy, w.b, by.d_inner, scale);
    if constexpr (gated) {
      on.threads.each(m, [&](index i) {
        Gates::backward(gates + i * experts, own_rank, by.inner + i * Rank, by.d_inner + i * Rank,
                        d_scores + i * experts);
      });
      ops::matmul_dw(on, m, experts, of_y.k, d_scores, of_y.x, g.router);
      ops::matmul_dx(on, m, experts, of_y.k, d_scores, w.router, dx);
    }
    by.inputs_backward(on, map, of_y, g.a, dx);
  }

 protected:
  static constexpr index padded_experts = round_up((std::max)(experts, index{1}), ops::panel_width);

  static const lora_product& of(const void* self) {
    return *static_cast<const lora_product*>(self);
  }
  /// Multiplies inputs [first, first + count) of a row of a product with the mask of their dropout.
  void drop(const ops::execution& on, index map, const ops::adapted_product<T>& to, index row,
            index first, index count, T* x) const {
    const index length = to.m % sequences == 0 ? to.m / sequences : 1;
    on.with_kernels([&](auto kernels) {
      ops::drop(kernels, key, row / length, static_cast<int>((index{1} << 23) + map),
                row % length * to.k + first, count, x);
    });
  }
  /// gates[rows, experts] of rows [i, i + rows), for the calling thread alone.
  void route(const ops::execution& on, index map, const ops::adapted_product<T>& to, index i,
             index rows, T* gates, index ld) const {
    route_by<Gates>(on, p.maps[map].router.panels, to, i, rows, gates, ld);
  }
  /// gates[rows, Choice::experts] of rows [i, i + rows) by a router's panels.
  template <class Choice>
  static void route_by(const ops::execution& on, const T* router, const ops::adapted_product<T>& to,
                       index i, index rows, T* gates, index ld) {
    ops::detail::block_product<T, T, simd::epilogue<T>>{
        rows,
        Choice::experts,
        to.k,
        {to.x + i * to.k, to.k, 1},
        {router, ops::panel_width, ops::panel_width * to.k},
        gates,
        ld,
        {nullptr, T(1), false},
        ld - Choice::experts}
        .run(on.level);
    for (index r = 0; r < rows; ++r) Choice::choose(gates + r * ld);
  }
  /// y += scale B some[rows, padded] in rows [i, i + rows) of a block, for the calling thread
  /// alone.
  void expand(const ops::execution& on, index map, const ops::adapted_product<T>& to,
              const ops::output_block& block, index i, index rows, const T* some, T scale) const {
    ops::detail::block_product<T, T, simd::epilogue<T>>{
        rows,
        block.j1 - block.j0,
        Rank,
        {some, padded, 1},
        {p.maps[map].b.panels + block.j0 * Rank, ops::panel_width, ops::panel_width * Rank},
        to.y + i * to.n + block.j0,
        to.n,
        {nullptr, scale, true},
        round_up(block.j1, ops::panel_width) - block.j1}
        .run(on.level);
  }
  /// out[rows, Rank] = A x of rows [i, i + rows), for the calling thread alone.
  void reduce(const ops::execution& on, index map, const ops::adapted_product<T>& to, index i,
              index rows, T* out, index ld) const {
    const T* const panels = p.maps[map].a.panels;
    const index k = to.k;
    const auto multiply = [&](index k0, index steps, const T* x, index row, index count, T* y) {
      ops::detail::block_product<T, T, simd::epilogue<T>>{
          count,
          Rank,
          steps,
          {x, row, 1},
          {panels + k0 * ops::panel_width, ops::panel_width, ops::panel_width * k},
          y,
          ld,
          {nullptr, T(1), k0 > 0},
          padded - Rank}
          .run(on.level);
    };
    if (key.rate <= 0) return multiply(0, k, to.x + i * k, k, rows, out);
    alignas(64) T kept[stretch];
    for (index r = 0; r < rows; ++r)
      for (index k0 = 0; k0 < k; k0 += stretch) {
        const index count = (std::min)(stretch, k - k0);
        std::copy_n(to.x + (i + r) * k + k0, count, kept);
        drop(on, map, to, i + r, k0, count, kept);
        multiply(k0, count, kept, stretch, 1, out + r * ld);
      }
  }
  /// dA += d_inner^T x and dx += d_inner A, with the mask of the inputs. Split over inputs.
  void inputs_backward(const ops::execution& on, index map, const ops::adapted_product<T>& of_y,
                       T* da, T* dx) const {
    constexpr index wide = ops::panel_width, some = 96;
    const index m = of_y.m, k = of_y.k;
    const T* const a = p.maps[map].a.rows;
    on.threads.each((k + wide - 1) / wide, [&](index panel) {
      alignas(64) T x[std::size_t{some * wide}];
      const index j0 = panel * wide, columns = (std::min)(wide, k - j0);
      for (index i0 = 0; i0 < m; i0 += some) {
        const index rows = (std::min)(some, m - i0);
        const auto drop_all = [&] {
          for (index i = 0; i < rows && key.rate > 0; ++i)
            drop(on, map, of_y, i0 + i, j0, columns, x + i * wide);
        };
        for (index i = 0; i < rows; ++i)
          std::copy_n(of_y.x + (i0 + i) * k + j0, columns, x + i * wide);
        drop_all();
        ops::detail::block_product<T, T, simd::epilogue<T>>{
            Rank,          columns, rows, {d_inner + i0 * Rank, 1, Rank},
            {x, wide, 0},  da + j0, k,    {nullptr, T(1), true},
            wide - columns}
            .run(on.level);
        ops::detail::block_product<T, T, simd::epilogue<T>>{rows,
                                                            columns,
                                                            Rank,
                                                            {d_inner + i0 * Rank, Rank, 1},
                                                            {a + j0, k, 0},
                                                            x,
                                                            wide,
                                                            {nullptr, T(1), false},
                                                            0}
            .run(on.level);
        drop_all();
        for (index i = 0; i < rows; ++i)
          for (index j = 0; j < columns; ++j) dx[(i0 + i) * k + j0 + j] += x[i * wide + j];
      }
    });
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
