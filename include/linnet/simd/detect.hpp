// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Instruction-set levels, and which of them this machine has.

#include <cstddef>
#include <cstdlib>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__AARCH64EL__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__AARCH64EL__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include <linnet/core/platform.hpp>

LINNET_SIMD_NAMESPACE_BEGIN

namespace simd {

/// An instruction-set level. Results are bitwise reproducible within a level, and equal at all
/// levels of reproducible kernels, see compute::reproducible.
enum class level {
  automatic,  ///< the best of this machine, see best()
  portable,   ///< 16-byte vectors of the compilation target: SSE2, NEON or plain scalar code
  avx2,       ///< 32-byte vectors with fused multiply-add and halves (FMA, F16C)
  avx512,     ///< 64-byte vectors (F, BW, DQ, VL)
  avx512dot,  ///< the same with dot products of int8 and bf16 (VNNI, BF16)
  neondot,    ///< portable on aarch64, with dot products of int8 (FEAT_DotProd)
  neonmmla,   ///< the same with matrix products of int8 and bf16 (FEAT_I8MM, FEAT_BF16)
  reproducible_portable,   ///< reproducible kernels at level portable,
  reproducible_avx2,       ///< avx2
  reproducible_avx512,     ///< and so on, in the same order; no program asks for these, see
  reproducible_avx512dot,  ///< reproducible()
  reproducible_neondot,
  reproducible_neonmmla
};
/// All levels, those of each architecture from the plainest, without those of reproducible kernels.
inline constexpr level levels[] = {level::portable,  level::avx2,    level::avx512,
                                   level::avx512dot, level::neondot, level::neonmmla};

/// Name of a level, as LINNET_SIMD spells it.
constexpr const char* name(level l) {
  switch (l) {
    case level::avx2:
      return "avx2";
    case level::avx512:
      return "avx512";
    case level::avx512dot:
      return "avx512dot";
    case level::neondot:
      return "neondot";
    case level::neonmmla:
      return "neonmmla";
    default:
      return "portable";
  }
}

/// Whether a level is one of reproducible kernels.
constexpr bool is_reproducible(level l) { return l >= level::reproducible_portable; }
namespace detail {

/// From a level to that of its reproducible kernels.
inline constexpr int to_reproducible =
    static_cast<int>(level::reproducible_portable) - static_cast<int>(level::portable);

}  // namespace detail

/// The level of reproducible kernels with the instructions of level `l`, which is not automatic.
constexpr level reproducible(level l) {
  return is_reproducible(l) ? l : static_cast<level>(static_cast<int>(l) + detail::to_reproducible);
}
/// The level whose instructions reproducible kernels of level `l` have; `l`, if it has others.
constexpr level without_reproducible(level l) {
  return is_reproducible(l) ? static_cast<level>(static_cast<int>(l) - detail::to_reproducible) : l;
}

namespace detail {

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
  unsigned ax = 0, bx = 0, cx = 0, dx = 0;  // clang++ 14 has no name for the last one
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __get_cpuid(1, &ax, &bx, &cx, &dx) && (cx & bit_F16C))
    return level::avx2;
#elif defined(__AARCH64EL__) && defined(__linux__)
  constexpr unsigned long dot = 1ul << 20, i8mm = 1ul << 13, bf16 = 1ul << 14;  // asm/hwcap.h
  const unsigned long more = getauxval(AT_HWCAP2);
  if (getauxval(AT_HWCAP) & dot)
    return (more & i8mm) && (more & bf16) ? level::neonmmla : level::neondot;
#elif defined(__AARCH64EL__) && defined(__APPLE__)
  static const level found = [] {
    const auto has = [](const char* feature) {
      int yes = 0;
      std::size_t size = sizeof yes;
      return sysctlbyname(feature, &yes, &size, nullptr, 0) == 0 && yes != 0;
    };
    if (!has("hw.optional.arm.FEAT_DotProd")) return level::portable;
    return has("hw.optional.arm.FEAT_I8MM") && has("hw.optional.arm.FEAT_BF16") ? level::neonmmla
                                                                                : level::neondot;
  }();
  return found;
#endif
  return level::portable;
}

/// Whether this machine runs kernels of level `l`.
inline bool runs(level l) {
#if defined(__x86_64__)
  constexpr level plainest = level::avx2;
#else
  constexpr level plainest = level::neondot;
#endif
  l = without_reproducible(l);
  return l == level::portable || (l >= plainest && l <= detect());
}

}  // namespace detail

/// The level that sessions and trainers use by default: the best of this machine, or the one that
/// the environment variable LINNET_SIMD names. Its values are portable, avx2, avx512, avx512dot,
/// neondot and neonmmla; a level that the machine lacks is not used. Looked up once per program.
inline level best() {
  static const level chosen = [] {
    const level machine = detail::detect();
    const char* const wish = std::getenv("LINNET_SIMD");
    if (wish == nullptr) return machine;
    for (const level l : levels)
      if (std::string_view(wish) == name(l) && detail::runs(l)) return l;
    return machine;
  }();
  return chosen;
}

/// The level that a requested level resolves to on this machine.
inline level resolve(level wish) {
  if (wish == level::automatic) return best();
  if (detail::runs(wish)) return wish;
  return is_reproducible(wish) ? reproducible(detail::detect()) : detail::detect();
}

}  // namespace simd

LINNET_SIMD_NAMESPACE_END
