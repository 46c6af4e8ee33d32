// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Mamba's mixer as a layer: a gated selective state space in place of attention.

#include <cmath>
#include <string>

#include <linnet/nn/attention/policy.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/ops/convolution.hpp>
#include <linnet/ops/elementwise.hpp>
#include <linnet/ops/selective_scan.hpp>

LINNET_NAMESPACE_BEGIN

namespace mixer {

/// Mamba's S6 mixer (Gu and Dao 2023): [x, z] = in_proj u, x = silu(causal depthwise convolution of
/// x), then [delta, B, C] = x_proj x. With delta = softplus(dt_proj delta), a scan over the tokens
/// keeps `State` numbers for each of the `Expand` d_model channels. The output is out_proj (y
/// silu(z)). Time and memory are linear in the length; decoding keeps Expand d_model (State + Conv
/// - 1) numbers, whatever the length. Causal, without heads and positions: a block of Mamba is
/// decoder<shape, mixer::mamba<>, ffn::skip, position::none>.
template <index State = 16, index Conv = 4, index Expand = 2>
struct mamba : attention::policy {
  static_assert(State > 0 && Conv > 0 && Expand > 0,
                "linnet::mixer::mamba<State, Conv, Expand>: all three must be positive");
  static constexpr index state = State, conv = Conv, expand = Expand;
  static constexpr bool bidirectional = false;
  static constexpr bool can_truncate = false;  ///< the state cannot forget its last tokens
  static constexpr bool relative_bias = false;
  using kind = mamba;
  static constexpr bool rotary = false;
  static std::string name() {
    return "mamba<" + std::to_string(State) + ", " + std::to_string(Conv) + ", " +
           std::to_string(Expand) + ">";
  }

  template <attention_shape A>
  struct layer {
    static_assert(A.causal, "linnet::mixer::mamba: sees earlier tokens only; it fits decoders");
    static_assert(!A.cross, "linnet::mixer::mamba: mixes one sequence; it has no cross-attention");
    static_assert(A.rope == rope_pairing::none,
                  "linnet::mixer::mamba: has no rotary positions; add position::none (or learned, "
                  "sinusoidal)");
    static constexpr index in = A.d_model, out = A.d_model;
    static constexpr index inner = Expand * in;       ///< channels
    static constexpr index rank = (in + 15) / 16;     ///< of the map to delta
    static constexpr index mixed = rank + 2 * State;  ///< delta, B and C side by side
    using to_inner = linnet::linear<in, 2 * inner, A.bias>;
    using to_mixed = linnet::linear<inner, mixed>;
    using to_delta = linnet::linear<rank, inner, true>;
    using to_output = linnet::linear<inner, out, A.bias>;

    template <class Form>
    struct params {
      typename to_inner::template params<Form> in_proj{};
      typename Form::vector conv_weight{}, conv_bias{};  ///< [inner, Conv], [inner]
      typename to_mixed::template params<Form> x_proj{};
      typename to_delta::template params<Form> dt_proj{};
      typename Form::vector a_log{}, d{};  ///< [inner, State], [inner]
      typename to_output::template params<Form> out_proj{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      const auto timed = [&](const parameter_path& where, const tensor_info& info, auto&... leaf) {
        tensor_info changed = info;
        changed.start = info.kind == role::bias ? &initial_delta : &uniform<rank>;
        f(where, changed, leaf...);
      };
      to_inner::visit(f, at / "in_proj", p.in_proj...);
      const parameter_path filter = at / "conv";
      // The filters are no linear map: a table that is stored in full and decays.
      f(filter / "weight", tensor_info{inner, Conv, role::position, 0, &uniform<Conv>},
        p.conv_weight...);
      f(filter / "bias", tensor_info{1, inner, role::bias, 0, &uniform<Conv>}, p.conv_bias...);
      to_mixed::visit(f, at / "x_proj", p.x_proj...);
      to_delta::visit(timed, at / "dt_proj", p.dt_proj...);
      // No weight decay on these two, as on biases.
      f(at / "A_log", tensor_info{inner, State, role::bias, 0, &initial_a_log}, p.a_log...);
      f(at / "D", tensor_info{1, inner, role::bias, 0, &one}, p.d...);
      to_output::visit(f, at / "out_proj", p.out_proj...);
    }

    template <class T>
    struct cache {
      T* xz = nullptr;          ///< [rows, 2 inner]
      T* filtered = nullptr;    ///< [rows, inner] before silu or softplus
      T* x = nullptr;           ///< [rows, inner] after silu
      T* dbc = nullptr;         ///< [rows, mixed]
      T* low = nullptr;         ///< [rows, rank] the first columns of dbc
      T* delta = nullptr;       ///< [rows, inner]
      T* gated = nullptr;       ///< [rows, inner]
      T* window = nullptr;      ///< [batch, Conv - 1, inner] while decoding
      T* state = nullptr;       ///< [batch, inner, State] while decoding
      T* boundaries = nullptr;  ///< [batch, blocks, inner, State] while training
      T *d_xz = nullptr, *d_x = nullptr, *d_dbc = nullptr, *d_low = nullptr, *d_delta = nullptr,
        *d_gated = nullptr, *d_filtered = nullptr, *partial = nullptr;
      T* scratch = nullptr;  ///< per thread
      index scratch_size = 0;
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index rows = e.rows();
      m.product(rows, in, 2 * inner, e);
      m.product(rows, inner, mixed, e);
      m.product(rows, rank, inner, e);
      m.product(rows, inner, out, e);
      if (e.capacity > 0) {
        c.window = m.state.take<T>(e.batch * (Conv - 1) * inner);
        c.state = m.state.take<T>(e.batch * inner * State);
      }
      c.xz = m.saved.take<T>(rows * 2 * inner);
      c.x = m.saved.take<T>(rows * inner);
      c.dbc = m.saved.take<T>(rows * mixed);
      c.low = m.saved.take<T>(rows * rank);
      c.delta = m.saved.take<T>(rows * inner);
      c.gated = m.saved.take<T>(rows * inner);
      const index mark = m.scratch.mark();
      c.filtered = m.scratch.take<T>(rows * inner);
      if (e.training) {
        c.boundaries = m.saved.take<T>(e.batch * ops::scan_blocks(e.length) * inner * State);
        c.d_xz = m.scratch.take<T>(rows * 2 * inner);
        c.d_x = m.scratch.take<T>(rows * inner);
        c.d_dbc = m.scratch.take<T>(rows * mixed);
        c.d_low = m.scratch.take<T>(rows * rank);
        c.d_delta = m.scratch.take<T>(rows * inner);
        c.d_gated = m.scratch.take<T>(rows * inner);
        c.d_filtered = m.scratch.take<T>(rows * inner);
        c.partial = m.scratch.take<T>(ops::scan_partial(e.batch, e.length, inner, State));
      }
      c.scratch_size = ops::scan_scratch(e.length, State, e.training);
      c.scratch = m.scratch.take<T>(e.threads * c.scratch_size);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, in> u, view<T, out> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = u.rows();
      to_inner::template forward<T, S>(p.in_proj, u, {c.xz, rows}, none, ctx);
      ops::causal_convolution(ctx.on, convolution(p, c, ctx), c.filtered);
      ops::activation<activation_kind::silu>(ctx.on, rows * inner, c.filtered, c.x);
      to_mixed::template forward<T, S>(p.x_proj, {c.x, rows}, {c.dbc, rows}, none, ctx);
      ctx.on.threads.each(
          rows, [&](index row) { std::copy_n(c.dbc + row * mixed, rank, c.low + row * rank); });
      to_delta::template forward<T, S>(p.dt_proj, {c.low, rows}, {c.delta, rows}, none, ctx);
      ops::softplus(ctx.on, rows * inner, c.delta);
      ops::selective_scan(ctx.on, scan(p, c, ctx));
      to_output::template forward<T, S>(p.out_proj, {c.gated, rows}, y, none, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, in> u, view<const T, out> dy, view<T, in> du, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = u.rows();
      const auto zero = [&](T* x, index width) { ops::fill(ctx.on, rows * width, T(0), x); };
      zero(c.d_gated, inner);
      to_output::template backward<T, S>(p.out_proj, dp.out_proj, {c.gated, rows}, dy,
                                         {c.d_gated, rows}, none, ctx);
      ops::selective_scan_backward(
          ctx.on, scan(p, c, ctx),
          ops::scan_gradient<T>{c.d_gated, c.d_x, c.d_delta, c.d_dbc + rank, c.d_dbc + rank + State,
                                c.d_xz + inner, dp.a_log, dp.d, c.partial});
      // The input of softplus is cheap to compute again.
      to_delta::template forward<T, S>(p.dt_proj, {c.low, rows}, {c.filtered, rows}, none, ctx);
      ops::softplus_backward(ctx.on, rows * inner, c.filtered, c.d_delta);
      zero(c.d_low, rank);
      to_delta::template backward<T, S>(p.dt_proj, dp.dt_proj, {c.low, rows}, {c.d_delta, rows},
                                        {c.d_low, rows}, none, ctx);
      ctx.on.threads.each(
          rows, [&](index row) { std::copy_n(c.d_low + row * rank, rank, c.d_dbc + row * mixed); });
      to_mixed::template backward<T, S>(p.x_proj, dp.x_proj, {c.x, rows}, {c.d_dbc, rows},
                                        {c.d_x, rows}, none, ctx);
      ops::causal_convolution(ctx.on, convolution(p, c, ctx), c.filtered);
      zero(c.d_filtered, inner);
      ops::activation_backward<activation_kind::silu>(ctx.on, rows * inner, c.filtered, c.d_x,
                                                      c.d_filtered);
      ops::causal_convolution_backward(ctx.on, convolution(p, c, ctx), c.d_filtered, c.d_xz,
                                       dp.conv_weight, dp.conv_bias);
      to_inner::template backward<T, S>(p.in_proj, dp.in_proj, u, {c.d_xz, rows}, du, none, ctx);
    }

    /// Numbers in the state of one sequence, whatever its length.
    static constexpr index state_values(index) { return inner * (State + Conv - 1); }

    /// Copies the state of one sequence to another.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      copy_sequence(c.window, (Conv - 1) * inner, from, to, part);
      copy_sequence(c.state, inner * State, from, to, part);
    }
    /// Floating-point operations; the scan counts 9 for each token and number of the state.
    static constexpr index flops(const call_shape& e) {
      return to_inner::flops(e) + to_mixed::flops(e) + to_delta::flops(e) + to_output::flops(e) +
             e.rows() * inner * (2 * Conv + 9 * State);
    }

   private:
    template <index Width>
    static double uniform(const parameter_path&, index, random_stream& random) {
      return (2 * random.uniform() - 1) / linnet::detail::sqrt(Width);
    }
    static double one(const parameter_path&, index, random_stream&) { return 1; }
    static double initial_a_log(const parameter_path&, index i, random_stream&) {
      return std::log(static_cast<double>(i % State + 1));
    }
    /// Initial bias softplus^-1(dt), with dt log-uniform in [0.001, 0.1].
    static double initial_delta(const parameter_path&, index, random_stream& random) {
      const double dt = 0.001 * std::pow(100.0, random.uniform());
      return dt + std::log(-std::expm1(-dt));
    }

    template <class T, class S>
    static ops::causal_convolution_call<T> convolution(const params<form::packed<T, S>>& p,
                                                       const cache<T>& c, const context<T>& ctx) {
      return {ctx.batch,     ctx.length,  inner,    Conv,        c.xz,    2 * inner,
              p.conv_weight, p.conv_bias, c.window, ctx.lengths, ctx.past};
    }
    template <class T, class S>
    static ops::scan_call<T> scan(const params<form::packed<T, S>>& p, const cache<T>& c,
                                  const context<T>& ctx) {
      ops::scan_call<T> s{};
      s.batch = ctx.batch;
      s.length = ctx.length;
      s.channels = inner;
      s.states = State;
      s.x = c.x;
      s.delta = c.delta;
      s.b = c.dbc + rank;
      s.c = c.dbc + rank + State;
      s.bc_stride = mixed;
      s.z = c.xz + inner;
      s.z_stride = 2 * inner;
      s.a_log = p.a_log;
      s.d = p.d;
      s.out = c.gated;
      s.state = c.state;
      s.boundaries = c.boundaries;
      s.lengths = ctx.lengths;
      s.past = ctx.past;
      s.scratch = c.scratch;
      s.scratch_size = c.scratch_size;
      return s;
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END
