// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A mixture of experts: feed-forwards of which each token goes through a few.

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <linnet/nn/ffn.hpp>
#include <linnet/nn/routing/expert_router.hpp>
#include <linnet/ops/adapter.hpp>

LINNET_NAMESPACE_BEGIN

/// N layers of one type, of which each token goes through K: y = sum of g_e Expert_e(x). They are
/// those with the largest router scores, see detail::expert_router; weights of others are not read.
/// Sums run over experts in the order of their numbers. A token for which no expert has room gets
/// y = 0. Training keeps nothing of the experts: backward computes their hidden values again.
template <class Expert, index N, index K, expert_choice Choice>
struct experts_layer {
  static constexpr index in = Expert::in, out = Expert::in;
  static_assert(Expert::in == Expert::out,
                "linnet::ffn::experts: an expert must keep the width of the stream");
  static constexpr bool adds_residual = true;
  static constexpr auto count = static_cast<std::size_t>(N);
  using router = detail::expert_router<in, N, K, Choice>;

  template <class Form>
  struct params {
    typename router::template params<Form> route{};
    typename Expert::template params<Form> items[count]{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    router::visit(f, at / "router", p.route...);
    const parameter_path all = at / "experts";
    for (std::size_t e = 0; e < count; ++e)
      Expert::visit(f, all.element(static_cast<index>(e), N), p.items[e]...);
  }
  /// All read and write the same channels.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    c.reads(p.route.weight, router::weight_info);
    for (auto& one : p.items) linnet::detail::describe_channels<Expert>(c, one);
  }

  template <class T>
  struct cache {
    typename router::template cache<T> route{};
    typename Expert::template cache<T> expert{};  ///< of one expert after the other
    T *x = nullptr, *y = nullptr;                 ///< [rows, in] of an expert's tokens
    T *d_x = nullptr, *d_y = nullptr;             ///< while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    static_assert(!linnet::detail::keeps_state<Expert, T>(),
                  "linnet::ffn::experts: an expert must keep nothing of earlier tokens");
    const index size = e.rows() * in, mark = m.scratch.mark();
    cache<T> c;
    c.route = router::template plan<T>(m, e);
    c.x = m.scratch.take<T>(size);
    c.y = m.scratch.take<T>(size);
    if (e.training) {
      c.d_x = m.scratch.take<T>(size);
      c.d_y = m.scratch.take<T>(size);
    }
    call_shape all = e;  // every token may choose the same expert
    all.batch = 1;
    all.length = e.rows();
    c.expert = Expert::template plan<T>(m, all);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    router::template forward<T, S>(p.route, x.data(), c.route, ctx);
    if (residual)
      ops::copy(ctx.on, y.size(), residual, y.data());
    else
      ops::fill(ctx.on, y.size(), T(0), y.data());
    const auto* const given = ops::adapter_hooks<T>::in(ctx.on);
    for (index e = 0; e < N; ++e) {
      const index n = router::count(c.route, e);
      if (n == 0) continue;
      context<T> inner = context_of(e, n, ctx);
      // Rows of sequences that have adapters of their own, as many as have chosen this expert.
      const ops::sequence_adapters<T> adapters(given ? given->each : nullptr, ctx.batch,
                                               router::begins(c.route, e));
      const ops::adapter_hooks<T> hooks = adapters.hooks();
      if (given && given->each) inner.on.adapter = &hooks;
      gather(e, n, x, c, ctx);
      Expert::template forward<T, S>(p.items[e], {c.x, n}, {c.y, n}, c.expert, inner);
      ctx.on.threads.each(n, [&](index i) {
        const index a = router::place(c.route, e, i);
        const T g = c.route.gates[a];
        for (index j = 0; j < in; ++j) y(a / K, j) += g * c.y[i * in + j];
      });
    }
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    ops::fill(ctx.on, x.rows() * K, T(0), c.route.d_gates);  // of what found no room
    for (index e = 0; e < N; ++e) {
      const index n = router::count(c.route, e);
      if (n == 0) continue;
      context<T> inner = context_of(e, n, ctx);
      gather(e, n, x, c, ctx);
      inner.on.tap = nullptr;  // what it shows has been seen
      Expert::template forward<T, S>(p.items[e], {c.x, n}, {c.y, n}, c.expert, inner);
      inner.on.tap = ctx.on.tap;
      ctx.on.threads.each(n, [&](index i) {
        const index a = router::place(c.route, e, i);
        const T g = c.route.gates[a];
        T sum{};
        for (index j = 0; j < in; ++j) {
          const T d = dy(a / K, j);
          sum += d * c.y[i * in + j];
          c.d_y[i * in + j] = g * d;
          c.d_x[i * in + j] = T(0);
        }
        c.route.d_gates[a] = sum;
      });
      Expert::template backward<T, S>(p.items[e], dp.items[e], {c.x, n}, {c.d_y, n}, {c.d_x, n},
                                      c.expert, inner);
      ctx.on.threads.each(n, [&](index i) {
        const index row = router::place(c.route, e, i) / K;
        for (index j = 0; j < in; ++j) dx(row, j) += c.d_x[i * in + j];
      });
    }
    router::template backward<T, S>(p.route, dp.route, x.data(), dx.data(), c.route, ctx);
  }

  static constexpr index flops(const call_shape& e) {
    return 2 * e.rows() * in * N + K * Expert::flops(e);
  }

 private:
  /// The call of expert `e` on its `n` tokens: rows of one sequence. Dropout in an expert goes by
  /// a token's place among them.
  template <class T>
  static context<T> context_of(index e, index n, const context<T>& ctx) {
    context<T> inner = ctx;
    inner.batch = 1;
    inner.length = n;
    inner.lengths = inner.past = inner.prefix = inner.documents = nullptr;
    inner.pages = {};
    inner.stack.mask = nullptr;
    inner.dropout.seed += static_cast<std::uint64_t>(e) * 0xD1B54A32D192ED03ull;
    return inner;
  }
  /// c.x = the rows of x that expert `e` takes.
  template <class T>
  static void gather(index e, index n, view<const T, in> x, cache<T>& c, const context<T>& ctx) {
    ctx.on.threads.each(n, [&](index i) {
      std::copy_n(x.row(router::place(c.route, e, i) / K), in, c.x + i * in);
    });
  }
};

namespace ffn {

template <index N, index K, class Of, expert_choice Choice>
struct experts;

}  // namespace ffn

namespace detail {
/// The policies that collapse() and factorise() pair with one of experts.
template <index N, index K, class Of, expert_choice Choice>
struct collapsed_experts {};
template <index N, index K, class Of, expert_choice Choice>
requires requires { typename Of::collapsed; }
struct collapsed_experts<N, K, Of, Choice> {
  using collapsed = ffn::experts<N, K, typename Of::collapsed, Choice>;
};
template <index N, index K, class Of, expert_choice Choice>
struct dense_experts {};
template <index N, index K, class Of, expert_choice Choice>
requires requires { typename Of::dense; }
struct dense_experts<N, K, Of, Choice> {
  using dense = ffn::experts<N, K, typename Of::dense, Choice>;
};
}  // namespace detail

namespace ffn {

/// A mixture of experts (Shazeer et al. 2017; Fedus et al. 2021, arXiv:2101.03961): `N`
/// feed-forwards `Of`, of which each token goes through `K`, y = sum of g_e Of_e(x). A router, one
/// map without bias, scores them; the K largest scores win. g is the softmax of all N scores at
/// the chosen ones. For K > 1 it is divided by its sum, unless `Choice` says otherwise.
///
/// While training, Choice.capacity may limit the tokens of a sequence that an expert takes. Tokens
/// are served in the order of the sequence, a token's choices by their probabilities. What finds no
/// room adds nothing, so that the residual passes alone; weights of other choices stay. Each
/// sequence counts for itself: other sequences of a batch change nothing. Sessions and evaluators
/// take all tokens, so that a text has the scores with which it was written.
///
/// Training adds two losses. Choice.balance N sum_e f_e P_e keeps experts equally busy (Fedus et
/// al. 2021, equation 4). Choice.z times the squared log-sum-exp of the scores keeps those small
/// (Zoph et al. 2022, arXiv:2202.08906, equation 5). Both are means over the tokens of a sequence,
/// summed over tokens and layers like losses of labels. Only their gradient is computed: losses
/// that trainers and evaluators report are those of the language model alone. So
/// check_model_gradients() wants weights of 0.
template <index N, index K, class Of = swiglu, expert_choice Choice = expert_choice{}>
struct experts : policy,
                 linnet::detail::collapsed_experts<N, K, Of, Choice>,
                 linnet::detail::dense_experts<N, K, Of, Choice> {
  static_assert(N > 0 && K > 0 && K <= N,
                "linnet::ffn::experts<n, k>: a token goes through k of n experts, so k is from 1 "
                "to n");
  static_assert(!Of::skipped && Of::can_truncate,
                "linnet::ffn::experts: is of a feed-forward that keeps nothing of earlier tokens");
  static_assert(Choice.valid(),
                "linnet::expert_choice: capacity, balance and z must not be negative");
  using expert = Of;                          ///< what each of them is
  static constexpr index all_experts = N;     ///< their number
  static constexpr index active_experts = K;  ///< experts that a token goes through
  static constexpr bool couples_tokens = Choice.capacity > 0 || Choice.balance > 0;
  static constexpr bool normalised = Choice.normalised && K > 1;
  template <index D, index F, bool Bias>
  using layer = experts_layer<typename Of::template layer<D, F, Bias>, N, K, Choice>;
};

}  // namespace ffn

namespace detail {
/// Whether a parameter belongs to expert number `active` or a later one.
constexpr bool of_idle_expert(const parameter_path& at, index active) {
  for (const parameter_path* p = &at; p->parent; p = p->parent)
    if (p->number >= active && p->parent->name == std::string_view("experts")) return true;
  return false;
}
}  // namespace detail

/// Number of parameters of a model that one token meets: those of the experts that it does not go
/// through are left out. Of a model without experts, all.
template <class M>
consteval index count_active_parameters() {
  index n = 0;
  M::visit(
      [&](const parameter_path& at, const tensor_info& info) {
        bool idle = false;
        if constexpr (requires { M::ffn::active_experts; })
          idle = detail::of_idle_expert(at, M::ffn::active_experts);
        if (!idle) n += info.size();
      },
      parameter_path{});
  return n;
}

LINNET_NAMESPACE_END
