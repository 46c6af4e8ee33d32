// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Quantize: weights are rounded once and stored, shipped and multiplied as small codes.

#include <string>
#include <utility>

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

/// The model type that quantize() makes: M with its matrices and token tables stored as `S`, and
/// the inputs of its products rounded to `A`.
template <class M, class S, class A = compute::f32>
using quantized = typename M::template with_storage<typename std::conditional_t<
    std::is_same_v<A, compute::f32>, std::type_identity<S>, detail::computed_storage<S, A>>::type>;

/// Rounds every matrix and token table of `w` to storage `S`, to nearest, with scales from the
/// largest magnitudes. Norms, biases and position tables stay in f32. `A` is what inputs of
/// products are rounded to at run time. The result is not valid() if `w` is not, if `w` holds a NaN
/// or an infinity, or a number that `S` would make infinite. Its error() names the first such
/// tensor; pack(), session::open() and save_safetensors() pass it on.
template <class S, class A = compute::f32, class M>
weights<quantized<M, S, A>> quantize(const weights<M>& w) {
  static_assert(
      std::is_same_v<typename detail::unprofiled_storage<typename M::storage>::type, storage::f32>,
      "linnet::quantize: the source must be stored in f32");
  auto rounded = detail::made_of<weights<quantized<M, S, A>>>(w);
  if (!rounded.valid()) return rounded;
  if (auto fit = check_finite(w, "quantize"); !fit) {
    rounded.fail(fit.error());
    return rounded;
  }
  each_tensor_of(
      [](const parameter_path&, const tensor_info& info, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
          std::copy_n(from, info.size(), to);
        else
          detail::encode_matrix(info.rows, info.columns, from.data, to);
      },
      rounded, w);
  if (auto name = first_nonfinite(rounded); !name.empty())
    rounded.fail({errc::invalid, "quantize", std::move(name),
                  "numbers that storage::" + storage::name_of<S>() + " holds", "a larger one"});
  return rounded;
}

/// Nonzero numbers of `w` for which `S` has no place: where more are nonzero than a sparse storage
/// keeps, quantize<S>(w) sets the smallest to 0. It is 0 for weights that were pruned to the
/// pattern, and for storages that keep all.
template <class S, class M>
index dropped_by(const weights<M>& w) {
  index count = 0;
  if (!w.valid()) return count;
  typename quantized<M, S>::template params<form::canonical<float, S>> tree{};
  const auto add = [&](const parameter_path&, const tensor_info& info, const auto& to,
                       const auto& from) {
    if constexpr (requires { to.kept; }) {
      using pattern = typename std::remove_cvref_t<decltype(to)>::storage::pattern;
      for (index r = 0; r < info.rows; r += pattern::rows_together)
        count += pattern::dropped(info.columns, from.data + r * info.columns,
                                  (std::min)(pattern::rows_together, info.rows - r));
    }
  };
  detail::each_leaf(add, detail::tree_of<quantized<M, S>, form::canonical<float, S>>{tree},
                    detail::tree_in(w));
  return count;
}

/// Bytes of the weights of model `M` stored as `S`, scales included, norms and position tables in
/// f32.
template <class M, class S = typename M::storage>
consteval index weight_bytes() {
  index bytes = 0;
  const auto count = [&]<class One>(std::type_identity<One>, const tensor_info& info) {
    bytes += info.stored() ? matrix_bytes<One>(info.rows, info.columns)
                           : info.size() * static_cast<index>(sizeof(float));
  };
  if constexpr (requires { S::mixes; }) {  // each matrix says how it is stored
    typename M::template params<form::canonical<float, S>> tree{};
    M::visit(
        [&](const parameter_path&, const tensor_info& info, const auto& leaf) {
          if constexpr (requires { leaf.scales; })
            count(std::type_identity<typename std::remove_cvref_t<decltype(leaf)>::storage>{},
                  info);
          else
            count(std::type_identity<storage::f32>{}, info);
        },
        parameter_path{}, tree);
  } else {
    each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
      count(std::type_identity<S>{}, info);
    });
  }
  return bytes;
}

LINNET_NAMESPACE_END
