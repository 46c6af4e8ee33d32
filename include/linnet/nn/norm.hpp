#pragma once
/// @file
/// RMSNorm and LayerNorm: the policies that choose them and their layers.

#include <linnet/config/shapes.hpp>
#include <linnet/nn/layer.hpp>

LINNET_NAMESPACE_BEGIN

/// Normalisation policies: `layer<D, Eps>` normalises rows of width D.
namespace norm {

/// Base of every normalisation policy.
struct policy {};

/// RMSNorm (Zhang and Sennrich 2019; zoo A1): y = gamma x / sqrt(mean(x^2) + eps).
struct rms : policy {
  template <index D, real Eps>
  struct layer {
    static constexpr index in = D, out = D;

    template <class Form>
    struct params {
      typename Form::vector weight{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const path& at, P&... p) {
      f(at / "weight", tensor_info{1, D, role::scale, 0}, p.weight...);
    }

    template <class T>
    struct cache {
      T* root = nullptr;  ///< [rows] 1 / sqrt(mean(x^2) + eps)
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      return {m.keep.take<T>(e.rows())};
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      ctx.on.threads.each(x.rows(), [&](index i) {
        simd::dispatch(ctx.on.level, [&](auto k) {
          c.root[i] =
              decltype(k)::template rms_norm<T>(D, T(Eps.value), x.row(i), p.weight, y.row(i));
        });
      });
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      const auto [first, last] = ctx.on.threads.share(D);
      for (index i = 0; i < x.rows(); ++i)
        for (index j = first; j < last; ++j) dp.weight[j] += dy(i, j) * x(i, j) * c.root[i];
      ctx.on.threads.each(x.rows(), [&](index i) {
        simd::dispatch(ctx.on.level, [&](auto k) {
          decltype(k)::template rms_norm_backward<T>(D, c.root[i], x.row(i), p.weight, dy.row(i),
                                                     dx.row(i));
        });
      });
    }

    static constexpr index flops(const extents&) { return 0; }
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
    static constexpr void visit(F&& f, const path& at, P&... p) {
      f(at / "weight", tensor_info{1, D, role::scale, 0}, p.weight...);
      f(at / "bias", tensor_info{1, D, role::bias, 0}, p.bias...);
    }

    template <class T>
    struct cache {
      T* statistics = nullptr;  ///< [rows, 2] mean and 1 / sqrt(variance + eps)
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const extents& e) {
      return {m.keep.take<T>(2 * e.rows())};
    }

    template <class T, class S>
    static void forward(const params<form::kernel<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      ctx.on.threads.each(x.rows(), [&](index i) {
        simd::dispatch(ctx.on.level, [&](auto k) {
          decltype(k)::template layer_norm<T>(D, T(Eps.value), x.row(i), p.weight, p.bias, y.row(i),
                                              c.statistics + 2 * i);
        });
      });
    }

    template <class T, class S>
    static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      const auto [first, last] = ctx.on.threads.share(D);
      for (index i = 0; i < x.rows(); ++i) {
        const T mean = c.statistics[2 * i], r = c.statistics[2 * i + 1];
        for (index j = first; j < last; ++j) {
          dp.weight[j] += dy(i, j) * (x(i, j) - mean) * r;
          dp.bias[j] += dy(i, j);
        }
      }
      ctx.on.threads.each(x.rows(), [&](index i) {
        simd::dispatch(ctx.on.level, [&](auto k) {
          decltype(k)::template layer_norm_backward<T>(D, c.statistics + 2 * i, x.row(i), p.weight,
                                                       dy.row(i), dx.row(i));
        });
      });
    }

    static constexpr index flops(const extents&) { return 0; }
  };
};

}  // namespace norm

LINNET_NAMESPACE_END
