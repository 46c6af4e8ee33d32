// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// RMSNorm and LayerNorm: the policies that choose them and their layers.

#include <linnet/core/shapes.hpp>
#include <linnet/nn/timed.hpp>
#include <linnet/ops/norm.hpp>

LINNET_NAMESPACE_BEGIN

/// Normalisation policies: `layer<D, Eps>` normalises rows of width D.
namespace norm {

/// Base of every normalisation policy.
struct policy {};

/// RMSNorm (Zhang and Sennrich 2019): y = gamma x / sqrt(mean(x^2) + eps).
struct rms : policy {
  template <index D, real Eps>
  struct layer {
    static constexpr index in = D, out = D;

    template <class Form>
    struct params {
      typename Form::vector weight{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      f(at / "weight", tensor_info{1, D, role::scale, 0}, p.weight...);
    }
    template <class Ends, class P>
    static void channels(const Ends& c, P& p) {
      c.normalises(nullptr);
      c.writes(p.weight, tensor_info{D, 1, role::scale});
    }

    template <class T>
    struct cache {
      T* inverse = nullptr;  ///< [rows] 1 / sqrt(mean(x^2) + eps)
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      return {m.saved.take<T>(e.rows())};
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      const linnet::detail::timed_layer<S, T, layer> time(ctx.on.threads, operation::norm,
                                                          x.rows());
      ops::rms_norm(ctx.on, T(Eps.value), x, p.weight, y, c.inverse);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      const linnet::detail::timed_layer<S, T, layer> time(ctx.on.threads, operation::norm, x.rows(),
                                                          direction::backward);
      ops::rms_norm_backward(ctx.on, x, p.weight, c.inverse, dy, dp.weight, dx);
    }

    static constexpr index flops(const call_shape&) { return 0; }
  };
};

/// LayerNorm (Ba et al. 2016): y = gamma (x - mean) / sqrt(variance + eps) + beta.
struct layer_norm : policy {
  template <index D, real Eps>
  struct layer {
    static constexpr index in = D, out = D;

    template <class Form>
    struct params {
      typename Form::vector weight{};
      typename Form::vector bias{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      f(at / "weight", tensor_info{1, D, role::scale, 0}, p.weight...);
      f(at / "bias", tensor_info{1, D, role::bias, 0}, p.bias...);
    }
    template <class Ends, class P>
    static void channels(const Ends& c, P& p) {
      c.normalises("a LayerNorm, which subtracts the mean of the channels");
      c.writes(p.weight, tensor_info{D, 1, role::scale});
      c.writes(p.bias, tensor_info{D, 1, role::bias});
      c.keeps_constants(c.out);
    }

    template <class T>
    struct cache {
      T* statistics = nullptr;  ///< [rows, 2] mean and 1 / sqrt(variance + eps)
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      return {m.saved.take<T>(2 * e.rows())};
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      const linnet::detail::timed_layer<S, T, layer> time(ctx.on.threads, operation::norm,
                                                          x.rows());
      ops::layer_norm(ctx.on, T(Eps.value), x, p.weight, p.bias, y, c.statistics);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      const linnet::detail::timed_layer<S, T, layer> time(ctx.on.threads, operation::norm, x.rows(),
                                                          direction::backward);
      ops::layer_norm_backward(ctx.on, x, p.weight, c.statistics, dy, dp.weight, dp.bias, dx);
    }

    static constexpr index flops(const call_shape&) { return 0; }
  };
};

}  // namespace norm

LINNET_NAMESPACE_END
