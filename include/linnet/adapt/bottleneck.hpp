// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Bottleneck adapters: two narrow maps behind each residual branch of a frozen model.

#include <linnet/adapt/bottleneck_rows.hpp>
#include <linnet/adapt/target_modules.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/model/initialize.hpp>

LINNET_NAMESPACE_BEGIN

/// All residual branches of a model's layers that have matrices: attention and feed-forwards.
struct all_branches {
  /// Whether it has the branch at this place.
  static constexpr bool has(const parameter_path&) { return true; }
  static std::string name() { return "all-branches"; }
};

/// Bottleneck adapters (Houlsby et al. 2019), a method of adapted<>. What a residual branch makes,
/// h, becomes h + U f(D h + b) + c before it joins the stream, with D[Width, d] and U[d, Width].
/// `Branches` are all_branches or target_modules<"attention", "ffn">. U and c begin as 0, so that
/// nothing changes.
template <index Width, class Branches = all_branches,
          activation_kind Activation = activation_kind::gelu>
struct bottleneck {
  static_assert(Width > 0 && Width <= 1024,
                "linnet::bottleneck: the width is from 1 to 1024, such as bottleneck<16>");
  static constexpr index width = Width;
  static constexpr activation_kind activation = Activation;
  static constexpr bool reproducible = true;  ///< see compute::reproducible
  using branches = Branches;
};

namespace detail {

/// Whether layers of `M` share whole matrices, which stand beside the numbered layers then.
template <class M>
inline constexpr bool shares_branches = false;
template <class M>
requires requires { M::sharing::projections; }
inline constexpr bool shares_branches<M> = M::sharing::projections.plain();

/// The path of the branch of a layer that a tensor belongs to, or null for others. What a branch
/// numbers itself, such as experts, is a part of it.
template <class M>
constexpr const parameter_path* branch_of(const parameter_path& at) {
  const parameter_path* branch = nullptr;
  for (const parameter_path* one = &at; one->parent; one = one->parent)
    if (one->parent->number >= 0 || (shares_branches<M> && one->parent->name == "shared"))
      branch = one;
  return branch;
}
/// Tells where a branch begins that `Branches` have, as a visit goes through a model's tensors.
template <class M, class Branches>
struct branch_walk {
  /// Whether a tensor is the first matrix of another branch than the one before.
  constexpr bool begins(const parameter_path& at, const tensor_info& info) {
    if (info.kind != role::matrix || makes_logits<M>(at, info) || in_embedding(at)) return false;
    const parameter_path* const branch = branch_of<M>(at);
    if (!branch || !Branches::has(*branch)) return false;
    const bool other =
        branch->name != name_ || branch->parent->number != layer_ || stack_of(*branch) != stack_;
    name_ = branch->name;
    layer_ = branch->parent->number;
    stack_ = stack_of(*branch);
    return other;
  }
  /// Whether it is any matrix of such a branch.
  static constexpr bool has(const parameter_path& at, const tensor_info& info) {
    branch_walk fresh;
    return fresh.begins(at, info);
  }

 private:
  std::string_view name_{}, stack_{};
  index layer_ = -1;
  static constexpr std::string_view stack_of(const parameter_path& branch) {
    const parameter_path* const whole = branch.parent->parent;
    return whole ? whole->name : std::string_view();
  }
};
template <class M, class Branches>
consteval std::size_t count_branches() {
  std::size_t count = 0;
  branch_walk<M, Branches> walk;
  M::visit(
      [&](const parameter_path& at, const tensor_info& info) { count += walk.begins(at, info); },
      parameter_path{});
  return count;
}
template <class M, class Branches>
inline constexpr bool branches_fit = true;
template <class M, fixed_string... Names>
inline constexpr bool branches_fit<M, target_modules<Names...>> =
    ((count_branches<M, target_modules<Names>>() > 0) && ...);

}  // namespace detail

/// Model `M` with bottlenecks. Tensors are named behind the branch:
/// blocks.0.ffn.adapter.down.weight.
template <class M, index Width, class Branches, activation_kind Activation>
struct adapted<M, bottleneck<Width, Branches, Activation>>
    : detail::adapted_model<M, bottleneck<Width, Branches, Activation>> {
  static_assert(
      detail::is_decoder<M> || detail::is_encoder<M> ||
          requires(const typename M::batch& b) { b.target_length; },
      "linnet::bottleneck: decoders, encoders and T5 have branches of one width; this "
      "model does not");
  static constexpr std::size_t count = detail::count_branches<M, Branches>();
  static_assert(count > 0 && detail::branches_fit<M, Branches>,
                "linnet::bottleneck: a name of target_modules<...> is that of no branch of this "
                "model's layers; decoders have attention and ffn");
  static constexpr index d = M::d;
  using walk = detail::branch_walk<M, Branches>;

  template <class Form>
  struct params {
    struct part {
      typename Form::matrix down{}, up{};
      typename Form::vector down_bias{}, up_bias{};
    };
    part parts[count]{};
    detail::panels_base<count> base{};  ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    std::size_t i = 0;
    walk branches;
    M::visit(
        [&](const parameter_path& weight, const tensor_info& info) {
          if (!branches.begins(weight, info)) return;
          const parameter_path place = *detail::branch_of<M>(weight) / "adapter";
          const parameter_path down = place / "down", up = place / "up";
          f(down / "weight", tensor_info{Width, d, role::matrix, 1 / detail::sqrt(double(d))},
            p.parts[i].down...);
          f(down / "bias", tensor_info{1, Width, role::bias}, p.parts[i].down_bias...);
          f(up / "weight", tensor_info{d, Width, role::matrix, 0, &start_zero}, p.parts[i].up...);
          f(up / "bias", tensor_info{1, d, role::bias}, p.parts[i].up_bias...);
          ++i;
        },
        at);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "bottleneck");
    f("width", Width);
    f("branches", Branches::name());
    f("activation", detail::name_of(Activation));
  }
  /// The hooks of what runs the base. They read `p` as long as they live.
  template <class T>
  static ops::adapter_hooks<T> hook(const params<form::packed<T, storage_of<adapted, T>>>& p) {
    using packed_params = params<form::packed<T, storage_of<adapted, T>>>;
    using rows =
        detail::bottleneck_rows<Width, Activation, T, packed_params, params<form::gradient<T>>>;
    return {.object = &p, .branches = rows::of_packed(p)};
  }

  template <class T>
  using workspace = detail::adapted_workspace<M, T>;
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    m.keeps_branches = true;
    return detail::plan_adapted<M, T>(m, l, use, 2 * Width);
  }

  /// Summed loss of a batch with the adapter, see M::loss(). With `dp`, adds the adapter's
  /// gradient. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    const detail::bottleneck_rows<Width, Activation, T, params<form::packed<T, S>>,
                                  params<form::gradient<T>>>
        rows{p, dp, w.inner, w.d_inner};
    return adapted::loss_with(p, dp != nullptr, b, w, on,
                              ops::adapter_hooks<T>{.object = &p, .branches = rows.hook()}, call,
                              criterion);
  }
};

/// Fresh bottlenecks of packed weights in any storage, which must outlive them and not move: they
/// change nothing yet. Errors: errc::out_of_memory, and the error of `base` if it is not valid().
template <class Method, class M, class T>
requires requires { Method::branches::name(); }
result<weights<adapted<M, Method>, T>> adapt(const packed<M, T>& base, seed s = {}) LINNET_TRY {
  using A = adapted<M, Method>;
  auto made = detail::begin_adapter<Method>(base);
  if (!made) return made;
  // The key of a branch is its last matrix.
  std::size_t i = 0;
  typename A::walk branches;
  M::visit(
      [&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
        if constexpr (requires { leaf.panels; }) {
          i += branches.begins(at, info);
          if (A::walk::has(at, info)) made->tree().base.panels[i - 1] = leaf.panels;
        }
      },
      parameter_path{}, base.tree());
  initialize(*made, s);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("adapt")

LINNET_NAMESPACE_END
