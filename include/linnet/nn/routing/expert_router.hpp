// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The router of a mixture of experts. It says which experts a token goes through, with what
/// weights, and what training adds to the loss so that they share the work.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include <linnet/core/finite.hpp>
#include <linnet/core/shapes.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/nn/routing/expert_load.hpp>

LINNET_NAMESPACE_BEGIN

/// How tokens choose experts, and what training adds to the loss for it.
struct expert_choice {
  /// Of `n` experts, each takes `capacity * T / n` tokens of a sequence of T at most, rounded down,
  /// and at least 4. It holds while training alone; with 0 an expert takes all that choose it.
  double capacity = 0;
  /// Whether the weights of a token's experts are divided by their sum. A token of one expert
  /// always takes the probability itself, as the router would not learn from a weight of 1.
  bool normalised = true;
  double balance = 0.01;  ///< weight of the load-balancing loss
  double z = 0.001;       ///< weight of the squared log-sum-exp of the router's scores

  /// Whether every number is usable.
  constexpr bool valid() const { return capacity >= 0 && balance >= 0 && z >= 0; }
  /// Tokens of a sequence of `tokens` that one of `experts` takes at most.
  constexpr index room(index tokens, index experts) const {
    if (capacity <= 0) return tokens;
    // A product such as 1.1 * 10 may come out a little below the whole number that it is.
    const double share =
        capacity * static_cast<double>(tokens) / static_cast<double>(experts) + 1e-9;
    return (std::min)(tokens,
                      (std::max)(index{4}, share < 1e15 ? static_cast<index>(share) : tokens));
  }
};

namespace detail {

/// Router of N experts, of which each token takes the K with the largest scores z = W x, W[N, D];
/// of equal ones the first. Scores are products in full, row by row: a token's choice depends on
/// nothing but the token.
template <index D, index N, index K, expert_choice Choice>
struct expert_router {
  static constexpr bool normalised = Choice.normalised && K > 1;

  template <class Form>
  struct params {
    typename Form::vector weight{};  ///< [N, D]; always in full, as a rounded one chooses others
  };
  static constexpr tensor_info weight_info{N, D, role::position, 1 / sqrt(D)};
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "weight", weight_info, p.weight...);
  }

  template <class T>
  struct cache {
    T* p = nullptr;                  ///< [rows, N] probabilities, the softmax of all scores
    T* lse = nullptr;                ///< [rows] logarithm of the sum of their exponentials
    T* gates = nullptr;              ///< [rows, K] weights of the chosen experts
    std::int32_t* chosen = nullptr;  ///< [rows, K] their numbers e, or ~e where e has no room
    std::int32_t* firsts = nullptr;  ///< [batch, N] tokens of a sequence with that first choice
    std::int32_t* order = nullptr;   ///< [rows * K] places in `chosen`, expert by expert
    index* begins = nullptr;         ///< [N * sequences + 1] where those of an expert begin, of one
                                     ///< sequence after the other
    index sequences = 0;             ///< that are planned for
    T* d_gates = nullptr;            ///< [rows, K] while training
    T* d_scores = nullptr;           ///< [rows, N] while training
    bool training = false;
  };
  /// The scratch that it takes is the caller's to release.
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index rows = e.rows();
    cache<T> c;
    c.training = e.training;
    c.p = m.saved.take<T>(rows * N);
    c.lse = m.saved.take<T>(rows);
    c.gates = m.saved.take<T>(rows * K);
    c.chosen = m.saved.take<std::int32_t>(rows * K);
    c.firsts = m.saved.take<std::int32_t>(e.batch * N);
    c.order = m.saved.take<std::int32_t>(rows * K);
    c.begins = m.saved.take<index>(N * e.batch + 1);
    c.sequences = e.batch;
    if (e.training) {
      c.d_gates = m.scratch.take<T>(rows * K);
      c.d_scores = m.scratch.take<T>(rows * N);
    }
    return c;
  }

  /// Where the tokens of expert `e` begin in `order`, those of one sequence after the other.
  template <class T>
  static const index* begins(const cache<T>& c, index e) {
    return c.begins + e * c.sequences;
  }
  /// Number of tokens that expert `e` takes.
  template <class T>
  static index count(const cache<T>& c, index e) {
    return *begins(c, e + 1) - *begins(c, e);
  }
  /// Place in `chosen` of token number `i` of expert `e`; its row is place / K.
  template <class T>
  static index place(const cache<T>& c, index e, index i) {
    return c.order[*begins(c, e) + i];
  }

  /// Chooses the experts of each valid token. Where tokens find no room, those of a sequence come
  /// in its order, and the choices of a token by their probabilities.
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const T* x, cache<T>& c,
                      const context<T>& ctx) {
    ctx.on.threads.each(ctx.rows(), [&](index row) {
      if (valid(row, ctx)) choose(p.weight, x + row * D, row, c, ctx);
    });
    ctx.on.threads.once([&] { sort_by_experts(c, ctx); });
  }

  /// Adds to the gradients of x and of the router what c.d_gates and the two losses ask for. They
  /// are, summed over tokens, Choice.balance N sum_e f_e P_e and Choice.z lse^2. Here f_e is the
  /// share of a sequence's tokens whose first choice is e, a constant, and P_e the mean of p_e.
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       const T* x, T* dx, cache<T>& c, const context<T>& ctx) {
    if (ctx.on.experts) ctx.on.threads.once([&] { report(*ctx.on.experts, c, ctx); });
    ctx.on.threads.each(ctx.rows(), [&](index row) {
      T* const d = c.d_scores + row * N;
      std::fill_n(d, N, T(0));
      if (!valid(row, ctx)) return;
      score_gradient(row, d, c, ctx);
      for (index e = 0; e < N; ++e)
        for (index j = 0; j < D; ++j) dx[row * D + j] += d[e] * p.weight[e * D + j];
    });
    const auto [first, last] = ctx.on.threads.range(D);
    for (index row = 0; row < ctx.rows(); ++row)
      for (index e = 0; e < N; ++e)
        for (index j = first; j < last; ++j)
          dp.weight[e * D + j] += c.d_scores[row * N + e] * x[row * D + j];
    ctx.on.threads.wait();
  }

 private:
  template <class T>
  static bool valid(index row, const context<T>& ctx) {
    return row % ctx.length < ctx.length_of(row / ctx.length);
  }
  /// Scores, probabilities, choices and weights of one token. Where a score is no number the
  /// weights are none, so that the output shows it.
  template <class T>
  static void choose(const T* w, const T* x, index row, cache<T>& c, const context<T>& ctx) {
    T* const p = c.p + row * N;
    std::int32_t* const chosen = c.chosen + row * K;
    ctx.on.with_kernels([&](auto k) {
      for (index e = 0; e < N; ++e) p[e] = decltype(k)::template dot<T>(D, x, w + e * D);
    });
    bool finite = true;
    std::array<std::int32_t, static_cast<std::size_t>(N)> order;
    for (index e = 0; e < N; ++e) {
      order[static_cast<std::size_t>(e)] = static_cast<std::int32_t>(e);
      finite = finite && is_finite(p[e]);
    }
    if (!finite) {
      std::copy_n(order.begin(), K, chosen);
      std::fill_n(p, N, std::numeric_limits<T>::quiet_NaN());
      std::fill_n(c.gates + row * K, K, std::numeric_limits<T>::quiet_NaN());
      c.lse[row] = std::numeric_limits<T>::quiet_NaN();
      return;
    }
    std::partial_sort(
        order.begin(), order.begin() + K, order.end(),
        [&](std::int32_t a, std::int32_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
    std::copy_n(order.begin(), K, chosen);
    const T largest = p[chosen[0]];
    T sum{}, taken{};
    for (index e = 0; e < N; ++e) sum += p[e] = std::exp(p[e] - largest);
    c.lse[row] = largest + std::log(sum);
    for (index e = 0; e < N; ++e) p[e] /= sum;
    for (index j = 0; j < K; ++j) taken += p[chosen[j]];
    for (index j = 0; j < K; ++j) c.gates[row * K + j] = p[chosen[j]] / (normalised ? taken : T(1));
  }
  /// Puts the tokens of each expert together, in order; drops those beyond its room.
  template <class T>
  static void sort_by_experts(cache<T>& c, const context<T>& ctx) {
    const index places = N * c.sequences;
    std::fill_n(c.begins, places + 1, index{0});
    for (index b = 0; b < ctx.batch; ++b) {
      const index tokens = ctx.length_of(b), room = c.training ? Choice.room(tokens, N) : tokens;
      std::int32_t *const chosen = c.chosen + b * ctx.length * K, *const firsts = c.firsts + b * N;
      std::fill_n(firsts, N, 0);
      for (index a = 0; a < tokens * K; ++a) {
        const std::int32_t e = chosen[a];
        index& taken = c.begins[e * c.sequences + b + 1];
        firsts[e] += a % K == 0;
        if (taken < room)
          ++taken;
        else
          chosen[a] = ~e;
      }
    }
    for (index i = 0; i < places; ++i) c.begins[i + 1] += c.begins[i];
    std::array<index, static_cast<std::size_t>(N)> next;
    for (index e = 0; e < N; ++e) next[static_cast<std::size_t>(e)] = *begins(c, e);
    for (index b = 0; b < ctx.batch; ++b)
      for (index a = b * ctx.length * K; a < (b * ctx.length + ctx.length_of(b)) * K; ++a)
        if (c.chosen[a] >= 0)
          c.order[next[static_cast<std::size_t>(c.chosen[a])]++] = static_cast<std::int32_t>(a);
  }
  /// Adds what became of this call's tokens.
  template <class T>
  static void report(expert_load& to, const cache<T>& c, const context<T>& ctx) {
    for (index b = 0; b < ctx.batch; ++b) {
      if (ctx.skips(b)) continue;
      const index tokens = ctx.length_of(b), first = b * ctx.length;
      to.tokens += tokens;
      to.choices += tokens * K;
      for (index a = first * K; a < (first + tokens) * K; ++a) to.dropped += c.chosen[a] < 0;
      double shares = 0;
      for (index row = first; row < first + tokens; ++row) {
        for (index e = 0; e < N; ++e)
          shares += c.firsts[b * N + e] * static_cast<double>(c.p[row * N + e]);
        const auto lse = static_cast<double>(c.lse[row]);
        to.z += lse * lse;
      }
      to.balance += static_cast<double>(N) * shares / static_cast<double>(tokens);
    }
  }
  /// The gradient of a token's scores.
  template <class T>
  static void score_gradient(index row, T* d, const cache<T>& c, const context<T>& ctx) {
    const index b = row / ctx.length;
    const T* const p = c.p + row * N;
    const T *const gates = c.gates + row * K, *const d_gates = c.d_gates + row * K;
    // First of the probabilities. The derivative of g_j = p_j / sum is (dg_j - g . dg) / sum.
    T sum{1}, mean{};
    if (normalised) {
      sum = T(0);
      for (index j = 0; j < K; ++j) {
        sum += p[number(c.chosen[row * K + j])];
        mean += gates[j] * d_gates[j];
      }
    }
    for (index j = 0; j < K; ++j) d[number(c.chosen[row * K + j])] += (d_gates[j] - mean) / sum;
    const bool learns = !ctx.skips(b);
    if (learns && Choice.balance > 0) {
      const T scale = static_cast<T>(Choice.balance * static_cast<double>(N)) /
                      static_cast<T>(ctx.length_of(b));
      for (index e = 0; e < N; ++e) d[e] += scale * static_cast<T>(c.firsts[b * N + e]);
    }
    T inner{};
    for (index e = 0; e < N; ++e) inner += p[e] * d[e];
    const T z = learns ? static_cast<T>(2 * Choice.z) * c.lse[row] : T(0);
    for (index e = 0; e < N; ++e) d[e] = p[e] * (d[e] - inner + z);
  }
  static std::int32_t number(std::int32_t chosen) { return chosen < 0 ? ~chosen : chosen; }
};

}  // namespace detail

LINNET_NAMESPACE_END
