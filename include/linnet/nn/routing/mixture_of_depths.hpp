// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Mixture of depths: blocks that only some tokens go through (Raposo et al. 2024,
/// arXiv:2404.02258).

#include <algorithm>
#include <charconv>
#include <limits>
#include <string>

#include <linnet/core/shapes.hpp>
#include <linnet/nn/alternate.hpp>
#include <linnet/nn/ffn.hpp>
#include <linnet/nn/recurrent/gate.hpp>

LINNET_NAMESPACE_BEGIN

namespace depths {

/// How a token is routed without a look at later tokens: what decides whether it goes through a
/// block.
enum class decision {
  router,    ///< the sign of the router's own number, trained for it beside its main task
  predictor  ///< a small network beside it, whose training changes nothing else
};

}  // namespace depths

namespace detail {

/// A block that only some tokens go through. While training they are those with the largest r_i =
/// w.x_i; otherwise each token decides for itself. They become x_i + r_i f(x~)_i, where f is the
/// block without its residual. Here x~ are the chosen tokens alone, in order and with the positions
/// that they have in the text. All others stay as they are, to the bit.
///
/// Rotary is the width of the rotary angles that the block reads, 0 for none. The auxiliary loss
/// Weight * sum_i BCE(sigmoid(r_i), chosen_i), of the predictor's s_i in place of r_i where there
/// is one, is part of backward alone. Samples that skip the layer have no part in it.
template <class Block, real Capacity, depths::decision By, real Weight, index Rotary>
struct routed_block {
  static constexpr index in = Block::in, out = Block::in;
  static constexpr bool predicts = By == depths::decision::predictor;
  /// Hidden width of the routing predictor.
  static constexpr index hidden = in < 4 ? 1 : in / 4;
  using predictor_layer = chain<named<"wi", linear<in, hidden, true>>,
                                named<"act", activation_layer<hidden, activation_kind::silu>>,
                                named<"wo", linear<hidden, 1, true>>>;

  /// Number of tokens, out of `tokens`, that are chosen in training: the fraction, rounded up.
  static constexpr index share(index tokens) {
    // A product such as 0.07 * 100 may come out a little above the whole number that it is.
    const double exact = Capacity.value * static_cast<double>(tokens) - 1e-9;
    const auto whole = static_cast<index>(exact);
    const index count = whole + (exact > static_cast<double>(whole));
    return (std::min)(tokens, (std::max)(count, index{1}));
  }

  template <class Form>
  struct params {
    typename Block::template params<Form> block{};
    typename Form::vector router{};  ///< w [in]; always in full, as a rounded one chooses others
    [[no_unique_address]] std::conditional_t<
        predicts, typename predictor_layer::template params<Form>, std::nullptr_t>
        predictor{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Block::visit(f, at, p.block...);
    f(at / "router" / "weight",
      tensor_info{1, in, role::position, 1 / sqrt(static_cast<double>(in))}, p.router...);
    if constexpr (predicts) predictor_layer::visit(f, at / "predictor", p.predictor...);
  }

  template <class T>
  struct cache {
    typename Block::template cache<T> block{};
    [[no_unique_address]] std::conditional_t<predicts, typename predictor_layer::template cache<T>,
                                             std::nullptr_t>
        predictor{};
    T* r = nullptr;                        ///< [rows] of the router
    T* s = nullptr;                        ///< [rows] of the predictor
    T *x = nullptr, *f = nullptr;          ///< [batch, most, in] the chosen tokens, and f of them
    T *d_x = nullptr, *d_y = nullptr;      ///< while training: their gradient, that of the block
    T *slope = nullptr, *guess = nullptr;  ///< [rows] the gradients of r and s
    T* unused = nullptr;  ///< [rows, in] what the predictor would do to its input; never read
    T* angles = nullptr;  ///< [batch, most, Rotary]
    std::int32_t* chosen = nullptr;  ///< [batch, most] tokens of this call
    index* counts = nullptr;         ///< [batch] how many
    index* past = nullptr;           ///< [batch] chosen ones before this call
    std::int32_t* before = nullptr;  ///< [batch, capacity + 1] of a session: chosen among so many
    std::int32_t* order = nullptr;   ///< [length] per thread
    index most = 0, capacity = 0, length = 0;
    bool training = false;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    c.training = e.training;
    c.length = e.length;
    c.capacity = e.capacity;
    c.most = e.training ? share(e.length) : e.length;
    const index chosen = e.batch * c.most, mark = m.scratch.mark();
    c.r = m.saved.take<T>(e.rows());
    if (predicts) c.s = m.saved.take<T>(e.rows());
    c.x = m.saved.take<T>(chosen * in);
    c.f = m.saved.take<T>(chosen * in);
    if (Rotary > 0) c.angles = m.saved.take<T>(chosen * Rotary);
    c.chosen = m.saved.take<std::int32_t>(chosen);
    c.counts = m.saved.take<index>(e.batch);
    if (e.capacity > 0) {
      c.past = m.saved.take<index>(e.batch);
      c.before = m.state.take<std::int32_t>(e.batch * (e.capacity + 1));
    }
    if (e.training) {
      c.order = m.scratch.take<std::int32_t>(e.length * e.threads);
      c.slope = m.scratch.take<T>(e.rows());
      c.d_x = m.scratch.take<T>(chosen * in);
      c.d_y = m.scratch.take<T>(chosen * in);
      if (predicts) c.guess = m.scratch.take<T>(e.rows());
      if (predicts) c.unused = m.scratch.take<T>(e.rows() * in);
    }
    if constexpr (predicts) c.predictor = predictor_layer::template plan<T>(m, e);
    call_shape some = e;
    some.length = c.most;
    some.blocks = 0;
    c.block = Block::template plan<T>(m, some);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx) {
    ctx.on.threads.each(x.rows(), [&](index row) { c.r[row] = dot(ctx, x.row(row), p.router); });
    if constexpr (predicts)
      predictor_layer::template forward<T, S>(p.predictor, x, {c.s, x.rows()}, c.predictor, ctx);
    ctx.on.threads.each(ctx.batch, [&](index b) {
      if (c.training)
        choose_best(b, c, ctx);
      else
        choose_by_themselves(b, c, ctx);
    });
    context<T> inner = among_chosen(c, ctx);  // before the barrier, as the next layer may follow
    const index rows = inner.rows();
    ops::copy(ctx.on, x.size(), x.data(), y.data());
    if (rows == 0) return;
    ctx.on.threads.each(rows, [&](index i) {
      const index row = row_of(i, c, inner, ctx);
      T *const to = c.x + i * in, *const angles = c.angles + i * Rotary;
      if (row < 0) {
        std::fill_n(to, in, T(0));
        std::fill_n(angles, Rotary, T(0));
      } else {
        std::copy_n(x.row(row), in, to);
        if constexpr (Rotary > 0) std::copy_n(ctx.rope_of(row, Rotary), Rotary, angles);
      }
    });
    Block::template forward<T, S>(p.block, {c.x, rows}, {c.f, rows}, c.block, inner);
    ctx.on.threads.each(rows, [&](index i) {
      const index row = row_of(i, c, inner, ctx);
      if (row < 0) return;
      T* const f = c.f + i * in;
      for (index j = 0; j < in; ++j) {
        f[j] -= x(row, j);
        y(row, j) = x(row, j) + c.r[row] * f[j];
      }
    });
  }

  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    constexpr T weight = static_cast<T>(Weight.value);
    context<T> inner = among_chosen(c, ctx);
    const index rows = inner.rows();
    ops::add(ctx.on, dx.size(), dx.data(), dy.data(), dx.data());
    ctx.on.threads.each(x.rows(), [&](index row) {
      const index b = row / ctx.length;
      const bool valid = row % ctx.length < ctx.length_of(b) && !ctx.skips(b);
      c.slope[row] = valid && !predicts ? weight * sigmoid(c.r[row]) : T(0);
      if constexpr (predicts) c.guess[row] = valid ? weight * sigmoid(c.s[row]) : T(0);
    });
    ctx.on.threads.each(rows, [&](index i) {
      const index row = row_of(i, c, inner, ctx);
      T *const d_x = c.d_x + i * in, *const d_y = c.d_y + i * in;
      if (row < 0) {
        std::fill_n(d_x, in, T(0));
        std::fill_n(d_y, in, T(0));
        return;
      }
      if (!ctx.skips(row / ctx.length)) (predicts ? c.guess : c.slope)[row] -= weight;
      c.slope[row] += dot(ctx, dy.row(row), c.f + i * in);
      for (index j = 0; j < in; ++j) {
        d_y[j] = c.r[row] * dy(row, j);
        d_x[j] = -d_y[j];  // the residual that the block adds, and f does not have
      }
    });
    if (rows > 0) {
      Block::template backward<T, S>(p.block, dp.block, {c.x, rows}, {c.d_y, rows}, {c.d_x, rows},
                                     c.block, inner);
      ctx.on.threads.each(rows, [&](index i) {
        const index row = row_of(i, c, inner, ctx);
        for (index j = 0; row >= 0 && j < in; ++j) dx(row, j) += c.d_x[i * in + j];
      });
    }
    const auto [first, last] = ctx.on.threads.range(in);
    for (index row = 0; row < x.rows(); ++row)
      for (index j = first; j < last; ++j) dp.router[j] += c.slope[row] * x(row, j);
    ctx.on.threads.each(x.rows(), [&](index row) {
      for (index j = 0; j < in; ++j) dx(row, j) += c.slope[row] * p.router[j];
    });
    // The gradient stops at the predictor's input.
    if constexpr (predicts)
      predictor_layer::template backward<T, S>(p.predictor, dp.predictor, x, {c.guess, x.rows()},
                                               {c.unused, x.rows()}, c.predictor, ctx);
  }

  /// The chosen tokens, and what the block saved of them. A token fed in other parts may have been
  /// rounded to the other side, so that what both read may begin to differ earlier.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    const std::int32_t* const source = c.before + from * (c.capacity + 1);
    std::int32_t* const target = c.before + to * (c.capacity + 1);
    index first = 0;
    while (first < part.first && source[first + 1] == target[first + 1]) ++first;
    std::copy(source + first, source + part.tokens + 1, target + first);
    state_part chosen = part;
    chosen.first = source[first];
    chosen.tokens = source[part.tokens];
    linnet::copy_state<Block, T>(c.block, from, to, chosen);
  }

  /// Floating-point operations of a training call; in decoding as many tokens are expected to
  /// enter.
  static constexpr index flops(const call_shape& e) {
    call_shape some = e;
    some.length = share(e.length);
    return Block::flops(some) + 2 * e.rows() * in + (predicts ? predictor_layer::flops(e) : 0);
  }

 private:
  template <class T>
  static T dot(const context<T>& ctx, const T* a, const T* b) {
    T sum{};
    ctx.on.with_kernels([&](auto k) { sum = decltype(k)::template dot<T>(in, a, b); });
    return sum;
  }
  /// Chooses the tokens of sequence `b` with the largest r, the earlier of equals, in order.
  template <class T>
  static void choose_best(index b, cache<T>& c, const context<T>& ctx) {
    const index valid = ctx.length_of(b), count = share(valid);
    c.counts[b] = count;
    if (count == 0) return;
    std::int32_t* const order = c.order + ctx.on.threads.rank() * c.length;
    // Values that are not finite come last, as no order holds them.
    const auto key = [&](std::int32_t t) {
      const T r = c.r[b * ctx.length + t];
      return is_finite(r) ? r : std::numeric_limits<T>::lowest();
    };
    for (index t = 0; t < valid; ++t) order[t] = static_cast<std::int32_t>(t);
    std::nth_element(order, order + count - 1, order + valid, [&](std::int32_t i, std::int32_t j) {
      return key(i) != key(j) ? key(i) > key(j) : i < j;
    });
    std::sort(order, order + count);
    std::copy_n(order, count, c.chosen + b * c.most);
  }
  /// Chooses the tokens of sequence `b` that enter by themselves.
  template <class T>
  static void choose_by_themselves(index b, cache<T>& c, const context<T>& ctx) {
    std::int32_t* const before = ctx.past ? c.before + b * (c.capacity + 1) + ctx.past[b] : nullptr;
    const T* const say = (predicts ? c.s : c.r) + b * ctx.length;
    index count = 0;
    for (index t = 0; t < ctx.length_of(b); ++t) {
      // A token whose score is no number enters, weighted by it, so that the output shows it.
      const bool usable = is_finite(say[t]);
      if (!usable) c.r[b * ctx.length + t] = std::numeric_limits<T>::quiet_NaN();
      if (say[t] > T(0) || !usable) c.chosen[b * c.most + count++] = static_cast<std::int32_t>(t);
      if (before) before[t + 1] = before[0] + static_cast<std::int32_t>(count);
    }
    c.counts[b] = count;
    if (before) c.past[b] = before[0];
  }
  /// The call of the block on the chosen tokens, [batch, most of a sequence].
  template <class T>
  static context<T> among_chosen(const cache<T>& c, const context<T>& ctx) {
    context<T> inner = ctx;
    inner.length = *std::max_element(c.counts, c.counts + ctx.batch);
    inner.lengths = c.counts;
    inner.past = ctx.past ? c.past : nullptr;
    inner.pages = {};
    // Every row brings the angles of its own position.
    inner.rope.positions = 0;
    inner.rope.beyond = c.angles;
    return inner;
  }
  /// The row of x behind row `i` of the inner call, or -1 for padding.
  template <class T>
  static index row_of(index i, const cache<T>& c, const context<T>& inner, const context<T>& ctx) {
    const index b = i / inner.length, j = i % inner.length;
    return j < c.counts[b] ? b * ctx.length + c.chosen[b * c.most + j] : -1;
  }
};

}  // namespace detail

/// Depth policies: which blocks a token goes through.
namespace depths {

/// Base of the depth policies.
struct policy {
  static constexpr bool routes = false;  ///< some tokens pass some blocks by
  static constexpr index every = 1;      ///< of so many blocks, one is routed
};

/// Every token goes through every block.
struct all : policy {
  template <class Stack, class Block, index Layers, index Rotary>
  using stack = typename Stack::type;
};

/// Mixture of depths (Raposo et al. 2024, arXiv:2404.02258). In every `Every`-th block (the second,
/// the fourth, and so on) a router r_i = w.x_i, without bias and not squashed, chooses tokens. They
/// are the ceil(Capacity T) tokens of a sequence of T with the largest r_i, the earlier of equals.
/// They alone meet in the block: queries, keys and values are theirs, with the positions that they
/// have in the text. For them, x_i becomes x_i + r_i f(x~)_i, f without its residual. All others
/// pass by unchanged. The gradient reaches the router through r_i; the choice is a constant. The
/// published best is the default: every other block, one token in eight.
///
/// Which tokens are the best of a sequence depends on later ones, which nobody knows while a text
/// is written. Training looks ahead, all else does not. In a session or an evaluator a token enters
/// a block if `By` says so, a function of the token and those before it. Any number of tokens may
/// enter. So an evaluator scores what a session would write; only trainer::evaluate() looks ahead
/// as training does. By says so if r_i > 0, that is sigmoid(r_i) > 1/2. For this, training adds to
/// the loss Weight times the binary cross-entropy of sigmoid(r_i) with the choice, summed over
/// tokens and routed blocks. Its gradient goes through the router and on into x. Or By is a
/// predictor: two linear maps with a SiLU between them, of hidden width d_model / 4. That
/// cross-entropy trains it on x as it is. Its gradient then goes no further, and the language model
/// learns as if it were not there (but for clipping, which sees its gradient too). Losses that
/// trainers and evaluators report are those of the language model alone; so check_model_gradients()
/// wants a Weight of 0.
///
/// In a decoder's batch every token counts, those without a label too. A routed block keeps keys
/// and values of its chosen tokens alone, so a sequence has other tokens in each block. Memory is
/// planned for the case that all of them enter. Taking tokens back and forks work; paged caches do
/// not. The policy asks for attention that works on any subset of the tokens: full.
template <real Capacity = 0.125, index Every = 2, decision By = decision::router,
          real Weight = 0.01>
struct mixture_of_depths : policy {
  static_assert(
      Capacity.value > 0 && Capacity.value <= 1,
      "linnet::depths::mixture_of_depths: the capacity is a share of the tokens, above 0 and at "
      "most 1");
  static_assert(Every >= 1,
                "linnet::depths::mixture_of_depths: every how many blocks one is routed");
  static_assert(Weight.value >= 0,
                "linnet::depths::mixture_of_depths: the weight of a loss is not negative");
  static constexpr bool routes = true;
  static constexpr index every = Every;
  template <class Stack, class Block, index Layers, index Rotary>
  using stack = alternate<Block, linnet::detail::routed_block<Block, Capacity, By, Weight, Rotary>,
                          Layers, Every>;
  using kind = mixture_of_depths;
  /// Name of the policy in files; the weight of the auxiliary loss is no part of it, as weights
  /// compute the same without it.
  static std::string name() {
    char digits[32];
    return "mixture<" +
           std::string(digits, std::to_chars(digits, digits + sizeof digits, Capacity.value).ptr) +
           ", " + std::to_string(Every) +
           (By == decision::predictor ? ", predictor>" : ", router>");
  }
};

}  // namespace depths

LINNET_NAMESPACE_END
