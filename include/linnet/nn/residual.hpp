// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The residual branch, with its norm before it or behind it.

#include <linnet/nn/adapted_branch.hpp>
#include <linnet/nn/timed.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// y = x + Drop(Sub(u)), rows of width D, with what adapters change of the branch. `c` is the cache
/// of a residual. Without a buffer for the branch, Sub adds x itself.
template <class Sub, class T, class S, index D, class P, class Cache>
void add_branch(const P& p, view<const T, D> u, view<const T, D> x, view<T, D> y, Cache& c,
                context<T>& ctx) {
  const adapted_branch<T> adapted(ctx, D, Sub{}, p);
  if constexpr (adds_residual<Sub>())
    if (c.branch == nullptr && !adapted)
      return Sub::template forward<T, S>(p, u, y, c.sub, ctx, x.data());
  T* const branch = c.branch ? c.branch : y.data();
  const view<T, D> made(adapted && c.kept ? c.kept : branch, x.rows());
  Sub::template forward<T, S>(p, u, made, c.sub, ctx);
  const timed_pass<S, T> time(ctx.on.threads, operation::residual, 3 * x.size());
  ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, D, made.data());
  if (adapted) adapted.change(ctx, made.data(), branch);
  ops::add(ctx.on, x.size(), x.data(), branch, y.data());
}

}  // namespace detail

/// The pre-norm residual branch: y = x + Drop(Sub(Norm(x))). y is not x. Outside training, a
/// branch that `adds_residual` does so itself.
template <class Norm, class Sub>
struct residual {
  static constexpr index in = Norm::in, out = Norm::in;
  static_assert(linnet::detail::check_layer<Sub>());
  static_assert(Sub::in == in && Sub::out == in,
                "linnet::residual: the branch must keep the width of the stream");
  static constexpr bool fused = linnet::detail::adds_residual<Sub>();

  template <class Form>
  struct params {
    typename Norm::template params<Form> norm{};
    typename Sub::template params<Form> sub{};
  };
  template <class F, class... P>
  LINNET_INLINE static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Norm::visit(f, at / "norm", p.norm...);
    Sub::visit(f, at, p.sub...);
  }
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    const index normed = c.open(in);
    linnet::detail::describe_channels<Norm>(c.between(c.in, normed), p.norm);
    linnet::detail::describe_channels<Sub>(c.between(normed, c.out), p.sub);
    c.passes();
  }

  template <class T>
  struct cache {
    typename Norm::template cache<T> norm{};
    typename Sub::template cache<T> sub{};
    T* normed = nullptr;    ///< [rows, D] input of the branch
    T* branch = nullptr;    ///< [rows, D] output of the branch, then its gradient; null where the
                            ///< branch adds x itself
    T* kept = nullptr;      ///< [rows, D] what an adapter that trains read of the branch
    T* d_normed = nullptr;  ///< [rows, D] while training
    int dropout_id = 0;     ///< of its dropout
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    c.dropout_id = m.dropout_ids++;
    c.norm = Norm::template plan<T>(m, e);
    c.normed = m.saved.take<T>(e.rows() * in);
    if (e.training && m.keeps_branches) c.kept = m.saved.take<T>(e.rows() * in);
    const index mark = m.scratch.mark();
    if (e.training || !fused) c.branch = m.scratch.take<T>(e.rows() * in);
    if (e.training) c.d_normed = m.scratch.take<T>(e.rows() * in);
    c.sub = Sub::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, in> y,
                      cache<T>& c, context<T>& ctx) {
    const view<T, in> normed(c.normed, x.rows());
    Norm::template forward<T, S>(p.norm, x, normed, c.norm, ctx);
    linnet::detail::add_branch<Sub, T, S, in>(p.sub, normed, x, y, c, ctx);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    const view<T, in> normed(c.normed, x.rows()), d_branch(c.branch, x.rows()),
        d_normed(c.d_normed, x.rows());
    {
      const linnet::detail::timed_pass<S, T> time(ctx.on.threads, operation::residual, 3 * x.size(),
                                                  direction::backward);
      ops::copy(ctx.on, dy.size(), dy.data(), d_branch.data());
      if (const linnet::detail::adapted_branch<T> adapted(ctx, in, Sub{}, p.sub); adapted)
        adapted.backward(ctx, c.kept, d_branch.data());
      ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, in, d_branch.data());
      ops::fill(ctx.on, d_normed.size(), T(0), d_normed.data());
    }
    Sub::template backward<T, S>(p.sub, dp.sub, normed, d_branch, d_normed, c.sub, ctx);
    {
      const linnet::detail::timed_pass<S, T> time(ctx.on.threads, operation::residual, 3 * x.size(),
                                                  direction::backward);
      ops::add(ctx.on, dx.size(), dx.data(), dy.data(), dx.data());
    }
    Norm::template backward<T, S>(p.norm, dp.norm, x, d_normed, dx, c.norm, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<Sub, T>(c.sub, from, to, part);
  }

  static constexpr index flops(const call_shape& e) {
    static_assert(linnet::detail::has_flops<Sub>,
                  "linnet: the layer lacks flops(call_shape) that returns an index; see "
                  "nn/layer.hpp");
    return Norm::flops(e) + Sub::flops(e);
  }
};

/// The post-norm residual branch of BERT and the first Transformer (Vaswani et al. 2017):
/// y = Norm(x + Drop(Sub(x))). y is not x. Its parameters have the names of `residual`.
template <class Norm, class Sub>
struct post_norm_residual {
  static constexpr index in = Norm::in, out = Norm::in;
  static_assert(linnet::detail::check_layer<Sub>());
  static_assert(Sub::in == in && Sub::out == in,
                "linnet::post_norm_residual: the branch must keep the width of the stream");
  static constexpr bool fused = linnet::detail::adds_residual<Sub>();

  template <class Form>
  using params = typename residual<Norm, Sub>::template params<Form>;
  template <class F, class... P>
  LINNET_INLINE static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    residual<Norm, Sub>::visit(f, at, p...);
  }
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    const index sum = c.open(in);
    c.between(c.in, sum).passes();
    linnet::detail::describe_channels<Sub>(c.between(c.in, sum), p.sub);
    linnet::detail::describe_channels<Norm>(c.between(sum, c.out), p.norm);
  }

  template <class T>
  struct cache {
    typename Norm::template cache<T> norm{};
    typename Sub::template cache<T> sub{};
    T* sum = nullptr;     ///< [rows, D] input of the norm
    T* branch = nullptr;  ///< [rows, D] output of the branch, then the gradient of both; null where
                          ///< the branch adds x itself
    T* kept = nullptr;    ///< [rows, D] what an adapter that trains read of the branch
    int dropout_id = 0;   ///< of its dropout
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    c.dropout_id = m.dropout_ids++;
    c.norm = Norm::template plan<T>(m, e);
    c.sum = m.saved.take<T>(e.rows() * in);
    if (e.training && m.keeps_branches) c.kept = m.saved.take<T>(e.rows() * in);
    const index mark = m.scratch.mark();
    if (e.training || !fused) c.branch = m.scratch.take<T>(e.rows() * in);
    c.sub = Sub::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, in> y,
                      cache<T>& c, context<T>& ctx) {
    const view<T, in> sum(c.sum, x.rows());
    linnet::detail::add_branch<Sub, T, S, in>(p.sub, x, x, sum, c, ctx);
    Norm::template forward<T, S>(p.norm, sum, y, c.norm, ctx);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    const view<T, in> sum(c.sum, x.rows()), d_sum(c.branch, x.rows());
    ops::fill(ctx.on, d_sum.size(), T(0), d_sum.data());
    Norm::template backward<T, S>(p.norm, dp.norm, sum, dy, d_sum, c.norm, ctx);
    {
      const linnet::detail::timed_pass<S, T> time(ctx.on.threads, operation::residual, 3 * x.size(),
                                                  direction::backward);
      ops::add(ctx.on, dx.size(), dx.data(), d_sum.data(), dx.data());
      if (const linnet::detail::adapted_branch<T> adapted(ctx, in, Sub{}, p.sub); adapted)
        adapted.backward(ctx, c.kept, d_sum.data());
      ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, in, d_sum.data());
    }
    Sub::template backward<T, S>(p.sub, dp.sub, x, d_sum, dx, c.sub, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<Sub, T>(c.sub, from, to, part);
  }

  static constexpr index flops(const call_shape& e) { return residual<Norm, Sub>::flops(e); }
};

LINNET_NAMESPACE_END
