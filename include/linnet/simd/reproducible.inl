// SPDX-License-Identifier: MIT
/// @file
/// Kernels that compute the same bits on every machine: included by simd/levels.hpp, behind those
/// of its levels.

LINNET_UNFUSED_BEGIN
#define LINNET_TARGET LINNET_UNFUSED
#define LINNET_WIDTH 16
/// Exponentials that have the same bits on every machine, whatever the kernels of its level.
struct unfused_exponentials {
#include <linnet/simd/vector.inl>
  /// x = e^x
  template <class T>
  LINNET_TARGET static void run(index n, T* x) {
    LINNET_FOR_VECTORS(T, i, c, n) put<T>(x + i, exp<T>(get(x + i, c)), c);
  }
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
LINNET_UNFUSED_END
#undef LINNET_KEEP

// Reproducible kernels: the same text at every level, without intrinsics. Fused multiply-adds are
// forbidden function by function, as g++ makes them by default. Sums of rows are over 16 numbers
// side by side, then by halves. Where registers hold fewer, in_order.inl has those; all else is of
// registers, as each output is one sum, in whatever tile.
#if defined(LINNET_REPRODUCIBLE)
// They are in no compiled library: where others are, units of other flags must not share these.
#if defined(LINNET_COMPILED_KERNELS) || defined(LINNET_KERNELS_SOURCE)
inline namespace LINNET_ABI_KEY {
#endif
#define LINNET_KEEP(x)
#define LINNET_KERNEL __attribute__((noinline)) LINNET_TARGET
LINNET_UNFUSED_BEGIN
#define LINNET_TARGET LINNET_UNFUSED
#define LINNET_WIDTH 16
#define LINNET_ROWS 6
/// Kernels without fused multiply-adds for any machine.
struct unfused_portable {
#include <linnet/simd/every.inl>
};
#undef LINNET_WIDTH
#undef LINNET_ROWS
#define LINNET_WIDTH 64
#define LINNET_REGISTERS unfused_portable
/// Reproducible kernels for any machine.
struct reproducible_portable : unfused_portable {
#include <linnet/simd/in_order.inl>
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_REGISTERS

#if defined(__x86_64__)
#define LINNET_TARGET LINNET_UNFUSED __attribute__((target("avx2")))
#define LINNET_WIDTH 32
#define LINNET_ROWS 6
/// Kernels without fused multiply-adds for AVX2.
struct unfused_avx2 {
#include <linnet/simd/every.inl>
};
#undef LINNET_WIDTH
#undef LINNET_ROWS
#define LINNET_WIDTH 64
#define LINNET_REGISTERS unfused_avx2
/// Reproducible kernels for AVX2.
struct reproducible_avx2 : unfused_avx2 {
#include <linnet/simd/in_order.inl>
};
#undef LINNET_TARGET
#undef LINNET_REGISTERS

#define LINNET_TARGET \
  LINNET_UNFUSED __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2")))
#define LINNET_ROWS 12
/// Reproducible kernels for AVX-512.
struct reproducible_avx512 {
#include <linnet/simd/every.inl>
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS
using reproducible_avx512dot = reproducible_avx512;
#elif defined(__AARCH64EL__)
using reproducible_neondot = reproducible_portable;
using reproducible_neonmmla = reproducible_portable;
#endif
LINNET_UNFUSED_END
#undef LINNET_KERNEL
#undef LINNET_KEEP
#undef LINNET_KEEP_ADDRESS
#if defined(LINNET_COMPILED_KERNELS) || defined(LINNET_KERNELS_SOURCE)
}
#endif
#endif
