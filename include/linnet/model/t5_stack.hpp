// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// One of T5's two stacks: blocks behind relative-position biases (Raffel et al. 2020,
/// section 2.1).

#include <linnet/model/policy_set.hpp>
#include <linnet/ops/dropout.hpp>
#include <linnet/ops/elementwise.hpp>
#include <linnet/ops/relative_bias.hpp>
#include <linnet/ops/rope.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// The storage of a T5 that is spelled `S`: ranges of layers are those of either stack.
template <t5_shape Shape, class S>
struct t5_storage {
  static constexpr bool fits =
      layers_fit<S, Shape.encoder_layers, false>() && layers_fit<S, Shape.decoder_layers, false>();
  using type = typename std::conditional_t<
      fits,
      stack_storage<S, Shape.encoder_layers == Shape.decoder_layers ? Shape.encoder_layers : 0>,
      storage_of_rest<S>>::type;
};
}  // namespace detail

/// One stack of a T5 model: relative-position bias, blocks, final norm.
template <t5_shape Shape, index Layers, bool IsDecoder, class Ffn, class Attention, class Norm,
          class Cache>
struct t5_stack {
  static constexpr index d = Shape.d_model, heads = Shape.heads;
  static constexpr index in = d, out = d;
  static constexpr real eps{Shape.eps};
  static_assert(
      IsDecoder ? Attention::causal && Attention::supports_cache : Attention::bidirectional,
      "linnet::t5: this kind of attention does not fit this stack: an encoder needs a "
      "bidirectional kind, a decoder a causal one that continues cached sequences; wrap it "
      "in encoder_stack<> or decoder_stack<>");
  static_assert(!Attention::takes_prefix,
                "linnet::t5: the source is seen both ways already; attention::prefix is for "
                "decoders");
  static constexpr attention_shape self{.d_model = d,
                                        .heads = heads,
                                        .kv_heads = Shape.key_value_heads(),
                                        .d_kv = Shape.d_kv,
                                        .causal = IsDecoder,
                                        .scaled = false,
                                        .relative = Attention::relative_bias,
                                        .cache = Cache::code};
  static constexpr attention_shape across{.d_model = d,
                                          .heads = heads,
                                          .kv_heads = Shape.key_value_heads(),
                                          .d_kv = Shape.d_kv,
                                          .cross = true,
                                          .scaled = false,
                                          .cache = Cache::code};
  using norm_layer = typename Norm::template layer<d, eps>;
  using self_attention =
      named<"attention", residual<norm_layer, typename Attention::template layer<self>>>;
  using cross_attention = named<"cross", residual<norm_layer, attention::full::layer<across>>>;
  template <class... Branches>
  using block_with =
      typename detail::block_of<Norm, Ffn, Branches...>::template make<d, Shape.d_ff, false,
                                                                       eps>::type;
  using block =
      typename std::conditional_t<IsDecoder,
                                  std::type_identity<block_with<self_attention, cross_attention>>,
                                  std::type_identity<block_with<self_attention>>>::type;
  using blocks = repeat<block, Layers>;

  /// Whether scores have a bias; kinds without scores of pairs have no table of it.
  static constexpr bool has_bias = Attention::relative_bias;

  template <class Form>
  struct params {
    [[no_unique_address]] std::conditional_t<has_bias, typename Form::vector, std::nullptr_t>
        relative_bias{};
    typename blocks::template params<Form> stack{};
    typename norm_layer::template params<Form> norm{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    if constexpr (has_bias)
      f(at / "relative_bias" / "weight",
        tensor_info{Shape.buckets, heads, role::position, 1 / detail::sqrt(d)}, p.relative_bias...);
    blocks::visit(f, at / "blocks", p.stack...);
    norm_layer::visit(f, at / "norm", p.norm...);
  }
  /// From the stream to the normed output.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    Ends inner = c.between(c.in, c.in);
    if constexpr (has_bias) {
      inner.heads = c.open(heads);
      c.fix(inner.heads, "scores of attention");
      c.between(-1, inner.heads)
          .looks_up(p.relative_bias, tensor_info{Shape.buckets, heads, role::position});
    }
    detail::describe_channels<blocks>(inner, p.stack);
    norm_layer::channels(c, p.norm);
  }

  /// The bias of each head by distance. A session keeps what it has found from call to call.
  template <class T>
  struct bias_lines {
    T* lines = nullptr;      ///< [heads, 2 origin + 1]
    index* known = nullptr;  ///< [heads] distances that are found already, or null
    index origin = 0;
  };
  /// Plans them where no later call writes: in front of what both stacks use by turns.
  template <class T>
  static constexpr bias_lines<T> plan_bias(planner& m, const call_shape& e) {
    bias_lines<T> b;
    if constexpr (has_bias) {
      b.origin = (std::max)(e.length, e.capacity) - 1;
      b.lines = m.saved.take<T>(heads * (2 * b.origin + 1));
      if (e.capacity > 0) b.known = m.saved.take<index>(heads);
    }
    return b;
  }

  template <class T>
  struct cache {
    typename blocks::template cache<T> stack{};
    typename norm_layer::template cache<T> norm{};
    T *x = nullptr, *y = nullptr;    ///< [rows, d] embedded input, output of the blocks
    T *dx = nullptr, *dy = nullptr;  ///< their gradients
    bias_lines<T> bias{};
    T* d_bias = nullptr;  ///< [batch, heads, 2 origin + 1]
    int input_dropout_id = 0, output_dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e, const bias_lines<T>& bias) {
    cache<T> c;
    c.input_dropout_id = m.dropout_ids++;
    c.output_dropout_id = m.dropout_ids++;
    c.bias = bias;
    const index size = e.rows() * d;
    c.x = m.saved.take<T>(size);
    c.y = m.saved.take<T>(size);
    if (e.training) {
      c.dx = m.saved.take<T>(size);
      c.dy = m.saved.take<T>(size);
      if (has_bias) c.d_bias = m.saved.take<T>(e.batch * heads * (2 * bias.origin + 1));
    }
    c.norm = norm_layer::template plan<T>(m, e);
    c.stack = blocks::template plan<T>(m, e);
    return c;
  }

  /// c.x (embedded tokens) -> y, the normed output; dropout at both ends (Raffel et al. 2020).
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<T, d> y, cache<T>& c,
                      context<T>& ctx) {
    const index rows = ctx.rows();
    if constexpr (has_bias) {
      find_bias(p.relative_bias, c.bias, ctx);
      ctx.bias = {c.bias.lines, nullptr, c.bias.origin};
    }
    ops::dropout(ctx.on, ctx.dropout, c.input_dropout_id, ctx.batch, ctx.length, d, c.x);
    blocks::template forward<T, S>(p.stack, {c.x, rows}, {c.y, rows}, c.stack, ctx);
    norm_layer::template forward<T, S>(p.norm, {c.y, rows}, y, c.norm, ctx);
    ops::dropout(ctx.on, ctx.dropout, c.output_dropout_id, ctx.batch, ctx.length, d, y.data());
  }
  /// Gradient of y (overwritten) -> gradient of the embedded tokens in c.dx.
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<T, d> dy, cache<T>& c, context<T>& ctx) {
    const index rows = ctx.rows();
    [[maybe_unused]] const index line = 2 * c.bias.origin + 1;
    if constexpr (has_bias) {
      ctx.bias = {c.bias.lines, c.d_bias, c.bias.origin};
      ops::fill(ctx.on, ctx.batch * heads * line, T(0), c.d_bias);
    }
    ops::dropout(ctx.on, ctx.dropout, c.output_dropout_id, ctx.batch, ctx.length, d, dy.data());
    ops::fill(ctx.on, rows * d, T(0), c.dy);
    norm_layer::template backward<T, S>(p.norm, dp.norm, {c.y, rows}, dy, {c.dy, rows}, c.norm,
                                        ctx);
    ops::fill(ctx.on, rows * d, T(0), c.dx);
    blocks::template backward<T, S>(p.stack, dp.stack, {c.x, rows}, {c.dy, rows}, {c.dx, rows},
                                    c.stack, ctx);
    ops::dropout(ctx.on, ctx.dropout, c.input_dropout_id, ctx.batch, ctx.length, d, c.dx);
    if constexpr (has_bias)
      ctx.on.threads.each(heads, [&](index head) {
        for (index b = 0; b < ctx.batch; ++b)
          for (index r = 0; r < line; ++r)
            dp.relative_bias[bucket(r - c.bias.origin) * heads + head] +=
                c.d_bias[(b * heads + head) * line + r];
      });
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<blocks, T>(c.stack, from, to, part);
  }

  static constexpr index flops(const call_shape& e) {
    return blocks::flops(e) + norm_layer::flops(e);
  }

 private:
  /// Finds the bias of the distances that this call may meet: the tokens so far decide, not the
  /// limits. What a session has found stays, until a sequence begins, perhaps with other weights.
  template <class T>
  static void find_bias(const T* table, const bias_lines<T>& to, const context<T>& ctx) {
    index longest = 0;
    bool goes_on = to.known && ctx.past;
    for (index b = 0; b < ctx.batch; ++b) {
      longest = (std::max)(longest, ctx.past_of(b) + ctx.length);
      goes_on = goes_on && ctx.past_of(b) > 0;
    }
    longest = (std::min)(longest, to.origin + 1);
    ctx.on.threads.each(heads, [&](index head) {
      T* const line = to.lines + head * (2 * to.origin + 1) + to.origin;
      for (index r = goes_on ? to.known[head] : 0; r < longest; ++r)
        for (const index relative : {r, -r})
          line[relative] = table[bucket(relative) * heads + head];
      if (to.known) to.known[head] = goes_on ? (std::max)(to.known[head], longest) : longest;
    });
  }
  /// The bucket of a key position minus query position.
  static constexpr index bucket(index relative) {
    return ops::relative_bucket(relative, !IsDecoder, Shape.buckets, Shape.max_distance);
  }
};

LINNET_NAMESPACE_END
