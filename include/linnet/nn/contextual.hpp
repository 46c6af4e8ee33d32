// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Contextual sparsity: a feed-forward that computes the neurons which a predictor expects to be
/// active (Liu et al. 2023, Deja Vu).

#include <cstdint>
#include <string_view>
#include <type_traits>

#include <linnet/nn/ffn.hpp>
#include <linnet/ops/neurons.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// How a feed-forward computes its neurons, and which are 0.
struct neuron_kind {
  activation_kind activation = activation_kind::gelu;
  bool gated = false;
  bool known = false;  ///< whether it is a standard or a gated one

  /// Whether neurons are exactly 0 for many inputs.
  constexpr bool sparse() const {
    return known &&
           (activation == activation_kind::relu || activation == activation_kind::relu_squared ||
            activation == activation_kind::shifted_relu);
  }
};
template <class Ffn>
inline constexpr neuron_kind neurons_of{};
template <activation_kind A>
inline constexpr neuron_kind neurons_of<ffn::standard<A>>{A, false, true};
template <activation_kind A>
inline constexpr neuron_kind neurons_of<ffn::gated<A>>{A, true, true};

/// Parameters of a standard or a gated feed-forward.
template <class P>
concept of_whole_neurons = has_members<P, 2> || requires(P& p) {
  p.up.weight;
  p.down.weight;
};

}  // namespace detail

/// A feed-forward whose neurons are predicted: y is the sum of h_j down_j over the neurons j with a
/// score of at least `Least`. Their values are f(up_j . x), or f(gate_j . x) up_j . x. Scores are
/// B (A x), A[Rank, D], B[F, Rank]. The weights of a neuron lie together: gate, up and down are [F,
/// D], and those of other neurons are not read. Neurons that turn out to be 0 are left out of what
/// follows.
template <index D, index F, index Rank, detail::neuron_kind Kind, bool Bias, real Least>
struct contextual_layer {
  static_assert(Rank > 0 && Rank <= D && Rank <= F,
                "linnet::ffn::contextual: the rank must be positive and at most the smaller width "
                "of d_model and d_ff");
  static constexpr index in = D, out = D;
  static constexpr bool adds_residual = true;
  using reducer = linear<D, Rank>;
  using scorer = linear<Rank, F>;

  template <class Form>
  struct params {
    template <bool There>
    using vector = std::conditional_t<There, typename Form::vector, std::nullptr_t>;
    [[no_unique_address]] vector<Kind.gated> gate{};  ///< [F, D]
    typename Form::vector up{}, down{};               ///< [F, D]
    [[no_unique_address]] vector<Kind.gated && Bias> gate_bias{};
    [[no_unique_address]] vector<Bias> up_bias{}, down_bias{};
    typename reducer::template params<Form> reduce{};
    typename scorer::template params<Form> score{};
  };
  template <class Fn, class... P>
  static constexpr void visit(Fn&& f, const parameter_path& at, P&... p) {
    constexpr tensor_info reads{F, D, role::position, 1 / detail::sqrt(D)},
        writes{F, D, role::position, 1 / detail::sqrt(F)}, bias{1, F, role::bias, 0};
    if constexpr (Kind.gated) f(at / "gate" / "rows", reads, p.gate...);
    if constexpr (Kind.gated && Bias) f(at / "gate" / "bias", bias, p.gate_bias...);
    f(at / "up" / "rows", reads, p.up...);
    if constexpr (Bias) f(at / "up" / "bias", bias, p.up_bias...);
    f(at / "down" / "rows", writes, p.down...);
    if constexpr (Bias) f(at / "down" / "bias", tensor_info{1, D, role::bias, 0}, p.down_bias...);
    reducer::visit(f, at / "predictor" / "reduce", p.reduce...);
    scorer::visit(f, at / "predictor" / "score", p.score...);
  }
  /// Beside the parameters `q` of the feed-forward whose neurons these are.
  template <class Fn, class P, detail::of_whole_neurons Q>
  static constexpr void visit(Fn&& f, const parameter_path& at, P& p, Q& q) {
    const auto pair = [&](std::string_view name, index outputs, auto& rows, auto& bias, auto& map) {
      const parameter_path own = at / name;
      f(own / "weight", tensor_info{outputs, D + F - outputs}, rows, map.weight);
      if constexpr (Bias) f(own / "bias", tensor_info{1, outputs, role::bias}, bias, map.bias);
    };
    using leaf = std::remove_cvref_t<decltype(p.down)>;
    turned_matrix<leaf> down{p.down};
    if constexpr (Kind.gated) {
      pair("gate", F, p.gate, p.gate_bias, q.gate);
      pair("up", F, p.up, p.up_bias, q.up);
      pair("down", D, down, p.down_bias, q.down);
    } else {
      pair("up", F, p.up, p.up_bias, detail::member<0>(q.items));
      pair("down", D, down, p.down_bias, detail::member<1>(q.items));
    }
  }

  template <class T>
  struct cache {
    T *reduced = nullptr, *scores = nullptr;  ///< [rows, Rank], [rows, F]
    ops::chosen_neurons<T> neurons{};         ///< kept while training
    T* room = nullptr;                        ///< [3, rows, F] while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index n = e.rows(), mark = m.scratch.mark();
    cache<T> c;
    (void)reducer::template plan<T>(m, e);
    (void)scorer::template plan<T>(m, e);
    c.reduced = m.scratch.take<T>(n * Rank);
    c.scores = m.scratch.take<T>(n * F);
    arena& kept = e.training ? m.saved : m.scratch;
    c.neurons = {F, kept.take<std::int32_t>(n), kept.take<std::int32_t>(n * F),
                 kept.take<T>(n * F)};
    if (e.training) c.room = m.scratch.take<T>(3 * n * F);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    const index rows = x.rows();
    const auto& on = ctx.on;
    without_cache::cache<T> none;
    reducer::template forward<T, S>(p.reduce, x, {c.reduced, rows}, none, ctx);
    scorer::template forward<T, S>(p.score, {c.reduced, rows}, {c.scores, rows}, none, ctx);
    ops::choose_neurons(on, rows, c.scores, T(Least.value), c.neurons);
    if constexpr (Kind.gated) {
      ops::activate_chosen<Kind.activation, T>(on, rows, D, x.data(), p.gate, p.gate_bias,
                                               c.neurons);
      ops::drop_zeros(on, rows, c.neurons);
      ops::scale_chosen<T>(on, rows, D, x.data(), p.up, p.up_bias, c.scores, c.neurons);
    } else {
      ops::activate_chosen<Kind.activation, T>(on, rows, D, x.data(), p.up, p.up_bias, c.neurons);
      ops::drop_zeros(on, rows, c.neurons);
    }
    ops::sum_chosen<T>(on, rows, D, p.down, p.down_bias, residual, c.neurons, y.data());
  }
  /// Of the neurons that were computed; the predictor learns apart, see train_predictors().
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                       context<T>& ctx) {
    if constexpr (Bias) ops::bias_gradient(ctx.on, x.rows(), D, dy.data(), dp.down_bias);
    ops::neurons_backward<Kind.activation, T>(
        ctx.on, {x.rows(), D, x.data(), dy.data(), dx.data(), c.room},
        {p.gate, p.gate_bias, p.up, p.up_bias, p.down}, c.neurons,
        {dp.gate, dp.gate_bias, dp.up, dp.up_bias, dp.down});
  }
  /// Of the predictor alone; the neurons' depend on the text.
  static constexpr index flops(const call_shape& e) { return reducer::flops(e) + scorer::flops(e); }
};

namespace ffn {

/// A feed-forward `Of` that reads the weights of those neurons alone whose score is at least
/// `Least` (Liu et al. 2023, arXiv:2310.17157, Deja Vu). A score is the logit of being active, of a
/// predictor of rank `Rank`. `Of` is standard or gated, of a ReLU, squared or shifted.
/// contextualise() makes its weights from those of `Of`.
template <index Rank, class Of = relu, real Least = 0.0>
struct contextual : policy {
  static_assert(linnet::detail::neurons_of<Of>.sparse(),
                "linnet::ffn::contextual: is of a standard or gated feed-forward of a ReLU, whose "
                "neurons can be 0: see relufied<M>");
  using whole = Of;  ///< what it predicts the neurons of
  static constexpr double least = Least.value;
  template <index D, index F, bool Bias>
  using layer = contextual_layer<D, F, Rank, linnet::detail::neurons_of<Of>, Bias, Least>;
};

}  // namespace ffn

LINNET_NAMESPACE_END
