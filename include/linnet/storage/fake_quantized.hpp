// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Plain numbers on the grid of another storage, which training computes in.

#include <linnet/storage/float.hpp>
#include <linnet/storage/layers.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// f32 numbers that codes of storage `S` stand for, for training: products read them as numbers.
/// Where `S` rounds the inputs of its products, theirs are rounded to the same grid.
template <class S>
struct fake_quantized : f32 {
  static_assert(!std::is_same_v<typename S::compute, linnet::compute::bf16>,
                "linnet::compute::fake_quantized: inputs of products stay in compute::f32 or are "
                "rounded to compute::int8, mixed_int8, int4 or fp8");
  static_assert(!is_sparse<S>,
                "linnet::compute::fake_quantized: a sparse storage is no grid to round to; prune, "
                "train what is left and quantize() it afterwards");
  using grid = S;
  using compute = typename S::compute;
  static constexpr const char* name = "fake-quantized";
};

}  // namespace storage

namespace detail {

/// Storage `To<S>`, or that of each of a mixed one.
template <template <class> class To, class S>
struct mapped_storage {
  using type = To<S>;
};
template <template <class> class To, class Rest, class... Parts>
struct mapped_storage<To, storage::mixed<Rest, Parts...>> {
  using type = storage::mixed<To<Rest>, To<Parts>...>;
};
template <template <class> class To, class Rest, class... Ranges>
struct mapped_storage<To, storage::layered<Rest, Ranges...>> {
  template <class S>
  using of = typename mapped_storage<To, S>::type;
  using type =
      storage::layered<of<Rest>, typename Ranges::template with<of<typename Ranges::stored>>...>;
};
/// Fake-quantized storage `S`, or each of a mixed one.
template <class S>
using faked_storage = mapped_storage<storage::fake_quantized, S>;

/// Whether matrices of storage `S` are fake-quantized.
template <class S>
inline constexpr bool is_fake = requires {
  typename S::grid;
};
template <class S>
requires requires { S::mixes; }
inline constexpr bool is_fake<S> = is_fake<storage::single<S>>;

}  // namespace detail

LINNET_NAMESPACE_END
