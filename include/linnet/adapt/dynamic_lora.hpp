// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Dynamic adapters: several low-rank deltas of each matrix, of which a router chooses for each
/// token.

#include <linnet/adapt/adapt.hpp>

LINNET_NAMESPACE_BEGIN

/// Dynamic adapters (Kong et al. 2024), a method of adapted<>: y = W x + s sum of g_i B_i (A_i x).
/// The sum is over the `Top` experts with the largest g = softmax(R x). Each matrix that `Targets`
/// names has `Experts` deltas of rank `Rank` and a router R[Experts, in]. One expert is lora<Rank>.
template <index Experts, index Rank, index Top = 2, class Targets = all_linear>
struct dynamic_lora {
  static_assert(Experts >= 1 && Experts <= 64 && Top >= 1 && Top <= Experts,
                "linnet::dynamic_lora: 1 to 64 experts, of which 1 to all are chosen, such as "
                "dynamic_lora<8, 4, 2>");
  static_assert(Rank > 0 && Experts * Rank <= 1024,
                "linnet::dynamic_lora: experts times rank is from 1 to 1024");
  static constexpr index experts = Experts, expert_rank = Rank, chosen = Top;
  using targets = Targets;
};

/// Model `M` with dynamic adapters. Tensors are named as lora's, for all experts one after the
/// other, beside blocks.0.attention.q.lora_router.weight.
template <class M, index Experts, index Rank, index Top, class Targets>
struct adapted<M, dynamic_lora<Experts, Rank, Top, Targets>>
    : detail::adapted_model<M, dynamic_lora<Experts, Rank, Top, Targets>> {
  static constexpr std::size_t count = detail::count_targets<M, Targets>();
  static_assert(count > 0 && detail::names_fit<M, Targets>,
                "linnet::dynamic_lora: a name of target_modules<...> is that of no matrix of this "
                "model; M::visit() has the names, such as blocks.0.attention.q.weight");

  template <class Form>
  struct params {
    struct map {
      typename Form::matrix a{}, b{}, router{};
    };
    map maps[count]{};
    lora_base<count> base{};  ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    std::size_t i = 0;
    M::visit(
        [&](const parameter_path& weight, const tensor_info& info) {
          if (!detail::is_target<M, Targets>(weight, info)) return;
          const parameter_path a = *weight.parent / "lora_A", b = *weight.parent / "lora_B",
                               router = *weight.parent / "lora_router";
          const double deviation = 1 / detail::sqrt(3 * static_cast<double>(info.columns));
          f(a / "weight", tensor_info{Experts * Rank, info.columns, role::matrix, deviation},
            p.maps[i].a...);
          f(b / "weight", tensor_info{info.rows, Experts * Rank, role::matrix, 0, &start_zero},
            p.maps[i].b...);
          f(router / "weight", tensor_info{Experts, info.columns, role::matrix, deviation},
            p.maps[i].router...);
          ++i;
        },
        at);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "dynamic_lora");
    f("experts", Experts);
    f("rank", Rank);
    f("chosen", Top);
    f("target_modules", Targets::name());
  }
  /// The product of packed parameters `P` with gradients `G`.
  template <class T, class P>
  using product = detail::lora_product<Experts * Rank, T, P, params<form::gradient<T>>,
                                       detail::expert_gates<Experts, Top>>;
  /// The hooks of what runs the base. They read `p` as long as they live.
  template <class T>
  static ops::adapter_hooks<T> hook(const params<form::packed<T, storage_of<adapted, T>>>& p) {
    using packed_params = params<form::packed<T, storage_of<adapted, T>>>;
    return {.object = &p, .products = product<T, packed_params>::of_packed(p)};
  }

  template <class T>
  using workspace = detail::adapted_workspace<M, T>;
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    return detail::plan_adapted<M, T>(m, l, use, 2 * Experts * Rank + Experts);
  }

  /// Summed loss of a batch with the adapter, see M::loss(). With `dp`, adds the adapter's
  /// gradient. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    product<T, params<form::packed<T, S>>> added{p, dp, w.inner, w.d_inner};
    added.key = call.dropout;
    added.key.rate = dp || call.dropout.rate > 0 ? p.base.how.dropout : 0;
    added.sequences = b.batch;
    return adapted::loss_with(p, dp != nullptr, b, w, on,
                              ops::adapter_hooks<T>{.object = &p, .products = added.hook()}, call,
                              criterion);
  }
};

/// Fresh dynamic adapters of packed weights in any storage, which must outlive them and not move. B
/// is 0, so that they change nothing; A and the router are uniform between -in^-1/2 and in^-1/2.
/// lora_options::alpha is over the rank of one expert. Errors: those of adapt() with lora.
template <class Method, class M, class T>
requires requires { Method::expert_rank; }
result<weights<adapted<M, Method>, T>> adapt(const packed<M, T>& base, const lora_options& how = {},
                                             seed s = {}) LINNET_TRY {
  return detail::begin_low_rank<Method>(base, how, s);
}
LINNET_OR_OUT_OF_MEMORY("adapt")

LINNET_NAMESPACE_END
