// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Matrices that do not train: gradients flow through them to what they read, as they are stored.

#include <linnet/storage/fake_quantized.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Storage `S` of a matrix without a gradient of its own. Panels are those of `S`, which products
/// and the derivative by their inputs read. That derivative passes straight through what products
/// round (Bengio et al. 2013).
template <class S>
struct frozen : S {
  static constexpr bool is_frozen = true;
};

}  // namespace storage

namespace detail {

/// Frozen storage `S`, or each of a mixed one.
template <class S>
using frozen_storage = mapped_storage<storage::frozen, S>;

/// Whether matrices of storage `S` are frozen.
template <class S>
inline constexpr bool is_frozen = requires {
  S::is_frozen;
};
template <class S>
requires requires { S::mixes; }
inline constexpr bool is_frozen<S> = is_frozen<storage::single<S>>;

}  // namespace detail

LINNET_NAMESPACE_END
