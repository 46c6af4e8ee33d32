// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Which models can be computed with the same bits on every machine, see compute::reproducible.

#include <cfloat>
#include <type_traits>

#include <linnet/model/limits.hpp>
#include <linnet/model/policy_set.hpp>
#include <linnet/storage/profiled.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether the arithmetic of a policy's layers is that of reproducible kernels alone.
template <class P>
inline constexpr bool covers_policy = false;
template <>
inline constexpr bool covers_policy<attention::full> = true;
template <index Width>
inline constexpr bool covers_policy<attention::sliding_window<Width>> = true;
template <index First, index Recent>
inline constexpr bool covers_policy<attention::sinks<First, Recent>> = true;
template <activation_kind A>
inline constexpr bool covers_policy<ffn::standard<A>> = true;
template <activation_kind A>
inline constexpr bool covers_policy<ffn::gated<A>> = true;
template <>
inline constexpr bool covers_policy<ffn::skip> = true;
template <>
inline constexpr bool covers_policy<ffn::linear> = true;
template <>
inline constexpr bool covers_policy<ffn::linear_relu> = true;
template <int N, expansion E>
inline constexpr bool covers_policy<ffn::reparam<N, E>> = true;
template <>
inline constexpr bool covers_policy<norm::rms> = true;
template <>
inline constexpr bool covers_policy<norm::layer_norm> = true;
template <>
inline constexpr bool covers_policy<kv::exact> = true;
template <>
inline constexpr bool covers_policy<kv::bf16> = true;
template <>
inline constexpr bool covers_policy<kv::f16> = true;
template <>
inline constexpr bool covers_policy<kv::int8> = true;
template <>
inline constexpr bool covers_policy<depths::all> = true;
template <>
inline constexpr bool covers_policy<sharing::none> = true;
template <>
inline constexpr bool covers_policy<sharing::ffn> = true;
template <>
inline constexpr bool covers_policy<sharing::all> = true;
template <>
inline constexpr bool covers_policy<embedding::full> = true;
template <>
inline constexpr bool covers_policy<storage::f32> = true;
template <>
inline constexpr bool covers_policy<storage::bf16> = true;
template <>
inline constexpr bool covers_policy<storage::int8> = true;
template <>
inline constexpr bool covers_policy<storage::with_compute<storage::int8, compute::int8>> = true;
template <class S, class Profile>
inline constexpr bool covers_policy<storage::profiled<S, Profile>> = covers_policy<S>;

/// Whether all of these policies' layers have it.
template <class... Ps>
inline constexpr bool covers_policies = (covers_policy<Ps> && ...);
template <class... Ps>
inline constexpr bool covers_decoder = covers_policies<
    pick<attention::policy, attention::full, Ps...>, pick<ffn::policy, ffn::swiglu, Ps...>,
    pick<norm::policy, norm::rms, Ps...>, pick<kv::policy, kv::exact, Ps...>,
    pick<depths::policy, depths::all, Ps...>, pick<sharing::policy, sharing::none, Ps...>,
    pick<embedding::policy, embedding::full, Ps...>, typename pick_storage<Ps...>::type>;

/// Whether a list of policies asks for the same bits everywhere.
template <class... Ps>
inline constexpr bool asks_reproducible =
    std::is_same_v<pick<compute::arithmetic, compute::fast, Ps...>, compute::reproducible>;

/// Words for a model that asks for the same bits everywhere where it cannot have them; true for
/// others. `Covered` says whether its policies can.
template <bool Covered, class... Ps>
constexpr bool reproducible_fits() {
  if constexpr (!asks_reproducible<Ps...>) {
    return true;
  } else {
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__) || __FINITE_MATH_ONLY__ || FLT_EVAL_METHOD != 0
    static_assert(never<Ps...>,
                  "linnet::compute::reproducible: compile without -ffast-math and with SSE, NEON "
                  "or other arithmetic in float; this unit lets the compiler change sums");
    return false;
#elif !defined(LINNET_REPRODUCIBLE)
    static_assert(never<Ps...>,
                  "linnet::compute::reproducible: its kernels are not compiled unless asked for; "
                  "add -DLINNET_REPRODUCIBLE");
    return false;
#else
    static_assert(Covered,
                  "linnet::compute::reproducible: one of these policies computes what it does not "
                  "cover; docs/reproducible.md lists what it does");
    return Covered;
#endif
  }
}

/// Whether model `M` computes the same bits on every machine.
template <class M>
inline constexpr bool is_reproducible = false;
template <class M>
requires requires { typename M::arithmetic; }
inline constexpr bool is_reproducible<M> =
    std::is_same_v<typename M::arithmetic, compute::reproducible>;

/// Limits for what computes beside model `M`, such as an optimizer: with reproducible kernels where
/// the model has them.
template <class M>
limits arithmetic_limits(limits l) {
  if constexpr (is_reproducible<M>) l.level = simd::reproducible(ops::resolve(l.level));
  return l;
}

/// Where a model of this arithmetic runs: `on`, or with reproducible kernels.
template <class Arithmetic>
ops::execution arithmetic_of(const ops::execution& on) {
  ops::execution with = on;
  if constexpr (std::is_same_v<Arithmetic, compute::reproducible>)
    with.level = simd::reproducible(on.level);
  return with;
}

}  // namespace detail

LINNET_NAMESPACE_END
