// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Scalar types of the library: indices and tokens.

#include <cstddef>
#include <cstdint>

#include <linnet/core/platform.hpp>

LINNET_NAMESPACE_BEGIN

/// Signed size and index type used for every extent, row, column and count. It has 64 bits on each
/// target: planned bytes and counts of operations may exceed 32 where addresses do not.
#if __SIZEOF_POINTER__ < 8
using index = std::int64_t;
#else
using index = std::ptrdiff_t;
#endif

/// A token id. Negative ids never reach a model; `ignored` marks label positions without loss.
using token = std::int32_t;

/// The label that contributes neither loss nor gradient (the value -100 of common data loaders).
inline constexpr token ignored = -100;

/// Result of a sampler that has nothing to choose from: logits that are empty, hold a NaN or have
/// an infinite maximum. It is no token of any vocabulary, and generation ends with it.
inline constexpr token no_token = -1;

/// The smallest multiple of `step` that is not below `n`; both positive.
constexpr index round_up(index n, index step) { return (n + step - 1) / step * step; }

namespace detail {
/// False whatever the types: the condition of a refusal in words.
template <class...>
inline constexpr bool never = false;
}  // namespace detail

LINNET_NAMESPACE_END
