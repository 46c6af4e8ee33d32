// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in small groups whose scales and zero points have few bits themselves.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <linnet/storage/grouped.hpp>
#include <linnet/storage/matrix.hpp>
#include <linnet/storage/small_float.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Scales and zero points of `Rows` successive rows in one group of inputs, in codes of `Bits` bits
/// (Dettmers et al. 2023, SpQR). Each such block has a scale and a zero point for the scales and
/// another two for the zero points, in f16.
template <int Bits, index Rows>
struct block_levels {
  using codes = grouped<Bits, 0, symmetry::asymmetric>;
  static constexpr int most = (1 << Bits) - 1;
  static constexpr index block_rows = Rows;  ///< rows whose scales are rounded together

  static constexpr index blocks(index rows) { return (rows + Rows - 1) / Rows; }
  static constexpr index bytes(index rows, index groups) {
    return 2 * rows * row_values<codes>(groups) + 8 * blocks(rows) * groups;
  }
  /// The number of a code: a scale or a zero point.
  static float number(float scale, float zero, int code) {
    return scale * (static_cast<float>(code) - zero);
  }
  /// Up to `Rows` numbers in codes.
  struct rounded {
    float scale = 1, zero = 0;
    int code[std::size_t{Rows}] = {};

    float at(index r) const { return number(scale, zero, code[r]); }
  };
  /// Rounds x[0], x[step], ... to codes; `positive` numbers remain above 0.
  static rounded round(index count, const float* x, index step, bool positive) {
    double low = static_cast<double>(x[0]), high = low;
    for (index r = 1; r < count; ++r) {
      low = (std::min)(low, static_cast<double>(x[r * step]));
      high = (std::max)(high, static_cast<double>(x[r * step]));
    }
    const auto half = [](double v) {
      return static_cast<float>(f16::decode(f16::encode((std::clamp)(v, -65504.0, 65504.0))));
    };
    rounded to;
    for (const bool equal : {false, true}) {
      const auto grid = linnet::detail::real_grid(low, equal ? low : high, most);
      to.scale = half(grid.scale);
      to.zero = half(grid.zero);
      if (!(to.scale > 0)) continue;
      for (index r = 0; r < count; ++r) {
        const double v = static_cast<double>(x[r * step]) / static_cast<double>(to.scale);
        int code = static_cast<int>(nearest_whole(v + static_cast<double>(to.zero), 0, most));
        while (positive && code < most && !(number(to.scale, to.zero, code) > 0)) ++code;
        to.code[r] = code;
      }
      return to;
    }
    to = {1, 0, {}};  // all are smaller than what f16 holds
    std::fill_n(to.code, count, positive ? 1 : 0);
    return to;
  }

  struct canonical {
    matrix_ref<codes> scale_codes, zero_codes;  ///< [rows, groups]
    f16::value* steps = nullptr;  ///< [blocks, groups, 4]: scale, zero of scales; of zero points

    /// Calls f(suffix, pointer, rows, columns) for each array.
    template <class F>
    constexpr void visit(index rows, index groups, F&& f) {
      f(".scale_codes", scale_codes.data, rows, row_values<codes>(groups));
      f(".zero_codes", zero_codes.data, rows, row_values<codes>(groups));
      f(".scale_steps", steps, blocks(rows), 4 * groups);
    }
    /// Rounds the scales and zero points of a block that begins at row `r0`, in place; row r's are
    /// scales[r * step] and zeros[r * step]. The groups of a row come in ascending order.
    void seal_block(index r0, index count, index g, index groups, float* scales, float* zeros,
                    index step) const {
      const rounded s = round(count, scales, step, true), z = round(count, zeros, step, false);
      f16::value* const to = steps + (r0 / Rows * groups + g) * 4;
      to[0] = f16::encode(static_cast<double>(s.scale));
      to[1] = f16::encode(static_cast<double>(s.zero));
      to[2] = f16::encode(static_cast<double>(z.scale));
      to[3] = f16::encode(static_cast<double>(z.zero));
      for (index r = 0; r < count; ++r) {
        scale_codes.set_code(r0 + r, g, groups, static_cast<std::uint8_t>(s.code[r]));
        zero_codes.set_code(r0 + r, g, groups, static_cast<std::uint8_t>(z.code[r]));
        scales[r * step] = s.at(r);
        zeros[r * step] = z.at(r);
      }
    }
    /// Rounds all scales and zero points, in place.
    void seal(index rows, index groups, float* scales, float* zeros) const {
      for (index r0 = 0; r0 < rows; r0 += Rows)
        for (index g = 0; g < groups; ++g)
          seal_block(r0, (std::min)(Rows, rows - r0), g, groups, scales + r0 * groups + g,
                     zeros + r0 * groups + g, groups);
    }
    /// The numbers that the codes stand for.
    void open(index rows, index groups, float* scales, float* zeros) const {
      for (index r = 0; r < rows; ++r)
        for (index g = 0; g < groups; ++g) {
          const f16::value* const from = steps + (r / Rows * groups + g) * 4;
          const auto half = [&](int i) { return static_cast<float>(f16::decode(from[i])); };
          scales[r * groups + g] = number(half(0), half(1), scale_codes.code(r, g, groups));
          zeros[r * groups + g] = number(half(2), half(3), zero_codes.code(r, g, groups));
        }
    }
  };
};

/// Integers of 2 to 4 bits with a scale and a zero point for each 16 inputs of a row (Dettmers et
/// al. 2023, SpQR). Both are in codes of 3 bits. Zero points are any numbers, and groups need not
/// hold 0. Packed panels keep codes of 3 bits in 4.
template <int Bits>
struct spqr : coded<std::uint8_t, Bits == 2 ? simd::code::u2 : simd::code::u4> {
  static_assert(Bits >= 2 && Bits <= 4, "linnet::storage::spqr: codes have 2, 3 or 4 bits");
  using value = std::uint8_t;
  using levels = block_levels<3, 16>;
  static constexpr const char* name = Bits == 2 ? "spqr2" : Bits == 3 ? "spqr3" : "spqr4";
  static constexpr bool scaled = true, centred = true, real_zeros = true;
  static constexpr index group = 16, shared_bits = Bits;
  static constexpr double largest = (1 << Bits) - 1;
  static value encode(double x) { return static_cast<value>(nearest_whole(x, 0, largest)); }
  static double decode(value x) { return x; }
};

}  // namespace storage

LINNET_NAMESPACE_END
