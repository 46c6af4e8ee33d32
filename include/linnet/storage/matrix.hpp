// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A matrix as it is stored, and rounding to a storage type.

#include <algorithm>
#include <cmath>
#include <limits>

#include <linnet/storage/code_grid.hpp>

LINNET_NAMESPACE_BEGIN

/// Values that hold one canonical row of `columns` codes.
template <class S>
constexpr index row_values(index columns) {
  constexpr index bits = S::shared_bits;
  const index numbers = S::pattern::kept(columns);
  return bits ? (numbers * bits + 7) / 8 : numbers;
}
/// Scales (and zero points) of one row of `columns` inputs.
template <class S>
constexpr index row_scales(index columns) {
  if constexpr (S::group > 0)
    return (S::pattern::kept(columns) + S::group - 1) / S::group;
  else
    return S::scaled ? 1 : 0;
}
/// Which of a row's scales belongs to column `j`.
template <class S>
constexpr index group_of([[maybe_unused]] index j) {
  if constexpr (S::group == 0)
    return 0;
  else
    return j / S::group;
}
/// Bytes of an [rows, columns] matrix in storage `S`, scales, zero points, corrections and places
/// included.
template <class S>
constexpr index matrix_bytes(index rows, index columns) {
  const index codes = rows * row_values<S>(columns) * static_cast<index>(sizeof(typename S::value));
  index scales =
      rows * row_scales<S>(columns) * static_cast<index>(sizeof(float)) * (S::centred ? 2 : 1);
  if constexpr (has_levels<S>) scales = S::levels::bytes(rows, row_scales<S>(columns));
  return codes + scales + S::correction::bytes(rows, columns) + S::pattern::bytes(rows, columns);
}

/// Bits for one weight in rows of `columns` inputs, scales and zero points included.
template <class S>
constexpr double bits_per_weight(index columns) {
  return 8 * static_cast<double>(matrix_bytes<S>(1, columns)) / static_cast<double>(columns);
}

/// A canonical matrix [rows, columns] in storage `S`: what files, optimizers and transformations
/// see.
template <class S>
struct matrix_ref {
  using storage = S;
  typename S::value* data = nullptr;  ///< [rows, row_values]
  float* scales = nullptr;            ///< [rows, row_scales] where the storage is scaled
  float* zeros = nullptr;             ///< likewise where it is centred: zero points or minima
  /// Codes of the scales; `scales` and `zeros` are the numbers that they stand for.
  [[no_unique_address]] typename S::levels::canonical levels{};
  [[no_unique_address]] typename S::correction::canonical correction{};  ///< see storage::corrected

  /// The code at row `r`, column `j`, in the low bits.
  typename S::value code(index r, index j, index columns) const {
    const typename S::value* const row = data + r * row_values<S>(columns);
    if constexpr (constexpr index bits = S::shared_bits; bits > 0) {
      const index first = j * bits % 8;
      unsigned x = static_cast<unsigned>(row[j * bits / 8]) >> first;
      if (first + bits > 8) x |= static_cast<unsigned>(row[j * bits / 8 + 1]) << (8 - first);
      return static_cast<typename S::value>(x & ((1u << bits) - 1));
    } else {
      return row[j];
    }
  }
  /// Stores a code; the codes of a row come in ascending order.
  void set_code(index r, index j, index columns, typename S::value code) const {
    typename S::value* const row = data + r * row_values<S>(columns);
    if constexpr (constexpr index bits = S::shared_bits; bits > 0) {
      const index first = j * bits % 8;
      typename S::value& x = row[j * bits / 8];
      x = static_cast<typename S::value>((first ? x : 0u) | static_cast<unsigned>(code) << first);
      if (first + bits > 8)
        row[j * bits / 8 + 1] = static_cast<typename S::value>(code >> (8 - first));
    } else {
      row[j] = code;
    }
  }
  /// Scale and zero point (or minimum) of group `g` of row `r`; those that say nothing where the
  /// storage has none.
  detail::code_grid<S> grid(index r, index g, index columns) const {
    detail::code_grid<S> one;
    if constexpr (S::scaled) one.scale = scales[r * row_scales<S>(columns) + g];
    if constexpr (S::centred) one.zero = zeros[r * row_scales<S>(columns) + g];
    return one;
  }
  /// Stores what grid() returns.
  void set_grid(index r, index g, index columns, const detail::code_grid<S>& one) const {
    if constexpr (S::scaled) scales[r * row_scales<S>(columns) + g] = one.scale;
    if constexpr (S::centred) zeros[r * row_scales<S>(columns) + g] = one.zero;
  }
  /// Rounds the scales where the storage rounds them, in place: the end of filling in a matrix.
  void seal(index rows, index columns) const {
    if constexpr (has_levels<S>) levels.seal(rows, row_scales<S>(columns), scales, zeros);
    const index groups = row_scales<S>(columns);
    for (index g = 0; g < groups && S::rows_together > 1; ++g)
      detail::relate_scales<S>(rows, [&](index r) -> float& { return scales[r * groups + g]; });
  }
  /// Fills in the scales that are stored as codes, after these were read.
  void open(index rows, index columns) const {
    if constexpr (has_levels<S>) levels.open(rows, row_scales<S>(columns), scales, zeros);
  }
  /// The number that the code at row `r`, column `j` stands for, without a correction.
  double coded(index r, index j, index columns) const {
    return grid(r, group_of<S>(j), columns).at(code(r, j, columns));
  }
  /// The number at row `r`, column `j`.
  double at(index r, index j, index columns) const {
    const double x = coded(r, j, columns);
    if constexpr (is_corrected<S>) return x + correction.at(r, j, columns);
    return x;
  }
};

namespace detail {

/// Rounds `x`[rows, columns] to storage `S`, to nearest. What shares a scale with a number that is
/// not finite gets the scale NaN.
template <class S, class T>
requires(!S::ggml && !is_corrected<S> &&
         !is_sparse<S>) void encode_matrix(index rows, index columns, const T* x,
                                           const matrix_ref<S>& to) {
  [[maybe_unused]] const auto fit = [&](const T* from, index n, index r, index g) {
    const bool finite = std::all_of(from, from + n, [](T v) { return is_finite(v); });
    if (finite)
      to.set_grid(r, g, columns, code_grid<S>::fit(n, from));
    else
      to.scales[r * row_scales<S>(columns) + g] = std::numeric_limits<float>::quiet_NaN();
  };
  const index group = S::group ? S::group : columns;
  if constexpr (S::per_tensor) fit(x, rows * columns, 0, 0);
  const auto fit_row = [&](index r) {
    if constexpr (S::per_tensor) to.set_grid(r, 0, columns, to.grid(0, 0, columns));
    if constexpr (S::scaled && !S::per_tensor)
      for (index first = 0; first < columns; first += group)
        fit(x + r * columns + first, (std::min)(group, columns - first), r, first / group);
  };
  constexpr bool scales_first = has_levels<S> || S::rows_together > 1;
  if constexpr (scales_first) {
    for (index r = 0; r < rows; ++r) fit_row(r);
    to.seal(rows, columns);
  }
  for (index r = 0; r < rows; ++r) {
    const T* const row = x + r * columns;
    if constexpr (!scales_first) fit_row(r);
    for (index j = 0; j < columns; ++j)
      to.set_code(r, j, columns,
                  to.grid(r, group_of<S>(j), columns).nearest(static_cast<double>(row[j])));
  }
}

/// Rounds `x`[rows, columns] to ggml's blocks, of which a row's last may be shorter. A block
/// with a number that is not finite gets the scale NaN.
template <class S, class T>
requires(S::ggml && !is_corrected<S> && !is_sparse<S>) void encode_matrix(index rows, index columns,
                                                                          const T* x,
                                                                          const matrix_ref<S>& to) {
  for (index r = 0; r < rows; ++r)
    for (index j0 = 0; j0 < columns; j0 += S::group) {
      const index n = (std::min)(S::group, columns - j0);
      float numbers[S::group] = {}, scale = std::numeric_limits<float>::quiet_NaN(), minimum = 0;
      typename S::value codes[S::group] = {};
      bool usable = true;
      for (index j = 0; j < n; ++j) {
        numbers[j] = static_cast<float>(x[r * columns + j0 + j]);
        usable = usable && is_finite(numbers[j]);
      }
      if (usable) S::round_block(n, numbers, codes, scale, minimum);
      to.set_grid(r, j0 / S::group, columns, {scale, minimum});
      for (index j = 0; j < n; ++j) to.set_code(r, j0 + j, columns, codes[j]);
    }
}

}  // namespace detail

LINNET_NAMESPACE_END
