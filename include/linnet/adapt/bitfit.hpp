// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// BitFit: the biases of a frozen model train, and nothing else.

#include <type_traits>

#include <linnet/adapt/base.hpp>

LINNET_NAMESPACE_BEGIN

/// Training of biases alone (Ben Zaken et al. 2021), a method of adapted<>, for models that have
/// some: those of linear maps and of LayerNorms.
struct bitfit {
  static constexpr bool reproducible = true;  ///< see compute::reproducible
};

namespace detail {
/// Whether a tensor is a bias that bitfit trains.
constexpr bool is_bias(const parameter_path& at, const tensor_info& info) {
  return info.kind == role::bias && at.name == "bias";
}
template <class M>
consteval std::size_t count_biases() {
  std::size_t count = 0;
  each_tensor<M>(
      [&](const parameter_path& at, const tensor_info& info) { count += is_bias(at, info); });
  return count;
}
}  // namespace detail

/// Model `M` with biases of its own beside packed weights. Tensors have the names of the base's.
template <class M>
struct adapted<M, bitfit> : detail::adapted_model<M, bitfit> {
  static constexpr std::size_t count = detail::count_biases<M>();
  static_assert(count > 0,
                "linnet::bitfit: the model has no biases; bias::all and norm::layer_norm have");
  static constexpr bool serves_sequences = false;  ///< merge() it to run it

  template <class Form>
  struct params {
    typename Form::vector biases[count]{};
    adapter_base base{};  ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    std::size_t i = 0;
    M::visit(
        [&](const parameter_path& where, const tensor_info& info) {
          if (!detail::is_bias(where, info)) return;
          f(where, info, p.biases[i]...);
          ++i;
        },
        at);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "bitfit");
  }

  template <class T>
  using workspace = detail::adapted_workspace<M, T>;

  /// Summed loss of a batch with these biases, see M::loss(). With `dp`, adds their gradient.
  /// Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    if (p.base.of == nullptr) return loss_sum::refused();
    auto frozen = detail::frozen_params<M, T>(static_cast<const packed<M, T>*>(p.base.of)->tree());
    auto gradient = detail::frozen_gradients<M, T>(w.unread);
    std::size_t i = 0;
    M::visit(
        [&](const parameter_path& at, const tensor_info& info, auto& value, auto& slope) {
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(value)>>)
            if (detail::is_bias(at, info)) {
              value = p.biases[i];
              if (dp) slope = dp->biases[i];
              ++i;
            }
        },
        parameter_path{}, frozen, gradient);
    return M::template loss<T, detail::frozen_base<M, T>>(frozen, dp ? &gradient : nullptr, b,
                                                          w.base, on, call, criterion);
  }
};

LINNET_NAMESPACE_END
