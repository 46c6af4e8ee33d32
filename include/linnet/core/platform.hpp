// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Version, the keyed inline namespace and the few compiler differences.

#include <version>  // so that the standard library says what it lacks

// The one place that states the version: CMake, the packages and the single headers read it here.
#define LINNET_VERSION_MAJOR 0
#define LINNET_VERSION_MINOR 1
#define LINNET_VERSION_PATCH 0

#define LINNET_VERSION_TEXT_OF(major, minor, patch) #major "." #minor "." #patch
#define LINNET_VERSION_TEXT(major, minor, patch) LINNET_VERSION_TEXT_OF(major, minor, patch)
/// Version as text, such as "0.1.0".
#define LINNET_VERSION \
  LINNET_VERSION_TEXT(LINNET_VERSION_MAJOR, LINNET_VERSION_MINOR, LINNET_VERSION_PATCH)

#if !defined(__GNUC__)
#error "linnet needs g++ 12 or clang 14 or newer: its kernels use their vector extensions."
#elif defined(__clang__) && __clang_major__ < 14
#error "linnet needs clang 14 or newer."
#elif !defined(__clang__) && __GNUC__ < 12
#error "linnet needs g++ 12 or newer."
#elif __SIZEOF_POINTER__ < 4
#error "linnet needs a target of 32 or 64 bits."
#elif __cplusplus < 202002L
#error "linnet needs C++20: compile with -std=c++20."
#else
#define LINNET_SUPPORTED
#endif
#if !defined(LINNET_SUPPORTED)
#include <no such file: nothing follows the sentence above>
#endif

// Standard libraries for targets without an operating system, and that of WebAssembly, lack
// threads.
#if defined(_LIBCPP_HAS_NO_THREADS) || (defined(__GLIBCXX__) && !defined(_GLIBCXX_HAS_GTHREADS))
#define LINNET_NO_THREADS
#elif defined(_LIBCPP_HAS_THREADS)
#if !_LIBCPP_HAS_THREADS  // since libc++ 20
#define LINNET_NO_THREADS
#endif
#endif
/// thread_local where there are threads.
#if defined(LINNET_NO_THREADS)
#define LINNET_THREAD_LOCAL
#else
#define LINNET_THREAD_LOCAL thread_local
#endif

// Translation units of one program may be compiled with different flags. Everything that such a
// flag changes lives in an inline namespace named after the flags. So the linker never merges two
// instances of a function, say AVX-512's with the one that a portable unit relies on.
#if defined(__AVX512BF16__)
#define LINNET_ABI_ARCH avx512bf16
#elif defined(__AVX512VNNI__)
#define LINNET_ABI_ARCH avx512vnni
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define LINNET_ABI_ARCH avx512
#elif defined(__AVX512F__)
#define LINNET_ABI_ARCH avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define LINNET_ABI_ARCH avx2fma
#elif defined(__AVX2__)
#define LINNET_ABI_ARCH avx2
#elif defined(__AVX__)
#define LINNET_ABI_ARCH avx
#elif defined(__SSE4_2__)
#define LINNET_ABI_ARCH sse42
#elif defined(__ARM_FEATURE_SVE2)
#define LINNET_ABI_ARCH sve2
#elif defined(__ARM_FEATURE_SVE)
#define LINNET_ABI_ARCH sve
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#define LINNET_ABI_ARCH i8mm
#elif defined(__ARM_FEATURE_DOTPROD)
#define LINNET_ABI_ARCH dotprod
#elif defined(__ARM_FEATURE_ATOMICS)
#define LINNET_ABI_ARCH lse
#else
#define LINNET_ABI_ARCH base
#endif
#if defined(NDEBUG)
#define LINNET_ABI_DEBUG _release
#else
#define LINNET_ABI_DEBUG _debug
#endif
#if defined(_OPENMP)
#define LINNET_ABI_OPENMP _omp
#else
#define LINNET_ABI_OPENMP
#endif
#if defined(__FAST_MATH__)
#define LINNET_ABI_MATH _fast
#else
#define LINNET_ABI_MATH
#endif
#if defined(LINNET_ONLY_LEVEL)  // see simd/levels.hpp
#define LINNET_ABI_ONLY _only_
#define LINNET_ABI_LEVEL LINNET_ONLY_LEVEL
#else
#define LINNET_ABI_ONLY
#define LINNET_ABI_LEVEL
#endif
#if defined(__cpp_exceptions)
#define LINNET_ABI_EXCEPTIONS
#else
#define LINNET_ABI_EXCEPTIONS _noexcept
#endif
#if defined(LINNET_REPRODUCIBLE)  // see simd/levels.hpp
#define LINNET_ABI_REPRODUCIBLE _reproducible
#else
#define LINNET_ABI_REPRODUCIBLE
#endif
#define LINNET_ABI_PASTE(major, minor, a, b, c, d, e, f, g, h) \
  v##major##_##minor##_##a##b##c##d##e##f##g##h
#define LINNET_ABI_NAME(major, minor, a, b, c, d, e, f, g, h) \
  LINNET_ABI_PASTE(major, minor, a, b, c, d, e, f, g, h)
/// The name of all these flags.
#define LINNET_ABI_KEY                                                                           \
  LINNET_ABI_NAME(LINNET_VERSION_MAJOR, LINNET_VERSION_MINOR, LINNET_ABI_ARCH, LINNET_ABI_DEBUG, \
                  LINNET_ABI_OPENMP, LINNET_ABI_MATH, LINNET_ABI_EXCEPTIONS, LINNET_ABI_ONLY,    \
                  LINNET_ABI_LEVEL, LINNET_ABI_REPRODUCIBLE)

// A parameter may be called like a variable of the program that instantiates it: -Wshadow of g++
// speaks only where linnet itself is built.
#if defined(LINNET_OWN_WARNINGS)
#define LINNET_WARNINGS_BEGIN
#define LINNET_WARNINGS_END
#else
#define LINNET_WARNINGS_BEGIN \
  _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wshadow\"")
#define LINNET_WARNINGS_END _Pragma("GCC diagnostic pop")
#endif

/// Opens namespace linnet and its keyed inline namespace.
#define LINNET_NAMESPACE_BEGIN \
  LINNET_WARNINGS_BEGIN        \
  namespace linnet {           \
  inline namespace LINNET_ABI_KEY {
/// Closes what LINNET_NAMESPACE_BEGIN opened.
#define LINNET_NAMESPACE_END \
  }                          \
  }                          \
  LINNET_WARNINGS_END

// Kernels have a namespace of their own. With linnet::kernels they come from a compiled library,
// whatever the flags of the program that links it. Without it they share the key above.
#if defined(LINNET_COMPILED_KERNELS) || defined(LINNET_KERNELS_SOURCE)
#define LINNET_SIMD_NAMESPACE_BEGIN                                                                \
  LINNET_WARNINGS_BEGIN                                                                            \
  namespace linnet {                                                                               \
  inline namespace LINNET_ABI_NAME(LINNET_VERSION_MAJOR, LINNET_VERSION_MINOR, compiled, , , , , , \
                                   , ) {
#else
#define LINNET_SIMD_NAMESPACE_BEGIN LINNET_NAMESPACE_BEGIN
#endif
/// Closes what LINNET_SIMD_NAMESPACE_BEGIN opened.
#define LINNET_SIMD_NAMESPACE_END LINNET_NAMESPACE_END

// A product that is added to is not melted with the sum: g++ needs it said for each function, clang
// for a stretch of text. Neither does it where a target has no such instruction.
#if defined(__clang__)
#define LINNET_UNFUSED
#define LINNET_UNFUSED_BEGIN                                     \
  _Pragma("STDC FP_CONTRACT OFF") _Pragma("GCC diagnostic push") \
      _Pragma("GCC diagnostic ignored \"-Wpsabi\"")
#define LINNET_UNFUSED_END _Pragma("GCC diagnostic pop") _Pragma("STDC FP_CONTRACT DEFAULT")
#else
#define LINNET_UNFUSED __attribute__((optimize("fp-contract=off")))
#define LINNET_UNFUSED_BEGIN \
  _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wpsabi\"")
#define LINNET_UNFUSED_END _Pragma("GCC diagnostic pop")
#endif

// Before functions that open, plan, read headers or explain: compiled to be small, not to be fast.
#if defined(__clang__)
#define LINNET_COLD __attribute__((cold, noinline, minsize))
#else
#define LINNET_COLD __attribute__((cold, noinline))
#endif

// Before functions so small, or called from one place, that compilers take longer to make than to
// inline them, also where nothing is optimized.
#define LINNET_INLINE __attribute__((always_inline))

#if defined(__clang__)
#define LINNET_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LINNET_UNROLL _Pragma("GCC unroll 16")
#endif
