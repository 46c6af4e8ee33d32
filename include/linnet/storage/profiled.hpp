// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage of models whose operations are timed.

#include <type_traits>

#include <linnet/core/profile.hpp>
#include <linnet/storage/layers.hpp>
#include <linnet/storage/mixed_precision.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Storage `S` of a model whose operations note their times in `Profile`, an operation_profile.
/// Matrices are stored and packed as `S`, bit by bit. Models get it by linnet::profiled. Only the
/// type tells, so models with and without a profile stand in one program.
template <class S, class Profile = operation_profile<>>
struct profiled : S {
  using profile = Profile;
};

}  // namespace storage

namespace detail {

template <class S, class Profile, storage::part P>
requires(P != storage::part::any) struct part_storage<storage::profiled<S, Profile>, P> {
  using type = storage::profiled<storage::at<S, P>, Profile>;
};
template <class S, class Profile>
struct rest_storage<storage::profiled<S, Profile>> : rest_storage<S> {};
template <class S, class Profile, class A>
requires(!std::is_same_v<typename S::compute,
                         A>) struct computed_storage<storage::profiled<S, Profile>, A> {
  using type = storage::profiled<typename computed_storage<S, A>::type, Profile>;
};
template <class S, class Profile>
inline constexpr bool is_mixed_precision<storage::profiled<S, Profile>> = is_mixed_precision<S>;

/// The profile of a model stored as `S`, or no_profile.
template <class S>
struct profile_of {
  using type = no_profile;
};
template <class S, class Profile>
struct profile_of<storage::profiled<S, Profile>> {
  using type = Profile;
};
/// Storage `S` without a profile.
template <class S>
struct unprofiled_storage {
  using type = S;
};
template <class S, class Profile>
struct unprofiled_storage<storage::profiled<S, Profile>> {
  using type = S;
};
/// Whether operations of a model stored as `S` are timed.
template <class S>
inline constexpr bool is_profiled = profile_of<S>::type::records;
/// Words for a model `M` whose profile would stay empty, as calls run it in storage `S`.
template <class M, class S>
consteval bool profile_is_kept() {
  static_assert(!is_profiled<typename M::storage> || is_profiled<S>,
                "linnet::profiled: is timed in float, and by trainers in compute::f32 and "
                "compute::bf16");
  return true;
}
/// Storage `To` with the profile that `S` has, if any.
template <class S, class To>
struct profiled_alike {
  using type = To;
};
template <class S, class Profile, class To>
struct profiled_alike<storage::profiled<S, Profile>, To> {
  using type = storage::profiled<To, Profile>;
};

}  // namespace detail

LINNET_NAMESPACE_END
