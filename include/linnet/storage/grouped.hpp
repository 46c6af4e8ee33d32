// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in integers of few bits.

#include <cstdint>

#include <linnet/storage/policy.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {}  // namespace storage

namespace detail {
/// `Group`, or one that serves where an error is said: groups end where the words of codes end.
template <int Bits, index Group>
consteval index whole_group() {
  constexpr index block = simd::codes_of_block(simd::integer_code(Bits));
  constexpr bool fits = Group >= 0 && Group % block == 0;
  static_assert(fits,
                "linnet::storage::grouped: groups are a multiple of 8 inputs with 4 bits, of 16 "
                "with 2, of 32 with 3, 5 or 6; 0 is a whole row");
  return fits ? Group : 0;
}
}  // namespace detail

namespace storage {

/// The name of storage::grouped in files and errors.
constexpr const char* grouped_name(int bits, bool centred) {
  constexpr const char* names[][2] = {{"int2", "int2_asymmetric"},
                                      {"int3", "int3_asymmetric"},
                                      {"int4", "int4_asymmetric"},
                                      {"int5", "int5_asymmetric"},
                                      {"int6", "int6_asymmetric"}};
  return names[bits - 2][centred];
}

/// Integers of 2 to 6 bits with one scale for each `Group` inputs of a row. Where `Group` is 0 a
/// row has one scale. Symmetric: |code| <= 2^(Bits - 1) - 1. Asymmetric: codes 0 to 2^Bits - 1 and
/// a zero point. Round half to even. The codes of a row follow each other bit by bit, the first in
/// the lowest bits.
template <int Bits, index Group = 32, symmetry Y = symmetry::symmetric>
struct grouped : coded<std::uint8_t, simd::integer_code(Bits)> {
  static_assert(Bits >= 2 && Bits <= 6,
                "linnet::storage::grouped: codes have 2, 3, 4, 5 or 6 bits; those of 8 are "
                "storage::int8_per");
  static_assert(detail::whole_group<Bits, Group>() == Group);
  using value = std::uint8_t;
  static constexpr bool scaled = true, centred = Y == symmetry::asymmetric;
  static constexpr index group = Group;
  static constexpr int origin = centred ? 0 : 1 << (Bits - 1);
  static constexpr double largest = centred ? (1 << Bits) - 1 : origin - 1;
  /// One code, in the low bits of the byte.
  static value encode(double x) {
    constexpr int mask = (1 << Bits) - 1;
    return static_cast<value>(
        static_cast<int>(nearest_whole(x, centred ? 0.0 : -largest, largest)) & mask);
  }
  static double decode(value x) { return centred || x < origin ? x : x - 2 * origin; }

  static constexpr const char* name = grouped_name(Bits, centred);
};

/// 2-bit integers, -1 to 1, or 0 to 3 with zero points.
template <index Group = 32, symmetry Y = symmetry::symmetric>
using int2 = grouped<2, detail::whole_group<2, Group>(), Y>;
/// 3-bit integers, -3 to 3, or 0 to 7 with zero points.
template <index Group = 32, symmetry Y = symmetry::symmetric>
using int3 = grouped<3, detail::whole_group<3, Group>(), Y>;
/// 4-bit integers, -7 to 7, or 0 to 15 with zero points.
template <index Group = 32, symmetry Y = symmetry::symmetric>
using int4 = grouped<4, detail::whole_group<4, Group>(), Y>;
/// 5-bit integers, -15 to 15, or 0 to 31 with zero points.
template <index Group = 32, symmetry Y = symmetry::symmetric>
using int5 = grouped<5, detail::whole_group<5, Group>(), Y>;
/// 6-bit integers, -31 to 31, or 0 to 63 with zero points.
template <index Group = 32, symmetry Y = symmetry::symmetric>
using int6 = grouped<6, detail::whole_group<6, Group>(), Y>;

}  // namespace storage

LINNET_NAMESPACE_END
