// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Common parts of adapters: the base that they refer to, and how it runs with them.

#include <algorithm>

#include <linnet/model/buffers.hpp>
#include <linnet/storage/frozen.hpp>

LINNET_NAMESPACE_BEGIN

/// Model `M` with an adapter: see lora and bitfit. Its weights are the adapter's alone, with a
/// visit, gradients, moments and files of their own. They refer to packed weights of `M` in any
/// storage, which any number of adapters share and none changes; see adapt().
template <class M, class Method>
struct adapted;

namespace detail {

/// How a frozen model of scalar `T` is stored.
template <class M, class T>
using frozen_base = typename frozen_storage<storage_of<M, T>>::type;

/// The parameters of `p` as frozen ones, in the same memory.
template <class M, class T>
packed_params<M, T, frozen_base<M, T>> frozen_params(
    const packed_params<M, T, storage_of<M, T>>& p) {
  packed_params<M, T, frozen_base<M, T>> made{};
  M::visit(
      [](const parameter_path&, const tensor_info&, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
          to = from;
        else
          to = ops::frozen_matrix(from);
      },
      parameter_path{}, made, p);
  return made;
}

/// Values of the largest tensor of `M` that is no matrix.
template <class M>
consteval index largest_vector() {
  index most = 0;
  M::visit(
      [&](const parameter_path&, const tensor_info& info) {
        if (!info.stored()) most = (std::max)(most, info.size());
      },
      parameter_path{});
  return most;
}
/// Gradients of a frozen model: none of its matrices, and one place for those of all vectors, which
/// nobody reads.
template <class M, class T>
typename M::template params<form::gradient<T>> frozen_gradients(T* unread) {
  typename M::template params<form::gradient<T>> made{};
  M::visit(
      [&](const parameter_path&, const tensor_info& info, auto& leaf) {
        if (!info.stored()) leaf = unread;
      },
      parameter_path{}, made);
  return made;
}

/// Buffers of a model with an adapter.
template <class M, class T>
struct adapted_workspace {
  typename M::template workspace<T> base{};
  T* unread = nullptr;                     ///< [largest_vector()] while training
  T *inner = nullptr, *d_inner = nullptr;  ///< of the adapter, while training
};

/// Plans the base of an adapter that keeps `width` values of each row of a product.
template <class M, class T>
constexpr adapted_workspace<M, T> plan_adapted(planner& m, const limits& l, purpose use,
                                               index width) {
  adapted_workspace<M, T> w;
  if (use == purpose::training) {
    planner rows;
    rows.converted_bytes = [](index some, index, index, index, bool) { return some; };
    (void)M::template plan<T>(rows, l, use);
    w.unread = m.saved.take<T>(largest_vector<M>());
    w.inner = m.saved.take<T>(multiply_sizes(rows.converted, width));
    w.d_inner = m.saved.take<T>(multiply_sizes(rows.converted, width));
  }
  m.converted_bytes = planner_for<frozen_base<M, T>>().converted_bytes;
  w.base = M::template plan<T>(m, l, use);
  return w;
}

}  // namespace detail

LINNET_NAMESPACE_END
