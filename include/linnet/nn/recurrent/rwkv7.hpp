// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Time mixing of RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456), in the place of
/// attention.

#include <linnet/nn/chain.hpp>
#include <linnet/nn/norm.hpp>
#include <linnet/nn/recurrent/rwkv4.hpp>
#include <linnet/nn/recurrent/rwkv7_head.hpp>
#include <linnet/nn/repeat.hpp>
#include <linnet/nn/residual.hpp>
#include <linnet/ops/wkv7.hpp>

LINNET_NAMESPACE_BEGIN

namespace mixer {

/// RWKV-7's time mixing: per head, a matrix from keys to values. At each token it decays by
/// channel, forgets part of the value of the normalised key, and adds the new value. This is a
/// generalised delta rule with vector-valued decay and in-context learning rate. A norm per head, a
/// bonus for the token itself and a gate follow. Layers after the first mix their values with the
/// first layer's. Linear in the length, needs no positions; d_kv is the size of a head. Goes with
/// ffn::rwkv7_channel_mix.
struct rwkv7 : policy {
  static constexpr bool embedding_norm = true;
  static constexpr bool first_differs = true;
  using kind = rwkv7;
  static constexpr bool rotary = false;
  static std::string name() { return "rwkv7"; }

  template <attention_shape A>
  struct layer {
    static_assert(A.causal && !A.cross,
                  "linnet::mixer::rwkv7: a recurrence reads its own sequence from left to right");
    static_assert(!A.relative, "linnet::mixer::rwkv7: not for T5, whose positions are relative");
    static_assert(A.rope == rope_pairing::none,
                  "linnet::mixer::rwkv7: no positions; give position::none");
    static_assert(!A.bias, "linnet::mixer::rwkv7: RWKV has no biases");
    static_assert(A.n() == A.d_model && A.kv_heads == A.heads,
                  "linnet::mixer::rwkv7: heads * d_kv must be d_model, and kv_heads heads");
    static constexpr index D = A.d_model, heads = A.heads, N = A.d_kv, in = D, out = D;
    static constexpr bool first = A.first;
    static constexpr double norm_eps = 64e-5;
    using map = linear<D, D>;
    using shift = detail::token_shift<D, 6, detail::mixed_by::previous>;
    using head = detail::rwkv7_head<N>;
    template <fixed_string One, fixed_string Two, index R>
    using low_rank = chain<named<One, linear<D, R>>, named<Two, linear<R, D>>>;
    template <fixed_string One, fixed_string Two, index R, bool Tanh>
    using squashed = chain<named<One, linear<D, R>>, named<"", detail::squash<R, Tanh>>,
                           named<Two, linear<R, D>>>;
    using to_decay = squashed<"w1", "w2", detail::rwkv7_rank(D, 2.5), true>;
    using to_rate = low_rank<"a1", "a2", detail::rwkv7_rank(D, 2.5)>;
    using to_share = low_rank<"v1", "v2", detail::rwkv7_rank(D, 1.7)>;
    using to_gate = squashed<"g1", "g2", detail::rwkv7_rank(D, 5), false>;

    /// Parameters of the gate that mixes the first layer's values into those of later layers.
    template <class Form>
    struct share_params {
      typename Form::vector v0{};
      typename to_share::template params<Form> projections{};
    };
    template <class Form>
    struct params {
      typename Form::vector x_r{}, x_w{}, x_k{}, x_v{}, x_a{}, x_g{};
      typename Form::vector w0{}, a0{}, k_k{}, k_a{}, r_k{};
      typename to_decay::template params<Form> decay{};
      typename to_rate::template params<Form> rate{};
      typename to_gate::template params<Form> gate{};
      [[no_unique_address]] std::conditional_t<first, std::nullptr_t, share_params<Form>> share{};
      typename map::template params<Form> receptance{}, key{}, value{}, output{};
      typename Form::vector norm_weight{}, norm_bias{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      const auto vector = [](decltype(tensor_info::start) start) {
        return tensor_info{1, D, role::bias, 0, start};
      };
      const auto starting = [&](decltype(tensor_info::start) start) {
        return [&f, start](const parameter_path& where, tensor_info info, auto&... leaf) {
          info.start = start;
          f(where, info, leaf...);
        };
      };
      // The first factor of a low-rank map starts at zero, the second small.
      const auto factors = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
        info.start = where.parent->name.ends_with('1') ? start_zero : start_normal<0.1>;
        f(where, info, leaf...);
      };
      f(at / "x_r", vector(start_mix<0.2>), p.x_r...);
      f(at / "x_w", vector(start_mix<0.9>), p.x_w...);
      f(at / "x_k", vector(start_mix<0.7>), p.x_k...);
      f(at / "x_v", vector(start_mix<0.7>), p.x_v...);
      f(at / "x_a", vector(start_mix<0.9>), p.x_a...);
      f(at / "x_g", vector(start_mix<0.2>), p.x_g...);
      f(at / "w0", vector(start_decay), p.w0...);
      f(at / "a0", vector(start_rate), p.a0...);
      f(at / "k_k", vector(start_removal), p.k_k...);
      f(at / "k_a", vector(start_constant<1.02>), p.k_a...);
      f(at / "r_k", vector(start_constant<-0.04>), p.r_k...);
      to_decay::visit(factors, at, p.decay...);
      to_rate::visit(factors, at, p.rate...);
      to_gate::visit(factors, at, p.gate...);
      if constexpr (!first) {
        f(at / "v0", vector(start_share), p.share.v0...);
        to_share::visit(factors, at, p.share.projections...);
      }
      map::visit(starting(start_normal<1.0>), at / "receptance", p.receptance...);
      map::visit(starting(start_normal<0.1>), at / "key", p.key...);
      map::visit(starting(start_normal<1.0>), at / "value", p.value...);
      map::visit(starting(start_zero), at / "output", p.output...);
      f(at / "ln_x" / "weight", tensor_info{1, D, role::scale, 0, start_norm}, p.norm_weight...);
      f(at / "ln_x" / "bias", tensor_info{1, D, role::bias, 0}, p.norm_bias...);
    }

    template <class T>
    struct cache {
      typename shift::template cache<T> shifted{};
      typename to_decay::template cache<T> decay_maps{};
      typename to_rate::template cache<T> rate_maps{};
      typename to_gate::template cache<T> gate_maps{};
      typename to_share::template cache<T> share_maps{};
      T *r = nullptr, *key = nullptr, *value = nullptr;       ///< [rows, D] of the maps
      T *decay = nullptr, *rate = nullptr, *share = nullptr;  ///< [rows, D] sigmoids
      T *w = nullptr, *k = nullptr, *v = nullptr, *remove = nullptr, *weight = nullptr;
      T *y = nullptr, *mixed = nullptr, *gate = nullptr,
        *gated = nullptr;       ///< [rows, D] recurrence, with norm and bonus, gate, product
      T* inverse = nullptr;     ///< [rows, heads] 1 / length of the removal key
      T* bonus = nullptr;       ///< [rows, heads]
      T* statistics = nullptr;  ///< [rows, heads, 2] mean and 1 / deviation
      T* state = nullptr;       ///< [batch, heads, N, N]
      T* starts = nullptr;      ///< [batch, heads, chunks, N, N] while training
      T* d_first = nullptr;     ///< [rows, D] what later layers add to the first's values
      ops::wkv7_vectors<T> d{};
      T *d_mixed = nullptr, *d_gate = nullptr, *dy = nullptr, *d_key = nullptr, *d_share = nullptr;
      T* d_bonus = nullptr;  ///< [rows, heads]
      T* scratch = nullptr;  ///< per thread
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index size = e.rows() * D, states = e.batch * heads * N * N, mark = m.scratch.mark();
      m.product(e.rows(), D, D, e);
      c.shifted = shift::template plan<T>(m, e);
      for (T** one : {&c.r, &c.key, &c.value, &c.decay, &c.rate, &c.w, &c.k, &c.remove, &c.weight,
                      &c.y, &c.mixed, &c.gate, &c.gated})
        *one = m.saved.take<T>(size);
      c.share = first ? nullptr : m.saved.take<T>(size);
      c.v = first ? c.value : m.saved.take<T>(size);
      c.inverse = m.saved.take<T>(e.rows() * heads);
      c.bonus = m.saved.take<T>(e.rows() * heads);
      c.statistics = m.saved.take<T>(e.rows() * heads * 2);
      c.state = (e.capacity > 0 ? m.state : m.scratch).template take<T>(states);
      if (e.training) {
        c.starts = m.saved.take<T>(states * ops::recurrent_chunks(e.length));
        if (first) c.d_first = m.saved.take<T>(size);
        for (T** one : {&c.d.r, &c.d.w, &c.d.k, &c.d.v, &c.d.remove, &c.d.weight, &c.d_mixed,
                        &c.d_gate, &c.dy, &c.d_key})
          *one = m.scratch.take<T>(size);
        if (!first) c.d_share = m.scratch.take<T>(size);
        c.d_bonus = m.scratch.take<T>(e.rows() * heads);
        c.scratch = m.scratch.take<T>(e.threads * ops::wkv7_scratch(N));
      }
      c.decay_maps = to_decay::template plan<T>(m, e);
      c.rate_maps = to_rate::template plan<T>(m, e);
      c.gate_maps = to_gate::template plan<T>(m, e);
      if constexpr (!first) c.share_maps = to_share::template plan<T>(m, e);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      const auto input = [&](std::size_t which) {
        return view<const T, D>(c.shifted.mixed[which], rows);
      };
      shift::forward({p.x_r, p.x_w, p.x_k, p.x_v, p.x_a, p.x_g}, x.data(), c.shifted, ctx);
      map::template forward<T, S>(p.receptance, input(0), {c.r, rows}, none, ctx);
      map::template forward<T, S>(p.key, input(2), {c.key, rows}, none, ctx);
      map::template forward<T, S>(p.value, input(3), {c.value, rows}, none, ctx);
      to_decay::template forward<T, S>(p.decay, input(1), {c.decay, rows}, c.decay_maps, ctx);
      to_rate::template forward<T, S>(p.rate, input(4), {c.rate, rows}, c.rate_maps, ctx);
      to_gate::template forward<T, S>(p.gate, input(5), {c.gate, rows}, c.gate_maps, ctx);
      if constexpr (first) {
        ctx.first_layer.values = c.value;
        ctx.first_layer.d_values = c.d_first;
        if (c.d_first) ops::fill(ctx.on, x.size(), T(0), c.d_first);
      } else {
        to_share::template forward<T, S>(p.share.projections, input(3), {c.share, rows},
                                         c.share_maps, ctx);
      }
      each_head(rows, ctx, [&](index at, index channel, index h) {
        head::prepare(prepared(p, c, at, channel, h), p.w0 + channel, p.a0 + channel);
        if constexpr (!first)
          for (index j = 0; j < N; ++j) {
            T& share = c.share[at + j];
            share = detail::sigmoid(p.share.v0[channel + j] + share);
            const T own = c.value[at + j];
            c.v[at + j] = own + (ctx.first_layer.values[at + j] - own) * share;
          }
      });
      ops::wkv7(ctx.on, call(c, ctx));
      each_head(rows, ctx, [&](index at, index channel, index h) {
        T bonus = 0;
        for (index j = 0; j < N; ++j) bonus += c.r[at + j] * c.k[at + j] * p.r_k[channel + j];
        c.bonus[h] = bonus;
        ctx.on.with_kernels([&](auto k) {
          decltype(k)::template layer_norm<T>(N, T(norm_eps), c.y + at, p.norm_weight + channel,
                                              p.norm_bias + channel, c.mixed + at,
                                              c.statistics + 2 * h);
        });
        for (index i = at; i < at + N; ++i) {
          c.mixed[i] += bonus * c.v[i];
          c.gated[i] = c.mixed[i] * c.gate[i];
        }
      });
      map::template forward<T, S>(p.output, {c.gated, rows}, y, none, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      ops::fill(ctx.on, x.size(), T(0), c.d_mixed);
      map::template backward<T, S>(p.output, dp.output, {c.gated, rows}, dy, {c.d_mixed, rows},
                                   none, ctx);
      each_head(rows, ctx, [&](index at, index channel, index h) {
        T d_bonus = 0;
        for (index i = at; i < at + N; ++i) {
          const T d_gated = c.d_mixed[i];
          c.d_gate[i] = d_gated * c.mixed[i];
          c.d_mixed[i] = d_gated * c.gate[i];
          d_bonus += c.d_mixed[i] * c.v[i];
          c.dy[i] = T(0);
        }
        c.d_bonus[h] = d_bonus;
        ctx.on.with_kernels([&](auto k) {
          decltype(k)::template layer_norm_backward<T>(N, c.statistics + 2 * h, c.y + at,
                                                       p.norm_weight + channel, c.d_mixed + at,
                                                       c.dy + at);
        });
      });
      ops::wkv7_backward(ctx.on, call(c, ctx), c.dy, c.d, c.scratch);
      each_head(rows, ctx, [&](index at, index channel, index h) {
        for (index j = 0; j < N; ++j) {
          const T through = c.d_bonus[h] * p.r_k[channel + j];
          c.d.r[at + j] += through * c.k[at + j];
          c.d.k[at + j] += through * c.r[at + j];
          T& dv = c.d.v[at + j];
          dv += c.bonus[h] * c.d_mixed[at + j];
          if constexpr (first) {
            dv += c.d_first[at + j];
          } else {
            const T share = c.share[at + j];
            c.d_share[at + j] =
                dv * (ctx.first_layer.values[at + j] - c.value[at + j]) * share * (T(1) - share);
            ctx.first_layer.d_values[at + j] += dv * share;
            dv *= T(1) - share;
          }
        }
        head::prepare_backward(prepared(p, c, at, channel, h), c.d.w + at, c.d.k + at,
                               c.d.remove + at, c.d.weight + at, c.d_key + at);
      });
      vector_gradients<T>(dp, c, rows, ctx);

      const auto branch = [&](auto layer, const auto& w, auto& dw, std::size_t which,
                              const T* d_output, auto& layer_cache) {
        decltype(layer)::type::template backward<T, S>(w, dw, {c.shifted.mixed[which], rows},
                                                       {d_output, rows}, {c.shifted.gradient, rows},
                                                       layer_cache, ctx);
      };
      const auto clear = [&] { ops::fill(ctx.on, x.size(), T(0), c.shifted.gradient); };
      const auto unshift = [&](const T* mu, T* d_mu) {
        shift::backward(mu, d_mu, x.data(), dx.data(), c.shifted, ctx);
      };
      using plain = std::type_identity<map>;
      clear();
      branch(plain{}, p.receptance, dp.receptance, 0, c.d.r, none);
      unshift(p.x_r, dp.x_r);
      clear();
      branch(std::type_identity<to_decay>{}, p.decay, dp.decay, 1, c.d.w, c.decay_maps);
      unshift(p.x_w, dp.x_w);
      clear();
      branch(plain{}, p.key, dp.key, 2, c.d_key, none);
      unshift(p.x_k, dp.x_k);
      clear();
      branch(plain{}, p.value, dp.value, 3, c.d.v, none);
      if constexpr (!first)
        branch(std::type_identity<to_share>{}, p.share.projections, dp.share.projections, 3,
               c.d_share, c.share_maps);
      unshift(p.x_v, dp.x_v);
      clear();
      branch(std::type_identity<to_rate>{}, p.rate, dp.rate, 4, c.d.weight, c.rate_maps);
      unshift(p.x_a, dp.x_a);
      clear();
      branch(std::type_identity<to_gate>{}, p.gate, dp.gate, 5, c.d_gate, c.gate_maps);
      unshift(p.x_g, dp.x_g);
    }

    /// Copies the state of one sequence to another.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      shift::copy_state(c.shifted, from, to, part);
      copy_sequence(c.state, D * N, from, to, part);
    }
    /// Numbers that each sequence keeps while decoding, whatever its length.
    static constexpr index state_values(index) { return D * N + shift::state_values(); }
    /// Floating-point operations: the linear maps, and 9 N per channel for the recurrence.
    static constexpr index flops(const call_shape& e) {
      return 4 * map::flops(e) + to_decay::flops(e) + to_rate::flops(e) + to_gate::flops(e) +
             (first ? 0 : to_share::flops(e)) + 9 * e.rows() * D * N;
    }

   private:
    /// Calls f(where, channel, head) for this thread's share of the heads of all rows. `where` is
    /// the index of the head's first value, `channel` its first channel, `head` its number.
    template <class T, class F>
    static void each_head(index rows, const context<T>& ctx, F&& f) {
      ctx.on.threads.each(rows * heads, [&](index h) { f(h * N, h % heads * N, h); });
    }
    template <class T, class P>
    static typename head::template prepared<T> prepared(const P& p, const cache<T>& c, index at,
                                                        index channel, index h) {
      return {c.key + at, p.k_k + channel, p.k_a + channel, c.decay + at,  c.rate + at,
              c.w + at,   c.k + at,        c.remove + at,   c.weight + at, c.inverse + h};
    }
    template <class T>
    static ops::wkv7_call<T> call(const cache<T>& c, const context<T>& ctx) {
      return {ctx.batch,
              ctx.length,
              heads,
              N,
              {c.r, c.w, c.k, c.v, c.remove, c.weight},
              c.y,
              c.state,
              ctx.past,
              ctx.past ? ctx.lengths : nullptr,
              c.starts};
    }
    /// Gradients of the vectors: sums over rows, in ascending order.
    template <class T, class G>
    static void vector_gradients(G& dp, const cache<T>& c, index rows, const context<T>& ctx) {
      ops::bias_gradient(ctx.on, rows, D, c.d.w, dp.w0);
      ops::bias_gradient(ctx.on, rows, D, c.d.weight, dp.a0);
      ops::bias_gradient(ctx.on, rows, D, c.d_mixed, dp.norm_bias);
      if constexpr (!first) ops::bias_gradient(ctx.on, rows, D, c.d_share, dp.share.v0);
      const auto [from, to] = ctx.on.threads.range(D);
      for (index row = 0; row < rows; ++row)
        for (index j = from; j < to; ++j) {
          const index i = row * D + j, h = row * heads + j / N;
          const T* const moments = c.statistics + 2 * h;
          dp.k_k[j] += c.d.remove[i] * c.key[i];
          dp.k_a[j] += c.d.k[i] * c.key[i] * (c.rate[i] - T(1));
          dp.r_k[j] += c.d_bonus[h] * c.r[i] * c.k[i];
          dp.norm_weight[j] += c.d_mixed[i] * (c.y[i] - moments[0]) * moments[1];
        }
      ctx.on.threads.wait();
    }

    // The reference trainer's values; it draws matrices orthogonal, here they are normal of that
    // size.
    static double along(index i) {
      return D > 1 ? static_cast<double>(i) / static_cast<double>(D - 1) : 0.5;
    }
    /// From -1 to 1 within each head, squared with its sign.
    static double bend(index i) {
      const double z =
          N > 1 ? 2.0 * static_cast<double>(i % N) / static_cast<double>(N - 1) - 1 : 0;
      return z * std::abs(z);
    }
    template <real C>
    static double start_mix(const parameter_path& at, index i, random_stream&) {
      return 1 - std::pow(static_cast<double>(i) / static_cast<double>(D),
                          C.value * layer_position(at).rest());
    }
    static double start_decay(const parameter_path& at, index i, random_stream&) {
      return -5.5 + 6 * std::pow(along(i), 1 + std::pow(layer_position(at).fraction(), 0.3)) +
             2.5 * bend(i);
    }
    static double start_rate(const parameter_path&, index i, random_stream&) {
      return -0.19 + 0.3 * bend(i) + 0.4 * (along(i) - 0.5);
    }
    static double start_share(const parameter_path&, index i, random_stream&) {
      return 0.73 - 0.4 * (along(i) - 0.5);
    }
    static double start_removal(const parameter_path&, index i, random_stream&) {
      return 0.71 - 0.1 * (along(i) - 0.5);
    }
    static double start_norm(const parameter_path& at, index, random_stream&) {
      return std::pow((1 + layer_position(at).layer) / layer_position(at).layers, 0.7);
    }
    template <real C>
    static double start_constant(const parameter_path&, index, random_stream&) {
      return C.value;
    }
    /// A matrix whose larger dimension is D.
    template <real Gain>
    static double start_normal(const parameter_path&, index, random_stream& random) {
      return Gain.value / std::sqrt(static_cast<double>(D)) * random.normal();
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END
