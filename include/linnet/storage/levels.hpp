// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Scales of codes that are themselves rounded: a second level of codes and scales.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <linnet/storage/small_float.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Double quantization (Dettmers et al. 2023, QLoRA): scale = mean + step * code. The mean is that
/// of a matrix, codes have 8 bits, and `Block` of them in the order of rows share a step.
template <index Block>
struct mean_levels {
  static constexpr index block_rows = 0;  ///< rows whose scales are rounded together; 0 for all
  static constexpr index steps(index rows, index groups) {
    return (rows * groups + Block - 1) / Block;
  }
  static constexpr index bytes(index rows, index groups) {
    return rows * groups + 4 * steps(rows, groups) + 4;
  }
  /// A scale. The product is exact, so it is the same number everywhere.
  static float number(float mean, float step, std::int8_t code) {
    return static_cast<float>(static_cast<double>(mean) +
                              static_cast<double>(step) * static_cast<double>(code));
  }

  struct canonical {
    std::int8_t* codes = nullptr;  ///< [rows, groups]
    float* step = nullptr;         ///< [steps]
    float* mean = nullptr;         ///< [1]

    /// Calls f(suffix, pointer, rows, columns) for each array.
    template <class F>
    constexpr void visit(index rows, index groups, F&& f) {
      f(".scale_codes", codes, rows, groups);
      f(".scale_steps", step, index{1}, steps(rows, groups));
      f(".scale_mean", mean, index{1}, index{1});
    }
    /// Rounds scales[rows, groups], in place.
    void seal(index rows, index groups, float* scales, float* zeros) const {
      const index count = rows * groups;
      double sum = 0;
      for (index i = 0; i < count; ++i) sum += static_cast<double>(scales[i]);
      *mean = static_cast<float>(sum / static_cast<double>(count));
      for (index b = 0; b < steps(rows, groups); ++b) {
        const index first = b * Block, last = (std::min)(count, first + Block);
        double most = 0;
        for (index i = first; i < last; ++i)
          most = (std::max)(most,
                            std::abs(static_cast<double>(scales[i]) - static_cast<double>(*mean)));
        step[b] = static_cast<float>(most / 127);
        for (index i = first; i < last; ++i) {
          const double x = static_cast<double>(scales[i]) - static_cast<double>(*mean);
          auto code = static_cast<std::int8_t>(
              step[b] > 0 ? nearest_whole(x / static_cast<double>(step[b]), -127, 127) : 0);
          while (code < 127 && !(number(*mean, step[b], code) > 0)) ++code;  // none is 0 or less
          codes[i] = code;
        }
      }
      open(rows, groups, scales, zeros);
    }
    /// The scales that the codes stand for.
    void open(index rows, index groups, float* scales, float*) const {
      for (index i = 0; i < rows * groups; ++i)
        scales[i] = number(*mean, step[i / Block], codes[i]);
    }
  };
};

}  // namespace storage

LINNET_NAMESPACE_END
