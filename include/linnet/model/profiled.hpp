// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Models whose operations note their times: docs/performance.md has how to read them.

#include <linnet/model/weights.hpp>
#include <linnet/storage/profiled.hpp>

LINNET_NAMESPACE_BEGIN

/// Model `M` whose operations note their times in `Profile`, an operation_profile: in sessions,
/// embedders, evaluators and trainers. It computes the bits that `M` does and has its files. A
/// model without a profile has no code for it, as it is another type.
template <class M, class Profile = operation_profile<>>
using profiled =
    typename M::template with_storage<storage::profiled<typename M::storage, Profile>>;

/// A copy of the weights of a model as those of profiled<M, Profile>. Not valid() if `w` is not,
/// with its error, or where memory is lacking.
template <class Profile = operation_profile<>, class M, class T>
weights<profiled<M, Profile>, T> profiled_weights(const weights<M, T>& w) {
  auto copy = detail::made_of<weights<profiled<M, Profile>, T>>(w);
  if (copy.valid())
    __builtin_memcpy(copy.data(), w.data(), static_cast<std::size_t>(copy.bytes()));
  return copy;
}

LINNET_NAMESPACE_END
