// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Prefix tuning behind a projection, which trains in place of the prefix and is thrown away.

#include <linnet/adapt/prefix_tuning.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

/// Prefix tuning behind a projection (Li and Liang 2021), a method of adapted<>. It trains the maps
/// of tanh(E A^T + a) B^T + b, which is the prefix. Each of `Count` virtual tokens has a narrow row
/// in E, and `Hidden` values stand between both maps. Afterwards fold() makes a prefix_tuning of
/// it, and the projection is thrown away.
template <index Count, index Hidden>
struct prefix_projection {
  static_assert(Hidden > 0 && Hidden <= 65536,
                "linnet::prefix_projection: 1 to 65536 hidden values, such as "
                "prefix_projection<10, 512>");
  static constexpr index virtual_count = Count, projection_width = Hidden;
};

namespace detail {

/// Initial values of a linear map of `In` inputs and of its bias, as PyTorch has them.
template <index In>
double start_uniform(const parameter_path&, index, random_stream& random) {
  return (2 * random.uniform() - 1) / sqrt(static_cast<double>(In));
}

/// The values between the maps of a projection, and the prefix.
template <class T>
struct projected_rows {
  T* inner = nullptr;   ///< [Count, Hidden] before their tanh
  T* active = nullptr;  ///< [Count, Hidden] behind it; may be `inner` where nothing trains
  T* prefix = nullptr;  ///< [Count, layers, 2, width of keys]
};

/// Buffers of a model with a projected prefix.
template <class M, class T>
struct projection_workspace {
  virtual_workspace<M, T> model{};
  projected_rows<T> rows{}, d_rows{};  ///< and their gradients, while training
};

}  // namespace detail

/// Model `M` with a projected prefix. Tensors have the names of PEFT's PrefixEncoder.
template <class M, index Count, index Hidden>
struct adapted<M, prefix_projection<Count, Hidden>>
    : detail::virtual_model<M, prefix_projection<Count, Hidden>, Count> {
  using shared = detail::virtual_model<M, prefix_projection<Count, Hidden>, Count>;
  using prefix = adapted<M, prefix_tuning<Count>>;  ///< what fold() makes of it
  static constexpr bool serves_sequences = false;   ///< see fold()
  /// Values of a virtual token's row: those of the keys of one layer.
  static constexpr index row_width = prefix::key_width;
  static constexpr index width = prefix::width;

  template <class Form>
  struct params {
    typename Form::vector embedding{};
    typename Form::matrix first{};
    typename Form::vector first_bias{};
    typename Form::matrix second{};
    typename Form::vector second_bias{};
    adapter_base base{};  ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    const parameter_path rows = at / "embedding", maps = at / "transform", first = maps / "0",
                         second = maps / "2";
    constexpr auto in = &detail::start_uniform<row_width>, inner = &detail::start_uniform<Hidden>;
    f(rows / "weight", tensor_info{Count, row_width, role::position, 1}, p.embedding...);
    f(first / "weight", tensor_info{Hidden, row_width, role::matrix, 0, in}, p.first...);
    f(first / "bias", tensor_info{1, Hidden, role::bias, 0, in}, p.first_bias...);
    f(second / "weight", tensor_info{width, Hidden, role::matrix, 0, inner}, p.second...);
    f(second / "bias", tensor_info{1, width, role::bias, 0, inner}, p.second_bias...);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "prefix_projection");
    f("virtual_tokens", Count);
    f("projection_width", Hidden);
  }

  template <class T>
  using workspace = detail::projection_workspace<M, T>;
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const auto take = [&](bool apart) {
      detail::projected_rows<T> rows;
      rows.inner = m.state.take<T>(Count * Hidden);
      rows.active = apart ? m.state.take<T>(Count * Hidden) : rows.inner;
      rows.prefix = m.state.take<T>(Count * width);
      return rows;
    };
    const bool trains = use == purpose::training;
    workspace<T> w;
    w.rows = take(trains);
    if (trains) w.d_rows = take(true);
    w.model = shared::template plan<T>(m, l, use);
    return w;
  }
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    shared::prepare(w.model, l);
  }

  /// Computes the prefix. Called by every thread.
  template <class T, class S>
  static void project(const ops::execution& on, const params<form::packed<T, S>>& p,
                      const detail::projected_rows<T>& to) {
    ops::matmul(on, Count, Hidden, row_width, p.embedding, p.first, to.inner, {p.first_bias});
    ops::activation<activation_kind::tanh>(on, Count * Hidden, to.inner, to.active);
    ops::matmul(on, Count, width, Hidden, to.active, p.second, to.prefix, {p.second_bias});
  }

  /// Summed loss of a batch behind the prefix, see M::loss(). With `dp`, adds the gradient of the
  /// projection. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    if (p.base.of == nullptr) return loss_sum::refused();
    project<T, S>(on, p, w.rows);
    if (dp) ops::fill(on, Count * width, T(0), w.d_rows.prefix);
    const ops::adapter_hooks<T> hooks{.object = &p,
                                      .front = {.count = Count,
                                                .keys_values = w.rows.prefix,
                                                .d_keys_values = dp ? w.d_rows.prefix : nullptr,
                                                .stride = width}};
    const loss_sum sum =
        adapted::loss_behind(p, dp != nullptr, b, w.model, on, hooks, call, criterion);
    if (dp) backward<T, S>(on, p, *dp, w);
    return sum;
  }

 private:
  /// Adds the gradients of project() from that of the prefix.
  template <class T, class S>
  static void backward(const ops::execution& on, const params<form::packed<T, S>>& p,
                       params<form::gradient<T>>& dp, const workspace<T>& w) {
    const auto& [inner, active, rows] = w.rows;
    const auto& [d_inner, d_active, d_rows] = w.d_rows;
    on.threads.wait();
    ops::fill(on, Count * Hidden, T(0), d_inner);
    ops::fill(on, Count * Hidden, T(0), d_active);
    ops::bias_gradient(on, Count, width, d_rows, dp.second_bias);
    ops::matmul_dw(on, Count, width, Hidden, d_rows, active, dp.second);
    ops::matmul_dx(on, Count, width, Hidden, d_rows, p.second, d_active);
    ops::activation_backward<activation_kind::tanh>(on, Count * Hidden, inner, d_active, d_inner);
    ops::bias_gradient(on, Count, Hidden, d_inner, dp.first_bias);
    ops::matmul_dw(on, Count, Hidden, row_width, d_inner, p.embedding, dp.first);
    ops::matmul_dx(on, Count, Hidden, row_width, d_inner, p.first, dp.embedding);
  }
};

/// A prefix before the texts of packed weights, behind a projection. The base must outlive it and
/// not move. Rows are normal values of deviation 1. A map of n inputs and its bias are uniform
/// between -n^-1/2 and n^-1/2. Errors: errc::out_of_memory, and the error of `base` if it is not
/// valid().
template <class Method, class M, class T>
requires requires { Method::projection_width; }
result<weights<adapted<M, Method>, T>> adapt(const packed<M, T>& base, seed s = {}) LINNET_TRY {
  auto made = detail::begin_adapter<Method>(base);
  if (made) initialize(*made, s);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("adapt")

/// The prefix that a projection makes, without the projection. Sessions take it, save_peft() writes
/// it, and training can go on with it. Errors: errc::invalid for an
/// adapter without a base, errc::out_of_memory, and the error of `w` if it is not valid().
template <class M, index Count, index Hidden, class T>
result<weights<adapted<M, prefix_tuning<Count>>, T>> fold(
    const weights<adapted<M, prefix_projection<Count, Hidden>>, T>& w) LINNET_TRY {
  using A = adapted<M, prefix_projection<Count, Hidden>>;
  if (!w.valid()) return w.error();
  if (auto fit = detail::check_base("fold", w.tree()); !fit) return fit.error();
  weights<adapted<M, prefix_tuning<Count>>, T> made;
  if (!made.valid()) return made.error();
  made.tree().base = w.tree().base;
  const auto maps = pack(w);
  if (!maps.valid()) return maps.error();
  constexpr index bytes = Count * Hidden * static_cast<index>(sizeof(T));
  memory_block inner(bytes);
  if (!inner.data()) return detail::out_of_memory("fold", bytes);
  auto* const rows = static_cast<T*>(inner.data());
  A::template project<T, storage_of<A, T>>(ops::execution{}, maps.tree(),
                                           {rows, rows, made.tree().prefix});
  return made;
}
LINNET_OR_OUT_OF_MEMORY("fold")

LINNET_NAMESPACE_END
