// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Feed-forward policies: standard and gated ones, and the re-parameterised variants of "Exploring
/// the Limits of Small Language Models" (Lee et al. 2023). A policy has a template `layer<D, F,
/// Bias>`: a layer from width D to D. F is the shape's d_ff, Bias whether linear maps have biases.
/// With a fourth parameter, a projection_kind that says how its projections are made, it also fits
/// sharing::lora. A policy of your own derives from ffn::policy; nothing in the library needs
/// editing.

#include <algorithm>

#include <linnet/core/shapes.hpp>
#include <linnet/nn/chain.hpp>
#include <linnet/nn/projection.hpp>
#include <linnet/nn/repeat.hpp>
#include <linnet/nn/residual.hpp>
#include <linnet/nn/timed.hpp>

LINNET_NAMESPACE_BEGIN

/// y = f(x), elementwise, on rows of width D.
template <index D, activation_kind A>
struct activation_layer : without_parameters, without_cache {
  static constexpr index in = D, out = D;
  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, without_cache::cache<T>&,
                      context<T>& ctx) {
    ops::activation<A>(ctx.on, x.size(), x.data(), y.data());
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D> x, view<const T, D> dy, view<T, D> dx,
                       without_cache::cache<T>&, context<T>& ctx) {
    ops::activation_backward<A>(ctx.on, x.size(), x.data(), dy.data(), dx.data());
  }
  static constexpr index flops(const call_shape&) { return 0; }
};

/// y = x with dropped values, on rows of width D; the identity outside training.
template <index D>
struct dropout_layer : without_parameters {
  static constexpr index in = D, out = D;
  template <class T>
  struct cache {
    int dropout_id = 0;
    T* scratch = nullptr;  ///< [rows, D] gradient on its way back
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index mark = m.scratch.mark();
    const cache<T> c{m.dropout_ids++, e.training ? m.scratch.take<T>(e.rows() * D) : nullptr};
    m.scratch.release(mark);
    return c;
  }
  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, cache<T>& c, context<T>& ctx) {
    ops::copy(ctx.on, x.size(), x.data(), y.data());
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, D, y.data());
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D>, view<const T, D> dy, view<T, D> dx,
                       cache<T>& c, context<T>& ctx) {
    ops::copy(ctx.on, dy.size(), dy.data(), c.scratch);
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, D, c.scratch);
    ops::add(ctx.on, dx.size(), dx.data(), c.scratch, dx.data());
  }
  static constexpr index flops(const call_shape&) { return 0; }
};

/// y = Drop(f(W x (+ b))): a linear map and its activation, with dropout only if `Drops`. Outside
/// training the activation is part of the product.
template <index In, index Out, activation_kind A, bool Bias, bool Drops,
          projection_kind Projections = projection_kind{}>
struct activated_linear {
  static constexpr index in = In, out = Out;
  using map = projection<In, Out, Bias, Projections>;

  template <class Form>
  using params = typename map::template params<Form>;
  template <class F, class... P>
  LINNET_INLINE static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    map::visit(f, at, p...);
  }
  /// A positive scale passes a ReLU, and nothing else.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    constexpr bool homogeneous = A == activation_kind::relu;
    map::channels(c, p);
    if (Drops) c.activates(c.out);  // else they are the stream's
    if (homogeneous)
      c.elementwise(c.out, "a ReLU");
    else
      c.fix(c.out, "an activation");
  }

  template <class T>
  struct cache {
    T* inner = nullptr;  ///< [rows, Out] W x + b, kept while training
    T *d_inner = nullptr, *d_active = nullptr;
    [[no_unique_address]] typename map::template cache<T> map_cache{};
    int dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index n = e.rows() * Out;
    if (Drops) c.dropout_id = m.dropout_ids++;
    const index mark = m.scratch.mark();
    if (e.training) {
      c.inner = m.saved.take<T>(n);
      c.d_inner = m.scratch.take<T>(n);
      if (Drops) c.d_active = m.scratch.take<T>(n);
    }
    c.map_cache = map::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, In> x, view<T, Out> y,
                      cache<T>& c, context<T>& ctx) {
    T* const inner = c.inner ? c.inner : y.data();
    if constexpr (Projections.plain()) {
      auto one = map::template product<T, S>(p, inner);
      if (c.inner == nullptr) one.finish = ops::activates<A, T>;
      ops::gemm_batch(ctx.on, x.rows(), In, x.data(), {one});
    } else {
      map::template forward<T, S>(p, x, {inner, x.rows()}, c.map_cache, ctx);
    }
    if (c.inner || !Projections.plain()) {
      const linnet::detail::timed_pass<S, T> time(ctx.on.threads, operation::activation,
                                                  2 * y.size());
      ops::activation<A>(ctx.on, y.size(), inner, y.data());
    }
    if constexpr (Drops)
      ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, Out, y.data());
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, In> x, view<const T, Out> dy, view<T, In> dx, cache<T>& c,
                       context<T>& ctx) {
    const view<T, Out> d_inner(c.d_inner, x.rows());
    const T* d_active = dy.data();
    if constexpr (Drops) {
      ops::copy(ctx.on, dy.size(), dy.data(), c.d_active);
      ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, Out, c.d_active);
      d_active = c.d_active;
    }
    {
      const linnet::detail::timed_pass<S, T> time(ctx.on.threads, operation::activation,
                                                  3 * d_inner.size(), direction::backward);
      ops::fill(ctx.on, d_inner.size(), T(0), c.d_inner);
      ops::activation_backward<A>(ctx.on, d_inner.size(), c.inner, d_active, c.d_inner);
    }
    map::template backward<T, S>(p, dp, x, d_inner, dx, c.map_cache, ctx);
  }
  static constexpr index flops(const call_shape& e) { return map::flops(e); }
};

/// y = down(f(gate(x)) * up(x)): the gated feed-forward, with hidden width F.
template <index D, index F, activation_kind A, bool Bias,
          projection_kind Projections = projection_kind{}>
struct gated_layer {
  static constexpr index in = D, out = D;
  static constexpr bool adds_residual = true;
  using wide = projection<D, F, Bias, Projections>;
  using narrow = output_projection<F, D, Bias, Projections>;
  template <class S>
  using gate_storage = storage::at<S, storage::part::ffn_gate>;
  template <class S>
  using up_storage = storage::at<S, storage::part::ffn_up>;
  template <class S>
  using down_storage = storage::at<S, storage::part::ffn_down>;

  template <class Form>
  struct params {
    typename wide::template params<form::at<Form, storage::part::ffn_gate>> gate{};
    typename wide::template params<form::at<Form, storage::part::ffn_up>> up{};
    typename narrow::template params<form::at<Form, storage::part::ffn_down>> down{};
  };
  template <class Fn, class... P>
  static constexpr void visit(Fn&& f, const parameter_path& at, P&... p) {
    wide::visit(f, at / "gate", p.gate...);
    wide::visit(f, at / "up", p.up...);
    narrow::visit(f, at / "down", p.down...);
  }
  /// The hidden channels are linear in those of `up`.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    const index hidden = c.open(F), gates = c.open(F);
    c.elementwise(hidden, "a gate");
    c.activates(hidden);
    c.fix(gates, "an activation");
    c.accompanies(gates, hidden);
    wide::channels(c.between(c.in, gates), p.gate);
    wide::channels(c.between(c.in, hidden), p.up);
    linnet::detail::describe_channels<narrow>(c.between(hidden, c.out), p.down);
  }

  template <class T>
  struct cache {
    T *gate = nullptr, *hidden = nullptr;  ///< [rows, F]
    T* up = nullptr;                       ///< [rows, F] kept while training
    T *d_gate = nullptr, *d_up = nullptr, *d_hidden = nullptr;
    typename wide::template cache<T> gate_map{}, up_map{};
    typename narrow::template cache<T> down_map{};
    int dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index n = e.rows() * F;
    c.dropout_id = m.dropout_ids++;
    c.gate = m.saved.take<T>(n);
    if (e.training) c.up = m.saved.take<T>(n);
    c.hidden = m.saved.take<T>(n);
    const index mark = m.scratch.mark();
    if (e.training) {
      c.d_gate = m.scratch.take<T>(n);
      c.d_up = m.scratch.take<T>(n);
      c.d_hidden = m.scratch.take<T>(n);
    }
    c.gate_map = wide::template plan<T>(m, e);
    c.up_map = wide::template plan<T>(m, e);
    c.down_map = narrow::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    const index rows = x.rows();
    const view<T, F> hidden(c.hidden, rows);
    T* const upward = c.up ? c.up : c.hidden;
    const linnet::detail::timed<S> time(ctx.on.threads, operation::ffn_up);
    if constexpr (linnet::detail::is_profiled<S>) {
      time.add(linnet::detail::layer_cost<wide, T, gate_storage<S>>(rows));
      time.add(linnet::detail::layer_cost<wide, T, up_storage<S>>(rows));
    }
    if constexpr (Projections.plain()) {
      auto up = wide::product(p.up, upward);
      if (c.up == nullptr) {
        up.finish = ops::gates<A, T>;
        up.gate = c.gate;
      }
      ops::gemm_each(ctx.on, rows, D, x.data(), wide::product(p.gate, c.gate), up);
    } else {
      wide::template forward<T>(p.gate, x, {c.gate, rows}, c.gate_map, ctx);
      wide::template forward<T>(p.up, x, {upward, rows}, c.up_map, ctx);
    }
    if (c.up || !Projections.plain()) {
      time.next(operation::activation);
      if constexpr (linnet::detail::is_profiled<S>)
        time.add(linnet::detail::pass_cost<T>(3 * hidden.size()));
      ops::gated<A>(ctx.on, hidden.size(), c.gate, upward, c.hidden);
    }
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, F, c.hidden);
    time.next(operation::ffn_down);
    if constexpr (linnet::detail::is_profiled<S>)
      time.add(linnet::detail::layer_cost<narrow, T, down_storage<S>>(rows));
    narrow::template forward<T>(p.down, hidden, y, c.down_map, ctx, residual);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                       context<T>& ctx) {
    const index rows = x.rows();
    const view<T, F> hidden(c.hidden, rows), d_hidden(c.d_hidden, rows), d_gate(c.d_gate, rows),
        d_up(c.d_up, rows);
    const linnet::detail::timed<S> time(ctx.on.threads, operation::ffn_down, direction::backward);
    if constexpr (linnet::detail::is_profiled<S>)
      time.add(linnet::detail::layer_cost<narrow, T, down_storage<S>>(rows, direction::backward));
    ops::fill(ctx.on, d_hidden.size(), T(0), c.d_hidden);
    narrow::template backward<T>(p.down, dp.down, hidden, dy, d_hidden, c.down_map, ctx);
    time.next(operation::activation);
    if constexpr (linnet::detail::is_profiled<S>)
      time.add(linnet::detail::pass_cost<T>(5 * hidden.size()));
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, F, c.d_hidden);
    ops::gated_backward<A>(ctx.on, d_hidden.size(), c.gate, c.up, c.d_hidden, c.d_gate, c.d_up);
    time.next(operation::ffn_up);
    if constexpr (linnet::detail::is_profiled<S>) {
      time.add(linnet::detail::layer_cost<wide, T, gate_storage<S>>(rows, direction::backward));
      time.add(linnet::detail::layer_cost<wide, T, up_storage<S>>(rows, direction::backward));
    }
    wide::template backward<T>(p.gate, dp.gate, x, d_gate, dx, c.gate_map, ctx);
    wide::template backward<T>(p.up, dp.up, x, d_up, dx, c.up_map, ctx);
  }
  static constexpr index flops(const call_shape& e) {
    return 2 * wide::flops(e) + narrow::flops(e);
  }
};

/// Feed-forward policies.
namespace ffn {

/// Base of every feed-forward policy.
struct policy {
  static constexpr bool skipped = false;
  static constexpr bool has_output_map = false;  ///< its last matrix is an output_projection
  static constexpr bool can_truncate = true;     ///< keeps no summary of past tokens while decoding
  static constexpr bool couples_tokens = false;  ///< trains a sequence's tokens together
};

/// The standard feed-forward of T5 v1.0 (ReLU) and GPT-2 (GELU): wo(Drop(f(wi x))).
template <activation_kind A>
struct standard : policy {
  static constexpr bool has_output_map = true;
  template <index D, index F, bool Bias, projection_kind Projections = projection_kind{}>
  using layer =
      chain<named<"wi", activated_linear<D, F, A, Bias, true, Projections>, storage::part::ffn_up>,
            named<"wo", output_projection<F, D, Bias, Projections>, storage::part::ffn_down>>;
};
using relu = standard<activation_kind::relu>;            ///< T5 v1.0
using gelu = standard<activation_kind::gelu>;            ///< exact GELU
using gelu_tanh = standard<activation_kind::gelu_tanh>;  ///< GPT-2

/// The gated feed-forward (Shazeer 2020): down(Drop(f(gate x) * up x)).
template <activation_kind A>
struct gated : policy {
  static constexpr bool has_output_map = true;
  template <index D, index F, bool Bias, projection_kind Projections = projection_kind{}>
  using layer = gated_layer<D, F, A, Bias, Projections>;
};
using gated_gelu = gated<activation_kind::gelu_tanh>;  ///< T5 v1.1
using swiglu = gated<activation_kind::silu>;           ///< Llama, STLM

/// No feed-forward at all: the sub-layer, its norm and its residual are absent.
struct skip : policy {
  static constexpr bool skipped = true;
};

/// 1W: one linear map W[D, D], no nonlinearity.
struct linear : policy {
  template <index D, index, bool Bias, projection_kind Projections = projection_kind{}>
  using layer = chain<named<"w", projection<D, D, Bias, Projections>>>;
};

/// 1W + ReLU: ReLU(W x), W[D, D].
struct linear_relu : policy {
  template <index D, index, bool Bias, projection_kind Projections = projection_kind{}>
  using layer =
      chain<named<"w", activated_linear<D, D, activation_kind::relu, Bias, false, Projections>>>;
};

/// A standard or gated feed-forward `Of` with every matrix factored through `Rank`: U (V x). It has
/// fewer numbers where Rank is less than D F / (D + F). factorise() makes its weights from those of
/// `Of`.
template <index Rank, class Of = swiglu>
struct low_rank : policy {
  using dense = Of;  ///< what it factors
  static constexpr index rank = Rank;
  template <index D, index F, bool Bias>
  using layer = typename Of::template layer<D, F, Bias, projection_kind{.rank = Rank}>;
};

/// A standard or gated feed-forward `Of` with a Hadamard transform before its last matrix (R4 of
/// Liu et al. 2024, arXiv:2405.16406). No hidden channel stands out when inputs are rounded.
/// rotate_online() makes its weights from those of `Of`.
template <class Of = swiglu>
struct hadamard : policy {
  static_assert(Of::has_output_map,
                "linnet::ffn::hadamard: is of a standard or gated feed-forward");
  using plain = Of;  ///< what it rotates
  template <index D, index F, bool Bias>
  using layer = typename Of::template layer<D, F, Bias, projection_kind{.rotated = true}>;
};

/// A standard or gated feed-forward `Of` that normalises the hidden values before its last matrix,
/// as BitNet does (Ma et al. 2024), with an RMSNorm.
template <class Of = swiglu>
struct sub_norm : policy {
  static_assert(Of::has_output_map,
                "linnet::ffn::sub_norm: is of a standard or gated feed-forward");
  template <index D, index F, bool Bias>
  using layer = typename Of::template layer<D, F, Bias, projection_kind{.normed = true}>;
};

/// A standard or gated feed-forward `Of` that keeps the `K` largest neurons of each token (Li et
/// al. 2022, arXiv:2210.06313). The others are 0; of equal ones the first stay.
template <index K, class Of = relu>
struct top_k : policy {
  static_assert(Of::has_output_map, "linnet::ffn::top_k: is of a standard or gated feed-forward");
  static_assert(K > 0, "linnet::ffn::top_k: at least one neuron stays");
  using whole = Of;  ///< what it takes neurons from
  template <index D, index F, bool Bias>
  using layer = typename Of::template layer<D, F, Bias, projection_kind{.kept = K}>;
};

/// A standard or gated feed-forward `Of` with a hidden width for each layer of a decoder. The
/// shape's d_ff is the widest one. narrow() makes weights of it from those of `Of`.
template <class Of, index... Widths>
struct per_layer : policy {
  static_assert(Of::has_output_map,
                "linnet::ffn::per_layer: is of a standard or gated feed-forward");
  static_assert(sizeof...(Widths) > 0 && ((Widths > 0) && ...),
                "linnet::ffn::per_layer: give a positive width for each layer");
  using each = Of;  ///< that of each layer
  static constexpr index widths[sizeof...(Widths)] = {Widths...};
  static constexpr index layers = sizeof...(Widths), widest = (std::max)({Widths...});
};

/// 2W and 3W: a product of `N` matrices without a nonlinearity, of inner width e D (Lee et al.
/// 2023). After training, collapse() multiplies them into one [D, D] matrix. No biases.
template <int N, expansion E = expansion{4}>
struct reparam : policy {
  using collapsed = linear;  ///< what collapse() makes of it
  static_assert(N == 2 || N == 3, "linnet::ffn::reparam<N, e>: N is 2 or 3 matrices");
  static_assert(E.thousandths > 0, "linnet::ffn::reparam<N, e>: the expansion e must be positive");

  template <index D>
  static constexpr index inner = E.of(D);
  template <index D, bool Three>
  struct make {
    using type = linear_product<named<"w1", linnet::linear<D, inner<D>>>,
                                named<"w2", linnet::linear<inner<D>, D>>>;
  };
  template <index D>
  struct make<D, true> {
    using type = linear_product<named<"w1", linnet::linear<D, inner<D>>>,
                                named<"w2", linnet::linear<inner<D>, inner<D>>>,
                                named<"w3", linnet::linear<inner<D>, D>>>;
  };
  // A chain of one, as that of ffn::linear.
  template <index D, index, bool>
  using layer = chain<named<"", typename make<D, N == 3>::type>>;
};

}  // namespace ffn

LINNET_NAMESPACE_END
