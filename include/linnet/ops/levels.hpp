// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Rounded scales of packed panels, which products read as they are stored.

#include <algorithm>
#include <cstdint>

#include <linnet/core/arena.hpp>
#include <linnet/ops/execution.hpp>
#include <linnet/storage/types.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Scales of a matrix [N, K] with `groups` of them in a row, packed for products; these are none.
template <class L>
struct packed_levels {};

/// Scales by a mean and steps.
template <index Block>
struct packed_levels<storage::mean_levels<Block>> {
  using kind = storage::mean_levels<Block>;
  const std::int8_t* codes = nullptr;  ///< [panels, groups, 32]
  const float* steps = nullptr;        ///< of the padded rows
  const float* mean = nullptr;         ///< [1]

  constexpr void place(arena& memory, index n, index groups) {
    const index rows = round_up(n, simd::panel_width);
    codes = memory.take<std::int8_t>(rows * groups);
    steps = memory.take<float>(kind::steps(rows, groups));
    mean = memory.take<float>(1);
  }
  void pack(const execution& on, index n, index groups,
            const typename kind::canonical& from) const {
    on.threads.each(n, [&](index i) {
      for (index g = 0; g < groups; ++g)
        const_cast<std::int8_t*>(codes)[simd::place_in_panel(i, g, groups)] =
            from.codes[i * groups + g];
    });
    on.threads.each(kind::steps(n, groups),
                    [&](index b) { const_cast<float*>(steps)[b] = from.step[b]; });
    on.threads.once([&] { *const_cast<float*>(mean) = *from.mean; });
  }
  void unpack(index n, index groups, const typename kind::canonical& to) const {
    for (index i = 0; i < n; ++i)
      for (index g = 0; g < groups; ++g)
        to.codes[i * groups + g] = codes[simd::place_in_panel(i, g, groups)];
    std::copy_n(steps, kind::steps(n, groups), to.step);
    *to.mean = *mean;
  }
  float scale(index n, index g, index groups) const {
    return kind::number(*mean, steps[(n * groups + g) / Block],
                        codes[simd::place_in_panel(n, g, groups)]);
  }
  static float zero(index, index, index) { return 0; }
};

/// Scales and zero points by blocks of rows.
template <int Bits, index Rows>
struct packed_levels<storage::block_levels<Bits, Rows>> {
  static_assert(simd::panel_width % Rows == 0 && Bits <= 4);
  using kind = storage::block_levels<Bits, Rows>;
  const std::uint8_t* codes = nullptr;  ///< [panels, groups, 32]: a scale's, and 16 times a zero's
  const float* steps = nullptr;         ///< [blocks, groups, 4] of the padded rows

  constexpr void place(arena& memory, index n, index groups) {
    const index rows = round_up(n, simd::panel_width);
    codes = memory.take<std::uint8_t>(rows * groups);
    steps = memory.take<float>(kind::blocks(rows) * groups * 4);
  }
  void pack(const execution& on, index n, index groups,
            const typename kind::canonical& from) const {
    on.threads.each(n, [&](index i) {
      for (index g = 0; g < groups; ++g)
        const_cast<std::uint8_t*>(codes)[simd::place_in_panel(i, g, groups)] =
            static_cast<std::uint8_t>(from.scale_codes.code(i, g, groups) |
                                      from.zero_codes.code(i, g, groups) << 4);
    });
    on.threads.each(kind::blocks(n) * groups * 4, [&](index i) {
      const_cast<float*>(steps)[i] = static_cast<float>(storage::f16::decode(from.steps[i]));
    });
  }
  void unpack(index n, index groups, const typename kind::canonical& to) const {
    for (index i = 0; i < n; ++i)
      for (index g = 0; g < groups; ++g) {
        const std::uint8_t both = codes[simd::place_in_panel(i, g, groups)];
        to.scale_codes.set_code(i, g, groups, both & 15);
        to.zero_codes.set_code(i, g, groups, both >> 4);
      }
    for (index i = 0; i < kind::blocks(n) * groups * 4; ++i)
      to.steps[i] = storage::f16::encode(static_cast<double>(steps[i]));
  }
  const float* steps_of(index n, index g, index groups) const {
    return steps + (n / Rows * groups + g) * 4;
  }
  float scale(index n, index g, index groups) const {
    const float* const by = steps_of(n, g, groups);
    return kind::number(by[0], by[1], codes[simd::place_in_panel(n, g, groups)] & 15);
  }
  float zero(index n, index g, index groups) const {
    const float* const by = steps_of(n, g, groups);
    return kind::number(by[2], by[3], codes[simd::place_in_panel(n, g, groups)] >> 4);
  }
};

}  // namespace ops

LINNET_NAMESPACE_END
