// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Making adapters of a base, and adding them to a base's weights.

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>

#include <linnet/adapt/bitfit.hpp>
#include <linnet/adapt/lora.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Lets an adapter refer to the packed weights that it adds to.
template <class A, class T>
void bind_base(const packed<typename A::base_model, T>& base, const lora_options& how,
               lora_base<A::count>& to) {
  using M = typename A::base_model;
  std::size_t i = 0;
  to.how = how;
  base.visit([&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
    if constexpr (requires { leaf.panels; })
      if (is_target<M, typename A::method::targets>(at, info)) to.panels[i++] = leaf.panels;
  });
}

/// A fresh adapter of low-rank deltas: B is 0, all else is uniform between -in^-1/2 and in^-1/2.
template <class Method, class M, class T>
result<weights<adapted<M, Method>, T>> begin_low_rank(const packed<M, T>& base,
                                                      const lora_options& how, seed s) {
  if (auto fit = detail::acceptable("adapt", "lora_options", how); !fit) return fit.error();
  auto made = detail::begin_adapter<Method>(base);
  if (!made) return made;
  detail::bind_base<adapted<M, Method>>(base, how, made->tree().base);
  made->visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    if (info.start) return;  // B
    random_stream random(s, stream_of(at));
    const double most = 1 / detail::sqrt(static_cast<double>(info.columns));
    for (index i = 0; i < info.size(); ++i)
      detail::numbers_in(leaf)[i] = static_cast<T>(most * (2 * random.uniform() - 1));
  });
  return made;
}

/// Adds `sign` times the deltas of an adapter to the matrices of `w`.
template <class M, class A, class T>
result<void> add_deltas(weights<M, T>& w, const weights<A, T>& adapter, double sign) {
  static_assert(
      std::is_same_v<M, typename A::base_model::template with_storage<storage::f32>>,
      "linnet::merge: deltas are added to f32 (or double) weights of the adapter's base model; "
      "quantize() what comes out");
  if (!w.valid()) return w.error();
  if (!adapter.valid()) return adapter.error();
  const auto& tree = adapter.tree();
  if (!tree.base.of) return check_base(sign > 0 ? "merge" : "unmerge", tree);  // nor options
  const double scale = sign * tree.base.how.scale(A::rank);
  std::size_t i = 0;
  w.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    if constexpr (requires { leaf.data; })
      if (is_target<M, typename A::method::targets>(at, info)) {
        const auto &a = tree.maps[i].a, &b = tree.maps[i].b;
        ++i;
        for (index r = 0; r < info.rows; ++r)
          for (index j = 0; j < info.columns; ++j) {
            double sum = 0;
            for (index c = 0; c < A::rank; ++c)
              sum += static_cast<double>(b.data[r * A::rank + c]) *
                     static_cast<double>(a.data[c * info.columns + j]);
            T& x = leaf.data[r * info.columns + j];
            x = static_cast<T>(static_cast<double>(x) + scale * sum);
          }
      }
  });
  return {};
}

}  // namespace detail

/// A fresh adapter of packed weights in any storage, which must outlive it and not move: B is 0, so
/// that it changes nothing; A is uniform between -in^-1/2 and in^-1/2, as PEFT's is. Train it with
/// trainer<adapted<M, Method>>. Errors: errc::invalid for options out of their ranges;
/// errc::out_of_memory, and the error of `base` if it is not valid().
template <class Method, class M, class T>
requires requires { Method::rank; }
result<weights<adapted<M, Method>, T>> adapt(const packed<M, T>& base, const lora_options& how = {},
                                             seed s = {}) LINNET_TRY {
  return detail::begin_low_rank<Method>(base, how, s);
}
LINNET_OR_OUT_OF_MEMORY("adapt")
// Weights that would be gone before they are read.
template <class Method, class M, class T>
result<weights<adapted<M, Method>, T>> adapt(const packed<M, T>&&, const lora_options& = {},
                                             seed = {}) = delete;

/// The biases of packed weights, to train them alone; `base` must outlive them and not move.
/// Errors: errc::out_of_memory, and the error of `base` if it is not valid().
template <class Method, class M, class T>
requires std::is_same_v<Method, bitfit> result<weights<adapted<M, Method>, T>> adapt(
    const packed<M, T>& base)
LINNET_TRY {
  auto made = detail::begin_adapter<Method>(base);
  if (!made) return made;
  std::size_t i = 0;
  base.visit([&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      if (detail::is_bias(at, info)) std::copy_n(leaf, info.size(), made->tree().biases[i++]);
  });
  return made;
}
LINNET_OR_OUT_OF_MEMORY("adapt")

/// Puts biases that were trained alone into the weights of their base. Errors: the error of what is
/// not valid().
template <class M, class N, class T>
result<void> merge(weights<M, T>& w, const weights<adapted<N, bitfit>, T>& adapter) {
  static_assert(std::is_same_v<typename M::template with_storage<typename N::storage>, N>,
                "linnet::merge: biases go into weights of their base model, in any storage");
  if (!w.valid()) return w.error();
  if (!adapter.valid()) return adapter.error();
  std::size_t i = 0;
  w.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      if (detail::is_bias(at, info)) std::copy_n(adapter.tree().biases[i++], info.size(), leaf);
  });
  return {};
}
/// Adds the deltas of an adapter to the weights of its base: w then computes what base and adapter
/// compute. Sums are in double. Errors: the error of what is not valid().
template <class M, class A, class T>
requires requires { A::rank; }
result<void> merge(weights<M, T>& w, const weights<A, T>& adapter) {
  return detail::add_deltas(w, adapter, 1);
}
/// Takes the deltas of an adapter away again.
template <class M, class A, class T>
requires requires { A::rank; }
result<void> unmerge(weights<M, T>& w, const weights<A, T>& adapter) {
  return detail::add_deltas(w, adapter, -1);
}

LINNET_NAMESPACE_END
