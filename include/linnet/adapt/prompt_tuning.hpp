// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Prompt tuning: soft tokens before each text train, and nothing else.

#include <linnet/adapt/virtual_model.hpp>

LINNET_NAMESPACE_BEGIN

/// Prompt tuning (Lester et al. 2021), a method of adapted<>: `Count` rows that train stand before
/// the embedded tokens of each text, of a T5 before those of each source. Tokens have their places
/// behind them, as PEFT's have. An encoder adds positions and the first type to them, and its norm
/// reads them.
template <index Count>
struct prompt_tuning {
  static constexpr index virtual_count = Count;
  static constexpr bool reproducible = true;  ///< see compute::reproducible
};

/// Model `M` with soft tokens, [Count, d_model], or of an encoder as wide as its embedding.
template <class M, index Count>
struct adapted<M, prompt_tuning<Count>>
    : detail::virtual_model<M, prompt_tuning<Count>, Count, M::encodes> {
  static constexpr index width = detail::virtual_stack<M>::width;
  template <class Form>
  struct params {
    typename Form::vector prompt{};
    adapter_base base{};  ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "prompt_embeddings", tensor_info{Count, width, role::position, 1}, p.prompt...);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "prompt_tuning");
    f("virtual_tokens", Count);
  }
  /// The hooks of what runs the base. They read `p` as long as they live.
  template <class T>
  static ops::adapter_hooks<T> hook(const params<form::packed<T, storage_of<adapted, T>>>& p,
                                    const params<form::gradient<T>>* dp = nullptr) {
    return {.object = &p,
            .front = {.count = Count,
                      .rows = p.prompt,
                      .d_rows = dp ? dp->prompt : nullptr,
                      .before_source = M::encodes}};
  }
  /// Summed loss of a batch behind the soft tokens, see M::loss(). With `dp`, adds their gradient.
  /// Called by every thread.
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
