// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Corrections of matrices in the form that products read: numbers that are added to those of
/// codes.

#include <algorithm>

#include <linnet/core/arena.hpp>
#include <linnet/ops/execution.hpp>
#include <linnet/storage/types.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

template <class T, class S>
struct packed_matrix;
template <class T, class S>
void pack(const execution& on, index n, index k, const matrix_ref<S>& from,
          const packed_matrix<T, S>& to);
template <class T, class S>
void unpack(index n, index k, const packed_matrix<T, S>& from, const matrix_ref<S>& to);

namespace detail {

/// Columns of a correction that are multiplied at a time.
inline constexpr index corrected_columns = 32;

/// The panels of a matrix [n, k] in another's memory.
template <class T, class S>
constexpr void place_panels(arena& memory, index n, index k, packed_matrix<T, S>& to) {
  to.panels = memory.take<typename S::word>(to.size(n, k));
}
/// Columns [first, last) of panel `p` of W[N, k] as numbers, rows of 32: in place, or in `room`.
template <class Kernels, class T, class Value>
const T* panel_numbers(Kernels, index p, index k, index first, index last,
                       const packed_matrix<T, Value>& w, T* room) {
  using matrix = packed_matrix<T, Value>;
  const auto* const words =
      w.panels + (p * matrix::depth(k) + matrix::depth(first)) * simd::panel_width;
  if constexpr (Value::per_word == 1) {
    return words;
  } else {
    Kernels::template decode_panel<Value::code>((last - first + Value::block - 1) / Value::block,
                                                words, nullptr, nullptr, 0.0f, room);
    return room;
  }
}
/// A block of outputs of a product y[M, n] = alpha x[M, k] W^T: rows [i0, i1) of panel `p`.
template <class T>
struct corrected_block {
  const T* x;
  index k;
  T* y;
  index n;
  T alpha;
  index i0, i1, p;

  index columns() const { return (std::min)(simd::panel_width, n - p * simd::panel_width); }
  T* first() const { return y + i0 * n + p * simd::panel_width; }
};
/// y += alpha z Value^T in a block, for columns [first, last) of Value[n, width].
template <class Kernels, class T, class Value>
void add_product(Kernels kernels, const corrected_block<T>& b, const simd::rows_operand<T>& z,
                 index width, index first, index last, const packed_matrix<T, Value>& v) {
  alignas(64) T room[corrected_columns * simd::panel_width];
  const T* const numbers = panel_numbers(kernels, b.p, width, first, last, v, room);
  Kernels::template multiply<T>(b.i1 - b.i0, b.columns(), last - first, z,
                                {numbers, simd::panel_width, 0}, b.first(), b.n,
                                {nullptr, b.alpha, true}, simd::panel_width - b.columns());
}

}  // namespace detail

/// A correction `C` of a matrix [N, K] packed for products; this one is none.
template <class T, class C>
struct packed_correction {
  constexpr void place(arena&, index, index) {}
};

/// Some inputs of a matrix, the same in all rows.
template <class T, index Count, class Value>
struct packed_correction<T, storage::column_correction<Count, Value>> {
  using kind = storage::column_correction<Count, Value>;
  packed_matrix<T, Value> values;                 ///< [N, width]
  const storage::input_number* inputs = nullptr;  ///< [width]

  constexpr void place(arena& memory, index n, index k) {
    detail::place_panels(memory, n, kind::width(k), values);
    inputs = memory.take<storage::input_number>(kind::width(k));
  }
  void pack(const execution& on, index n, index k, const typename kind::canonical& from) const {
    ops::pack(on, n, kind::width(k), from.values, values);
    auto* const to = const_cast<storage::input_number*>(inputs);
    on.threads.each(kind::width(k), [&](index c) { to[c] = from.inputs[c]; });
  }
  void unpack(index n, index k, const typename kind::canonical& to) const {
    ops::unpack(n, kind::width(k), values, to.values);
    std::copy_n(inputs, kind::width(k), to.inputs);
  }
  /// Whether inputs are those of a matrix.
  bool fits(index, index k) const {
    return std::all_of(inputs, inputs + kind::width(k),
                       [k](storage::input_number j) { return static_cast<index>(j) < k; });
  }
  T at(index n, index j, index k) const {
    for (index c = 0; c < kind::width(k); ++c)
      if (static_cast<index>(inputs[c]) == j) return values.at(n, c, kind::width(k));
    return T(0);
  }
  /// Adds to a block of outputs. An output's sum is the same in any block.
  template <class Kernels>
  void add(Kernels kernels, const detail::corrected_block<T>& b, const T*) const {
    constexpr index some = detail::corrected_columns, rows = 96;
    alignas(64) T gathered[rows * some];
    const index width = kind::width(b.k);
    for (index i = b.i0; i < b.i1; i += rows) {
      detail::corrected_block<T> part = b;
      part.i0 = i;
      part.i1 = (std::min)(b.i1, i + rows);
      for (index first = 0; first < width; first += some) {
        const index last = (std::min)(width, first + some);
        for (index r = i; r < part.i1; ++r)
          for (index c = first; c < last; ++c)
            gathered[(r - i) * some + c - first] = b.x[r * b.k + static_cast<index>(inputs[c])];
        detail::add_product(kernels, part, {gathered, some, 1}, width, first, last, values);
      }
    }
  }
};

/// Some inputs of each row.
template <class T, index Capacity, class Value>
struct packed_correction<T, storage::sparse_correction<Capacity, Value>> {
  using kind = storage::sparse_correction<Capacity, Value>;
  packed_matrix<T, Value> values;                 ///< [N, width]
  const storage::input_number* inputs = nullptr;  ///< [panels, width, 32]

  static constexpr index panels(index n) { return (n + simd::panel_width - 1) / simd::panel_width; }
  constexpr void place(arena& memory, index n, index k) {
    detail::place_panels(memory, n, kind::width(k), values);
    inputs = memory.take<storage::input_number>(panels(n) * kind::width(k) * simd::panel_width);
  }
  void pack(const execution& on, index n, index k, const typename kind::canonical& from) const {
    const index width = kind::width(k);
    ops::pack(on, n, width, from.values, values);
    auto* const to = const_cast<storage::input_number*>(inputs);
    on.threads.each(n, [&](index i) {
      for (index c = 0; c < width; ++c)
        to[simd::place_in_panel(i, c, width)] = from.inputs[i * width + c];
    });
  }
  void unpack(index n, index k, const typename kind::canonical& to) const {
    const index width = kind::width(k);
    ops::unpack(n, width, values, to.values);
    for (index i = 0; i < n; ++i)
      for (index c = 0; c < width; ++c)
        to.inputs[i * width + c] = inputs[simd::place_in_panel(i, c, width)];
  }
  /// Whether inputs are those of a matrix.
  bool fits(index n, index k) const {
    return std::all_of(inputs, inputs + panels(n) * kind::width(k) * simd::panel_width,
                       [k](storage::input_number j) { return static_cast<index>(j) < k; });
  }
  T at(index n, index j, index k) const {
    const index width = kind::width(k);
    T sum = 0;
    for (index c = 0; c < width; ++c)
      if (static_cast<index>(inputs[simd::place_in_panel(n, c, width)]) == j)
        sum += values.at(n, c, width);
    return sum;
  }
  /// Adds to a block of outputs, one sum for each, in the order of a row's values.
  template <class Kernels>
  void add(Kernels kernels, const detail::corrected_block<T>& b, const T*) const {
    constexpr index lanes = simd::panel_width, some = detail::corrected_columns;
    alignas(64) T room[some * lanes];
    const index width = kind::width(b.k);
    for (index first = 0; first < width; first += some) {
      const index last = (std::min)(width, first + some);
      const T* const numbers =
          detail::panel_numbers(kernels, b.p, width, first, last, values, room);
      const storage::input_number* const from = inputs + (b.p * width + first) * lanes;
      for (index i = b.i0; i < b.i1; ++i) {
        const T* const x = b.x + i * b.k;
        T sums[lanes] = {};
        for (index c = 0; c < last - first; ++c)
          for (index j = 0; j < lanes; ++j)
            sums[j] += x[static_cast<index>(from[c * lanes + j])] * numbers[c * lanes + j];
        T* const y = b.first() + (i - b.i0) * b.n;
        for (index j = 0; j < b.columns(); ++j) y[j] += b.alpha * sums[j];
      }
    }
  }
};

/// A matrix of low rank. Its products need z = x right^T first.
template <class T, index Rank, class Value>
struct packed_correction<T, storage::low_rank_factors<Rank, Value>> {
  using kind = storage::low_rank_factors<Rank, Value>;
  packed_matrix<T, Value> left;   ///< [N, width]
  packed_matrix<T, Value> right;  ///< [width, K]

  constexpr void place(arena& memory, index n, index k) {
    detail::place_panels(memory, n, kind::width(k), left);
    detail::place_panels(memory, kind::width(k), k, right);
  }
  void pack(const execution& on, index n, index k, const typename kind::canonical& from) const {
    ops::pack(on, n, kind::width(k), from.left, left);
    ops::pack(on, kind::width(k), k, from.right, right);
  }
  void unpack(index n, index k, const typename kind::canonical& to) const {
    ops::unpack(n, kind::width(k), left, to.left);
    ops::unpack(kind::width(k), k, right, to.right);
  }
  T at(index n, index j, index k) const {
    T sum = 0;
    for (index c = 0; c < kind::width(k); ++c)
      sum += left.at(n, c, kind::width(k)) * right.at(c, j, k);
    return sum;
  }
  /// A block of z[M, width] = x right^T. A number of z is the same in any block.
  template <class Kernels>
  void reduce(Kernels kernels, const detail::corrected_block<T>& b) const {
    for (index i = b.i0; i < b.i1; ++i)
      std::fill_n(b.first() + (i - b.i0) * b.n, b.columns(), T(0));
    for (index first = 0; first < b.k; first += detail::corrected_columns)
      detail::add_product(kernels, b, {b.x + b.i0 * b.k + first, b.k, 1}, b.k, first,
                          (std::min)(b.k, first + detail::corrected_columns), right);
  }
  /// Adds left z^T to a block of outputs, for z[M, width].
  template <class Kernels>
  void add(Kernels kernels, const detail::corrected_block<T>& b, const T* z) const {
    const index width = kind::width(b.k);
    for (index first = 0; first < width; first += detail::corrected_columns)
      detail::add_product(kernels, b, {z + b.i0 * width + first, width, 1}, width, first,
                          (std::min)(width, first + detail::corrected_columns), left);
  }
};

/// Inputs of a product that corrections of storage `S` make of a row of `k` inputs, in scratch
/// memory.
template <class S>
constexpr index reduced_inputs(index k) {
  if constexpr (requires {
                  typename S::correction::canonical;
                  &S::correction::canonical::right;
                })
    return S::correction::width(k);
  else
    return 0;
}

}  // namespace ops

LINNET_NAMESPACE_END
