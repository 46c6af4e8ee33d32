// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Training of some tensors of a model, while all others are frozen.

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>

#include <linnet/adapt/base.hpp>

LINNET_NAMESPACE_BEGIN

/// Training of the tensors for which `Parts::trains(parameter_path)` is true, a method of
/// adapted<>. `Parts::name()` is what files say of them; see visual_parts.
template <class Parts>
struct partial_tuning {
  static constexpr bool reproducible = true;  ///< see compute::reproducible
  using parts = Parts;
};

namespace detail {
template <class M, class Parts>
consteval std::size_t count_trained() {
  std::size_t count = 0;
  each_tensor<M>([&](const parameter_path& at, const tensor_info&) { count += Parts::trains(at); });
  return count;
}
}  // namespace detail

/// Model `M` with some tensors of its own beside packed weights, which no training changes. They
/// have the names of the base's. Gradients, moments and files are those of the tensors that train.
template <class M, class Parts>
struct adapted<M, partial_tuning<Parts>> : detail::adapted_model<M, partial_tuning<Parts>> {
  static_assert(detail::count_trained<M, Parts>() > 0,
                "linnet::partial_tuning: Parts::trains() is false for all tensors of the model");
  static_assert(std::is_same_v<typename M::storage, linnet::storage::f32>,
                "linnet::partial_tuning: tensors of the base train, so that its storage must be "
                "f32; quantize() what comes out");
  static constexpr bool serves_sequences = false;  ///< merge() it to run it

  template <class Form>
  struct params {
    typename M::template params<Form> own{};  ///< null where a tensor is frozen
    adapter_base base{};                      ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    M::visit(
        [&](const parameter_path& where, const tensor_info& info, auto&... leaf) {
          if (Parts::trains(where)) f(where, info, leaf...);
        },
        at, p.own...);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "partial_tuning");
    f("parts", std::string(Parts::name()));
  }

  template <class T>
  using workspace = detail::adapted_workspace<M, T>;

  /// Summed loss of a batch with these tensors, see M::loss(). With `dp`, adds their gradient.
  /// Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    if (p.base.of == nullptr) return loss_sum::refused();
    auto frozen = detail::frozen_params<M, T>(static_cast<const packed<M, T>*>(p.base.of)->tree());
    auto gradient = detail::frozen_gradients<M, T>(w.unread);
    const typename M::template params<form::gradient<T>> none{};
    M::visit(
        [&](const parameter_path& at, const tensor_info&, auto& value, auto& slope, const auto& own,
            const auto& own_slope) {
          if (!Parts::trains(at)) return;
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(value)>>)
            value = own;
          else
            value = ops::frozen_matrix(own);
          if (dp) slope = own_slope;
        },
        parameter_path{}, frozen, gradient, p.own, dp ? std::as_const(dp->own) : none);
    return M::template loss<T, detail::frozen_base<M, T>>(frozen, dp ? &gradient : nullptr, b,
                                                          w.base, on, call, criterion);
  }
};

/// The tensors of packed weights that `Method`, a partial_tuning, trains; `base` must outlive them
/// and not move. Train them with trainer<adapted<M, Method>>. Errors: errc::out_of_memory, and the
/// error of `base` if it is not valid().
template <class Method, class M, class T>
requires requires { typename Method::parts; }
result<weights<adapted<M, Method>, T>> adapt(const packed<M, T>& base) LINNET_TRY {
  auto made = detail::begin_adapter<Method>(base);
  if (!made) return made;
  M::visit(
      [](const parameter_path& at, const tensor_info& info, auto& to, const auto& from) {
        if (!Method::parts::trains(at)) return;
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
          std::copy_n(from, info.size(), to);
        else
          for (index r = 0; r < info.rows; ++r)
            for (index j = 0; j < info.columns; ++j)
              to.data[r * info.columns + j] = from.at(r, j, info.columns);
      },
      parameter_path{}, made->tree().own, base.tree());
  return made;
}
LINNET_OR_OUT_OF_MEMORY("adapt")

/// Puts tensors that were trained alone into the weights of their base; no other bit changes.
/// Errors: the error of what is not valid().
template <class M, class Parts, class T>
result<void> merge(weights<M, T>& w, const weights<adapted<M, partial_tuning<Parts>>, T>& adapter) {
  if (!w.valid()) return w.error();
  if (!adapter.valid()) return adapter.error();
  M::visit(
      [](const parameter_path& at, const tensor_info& info, auto& to, const auto& from) {
        if (Parts::trains(at))
          std::copy_n(detail::numbers_in(from), info.size(), detail::numbers_in(to));
      },
      parameter_path{}, w.tree(), adapter.tree().own);
  return {};
}

LINNET_NAMESPACE_END
