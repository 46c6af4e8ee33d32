// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Kernels of each instruction-set level, chosen at run time. A program built without -march so
/// uses the best level of the machine it runs on.

#include <cmath>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <linnet/simd/detect.hpp>
#include <linnet/simd/operands.hpp>

LINNET_SIMD_NAMESPACE_BEGIN

namespace simd {

namespace detail {

/// Calls f(position, count) for full vectors and, once, for the rest.
#define LINNET_FOR_VECTORS(T, i, count, n) \
  for (index i = 0, count = lanes<T>;      \
       i < (n) && ((count = (n)-i < lanes<T> ? (n)-i : lanes<T>), true); i += lanes<T>)

/// Hides from the optimizer how a register's value came about.
#if defined(__x86_64__)
#define LINNET_KEEP(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define LINNET_KEEP(x) __asm__("" : "+w"(x))
#else
#define LINNET_KEEP(x) __asm__("" : "+m"(x))
#endif

/// Hides from the optimizer how an address came about, which then has a register of its own.
#define LINNET_KEEP_ADDRESS(p) __asm__("" : "+r"(p))

#if defined(__SSE2__) && defined(__x86_64__)
#define LINNET_DOT_PAIRS(a, b)      \
  reinterpret_cast<vec_int<float>>( \
      _mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)))
#define LINNET_LOW_PRODUCTS(a, b) \
  _mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b))
#endif
#if defined(__AARCH64EL__)  // that every processor has; a signalling NaN becomes a quiet one
#define LINNET_WIDEN_HALVES(x, u) __asm__("fcvtl %0.4s, %1.4h" : "=w"(x) : "w"(u))
#endif
#define LINNET_TARGET
#define LINNET_KERNEL __attribute__((noinline))  // as those of other levels are, by their target
#define LINNET_WIDTH 16
#if defined(__aarch64__)
#define LINNET_ROWS 8  // it has 32 registers
#else
#define LINNET_ROWS 6
#endif
/// Kernels for any machine.
struct portable {
#include <linnet/simd/vector.inl>

#include <linnet/simd/gemm.inl>

#include <linnet/simd/attention.inl>
#include <linnet/simd/elementwise.inl>
#include <linnet/simd/quantized.inl>

#include <linnet/simd/grouped.inl>
#include <linnet/simd/reduce.inl>
#include <linnet/simd/scan.inl>
#include <linnet/simd/softmax_norm.inl>

#include <linnet/simd/sparse.inl>

#include <linnet/simd/masked.inl>

#include <linnet/simd/neurons.inl>

#include <linnet/simd/dropout.inl>
};
#undef LINNET_TARGET
#undef LINNET_KERNEL
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_DOT_PAIRS
#undef LINNET_LOW_PRODUCTS

#if defined(__x86_64__)
#define LINNET_KERNEL LINNET_TARGET
// Where the vector extensions have no word for it, or g++ 12 no good code: intrinsics.
#define LINNET_FIRST(n)                                      \
  _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), \
                     _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define LINNET_LOAD_FIRST(p, n) \
  reinterpret_cast<vec<T>>(_mm256_maskload_ps(reinterpret_cast<const float*>(p), LINNET_FIRST(n)))
#define LINNET_STORE_FIRST(p, v, n) \
  _mm256_maskstore_ps(reinterpret_cast<float*>(p), LINNET_FIRST(n), reinterpret_cast<__m256>(v))
#define LINNET_ROOT_FLOAT(x) _mm256_sqrt_ps(reinterpret_cast<__m256>(x))
#define LINNET_ROOT_DOUBLE(x) _mm256_sqrt_pd(reinterpret_cast<__m256d>(x))
#define LINNET_LOOK_UP(table, i)                                                            \
  reinterpret_cast<vec<float>>(_mm256_blendv_ps(                                            \
      _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), reinterpret_cast<__m256i>(i)),       \
      _mm256_permutevar8x32_ps(_mm256_loadu_ps((table) + 8), reinterpret_cast<__m256i>(i)), \
      reinterpret_cast<__m256>((i) << 28)))
#define LINNET_LOOK_UP_8(table, i) \
  reinterpret_cast<vec<float>>(    \
      _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), reinterpret_cast<__m256i>(i)))
#define LINNET_LOOK_UP_4(table, i)                   \
  reinterpret_cast<vec<float>>(_mm256_permutevar_ps( \
      _mm256_broadcast_ps(reinterpret_cast<const __m128*>(table)), reinterpret_cast<__m256i>(i)))
#define LINNET_EXPAND(bits, x) expand(bits, x)
#define LINNET_DOT_PAIRS(a, b)      \
  reinterpret_cast<vec_int<float>>( \
      _mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)))
#define LINNET_DOT_BYTES(a, b)          \
  reinterpret_cast<int8_steps::halves>( \
      _mm256_maddubs_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)))
#define LINNET_BYTES(p)             \
  reinterpret_cast<vec_int<float>>( \
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))
#define LINNET_LOW_PRODUCTS(a, b) \
  _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b))
#define LINNET_HALVES(p)        \
  reinterpret_cast<vec<float>>( \
      _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))
#define LINNET_TARGET __attribute__((target("avx2,fma,f16c")))
#define LINNET_WIDTH 32
#define LINNET_ROWS 6
/// Kernels for AVX2 with FMA and F16C.
struct avx2 {
#include <linnet/simd/vector.inl>

#include <linnet/simd/gemm.inl>

#include <linnet/simd/attention.inl>
#include <linnet/simd/elementwise.inl>
#include <linnet/simd/quantized.inl>

#include <linnet/simd/grouped.inl>
#include <linnet/simd/reduce.inl>
#include <linnet/simd/scan.inl>
#include <linnet/simd/softmax_norm.inl>

#include <linnet/simd/sparse.inl>

  /// The first lanes of x in the lanes of a mask, zeros in the others: AVX2 has no instruction.
  LINNET_TARGET static inline vec<float> expand(word mask, const vec<float>& x) {
    const __m256i from = _mm256_cvtepi8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(expanded.of[mask & 255])));
    return reinterpret_cast<vec<float>>(
        _mm256_blendv_ps(_mm256_permutevar8x32_ps(reinterpret_cast<__m256>(x), from),
                         _mm256_setzero_ps(), _mm256_castsi256_ps(from)));
  }
#include <linnet/simd/masked.inl>

#include <linnet/simd/neurons.inl>

#include <linnet/simd/dropout.inl>
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_FIRST
#undef LINNET_LOAD_FIRST
#undef LINNET_STORE_FIRST
#undef LINNET_ROOT_FLOAT
#undef LINNET_ROOT_DOUBLE
#undef LINNET_LOOK_UP
#undef LINNET_LOOK_UP_8
#undef LINNET_LOOK_UP_4
#undef LINNET_EXPAND
#undef LINNET_DOT_PAIRS
#undef LINNET_DOT_BYTES
#undef LINNET_BYTES
#undef LINNET_LOW_PRODUCTS
#undef LINNET_HALVES

#define LINNET_FIRST(n) static_cast<__mmask16>((1u << (n)) - 1u)
#define LINNET_LOAD_FIRST(p, n) reinterpret_cast<vec<T>>(_mm512_maskz_loadu_ps(LINNET_FIRST(n), p))
#define LINNET_STORE_FIRST(p, v, n) \
  _mm512_mask_storeu_ps(p, LINNET_FIRST(n), reinterpret_cast<__m512>(v))
#define LINNET_ROOT_FLOAT(x) \
  _mm512_maskz_sqrt_ps(static_cast<__mmask16>(-1), reinterpret_cast<__m512>(x))
#define LINNET_ROOT_DOUBLE(x) \
  _mm512_maskz_sqrt_pd(static_cast<__mmask8>(-1), reinterpret_cast<__m512d>(x))
#define LINNET_LOOK_UP(table, i)                            \
  reinterpret_cast<vec<float>>(_mm512_maskz_permutexvar_ps( \
      static_cast<__mmask16>(-1), reinterpret_cast<__m512i>(i), _mm512_loadu_ps(table)))
// Twice the table: the bit above those that count makes no difference.
#define LINNET_LOOK_UP_8(table, i)                              \
  reinterpret_cast<vec<float>>(_mm512_maskz_permutexvar_ps(     \
      static_cast<__mmask16>(-1), reinterpret_cast<__m512i>(i), \
      _mm512_maskz_broadcast_f32x8(static_cast<__mmask16>(-1), _mm256_loadu_ps(table))))
#define LINNET_LOOK_UP_4(table, i)                                                   \
  reinterpret_cast<vec<float>>(_mm512_maskz_permutevar_ps(                           \
      static_cast<__mmask16>(-1),                                                    \
      _mm512_maskz_broadcast_f32x4(static_cast<__mmask16>(-1), _mm_loadu_ps(table)), \
      reinterpret_cast<__m512i>(i)))
#define LINNET_EXPAND(bits, x)  \
  reinterpret_cast<vec<float>>( \
      _mm512_maskz_expand_ps(static_cast<__mmask16>(bits), reinterpret_cast<__m512>(x)))
#define LINNET_DOT_PAIRS(a, b)      \
  reinterpret_cast<vec_int<float>>( \
      _mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)))
#define LINNET_DOT_BYTES(a, b)          \
  reinterpret_cast<int8_steps::halves>( \
      _mm512_maddubs_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)))
#define LINNET_BYTES(p)                                        \
  reinterpret_cast<vec_int<float>>(_mm512_maskz_cvtepi8_epi32( \
      static_cast<__mmask16>(-1), _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))
#define LINNET_LOW_PRODUCTS(a, b)                                                 \
  _mm512_maskz_mul_epu32(static_cast<__mmask8>(-1), reinterpret_cast<__m512i>(a), \
                         reinterpret_cast<__m512i>(b))
#define LINNET_HALVES(p)                              \
  reinterpret_cast<vec<float>>(_mm512_maskz_cvtph_ps( \
      static_cast<__mmask16>(-1), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))))
#define LINNET_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define LINNET_WIDTH 64
#define LINNET_ROWS 12
/// Kernels for AVX-512.
struct avx512 {
#include <linnet/simd/vector.inl>

#include <linnet/simd/gemm.inl>

#include <linnet/simd/attention.inl>
#include <linnet/simd/elementwise.inl>
#include <linnet/simd/quantized.inl>

#include <linnet/simd/grouped.inl>
#include <linnet/simd/reduce.inl>
#include <linnet/simd/scan.inl>
#include <linnet/simd/softmax_norm.inl>

#include <linnet/simd/sparse.inl>

#include <linnet/simd/masked.inl>

#include <linnet/simd/neurons.inl>

#include <linnet/simd/dropout.inl>
};
#undef LINNET_TARGET
#undef LINNET_DOT_PAIRS
#undef LINNET_DOT_BYTES

#define LINNET_DOT_BF16(acc, a, b)                                            \
  acc = reinterpret_cast<sum>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(acc), \
                                               reinterpret_cast<__m512bh>(a), \
                                               reinterpret_cast<__m512bh>(b)))
#define LINNET_DOT_INT8(acc, a, b)                 \
  acc = reinterpret_cast<sum>(_mm512_dpbusd_epi32( \
      reinterpret_cast<__m512i>(acc), reinterpret_cast<__m512i>(b), reinterpret_cast<__m512i>(a)))
#define LINNET_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma")))
/// Kernels for AVX-512 with dot products: those that multiply codes differ.
struct avx512dot : avx512 {
#include <linnet/simd/gemm.inl>

#include <linnet/simd/quantized.inl>

#include <linnet/simd/grouped.inl>
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_FIRST
#undef LINNET_LOAD_FIRST
#undef LINNET_STORE_FIRST
#undef LINNET_ROOT_FLOAT
#undef LINNET_ROOT_DOUBLE
#undef LINNET_LOOK_UP
#undef LINNET_LOOK_UP_8
#undef LINNET_LOOK_UP_4
#undef LINNET_EXPAND
#undef LINNET_BYTES
#undef LINNET_LOW_PRODUCTS
#undef LINNET_HALVES
#undef LINNET_DOT_BF16
#undef LINNET_DOT_INT8
#undef LINNET_KERNEL
#endif

#if defined(__AARCH64EL__)
#define LINNET_KERNEL LINNET_TARGET
#define LINNET_WIDTH 16
#define LINNET_ROWS 8
// Assembly: clang 14 declares these intrinsics only where the whole unit may use them. Each
// compiler spells the features of a function in its own way; GNU's assembler wants Armv8.2 named,
// too.
#if defined(__clang__)
#define LINNET_FEATURES(gnu, clang) __attribute__((target(clang)))
#elif defined(__ARM_FEATURE_DOTPROD)
#define LINNET_FEATURES(gnu, clang) __attribute__((target(gnu)))
#else
#define LINNET_FEATURES(gnu, clang) __attribute__((target("arch=armv8.2-a" gnu)))
#endif
#define LINNET_STEP(code, acc, a, b) __asm__(code : "+w"(acc) : "w"(a), "w"(b))
#define LINNET_STEP_LANE(code, acc, a, b, lane) \
  __asm__(code : "+w"(acc) : "w"(a), "w"(b), "i"(lane))
#define LINNET_INT8_CENTRE 128  // SDOT reads signed bytes on both sides
#define LINNET_DOT_INT8(acc, a, b) LINNET_STEP("sdot %0.4s, %1.16b, %2.16b", acc, b, a)
#define LINNET_DOT_INT8_LANE(acc, a, b, lane) \
  LINNET_STEP_LANE("sdot %0.4s, %1.16b, %2.4b[%3]", acc, b, a, lane)
#define LINNET_TARGET LINNET_FEATURES("+dotprod", "dotprod")
/// Kernels for aarch64 with dot products of int8: those that multiply codes differ.
struct neondot : portable {
#include <linnet/simd/lanes.inl>

#include <linnet/simd/gemm.inl>

#include <linnet/simd/quantized.inl>

#include <linnet/simd/grouped.inl>
};
#undef LINNET_TARGET
#undef LINNET_INT8_CENTRE
#undef LINNET_DOT_INT8
#undef LINNET_DOT_INT8_LANE

#define LINNET_DOT_INT8(acc, a, b) LINNET_STEP("usdot %0.4s, %1.16b, %2.16b", acc, b, a)
#define LINNET_DOT_INT8_LANE(acc, a, b, lane) \
  LINNET_STEP_LANE("usdot %0.4s, %1.16b, %2.4b[%3]", acc, b, a, lane)
#define LINNET_DOT_BF16(acc, a, b) LINNET_STEP("bfdot %0.4s, %1.8h, %2.8h", acc, b, a)
#define LINNET_DOT_BF16_LANE(acc, a, b, lane) \
  LINNET_STEP_LANE("bfdot %0.4s, %1.8h, %2.2h[%3]", acc, b, a, lane)
#define LINNET_SQUARE_INT8(acc, a, b) LINNET_STEP("usmmla %0.4s, %1.16b, %2.16b", acc, b, a)
#define LINNET_SQUARE_BF16(acc, a, b) LINNET_STEP("bfmmla %0.4s, %1.8h, %2.8h", acc, b, a)
#define LINNET_TARGET LINNET_FEATURES("+dotprod+i8mm+bf16", "dotprod,i8mm,bf16")
/// Kernels for aarch64 with matrix products of int8 and bf16.
struct neonmmla : portable {
#include <linnet/simd/lanes.inl>

#include <linnet/simd/gemm.inl>

#include <linnet/simd/quantized.inl>

#include <linnet/simd/grouped.inl>
};
#undef LINNET_TARGET
#undef LINNET_DOT_INT8
#undef LINNET_DOT_INT8_LANE
#undef LINNET_DOT_BF16
#undef LINNET_DOT_BF16_LANE
#undef LINNET_SQUARE_INT8
#undef LINNET_SQUARE_BF16
#undef LINNET_WIDEN_HALVES
#undef LINNET_FEATURES
#undef LINNET_STEP
#undef LINNET_STEP_LANE
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_KERNEL
#endif

#include <linnet/simd/reproducible.inl>
#undef LINNET_FOR_VECTORS

#if defined(LINNET_REPRODUCIBLE)
/// Calls f(kernels) with reproducible kernels.
template <class F>
auto with_reproducible([[maybe_unused]] level l, F&& f) {
#if defined(LINNET_ONLY_LEVEL)
#define LINNET_PASTE_REPRODUCIBLE(level) reproducible_##level
#define LINNET_REPRODUCIBLE_OF(level) LINNET_PASTE_REPRODUCIBLE(level)
  return f(LINNET_REPRODUCIBLE_OF(LINNET_ONLY_LEVEL){});
#undef LINNET_PASTE_REPRODUCIBLE
#undef LINNET_REPRODUCIBLE_OF
#else
#if defined(__x86_64__)
  if (l == level::reproducible_avx512) return f(reproducible_avx512{});
  if (l == level::reproducible_avx2) return f(reproducible_avx2{});
#endif
  return f(reproducible_portable{});
#endif
}
#endif

}  // namespace detail

/// Calls `f(kernels)` with the kernels of level `l`, a type whose static functions they are. A
/// program compiled with -DLINNET_ONLY_LEVEL=portable, or another name of a level, has the kernels
/// of that level alone and needs a machine that has it. It is smaller and compiles faster, but runs
/// no faster. Those that multiply low-precision activations are best reached through
/// dispatch_dot().
template <class F>
inline auto dispatch([[maybe_unused]] level l, F&& f) {
#if defined(LINNET_REPRODUCIBLE)
  if (is_reproducible(l)) return detail::with_reproducible(l, f);
#else
  if (is_reproducible(l)) l = level::portable;  // no model asks for it here
#endif
#if defined(LINNET_ONLY_LEVEL)
  return f(detail::LINNET_ONLY_LEVEL{});
#else
#if defined(__x86_64__)
  if (l == level::avx512 || l == level::avx512dot) return f(detail::avx512{});
  if (l == level::avx2) return f(detail::avx2{});
#endif
  return f(detail::portable{});
#endif
}
/// Calls `f(kernels)` with the kernels of level `l` for products of low-precision activations.
template <class F>
inline auto dispatch_dot(level l, F&& f) {
#if defined(__x86_64__) && !defined(LINNET_ONLY_LEVEL)
  if (l == level::avx512dot) return f(detail::avx512dot{});
#elif defined(__AARCH64EL__) && !defined(LINNET_ONLY_LEVEL)
  if (l == level::neonmmla) return f(detail::neonmmla{});
  if (l == level::neondot) return f(detail::neondot{});
#endif
  return dispatch(l, f);
}

}  // namespace simd

LINNET_SIMD_NAMESPACE_END

#if defined(LINNET_REPRODUCIBLE) && !defined(__clang__)
// g++ says at the end of a unit that vectors wider than registers are returned in memory.
#pragma GCC diagnostic ignored "-Wpsabi"
#endif
