// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Models whose operations note their times: docs/performance.md has how to read them.

#include <linnet/model/weights.hpp>
#include <linnet/storage/profiled.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// Words for what has no profile; true for others.
template <class M, class Profile>
constexpr bool profile_fits() {
  constexpr bool records = requires { requires Profile::records; };
  static_assert(records,
                "linnet::profiled: the second argument is an operation_profile, which may have a "
                "clock of its own");
  static_assert(!by_layer<typename M::storage>,
                "linnet::profiled: a model of storage::layers<> is not profiled; take the storage "
                "of one of its ranges for all layers");
  return records && !by_layer<typename M::storage>;
}
template <bool Fits, class M, class Profile>
struct make_profiled {
  using type = typename M::template with_storage<storage::profiled<typename M::storage, Profile>>;
};
template <class M, class Profile>
struct make_profiled<false, M, Profile> {
  using type = M;
};
}  // namespace detail

/// Model `M` whose operations note their times in `Profile`, an operation_profile: in sessions,
/// embedders, evaluators and trainers. It computes the bits that `M` does and has its files. A
/// model without a profile has no code for it, as it is another type.
template <class M, class Profile = operation_profile<>>
using profiled =
    typename detail::make_profiled<detail::profile_fits<M, Profile>(), M, Profile>::type;

/// A copy of the weights of a model as those of profiled<M, Profile>. Not valid() if `w` is not,
/// with its error, or where memory is lacking.
template <class Profile = operation_profile<>, class M, class T>
weights<profiled<M, Profile>, T> profiled_weights(const weights<M, T>& w) {
  auto copy = detail::made_of<weights<profiled<M, Profile>, T>>(w);
  if (copy.valid()) __builtin_memcpy(copy.data(), w.data(), static_cast<std::size_t>(copy.bytes()));
  return copy;
}

LINNET_NAMESPACE_END
