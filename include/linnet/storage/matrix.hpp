// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A matrix as it is stored, and rounding to a storage type.

#include <algorithm>
#include <cmath>
#include <limits>

#include <linnet/storage/policy.hpp>

LINNET_NAMESPACE_BEGIN

/// Values that hold one canonical row of `columns` codes.
template <class S>
constexpr index row_values(index columns) {
  constexpr index bits = S::shared_bits;
  return bits ? (columns * bits + 7) / 8 : columns;
}
/// Scales (and zero points) of one row of `columns` inputs.
template <class S>
constexpr index row_scales(index columns) {
  if constexpr (S::group > 0)
    return (columns + S::group - 1) / S::group;
  else
    return S::scaled ? 1 : 0;
}
/// Which of a row's scales belongs to column `j`.
template <class S>
constexpr index group_of(index j) {
  return S::group == 0 ? 0 : j / S::group;
}
/// Whether a number is scale * code + minimum, with minima in place of zero points.
template <class S>
inline constexpr bool has_minima = (S::ggml && S::centred);
/// Bytes of an [rows, columns] matrix in storage `S`, scales and zero points included.
template <class S>
constexpr index matrix_bytes(index rows, index columns) {
  return rows * (row_values<S>(columns) * static_cast<index>(sizeof(typename S::value)) +
                 row_scales<S>(columns) * static_cast<index>(sizeof(float)) * (S::centred ? 2 : 1));
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
  /// The number at row `r`, column `j`.
  double at(index r, index j, index columns) const {
    double x = S::decode(code(r, j, columns));
    if constexpr (S::scaled) {
      const index g = r * row_scales<S>(columns) + group_of<S>(j);
      if constexpr (S::centred && !S::ggml) x -= static_cast<double>(zeros[g]);
      x *= static_cast<double>(scales[g]);
      if constexpr (has_minima<S>) x += static_cast<double>(zeros[g]);
    }
    return x;
  }
};

namespace detail {

/// Scale (and zero point) for numbers between `low` and `high`; 1 if all are zero.
template <class S>
void fit_range(double low, double high, float& scale, float* zero) {
  using numbers = std::numeric_limits<float>;
  const double range = S::centred ? (std::max)(high, 0.0) - (std::min)(low, 0.0)
                                  : (std::max)(std::abs(low), std::abs(high));
  scale = static_cast<float>(range / S::largest);
  // Rounding moves a subnormal scale far, and the largest one beyond what a float holds.
  const double reached = static_cast<double>(scale) * S::largest;
  if (scale < (numbers::min)() && reached < range) scale = std::nextafter(scale, 1.0f);
  if (!S::centred && reached > static_cast<double>((numbers::max)()))
    scale = std::nextafter(scale, 0.0f);
  if (!(scale > 0)) scale = 1;
  if constexpr (S::centred)
    *zero = static_cast<float>((std::clamp)(
        std::nearbyint(-(std::min)(low, 0.0) / static_cast<double>(scale)), 0.0, S::largest));
}

/// Rounds `x`[rows, columns] to storage `S`. What shares a scale with a number that is not finite
/// gets the scale NaN.
template <class S, class T>
void encode_matrix(index rows, index columns, const T* x, const matrix_ref<S>& to) {
  const index per_row = row_scales<S>(columns);
  [[maybe_unused]] const auto range = [&](const T* from, index n, index at) {
    if constexpr (S::scaled) {
      double low = 0, high = 0;
      bool finite = true;
      for (index j = 0; j < n; ++j) {
        finite = finite && is_finite(from[j]);
        low = (std::min)(low, static_cast<double>(from[j]));
        high = (std::max)(high, static_cast<double>(from[j]));
      }
      if (finite)
        fit_range<S>(low, high, to.scales[at], S::centred ? to.zeros + at : nullptr);
      else
        to.scales[at] = std::numeric_limits<float>::quiet_NaN();
    }
  };
  if constexpr (S::per_tensor) range(x, rows * columns, 0);
  for (index r = 0; r < rows; ++r) {
    const T* const row = x + r * columns;
    if constexpr (S::per_tensor) {
      to.scales[r] = to.scales[0];
      if constexpr (S::centred) to.zeros[r] = to.zeros[0];
    } else if constexpr (S::scaled) {
      for (index g = 0; g < per_row; ++g) {
        const index first = g * S::group;
        range(row + first, S::group ? (std::min)(S::group, columns - first) : columns,
              r * per_row + g);
      }
    }
    for (index j = 0; j < columns; ++j) {
      double v = static_cast<double>(row[j]);
      if constexpr (S::scaled) {
        const index g = r * per_row + group_of<S>(j);
        const auto scale = static_cast<double>(to.scales[g]);
        v /= scale;
        if constexpr (S::centred) {
          // No further than a float reaches.
          const double most =
              std::floor(static_cast<double>((std::numeric_limits<float>::max)()) / scale);
          v = storage::nearest_whole(v, -most, most) + static_cast<double>(to.zeros[g]);
        }
      }
      to.set_code(r, j, columns, S::encode(v));
    }
  }
}

/// Rounds `x`[rows, columns] to ggml's blocks, of which a row's last may be shorter. A block
/// with a number that is not finite gets the scale NaN.
template <class S, class T>
requires(S::ggml) void encode_matrix(index rows, index columns, const T* x,
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
      const index at = r * row_scales<S>(columns) + j0 / S::group;
      to.scales[at] = scale;
      if constexpr (S::centred) to.zeros[at] = minimum;
      for (index j = 0; j < n; ++j) to.set_code(r, j0 + j, columns, codes[j]);
    }
}

}  // namespace detail

LINNET_NAMESPACE_END
