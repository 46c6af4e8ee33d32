// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Instruction sets: four levels of the same kernels, chosen at run time. A program built without
/// -march so uses the best level of the machine it runs on.

#include <cmath>
#include <cstdlib>
#include <string_view>
#include <type_traits>
#include <utility>

#if defined(__x86_64__) && defined(__clang__)
#include <immintrin.h>
#endif

#include <linnet/simd/operands.hpp>

LINNET_SIMD_NAMESPACE_BEGIN

namespace simd {

/// An instruction-set level. Results are bitwise reproducible within a level.
enum class level {
  automatic,  ///< the best of this machine, see best()
  portable,   ///< 16-byte vectors of the compilation target: SSE2, NEON or plain scalar code
  avx2,       ///< 32-byte vectors with fused multiply-add
  avx512,     ///< 64-byte vectors (F, BW, DQ, VL)
  avx512dot   ///< the same with dot products of int8 and bf16 (VNNI, BF16)
};
/// All levels, from the plainest.
inline constexpr level levels[] = {level::portable, level::avx2, level::avx512, level::avx512dot};

/// Name of a level, as LINNET_SIMD spells it.
constexpr const char* name(level l) {
  return l == level::avx512dot ? "avx512dot"
         : l == level::avx512  ? "avx512"
         : l == level::avx2    ? "avx2"
                               : "portable";
}

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

// Instructions that the vector extensions have no word for, or g++ 12 no good code. To read the
// header of their intrinsics takes g++ longer than the rest of the standard library, so it has
// assembly. Of intrinsics, clang makes better code.
#if defined(__clang__)
#define LINNET_CAST(T, x) reinterpret_cast<T>(x)
#define LINNET_RESULT(y, x) y = reinterpret_cast<std::remove_cvref_t<decltype(y)>>(x)
#else
#define LINNET_OF_ONE(name, y, a) __asm__(name " {%1, %0|%0, %1}" : "=v"(y) : "v"(a))
#define LINNET_OF_TWO(name, y, a, b) \
  __asm__(name " {%2, %1, %0|%0, %1, %2}" : "=v"(y) : "v"(a), "v"(b))
#define LINNET_ADD_OF_TWO(name, y, a, b) \
  __asm__(name " {%2, %1, %0|%0, %1, %2}" : "+v"(y) : "v"(a), "v"(b))
#endif

#if defined(__SSE2__) && defined(__clang__)
#define LINNET_DOT_PAIRS(y, a, b) \
  LINNET_RESULT(y, _mm_madd_epi16(LINNET_CAST(__m128i, a), LINNET_CAST(__m128i, b)))
#elif defined(__AVX__)
#define LINNET_DOT_PAIRS(y, a, b) LINNET_OF_TWO("vpmaddwd", y, a, b)
#define LINNET_LOW_PRODUCTS(y, a, b) LINNET_OF_TWO("vpmuludq", y, a, b)
#elif defined(__SSE2__)
#define LINNET_OF_FIRST(name, y, a, b)                   \
  do {                                                   \
    __builtin_memcpy(&(y), &(a), sizeof(y));             \
    __asm__(name " {%1, %0|%0, %1}" : "+x"(y) : "x"(b)); \
  } while (false)
#define LINNET_DOT_PAIRS(y, a, b) LINNET_OF_FIRST("pmaddwd", y, a, b)
#define LINNET_LOW_PRODUCTS(y, a, b) LINNET_OF_FIRST("pmuludq", y, a, b)
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

#include <linnet/simd/dropout.inl>
};
#undef LINNET_TARGET
#undef LINNET_KERNEL
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_DOT_PAIRS
#undef LINNET_LOW_PRODUCTS
#undef LINNET_OF_FIRST

#if defined(__x86_64__)
#define LINNET_KERNEL LINNET_TARGET
#if defined(__clang__)
#define LINNET_LOAD_FIRST(y, p, n) \
  LINNET_RESULT(y, _mm256_maskload_ps(p, LINNET_CAST(__m256i, first_lanes<float>(n))))
#define LINNET_STORE_FIRST(p, v, n) \
  _mm256_maskstore_ps(p, LINNET_CAST(__m256i, first_lanes<float>(n)), LINNET_CAST(__m256, v))
#define LINNET_ROOT(y, x)                                     \
  if constexpr (sizeof(T) == 4)                               \
    LINNET_RESULT(y, _mm256_sqrt_ps(LINNET_CAST(__m256, x))); \
  else                                                        \
    LINNET_RESULT(y, _mm256_sqrt_pd(LINNET_CAST(__m256d, x)))
#define LINNET_LOOK_UP(y, table, i)                                                           \
  LINNET_RESULT(                                                                              \
      y, _mm256_blendv_ps(                                                                    \
             _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), LINNET_CAST(__m256i, i)),       \
             _mm256_permutevar8x32_ps(_mm256_loadu_ps((table) + 8), LINNET_CAST(__m256i, i)), \
             LINNET_CAST(__m256, (i) << 28)))
#define LINNET_DOT_PAIRS(y, a, b) \
  LINNET_RESULT(y, _mm256_madd_epi16(LINNET_CAST(__m256i, a), LINNET_CAST(__m256i, b)))
#define LINNET_DOT_BYTES(y, a, b) \
  LINNET_RESULT(y, _mm256_maddubs_epi16(LINNET_CAST(__m256i, a), LINNET_CAST(__m256i, b)))
#define LINNET_BYTES(y, p) \
  LINNET_RESULT(y, _mm256_cvtepi8_epi32(_mm_loadl_epi64(LINNET_CAST(const __m128i*, p))))
#else
#define LINNET_LOAD_FIRST(y, p, n)                 \
  __asm__("vmaskmovps {(%1), %2, %0|%0, %2, [%1]}" \
          : "=x"(y)                                \
          : "r"(p), "x"(first_lanes<float>(n))     \
          : "memory")
#define LINNET_STORE_FIRST(p, v, n)                    \
  __asm__("vmaskmovps {%2, %1, (%0)|[%0], %1, %2}"     \
          :                                            \
          : "r"(p), "x"(first_lanes<float>(n)), "x"(v) \
          : "memory")
#define LINNET_LOOK_UP(y, table, i)                       \
  do {                                                    \
    vec<float> low, high;                                 \
    LINNET_OF_TWO("vpermps", low, i, load(table));        \
    LINNET_OF_TWO("vpermps", high, i, load((table) + 8)); \
    __asm__("vblendvps {%3, %2, %1, %0|%0, %1, %2, %3}"   \
            : "=x"(y)                                     \
            : "x"(low), "x"(high), "x"((i) << 28));       \
  } while (false)
#define LINNET_ROOT(y, x)           \
  if constexpr (sizeof(T) == 4)     \
    LINNET_OF_ONE("vsqrtps", y, x); \
  else                              \
    LINNET_OF_ONE("vsqrtpd", y, x)
#define LINNET_DOT_PAIRS(y, a, b) LINNET_OF_TWO("vpmaddwd", y, a, b)
#define LINNET_DOT_BYTES(y, a, b) LINNET_OF_TWO("vpmaddubsw", y, a, b)
#define LINNET_BYTES(y, p)            \
  __asm__("vpmovsxbd {%1, %0|%0, %1}" \
          : "=v"(y)                   \
          : "m"(*reinterpret_cast<const char(*)[sizeof(vec<float>) / 4]>(p)))
#define LINNET_LOW_PRODUCTS(y, a, b) LINNET_OF_TWO("vpmuludq", y, a, b)
#endif
#define LINNET_TARGET __attribute__((target("avx2,fma")))
#define LINNET_WIDTH 32
#define LINNET_ROWS 6
/// Kernels for AVX2 with FMA.
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

#include <linnet/simd/dropout.inl>
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_LOAD_FIRST
#undef LINNET_STORE_FIRST
#undef LINNET_LOOK_UP
#if defined(__clang__)
#undef LINNET_ROOT
#undef LINNET_DOT_PAIRS
#undef LINNET_DOT_BYTES
#undef LINNET_BYTES
#define LINNET_LOAD_FIRST(y, p, n) \
  LINNET_RESULT(y, _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << (n)) - 1u), p))
#define LINNET_STORE_FIRST(p, v, n) \
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << (n)) - 1u), LINNET_CAST(__m512, v))
#define LINNET_ROOT(y, x)                                     \
  if constexpr (sizeof(T) == 4)                               \
    LINNET_RESULT(y, _mm512_sqrt_ps(LINNET_CAST(__m512, x))); \
  else                                                        \
    LINNET_RESULT(y, _mm512_sqrt_pd(LINNET_CAST(__m512d, x)))
#define LINNET_LOOK_UP(y, table, i) \
  LINNET_RESULT(y, _mm512_permutexvar_ps(LINNET_CAST(__m512i, i), _mm512_loadu_ps(table)))
#define LINNET_DOT_PAIRS(y, a, b) \
  LINNET_RESULT(y, _mm512_madd_epi16(LINNET_CAST(__m512i, a), LINNET_CAST(__m512i, b)))
#define LINNET_DOT_BYTES(y, a, b) \
  LINNET_RESULT(y, _mm512_maddubs_epi16(LINNET_CAST(__m512i, a), LINNET_CAST(__m512i, b)))
#define LINNET_BYTES(y, p) \
  LINNET_RESULT(y, _mm512_cvtepi8_epi32(_mm_loadu_si128(LINNET_CAST(const __m128i*, p))))
#else
#define LINNET_LOAD_FIRST(y, p, n)                                     \
  __asm__("vmovups {(%1), %0%{%2%}%{z%}|%0%{%2%}%{z%}, [%1]}"          \
          : "=v"(y)                                                    \
          : "r"(p), "Yk"(static_cast<std::uint16_t>((1u << (n)) - 1u)) \
          : "memory")
#define LINNET_STORE_FIRST(p, v, n)                                            \
  __asm__("vmovups {%2, (%0)%{%1%}|[%0]%{%1%}, %2}"                            \
          :                                                                    \
          : "r"(p), "Yk"(static_cast<std::uint16_t>((1u << (n)) - 1u)), "v"(v) \
          : "memory")
#define LINNET_LOOK_UP(y, table, i) LINNET_OF_TWO("vpermps", y, i, load(table))
#endif
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

#include <linnet/simd/dropout.inl>
};
#undef LINNET_TARGET
#undef LINNET_DOT_PAIRS
#undef LINNET_DOT_BYTES

#if defined(__clang__)
#define LINNET_DOT_BF16(acc, a, b)                                                        \
  LINNET_RESULT(acc, _mm512_dpbf16_ps(LINNET_CAST(__m512, acc), LINNET_CAST(__m512bh, a), \
                                      LINNET_CAST(__m512bh, b)))
#define LINNET_DOT_INT8(acc, a, b)                                                           \
  LINNET_RESULT(acc, _mm512_dpbusd_epi32(LINNET_CAST(__m512i, acc), LINNET_CAST(__m512i, b), \
                                         LINNET_CAST(__m512i, a)))
#else
#define LINNET_DOT_BF16(acc, a, b) LINNET_ADD_OF_TWO("vdpbf16ps", acc, a, b)
#define LINNET_DOT_INT8(acc, a, b) LINNET_ADD_OF_TWO("vpdpbusd", acc, b, a)
#endif
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
#undef LINNET_LOAD_FIRST
#undef LINNET_STORE_FIRST
#undef LINNET_ROOT
#undef LINNET_LOOK_UP
#undef LINNET_BYTES
#undef LINNET_LOW_PRODUCTS
#undef LINNET_DOT_BF16
#undef LINNET_DOT_INT8
#undef LINNET_KERNEL
#endif
#undef LINNET_KEEP
#undef LINNET_CAST
#undef LINNET_RESULT
#undef LINNET_OF_ONE
#undef LINNET_OF_TWO
#undef LINNET_ADD_OF_TWO
#undef LINNET_FOR_VECTORS

/// The best level of this machine, looked up once; with LINNET_ONLY_LEVEL, that level.
inline level detect() {
#if defined(LINNET_ONLY_LEVEL)
  return level::LINNET_ONLY_LEVEL;
#elif defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16")
               ? level::avx512dot
               : level::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return level::avx2;
#endif
  return level::portable;
}

}  // namespace detail

/// The level that sessions and trainers use by default: the best of this machine, or the one that
/// the environment variable LINNET_SIMD names. Its values are portable, avx2, avx512 and avx512dot;
/// a level that the machine lacks is not used. Looked up once per program.
inline level best() {
  static const level chosen = [] {
    const level machine = detail::detect();
    const char* const wish = std::getenv("LINNET_SIMD");
    if (wish == nullptr) return machine;
    for (const level l : levels)
      if (std::string_view(wish) == name(l) && l <= machine) return l;
    return machine;
  }();
  return chosen;
}

/// The level that a requested level resolves to on this machine.
inline level resolve(level wish) {
  return wish == level::automatic ? best() : wish <= detail::detect() ? wish : detail::detect();
}

/// Calls `f(kernels)` with the kernels of level `l`, a type whose static functions they are. A
/// program compiled with -DLINNET_ONLY_LEVEL=portable, avx2, avx512 or avx512dot has the kernels of
/// that level alone and needs a machine that has it. It is smaller and compiles faster, but runs no
/// faster. Those that multiply low-precision activations are best reached through dispatch_dot().
template <class F>
inline auto dispatch([[maybe_unused]] level l, F&& f) {
#if defined(LINNET_ONLY_LEVEL)
  return f(detail::LINNET_ONLY_LEVEL{});
#else
#if defined(__x86_64__)
  if (l >= level::avx512) return f(detail::avx512{});
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
#endif
  return dispatch(l, f);
}

}  // namespace simd

LINNET_SIMD_NAMESPACE_END
