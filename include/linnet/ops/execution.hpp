// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Where operations run: threads, instruction-set level and scratch memory.

#include <utility>

#include <linnet/core/parallel.hpp>
#include <linnet/simd/kernels.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

using simd::best;
using simd::bf16_code;
using simd::resolve;
using simd::token_block;
using packed_word = simd::word;  ///< what packed panels of codes are made of

/// Where an operation runs: the team of threads, the instruction-set level, and scratch memory of
/// converted_bytes() for models whose products round their inputs.
struct execution {
  team threads{};
  simd::level level = simd::level::portable;
  void* converted = nullptr;

  /// Calls f(kernels) with the kernels of the level, see simd/kernels.hpp.
  template <class F>
  void with_kernels(F&& f) const {
    simd::dispatch(level, std::forward<F>(f));
  }
};

}  // namespace ops

LINNET_NAMESPACE_END
