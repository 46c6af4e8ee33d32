// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Time mixing of RWKV-4 (Peng et al. 2023, arXiv:2305.13048), in the place of attention.

#include <cmath>

#include <linnet/nn/attention/policy.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/nn/recurrent/gate.hpp>
#include <linnet/nn/recurrent/token_shift.hpp>
#include <linnet/ops/wkv4.hpp>

LINNET_NAMESPACE_BEGIN

/// Recurrent mixers of tokens: attention policies whose decoding state has a fixed size.
namespace mixer {

/// Base of recurrent mixers: they read from left to right and cannot take tokens back.
struct policy : attention::policy {
  static constexpr bool bidirectional = false;
  static constexpr bool can_truncate = false;
};

/// RWKV-4's time mixing: y = W_o (sigmoid(r) wkv), where wkv averages all values so far, weighted
/// by e^key and an exponential decay per channel. The token itself has a bonus in place of the
/// decay. r, k and v read mixtures of this token and the one before. Linear in the length, needs no
/// positions, and heads play no part. Goes with ffn::rwkv4_channel_mix.
struct rwkv4 : policy {
  static constexpr bool embedding_norm = true;
  using kind = rwkv4;
  static constexpr bool rotary = false;
  static std::string name() { return "rwkv4"; }

  template <attention_shape A>
  struct layer {
    static_assert(A.causal && !A.cross,
                  "linnet::mixer::rwkv4: a recurrence reads its own sequence from left to right");
    static_assert(!A.relative, "linnet::mixer::rwkv4: not for T5, whose positions are relative");
    static_assert(A.rope == rope_pairing::none,
                  "linnet::mixer::rwkv4: no positions; give position::none");
    static_assert(!A.bias, "linnet::mixer::rwkv4: RWKV has no biases");
    static constexpr index D = A.d_model, in = D, out = D;
    using map = linear<D, D>;
    using shift = detail::token_shift<D, 3, detail::mixed_by::current>;

    template <class Form>
    struct params {
      typename Form::vector time_mix_k{}, time_mix_v{}, time_mix_r{};
      typename Form::vector time_decay{};  ///< the decay is e^w per token, w = -e^time_decay
      typename Form::vector time_first{};  ///< bonus of the token itself
      typename map::template params<Form> key{}, value{}, receptance{}, output{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      const auto vector = [](decltype(tensor_info::start) start) {
        return tensor_info{1, D, role::bias, 0, start};
      };
      f(at / "time_mix_k", vector(start_mix_k), p.time_mix_k...);
      f(at / "time_mix_v", vector(start_mix_v), p.time_mix_v...);
      f(at / "time_mix_r", vector(start_mix_r), p.time_mix_r...);
      f(at / "time_decay", vector(start_decay), p.time_decay...);
      f(at / "time_first", vector(start_first), p.time_first...);
      const auto zero = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
        info.start = start_zero;
        f(where, info, leaf...);
      };
      const auto fan_in = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
        info.start = start_fan_in;
        f(where, info, leaf...);
      };
      map::visit(zero, at / "key", p.key...);
      map::visit(fan_in, at / "value", p.value...);
      map::visit(zero, at / "receptance", p.receptance...);
      map::visit(zero, at / "output", p.output...);
    }

    template <class T>
    struct cache {
      typename shift::template cache<T> shifted{};
      T *k = nullptr, *v = nullptr;            ///< [rows, D]
      T* r = nullptr;                          ///< [rows, D] its sigmoid
      T *average = nullptr, *gated = nullptr;  ///< [rows, D] wkv, sigmoid(r) wkv
      T* state = nullptr;                      ///< [batch, 3, D] while decoding
      T* starts = nullptr;                     ///< [batch, chunks, 3, D] while training
      T *d_gated = nullptr, *dr = nullptr, *dk = nullptr, *dv = nullptr;
      T *d_decay = nullptr, *d_first = nullptr;  ///< [batch, D]
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index size = e.rows() * D, mark = m.scratch.mark();
      m.product(e.rows(), D, D, e);
      c.shifted = shift::template plan<T>(m, e);
      for (T** one : {&c.k, &c.v, &c.r, &c.average, &c.gated}) *one = m.saved.take<T>(size);
      if (e.capacity > 0) c.state = m.state.take<T>(e.batch * 3 * D);
      if (e.training) {
        c.starts = m.saved.take<T>(e.batch * ops::recurrent_chunks(e.length) * 3 * D);
        for (T** one : {&c.d_gated, &c.dr, &c.dk, &c.dv}) *one = m.scratch.take<T>(size);
        for (T** one : {&c.d_decay, &c.d_first}) *one = m.scratch.take<T>(e.batch * D);
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
      shift::forward({p.time_mix_k, p.time_mix_v, p.time_mix_r}, x.data(), c.shifted, ctx);
      map::template forward<T, S>(p.key, {mixed[0], rows}, {c.k, rows}, none, ctx);
      map::template forward<T, S>(p.value, {mixed[1], rows}, {c.v, rows}, none, ctx);
      map::template forward<T, S>(p.receptance, {mixed[2], rows}, {c.r, rows}, none, ctx);
      ops::wkv4(ctx.on, call(p, c, ctx));
      detail::gate(ctx.on, x.size(), c.r, c.average, c.gated);
      map::template forward<T, S>(p.output, {c.gated, rows}, y, none, ctx);
    }
    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows(), size = x.size();
      ops::fill(ctx.on, size, T(0), c.d_gated);
      map::template backward<T, S>(p.output, dp.output, {c.gated, rows}, dy, {c.d_gated, rows},
                                   none, ctx);
      detail::gate_backward(ctx.on, size, c.r, c.average, c.d_gated, c.dr, c.d_gated);
      ops::wkv4_backward(ctx.on, call(p, c, ctx), {c.d_gated, c.dk, c.dv, c.d_decay, c.d_first});
      ops::bias_gradient(ctx.on, ctx.batch, D, c.d_decay, dp.time_decay);
      ops::bias_gradient(ctx.on, ctx.batch, D, c.d_first, dp.time_first);
      const auto branch = [&](const auto& w, auto& dw, std::size_t which, const T* d_output,
                              const T* mu, T* d_mu) {
        ops::fill(ctx.on, size, T(0), c.shifted.gradient);
        map::template backward<T, S>(w, dw, {c.shifted.mixed[which], rows}, {d_output, rows},
                                     {c.shifted.gradient, rows}, none, ctx);
        shift::backward(mu, d_mu, x.data(), dx.data(), c.shifted, ctx);
      };
      branch(p.key, dp.key, 0, c.dk, p.time_mix_k, dp.time_mix_k);
      branch(p.value, dp.value, 1, c.dv, p.time_mix_v, dp.time_mix_v);
      branch(p.receptance, dp.receptance, 2, c.dr, p.time_mix_r, dp.time_mix_r);
    }

    /// Numbers that each sequence keeps while decoding, whatever its length.
    static constexpr index state_values(index) { return 3 * D + shift::state_values(); }
    /// Copies the state of one sequence to another.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      shift::copy_state(c.shifted, from, to, part);
      copy_sequence(c.state, 3 * D, from, to, part);
    }
    static constexpr index flops(const call_shape& e) { return 4 * map::flops(e); }

   private:
    template <class T, class P>
    static ops::wkv4_call<T> call(const P& p, const cache<T>& c, const context<T>& ctx) {
      return {ctx.batch,
              ctx.length,
              D,
              p.time_decay,
              p.time_first,
              c.k,
              c.v,
              c.average,
              c.state,
              ctx.past,
              ctx.past ? ctx.lengths : nullptr,
              c.starts};
    }

    // The reference trainer's values; it draws W_v orthogonal, here it is normal of that size.
    static double channel(index i) { return static_cast<double>(i) / static_cast<double>(D); }
    static double start_mix_k(const parameter_path& at, index i, random_stream&) {
      return std::pow(channel(i), layer_position(at).rest());
    }
    static double start_mix_v(const parameter_path& at, index i, random_stream&) {
      return std::pow(channel(i), layer_position(at).rest()) + 0.3 * layer_position(at).fraction();
    }
    static double start_mix_r(const parameter_path& at, index i, random_stream&) {
      return std::pow(channel(i), 0.5 * layer_position(at).rest());
    }
    static double start_decay(const parameter_path& at, index i, random_stream&) {
      const double along = D > 1 ? static_cast<double>(i) / static_cast<double>(D - 1) : 0;
      return -5 + 8 * std::pow(along, 0.7 + 1.3 * layer_position(at).fraction());
    }
    static double start_first(const parameter_path&, index i, random_stream&) {
      return std::log(0.3) + 0.5 * static_cast<double>((i + 1) % 3 - 1);
    }
    static double start_fan_in(const parameter_path&, index, random_stream& random) {
      return map::weight_info.deviation * random.normal();
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END
