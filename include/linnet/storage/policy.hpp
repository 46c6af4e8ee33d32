// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Base of all storage types, and the types that products compute in.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <linnet/core/finite.hpp>
#include <linnet/core/shapes.hpp>
#include <linnet/simd/operands.hpp>

LINNET_NAMESPACE_BEGIN

/// Compute types: the type that inputs of a matrix product are rounded to before it.
namespace compute {
/// Base of the compute types.
struct policy {};
/// No rounding: products are computed in the model's scalar type.
struct f32 : policy {};
/// bfloat16 to nearest even; sums in f32. Weights must be stored as bf16.
struct bf16 : policy {};
/// int8 with scales found at run time (W8A8, W4A8). Weights must be stored as integers of 8, 4 or 2
/// bits. A token has one scale, or one for each group of inputs where weights have scales of
/// groups. Sums of what shares a scale are exact, in int32; those of the groups are in f32.
struct int8 : policy {
  static constexpr int largest = 127;  ///< code of the largest magnitude
  /// Magnitude from which an input is not rounded.
  static constexpr double threshold = std::numeric_limits<double>::infinity();
};
/// int8 for all inputs of a token but its outliers, which have a magnitude of `Threshold` or more
/// (Dettmers et al. 2022, LLM.int8). Outliers meet the numbers of the weights in f32; the scale of
/// the others is that of what is left. With the threshold 0 no input is rounded. The paper keeps an
/// input of all tokens where it is an outlier of one. Here each token has its own outliers, so that
/// its result is the same in any batch and any split of a prompt.
template <real Threshold = 6.0>
struct mixed_int8 : int8 {
  static constexpr double threshold = Threshold.value;
  static_assert(threshold >= 0, "linnet::compute::mixed_int8: the threshold is a magnitude");
};
/// Inputs of 4 bits, codes from -7 to 7 with scales as compute::int8 has them (W4A4). Kernels
/// multiply them as bytes, so it costs what compute::int8 does: it shows what 4 bits lose.
struct int4 : int8 {
  static constexpr int largest = 7;
};

/// Half precision, for trainers: master weights stay in f32, while weights, inputs and gradients of
/// products are rounded to f16 (Micikevicius et al. 2018, arXiv:1710.03740). Processors multiply no
/// such numbers here: they are read back as f32, so it shows what the rounding loses.
struct f16 : policy {};

/// 8-bit floats, e4m3, with one scale for each token, which maps its largest magnitude to 448 (Wu
/// et al. 2023, ZeroQuant-FP). A trainer rounds to e4m3 in forward and to e5m2 in backward instead,
/// with scales of whole tensors (Micikevicius et al. 2022). Weights may be any codes. Processors
/// multiply no such numbers: they are read back as f32, so it costs more than compute::f32 and
/// shows what the rounding loses.
struct fp8 : policy {};

/// Base of the policies that say by which arithmetic a model computes, whatever its compute type.
struct arithmetic {};
/// The fastest instructions of each machine. Sums differ between machines in their last bits.
struct fast : arithmetic {};
/// Equal bits at every instruction-set level, on every processor and with every compiler: 16
/// numbers of a row are added side by side, then by halves, and each product is rounded before it
/// is added. For decoders, T5 and encoders; docs/reproducible.md says of which kinds. Units that
/// use it are compiled with -DLINNET_REPRODUCIBLE.
struct reproducible : arithmetic {};

/// Whether compute type `A` rounds inputs to integers.
template <class A>
inline constexpr bool rounds_to_integers = std::is_base_of_v<int8, A>;
}  // namespace compute

/// The ways a weight matrix [out, in] can be stored.
namespace storage {

/// The part of a matrix that shares one scale.
enum class granularity {
  tensor,  ///< a whole matrix
  row,     ///< the weights of one output feature
  group    ///< consecutive inputs of one output feature
};
/// Where the codes of an integer storage lie.
enum class symmetry {
  symmetric,  ///< x = scale * code, codes from -max to max
  asymmetric  ///< x = scale * (code - zero), codes from 0, the range extended to hold 0
};

/// Whether `x` is a NaN; looks at the bits, so it stays right under -ffast-math.
inline bool is_nan(double x) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & ~(std::uint64_t{1} << 63)) > std::uint64_t{0x7ff} << 52;
}
/// The whole number nearest to `x` from `low` to `high`, half to even; 0 for a NaN.
inline double nearest_whole(double x, double low, double high) {
  return is_nan(x) ? 0 : (std::clamp)(std::nearbyint(x), low, high);
}

/// Nothing is added to the numbers of the codes, see storage::corrected.
struct no_correction {
  struct canonical {
    template <class F>
    constexpr void visit(index, index, F&&) const {}
  };
  static constexpr index bytes(index, index) { return 0; }
};

/// Every input of a row has a number, see storage::sparse.
struct every_input {
  static constexpr index rows_together = 1;  ///< that have the same inputs
  static constexpr index kept(index columns) { return columns; }
  static constexpr index bytes(index, index) { return 0; }
};

/// Scales are floats, not codes of a second level, see mean_levels.
struct no_levels {
  static constexpr index block_rows = 0;
  struct canonical {};
};

/// Base of all storage types; a type overrides what differs.
struct policy {
  using compute = linnet::compute::f32;      ///< see with_compute
  using levels = no_levels;                  ///< how scales are rounded
  using correction = no_correction;          ///< what is added to the numbers of the codes
  using pattern = every_input;               ///< which inputs have numbers
  static constexpr bool scaled = false;      ///< whether codes come with scales
  static constexpr bool centred = false;     ///< whether they also come with zero points
  static constexpr bool real_zeros = false;  ///< whether zero points are no codes but any numbers
  static constexpr bool ggml = false;        ///< whether scales are ggml's, zero points its minima
  static constexpr bool per_tensor = false;  ///< whether all scales of a matrix are the same
  static constexpr bool fixed_scales = false;  ///< whether some numbers are no scales
  static constexpr index rows_together = 1;    ///< rows whose scales depend on each other
  static constexpr index group = 0;            ///< inputs that share a scale; 0 for a whole row
  static constexpr index shared_bits = 0;      ///< of a code that shares its `value` with others
};
/// Storage of plain numbers, which kernels read as they are.
template <class Real>
struct real : policy {
  using value = Real;  ///< one stored number
  using word = Real;   ///< what packed panels are made of
  static constexpr index per_word = 1;
  /// Words of one column of `k` numbers in a packed panel.
  static constexpr index words(index k) { return k; }
  /// Whether a stored number is neither infinite nor NaN.
  static bool finite(value x) { return is_finite(x); }
};
/// Storage of codes that kernels decode: packed panels are words of several codes. In a canonical
/// row codes of fewer bits than a `Value`, an unsigned byte, follow each other bit by bit.
template <class Value, simd::code Code>
struct coded : policy {
  using value = Value;
  using word = simd::word;
  static constexpr simd::code code = Code;
  static constexpr index shared_bits = simd::bits_of(Code) < 8 ? simd::bits_of(Code) : 0;
  static constexpr int origin = 0;  ///< packed code of the canonical code 0
  static constexpr index per_word = simd::codes_of_word(Code);
  static constexpr index block = simd::codes_of_block(Code);  ///< inputs that fill whole words
  /// Words of one column of `k` codes in a packed panel.
  static constexpr index words(index k) {
    return (k + block - 1) / block * simd::words_of_block(Code);
  }
  /// True: every integer and every table entry is finite.
  static constexpr bool finite(value) { return true; }
};

/// Whether storage `S` keeps codes of this kind.
template <class S>
constexpr bool keeps(simd::code kind) {
  if constexpr (requires { S::code; })
    return S::code == kind;
  else
    return false;
}

/// Storage `S` whose products round their inputs to `A` first.
template <class S, class A>
struct with_compute : S {
  static_assert(!std::is_same_v<A, linnet::compute::bf16> || keeps<S>(simd::code::bf16),
                "linnet: compute::bf16 multiplies weights stored as storage::bf16");
  static_assert(!linnet::compute::rounds_to_integers<A> ||
                    ((keeps<S>(simd::code::u8) || keeps<S>(simd::code::u4) ||
                      keeps<S>(simd::code::u2)) &&
                     std::is_same_v<typename S::levels, no_levels>),
                "linnet: compute::int8 multiplies weights stored as integers of 8, 4 or 2 bits; so "
                "do mixed_int8 and int4");
  static_assert(!std::is_same_v<A, linnet::compute::fp8> || S::per_word > 1,
                "linnet: compute::fp8 multiplies weights stored as codes");
  static_assert(!std::is_same_v<A, linnet::compute::f16>,
                "linnet: compute::f16 is for trainers; deploy storage::f16 or storage::bf16");
  static_assert(std::is_same_v<typename S::pattern, every_input>,
                "linnet: products with sparse weights read their inputs as they are, in "
                "compute::f32");
  using compute = A;
};

}  // namespace storage

/// Whether the scales of storage `S` are rounded, see storage::mean_levels.
template <class S>
inline constexpr bool has_levels = !std::is_same_v<typename S::levels, storage::no_levels>;
/// Whether storage `S` adds numbers to those of its codes, see storage::corrected.
template <class S>
inline constexpr bool is_corrected =
    !std::is_same_v<typename S::correction, storage::no_correction>;
/// Whether storage `S` leaves out numbers, which are 0, see storage::n_of_m.
template <class S>
inline constexpr bool is_sparse = !std::is_same_v<typename S::pattern, storage::every_input>;
/// Whether rows of a matrix in storage `S` are not rounded alone: they share a scale, the codes of
/// scales, or a correction.
template <class S>
inline constexpr bool rows_share = S::per_tensor || has_levels<S> || is_corrected<S> ||
                                   S::pattern::rows_together > 1 || S::rows_together > 1;

namespace detail {

/// Storage `S`, or each of a mixed one, whose products round their inputs to `A`; see per_role<>.
template <class S, class A>
struct computed_storage {
  using type = storage::with_compute<S, A>;
};
template <class S, class A>
requires(std::is_same_v<typename S::compute, A>) struct computed_storage<S, A> {
  using type = S;
};

}  // namespace detail

LINNET_NAMESPACE_END
