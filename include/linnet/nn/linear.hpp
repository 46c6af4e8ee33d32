// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The linear map and its building blocks: y = x W^T + b.

#include <cmath>

#include <linnet/nn/layer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// Square root for constant expressions (Newton), x >= 0.
constexpr double sqrt(double x) {
  if (x <= 0) return 0;
  double r = x > 1 ? x : 1;
  for (int i = 0; i < 64; ++i) r = 0.5 * (r + x / r);
  return r;
}
}  // namespace detail

/// y[rows, Out] = x[rows, In] W^T (+ b), W[Out, In]. Initial weights: normal with deviation
/// In^-1/2.
template <index In, index Out, bool Bias = false>
struct linear : without_cache {
  static_assert(In > 0 && Out > 0, "linnet::linear: both widths must be positive");
  static constexpr index in = In, out = Out;
  static constexpr bool adds_residual = true;

  template <class Form>
  struct params {
    typename Form::matrix weight{};
    [[no_unique_address]] std::conditional_t<Bias, typename Form::vector, std::nullptr_t> bias{};
  };

  static constexpr tensor_info weight_info{Out, In, role::matrix, 1 / detail::sqrt(In)};

  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    if constexpr ((linnet::detail::one_matrix<P> && ...)) {  // else see visit_pairs()
      f(at / "weight", weight_info, p.weight...);
      if constexpr (Bias) f(at / "bias", tensor_info{1, Out, role::bias, 0}, p.bias...);
    }
  }

  /// Columns of the weight read channels; its rows and the bias write them.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    c.reads(p.weight, weight_info);
    c.writes(p.weight, weight_info);
    if constexpr (Bias) {
      c.writes(p.bias, tensor_info{Out, 1, role::bias});
      c.offsets(p.weight, p.bias);
    }
  }

  template <class T>
  static constexpr without_cache::cache<T> plan(planner& m, const call_shape& e) {
    m.product(e.rows(), In, Out, e);
    return {};
  }
  /// Describes the product into `y`, to be computed alone or together with others of these inputs.
  template <class T, class S>
  static ops::product<T, storage::single<S>> product(const params<form::packed<T, S>>& p, T* y) {
    if constexpr (Bias)
      return {p.weight, Out, y, p.bias};
    else
      return {p.weight, Out, y};
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, In> x, view<T, Out> y,
                      without_cache::cache<T>&, context<T>& ctx, const T* residual = nullptr) {
    auto one = product<T, S>(p, y.data());
    one.residual = residual;
    ops::gemm_batch(ctx.on, x.rows(), In, x.data(), {one});
  }

  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, In> x, view<const T, Out> dy, view<T, In> dx,
                       without_cache::cache<T>&, context<T>& ctx) {
    if constexpr (Bias) ops::bias_gradient(ctx.on, x.rows(), Out, dy.data(), dp.bias);
    ops::matmul_backward(ctx.on, x.rows(), Out, In, dy.data(), x.data(), p.weight,
                         {dp.weight, dx.data()});
  }

  static constexpr index flops(const call_shape& e) { return 2 * e.rows() * In * Out; }
};

LINNET_NAMESPACE_END
