// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Prefix tuning: keys and values before each text train in every layer, and nothing else.

#include <linnet/adapt/virtual_model.hpp>

LINNET_NAMESPACE_BEGIN

/// Prefix tuning (Li and Liang 2021), a method of adapted<> for softmax attention. Every layer
/// finds keys and values of `Count` virtual tokens before those of each text, of a T5 before those
/// of each target. They are as a cache would have them: no position is added. Tokens have their
/// places behind them, as PEFT's have.
template <index Count>
struct prefix_tuning {
  static constexpr index virtual_count = Count;
  static constexpr bool reproducible = true;  ///< see compute::reproducible
};

namespace detail {
/// Whether every layer's attention takes keys that are given.
template <class M>
consteval bool takes_virtual_keys() {
  if constexpr (virtual_stack<M>::known) {
    if constexpr (virtual_stack<M>::attention::heads_by_layer) return false;  // keys have one width
    using layer = typename virtual_stack<M>::attention::template layer<virtual_self<M>>;
    if constexpr (requires { layer::takes_virtual_keys; }) return layer::takes_virtual_keys;
    return false;
  }
  return true;  // refused in other words
}
}  // namespace detail

/// Model `M` with a prefix of keys and values, [Count, layers, 2, kv_heads, d_kv].
template <class M, index Count>
struct adapted<M, prefix_tuning<Count>> : detail::virtual_model<M, prefix_tuning<Count>, Count> {
  static_assert(detail::takes_virtual_keys<M>(),
                "linnet::prefix_tuning: this kind of attention takes no keys that are given; full "
                "attention and sliding windows do");
  /// Values of the keys of a token in one layer.
  static constexpr index key_width =
      detail::virtual_self<M>.kv_heads * detail::virtual_self<M>.d_kv;
  static constexpr index width = detail::virtual_stack<M>::layers * 2 * key_width;

  template <class Form>
  struct params {
    typename Form::vector prefix{};
    adapter_base base{};  ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "prompt_embeddings", tensor_info{Count, width, role::position, 1}, p.prefix...);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "prefix_tuning");
    f("virtual_tokens", Count);
  }
  /// The hooks of what runs the base. They read `p` as long as they live.
  template <class T>
  static ops::adapter_hooks<T> hook(const params<form::packed<T, storage_of<adapted, T>>>& p,
                                    const params<form::gradient<T>>* dp = nullptr) {
    return {.object = &p,
            .front = {.count = Count,
                      .keys_values = p.prefix,
                      .d_keys_values = dp ? dp->prefix : nullptr,
                      .stride = width}};
  }
  /// Summed loss of a batch behind the prefix, see M::loss(). With `dp`, adds its gradient. Called
  /// by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, detail::virtual_workspace<M, T>& w,
                       const ops::execution& on, const loss_call<T>& call = {},
                       const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    return adapted::loss_behind(p, dp != nullptr, b, w, on, hook<T>(p, dp), call, criterion);
  }
};

LINNET_NAMESPACE_END
