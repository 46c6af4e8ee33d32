// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// LoRA: low-rank deltas of the matrices of a frozen model.

#include <linnet/adapt/base.hpp>
#include <linnet/adapt/lora_product.hpp>
#include <linnet/adapt/target_modules.hpp>
#include <linnet/nn/linear.hpp>

LINNET_NAMESPACE_BEGIN

/// Low-rank adaptation (Hu et al. 2021), a method of adapted<>: y = W x + s B (A x). It holds for
/// the matrices that `Targets` names, with A[Rank, in], B[out, Rank] and W frozen. s is
/// lora_options::scale().
template <index Rank, class Targets = all_linear>
struct lora {
  static_assert(Rank > 0 && Rank <= 1024,
                "linnet::lora: the rank is from 1 to 1024, such as lora<8>");
  static constexpr index rank = Rank;
  static constexpr bool reproducible = true;  ///< see compute::reproducible
  using targets = Targets;
};

/// Model `M` with low-rank deltas. Tensors are named as PEFT names them, behind the base's path:
/// blocks.0.attention.q.lora_A.weight.
template <class M, index Rank, class Targets>
struct adapted<M, lora<Rank, Targets>> : detail::adapted_model<M, lora<Rank, Targets>> {
  static constexpr std::size_t count = detail::count_targets<M, Targets>();
  static_assert(count > 0 && detail::names_fit<M, Targets>,
                "linnet::lora: a name of target_modules<...> is that of no matrix of this model; "
                "M::visit() has the names, such as blocks.0.attention.q.weight");

  static constexpr index rank = Rank;

  template <class Form>
  struct params {
    struct map {
      typename Form::matrix a{}, b{};
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
          const parameter_path a = *weight.parent / "lora_A", b = *weight.parent / "lora_B";
          f(a / "weight",
            tensor_info{Rank, info.columns, role::matrix,
                        1 / detail::sqrt(3 * static_cast<double>(info.columns))},
            p.maps[i].a...);
          f(b / "weight", tensor_info{info.rows, Rank, role::matrix, 0, &start_zero},
            p.maps[i].b...);
          ++i;
        },
        at);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "lora");
    f("rank", Rank);
    f("target_modules", Targets::name());
  }

  /// The hooks of what runs the base. They read `p` as long as they live.
  template <class T>
  static ops::adapter_hooks<T> hook(const params<form::packed<T, storage_of<adapted, T>>>& p) {
    using packed_form = form::packed<T, storage_of<adapted, T>>;
    using added = detail::lora_product<Rank, T, params<packed_form>, params<form::gradient<T>>>;
    return {.object = &p, .products = added::of_packed(p)};
  }

  template <class T>
  using workspace = detail::adapted_workspace<M, T>;
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    return detail::plan_adapted<M, T>(m, l, use, Rank);
  }

  /// Summed loss of a batch with the adapter, see M::loss(). With `dp`, adds the adapter's
  /// gradient. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    using gradient = params<form::gradient<T>>;
    detail::lora_product<Rank, T, params<form::packed<T, S>>, gradient> added{p, dp, w.inner,
                                                                              w.d_inner};
    added.key = call.dropout;
    added.key.rate = dp || call.dropout.rate > 0 ? p.base.how.dropout : 0;
    added.sequences = b.batch;
    return adapted::loss_with(p, dp != nullptr, b, w, on,
                              ops::adapter_hooks<T>{.object = &p, .products = added.hook()}, call,
                              criterion);
  }
};

LINNET_NAMESPACE_END
