#pragma once
/// @file
/// The scalar vocabulary of the library: indices and tokens.

#include <cstddef>
#include <cstdint>

#include <linnet/config/platform.hpp>

LINNET_NAMESPACE_BEGIN

/// Signed size and index type used for every extent, row, column and count.
using index = std::ptrdiff_t;

/// A token id. Negative ids never reach a model; `ignored` marks label positions without loss.
using token = std::int32_t;

/// The label that contributes neither loss nor gradient (the value -100 of common data loaders).
inline constexpr token ignored = -100;

/// The smallest multiple of `step` that is not below `n`; both positive.
constexpr index round_up(index n, index step) { return (n + step - 1) / step * step; }

LINNET_NAMESPACE_END
