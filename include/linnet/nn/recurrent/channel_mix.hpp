// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Channel mixing of RWKV-4 and RWKV-7 (Peng et al. 2023, Peng et al. 2025): a feed-forward with
/// squared ReLU. It also reads the token before.

#include <cmath>

#include <linnet/nn/ffn.hpp>
#include <linnet/nn/recurrent/gate.hpp>
#include <linnet/nn/recurrent/token_shift.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// y[n] = max(x[n], 0)^2
template <class T>
void relu_squared(const ops::execution& on, index n, const T* x, T* y) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) {
      const T positive = x[i] < T(0) ? T(0) : x[i];  // a NaN stays
      y[i] = positive * positive;
    }
  });
}
/// dx[n] = dy[n] 2 max(x[n], 0); dx may be dy.
template <class T>
void relu_squared_backward(const ops::execution& on, index n, const T* x, const T* dy, T* dx) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) dx[i] = x[i] < T(0) ? T(0) : T(2) * x[i] * dy[i];
  });
}

/// y = W_v relu(W_k x_k)^2, times sigmoid(W_r x_r) if `Gated`; x_k and x_r mix this token with the
/// one before. F is the width of the hidden layer.
template <index D, index F, bool Gated>
struct channel_mix {
  static constexpr index in = D, out = D;
  static constexpr std::size_t last = Gated ? 1 : 0;
  using wide = linear<D, F>;
  using narrow = linear<F, D>;
  using square = linear<D, D>;
  using shift = token_shift<D, Gated ? 2 : 1, Gated ? mixed_by::current : mixed_by::previous>;

  template <class Form>
  struct gate_params {
    typename Form::vector time_mix_r{};
    typename square::template params<Form> receptance{};
  };
  template <class Form>
  struct params {
    typename Form::vector time_mix_k{};
    typename wide::template params<Form> key{};
    typename narrow::template params<Form> value{};
    [[no_unique_address]] std::conditional_t<Gated, gate_params<Form>, std::nullptr_t> gate{};
  };
  template <class Fn, class... P>
  static constexpr void visit(Fn&& f, const parameter_path& at, P&... p) {
    const tensor_info mix{1, D, role::bias, 0, start_mix};
    const auto starting = [&](decltype(tensor_info::start) start) {
      return [&f, start](const parameter_path& where, tensor_info info, auto&... leaf) {
        info.start = start;
        f(where, info, leaf...);
      };
    };
    f(at / (Gated ? "time_mix_k" : "x_k"), mix, p.time_mix_k...);
    if constexpr (Gated) f(at / "time_mix_r", mix, p.gate.time_mix_r...);
    wide::visit(starting(start_key), at / "key", p.key...);
    narrow::visit(starting(start_zero), at / "value", p.value...);
    if constexpr (Gated)
      square::visit(starting(start_zero), at / "receptance", p.gate.receptance...);
  }

  template <class T>
  struct cache {
    typename shift::template cache<T> shifted{};
    T *hidden = nullptr, *squared = nullptr;  ///< [rows, F]
    T *r = nullptr, *value = nullptr;         ///< [rows, D] sigmoid, and what it gates
    T *d_hidden = nullptr, *dr = nullptr, *d_value = nullptr;
    int dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    c.dropout_id = m.dropout_ids++;
    m.product(e.rows(), D, F, e);
    m.product(e.rows(), F, D, e);
    m.product(e.rows(), D, D, e);
    c.shifted = shift::template plan<T>(m, e);
    c.hidden = m.saved.take<T>(e.rows() * F);
    c.squared = m.saved.take<T>(e.rows() * F);
    if (Gated) {
      c.r = m.saved.take<T>(e.rows() * D);
      c.value = m.saved.take<T>(e.rows() * D);
    }
    if (e.training) {
      c.d_hidden = m.scratch.take<T>(e.rows() * F);
      if (Gated) {
        c.dr = m.scratch.take<T>(e.rows() * D);
        c.d_value = m.scratch.take<T>(e.rows() * D);
      }
    }
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                      cache<T>& c, context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows();
    const auto& mixed = c.shifted.mixed;
    if constexpr (Gated)
      shift::forward({p.time_mix_k, p.gate.time_mix_r}, x.data(), c.shifted, ctx);
    else
      shift::forward({p.time_mix_k}, x.data(), c.shifted, ctx);
    wide::template forward<T, S>(p.key, {mixed[0], rows}, {c.hidden, rows}, none, ctx);
    relu_squared(ctx.on, rows * F, c.hidden, c.squared);
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, F, c.squared);
    const view<T, D> value(Gated ? c.value : y.data(), rows);
    narrow::template forward<T, S>(p.value, {c.squared, rows}, value, none, ctx);
    if constexpr (Gated) {
      square::template forward<T, S>(p.gate.receptance, {mixed[last], rows}, {c.r, rows}, none,
                                     ctx);
      gate(ctx.on, x.size(), c.r, c.value, y.data());
    }
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                       context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows(), size = x.size();
    const auto& mixed = c.shifted.mixed;
    const view<T, D> d_mixed(c.shifted.gradient, rows);
    if constexpr (Gated) {
      gate_backward(ctx.on, size, c.r, c.value, dy.data(), c.dr, c.d_value);
      ops::fill(ctx.on, size, T(0), d_mixed.data());
      square::template backward<T, S>(p.gate.receptance, dp.gate.receptance, {mixed[last], rows},
                                      {c.dr, rows}, d_mixed, none, ctx);
      shift::backward(p.gate.time_mix_r, dp.gate.time_mix_r, x.data(), dx.data(), c.shifted, ctx);
    }
    const view<const T, D> d_value(Gated ? c.d_value : dy.data(), rows);
    ops::fill(ctx.on, rows * F, T(0), c.d_hidden);
    narrow::template backward<T, S>(p.value, dp.value, {c.squared, rows}, d_value,
                                    {c.d_hidden, rows}, none, ctx);
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, F, c.d_hidden);
    relu_squared_backward(ctx.on, rows * F, c.hidden, c.d_hidden, c.d_hidden);
    ops::fill(ctx.on, size, T(0), d_mixed.data());
    wide::template backward<T, S>(p.key, dp.key, {mixed[0], rows}, {c.d_hidden, rows}, d_mixed,
                                  none, ctx);
    shift::backward(p.time_mix_k, dp.time_mix_k, x.data(), dx.data(), c.shifted, ctx);
  }

  /// Copies the state of one sequence to another.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    shift::copy_state(c.shifted, from, to, part);
  }
  /// Numbers that each sequence keeps while decoding, whatever its length.
  static constexpr index state_values(index) { return shift::state_values(); }
  static constexpr index flops(const call_shape& e) {
    return wide::flops(e) + narrow::flops(e) + (Gated ? square::flops(e) : 0);
  }

 private:
  // The reference trainers' values; they draw W_k orthogonal, here it is normal of that size.
  static double start_mix(const parameter_path& at, index i, random_stream&) {
    const double channel = static_cast<double>(i) / static_cast<double>(D);
    const double rest = layer_position(at).rest();
    return Gated ? std::pow(channel, rest) : 1 - std::pow(channel, std::pow(rest, 4));
  }
  static double start_key(const parameter_path&, index, random_stream& random) {
    const double size = static_cast<double>(Gated || D > F ? D : F);
    return random.normal() / std::sqrt(size);
  }
};

}  // namespace detail

namespace ffn {

/// RWKV-4's channel mix: sigmoid(W_r x_r) W_v relu(W_k x_k)^2. Keeps the last token while decoding.
struct rwkv4_channel_mix : policy {
  static constexpr bool can_truncate = false;
  using kind = rwkv4_channel_mix;
  static std::string name() { return "rwkv4_channel_mix"; }
  template <index D, index F, bool Bias>
  struct layer : linnet::detail::channel_mix<D, F, true> {
    static_assert(!Bias, "linnet::ffn::rwkv4_channel_mix: RWKV has no biases");
  };
};
/// RWKV-7's channel mix: W_v relu(W_k x_k)^2. Keeps the last token while decoding.
struct rwkv7_channel_mix : policy {
  static constexpr bool can_truncate = false;
  using kind = rwkv7_channel_mix;
  static std::string name() { return "rwkv7_channel_mix"; }
  template <index D, index F, bool Bias>
  struct layer : linnet::detail::channel_mix<D, F, false> {
    static_assert(!Bias, "linnet::ffn::rwkv7_channel_mix: RWKV has no biases");
  };
};

}  // namespace ffn

LINNET_NAMESPACE_END
