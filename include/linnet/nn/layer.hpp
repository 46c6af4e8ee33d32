// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The contract of a layer.
///
/// A layer is a stateless type with
///  - `params<Form>`: its parameters as a struct, in one of the forms of nn/parameters.hpp;
///  - `visit(f, at, p...)`: calls `f(path, tensor_info, p.member...)` for each parameter, for any
///    number of parameter structs in lockstep (also none, to count at compile time: it is
///    constexpr);
///    One struct may also be that of a counterpart, a layer with the same members whose matrices
///    are kept in another way. What keeps a matrix W as others has a second `visit(f, at, p, q)`,
///    for q with a `weight` W: it calls `f(path, tensor_info of W, matrix_expression, q.weight)`.
///    collapse(), factorise() and unshare() work on every such layer. What keeps W as rows for its
///    kernels passes these, or a turned_matrix of them; contextualise() works on such layers;
///  - `cache<T>` and `plan<T>(planner&, call_shape)`: the buffers one instance needs;
///  - `forward(p, x, y, cache, ctx)`: y[rows, out] = f(x[rows, in]). With `ctx.past` set it goes
///    on with cached sequences: the same code serves training, prefill and one-token steps;
///  - `adds_residual`, true only where forward takes a further argument `const T* residual`, which
///    may be null: y = residual[rows, out] + f(x), without a pass of its own over memory;
///  - `backward(p, dp, x, dy, dx, cache, ctx)`: ADDS to the gradients dp and dx;
///  - `in` and `out`: the widths of x and y;
///  - `copy_state(cache, from, to, state_part)`, only where the layer plans state: one sequence
///    continues where another is;
///  - `channels(ends, p)`, only where scales or rotations can be folded into its tensors: which of
///    them read the channels ends.in and which write ends.out, see nn/channels.hpp;
///  - `flops(call_shape)`: floating-point operations of the products in a forward call, one
///    multiply-add counted as 2; elementwise work is not counted.
///
/// Every thread of a team makes the same calls (SPMD); an operation returns when all threads have
/// finished it.

#include <concepts>

#include <linnet/core/arena.hpp>
#include <linnet/core/view.hpp>
#include <linnet/nn/channels.hpp>
#include <linnet/nn/context.hpp>
#include <linnet/nn/each_tensor.hpp>
#include <linnet/nn/parameters.hpp>
#include <linnet/nn/planner.hpp>

LINNET_NAMESPACE_BEGIN

/// A layer without parameters derives its empty `params` and `visit` from here.
struct without_parameters {
  template <class Form>
  struct params {};
  template <class F, class... P>
  static constexpr void visit(F&&, const parameter_path&, P&...) {}
};

/// A layer without buffers derives its empty `cache` and `plan` from here.
struct without_cache {
  template <class T>
  struct cache {};
  template <class T>
  static constexpr cache<T> plan(planner&, const call_shape&) {
    return {};
  }
};

namespace detail {
/// Whether a layer adds a residual to what it computes.
template <class L>
constexpr bool adds_residual() {
  if constexpr (requires { L::adds_residual; }) return L::adds_residual;
  return false;
}
}  // namespace detail

/// State that is copied so that one sequence continues where another is. Tokens that were the same
/// ones anyway may be left out.
struct state_part {
  index first = 0;   ///< both sequences have read the same tokens before this one
  index tokens = 0;  ///< tokens that the copied sequence has read
  index memory =
      0;  ///< padded tokens of the encoder's output, or 0 where both read the same source
  bool token = false;  ///< not sequences: token `first` of `from` takes the place of token `tokens`
  ops::page_tables pages{};  ///< of paged caches, then
  bool block = false;        ///< not sequences: block `from` of paged caches becomes block `to`
};

namespace detail {
/// Whether a layer's plan for decoding takes memory that persists between calls.
template <class L, class T>
constexpr bool keeps_state() {
  planner m;
  (void)L::template plan<T>(m, {.length = 1, .memory = 1, .capacity = 1});
  return m.state.peak() > 0;
}
}  // namespace detail

/// Copies `size` values of sequence `from` to sequence `to` of state[batch, size].
template <class T>
void copy_sequence(T* state, index size, index from, index to, const state_part& part) {
  if (!part.block) std::copy_n(state + from * size, size, state + to * size);
}

/// Copies the decoding state of sequence `from` of a layer to sequence `to`; layers without state
/// need not define it.
template <class L, class T>
void copy_state(typename L::template cache<T>& c, index from, index to, const state_part& part) {
  if constexpr (requires { L::copy_state(c, from, to, part); })
    L::copy_state(c, from, to, part);
  else
    static_assert(!detail::keeps_state<L, T>(),
                  "linnet::session::fork: a layer that keeps state while decoding needs a "
                  "copy_state (see nn/layer.hpp)");
}

namespace detail {
/// Parameters of one linear map, as those of linear<> are.
template <class P>
concept one_matrix = requires(P& p) {
  p.weight;
};
/// Stands for what visit() calls.
struct any_parameter {
  template <class... Leaf>
  constexpr void operator()(const parameter_path&, const tensor_info&, Leaf&...) const {}
};
template <class L>
concept has_parameters = requires(const any_parameter& f, const parameter_path& at) {
  typename L::template params<form::canonical<float, storage::f32>>;
  L::visit(f, at);
};
template <class L, class T>
concept has_buffers = requires(planner& m, const call_shape& e) {
  { L::template plan<T>(m, e) } -> std::same_as<typename L::template cache<T>>;
};
template <class L, class T, class S>
concept has_forward = requires(const typename L::template params<form::packed<T, S>>& p,
                               view<const T, L::in> x, view<T, L::out> y,
                               typename L::template cache<T>& c, context<T>& ctx) {
  L::template forward<T, S>(p, x, y, c, ctx);
};
template <class L, class T, class S>
concept has_backward = requires(const typename L::template params<form::packed<T, S>>& p,
                                typename L::template params<form::gradient<T>>& dp,
                                view<const T, L::in> x, view<const T, L::out> dy, view<T, L::in> dx,
                                typename L::template cache<T>& c, context<T>& ctx) {
  L::template backward<T, S>(p, dp, x, dy, dx, c, ctx);
};
template <class L>
concept has_flops = requires(const call_shape& e) {
  { L::flops(e) } -> std::same_as<index>;
};
}  // namespace detail

/// A type with what the contract above asks of a layer that runs, computing in `T` from weights
/// stored as `S`. Models also ask for its flops().
template <class L, class T = float, class S = storage::f32>
concept layer =
    detail::has_parameters<L> && detail::has_buffers<L, T> && detail::has_forward<L, T, S>;
/// A layer that also trains.
template <class L, class T = float, class S = storage::f32>
concept trainable_layer = layer<L, T, S> && detail::has_backward<L, T, S>;

namespace detail {
/// True, or an error that says which part of the contract `L` lacks.
template <class L, class T = float, class S = storage::f32>
consteval bool check_layer() {
  if constexpr (!has_parameters<L>)
    static_assert(never<L>,
                  "linnet: the layer lacks params<Form> or visit(f, at, p...); see nn/layer.hpp");
  else if constexpr (!has_buffers<L, T>)
    static_assert(never<L>,
                  "linnet: the layer lacks cache<T> or plan<T>(planner&, call_shape) that returns "
                  "one; see nn/layer.hpp");
  else if constexpr (!has_forward<L, T, S>)
    static_assert(never<L>,
                  "linnet: the layer lacks in, out or forward<T, S>(p, x, y, cache, ctx); see "
                  "nn/layer.hpp");
  return true;
}
/// True, or an error that says which part of the contract of training `L` lacks.
template <class L, class T = float, class S = storage::f32>
consteval bool check_trainable_layer() {
  static_assert(check_layer<L, T, S>());
  if constexpr (!has_backward<L, T, S>)
    static_assert(never<L>,
                  "linnet: the layer lacks backward<T, S>(p, dp, x, dy, dx, cache, ctx); see "
                  "nn/layer.hpp");
  return true;
}
}  // namespace detail

/// Number of parameters of a layer or model; shared ones count once.
template <class L>
consteval index count_parameters() {
  index n = 0;
  each_tensor<L>([&](const parameter_path&, const tensor_info& info) { n += info.size(); });
  return n;
}

LINNET_NAMESPACE_END
