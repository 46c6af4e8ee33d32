// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The parts of a next-thought model: its numbers, its batches, and the layers that make a thought
/// of a text.

#include <linnet/model/metadata.hpp>
#include <linnet/model/policy_set.hpp>
#include <linnet/nn/attention_pooling.hpp>

LINNET_NAMESPACE_BEGIN

/// Numbers of a next_thought model: widths, layers, vocabulary. The published code has d_model 768,
/// d_ff 1536, 16 heads of 4, widths {1920, 1920, 1920, 4800} and dropped {.3, .5, .6, .6}. It has
/// 12 pooling heads, 16 pseudo-tokens and 4 decoder layers.
struct thought_shape {
  index d_model = 64;              ///< width of tokens at both ends
  index d_ff = 128;                ///< hidden width of the blocks at both ends
  index heads = 4;                 ///< query heads of these blocks
  index kv_heads = 1;              ///< key and value heads of these blocks
  index widths[6] = {96, 128};     ///< behind each shrinking layer, up to the first 0; the last
                                   ///< is the width of a thought
  double dropped[6] = {0.3, 0.5};  ///< share of the tokens that each leaves out
  index pooling_heads = 4;         ///< heads of shrinking layers; divides their widths
  index pseudo = 4;                ///< tokens that a thought becomes in front of the decoder
  index decoder_layers = 2;        ///< causal blocks
  index vocabulary = 0;            ///< rows of the embedding, which both ends share
  index context = 0;               ///< longest source and longest target in tokens
  double eps = 1e-6;               ///< epsilon of RMSNorms; LayerNorms have 1e-5

  /// Shrinking layers.
  constexpr index shrinks() const {
    index n = 0;
    while (n < 6 && widths[n] > 0) ++n;
    return n;
  }
  /// Width of what shrinking layer `k` reads; of a thought for k = shrinks().
  constexpr index width(index k) const { return k == 0 ? d_model : widths[k - 1]; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    for (index k = 0; k < shrinks(); ++k)
      if (pooling_heads <= 0 || width(k) % pooling_heads != 0 || !(dropped[k] >= 0) ||
          !(dropped[k] < 1))
        return false;
    return d_model > 0 && d_ff > 0 && heads > 0 && kv_heads > 0 && heads % kv_heads == 0 &&
           d_model % heads == 0 && shrinks() > 0 && pseudo > 0 && decoder_layers > 0 &&
           vocabulary > 0 && context > 0 && eps > 0;
  }
};

/// A batch of texts and their continuations.
struct thought_batch {
  const token* source = nullptr;          ///< [batch, source_length], padded on the right
  const index* source_lengths = nullptr;  ///< [batch] valid tokens of each, at least 1
  const token* tokens = nullptr;          ///< [batch, length] the continuation, shifted: inputs;
                                          ///< sessions begin with next_thought::start
  const token* labels = nullptr;          ///< [batch, length] the token that follows, or `ignored`
  index batch = 0;                        ///< samples
  index source_length = 0;                ///< padded length of the sources
  index length = 0;                       ///< tokens per continuation
};

namespace detail {

/// The shrinking layers from number `K` on and the mean behind the last.
template <thought_shape Shape, index K>
struct thought_layers {
  static constexpr bool last = K + 1 == Shape.shrinks();
  static constexpr index in = Shape.width(K), out = Shape.width(K + 1);
  static constexpr index thought = Shape.width(Shape.shrinks());
  using layer =
      shrinking_attention<in, out, Shape.pooling_heads, real{Shape.dropped[K]}, real{1e-5}>;
  using pool = mean_pooling<out>;
  /// A layer that does nothing; it stands behind the last shrinking layer.
  struct nothing : without_parameters, without_cache {
    template <class T>
    static constexpr without_cache::cache<T> plan(planner&, const call_shape&) {
      return {};
    }
  };
  template <bool Last, class = void>
  struct following {
    using type = thought_layers<Shape, K + 1>;
  };
  template <class Nothing>
  struct following<true, Nothing> {
    using type = nothing;
  };
  using rest = typename following<last>::type;

  template <class Form>
  struct params {
    typename layer::template params<Form> first{};
    [[no_unique_address]] typename rest::template params<Form> others{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    layer::visit(f, at.element(K, Shape.shrinks()), p.first...);
    rest::visit(f, at, p.others...);
  }
  template <class T>
  struct cache {
    typename layer::template cache<T> first{};
    [[no_unique_address]] typename rest::template cache<T> others{};
    T *y = nullptr, *dy = nullptr;  ///< [batch * kept, out]
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    call_shape after = e;
    after.length = layer::kept(e.length);
    cache<T> c;
    c.y = m.saved.take<T>(after.rows() * out);
    if (e.training) c.dy = m.saved.take<T>(after.rows() * out);
    c.first = layer::template plan<T>(m, e);
    c.others = rest::template plan<T>(m, after);
    return c;
  }
  /// Floating-point operations of the products of a forward call.
  static constexpr index flops(const call_shape& e) {
    call_shape after = e;
    after.length = layer::kept(e.length);
    index sum = 4 * e.rows() * in * (2 * in + e.length) + 8 * after.rows() * in * (in + out);
    if constexpr (!last) sum += rest::flops(after);
    return sum;
  }
  /// The context of what reads c.y.
  template <class T>
  static context<T> behind(const context<T>& ctx, const cache<T>& c) {
    context<T> next = ctx;
    next.length = layer::kept(ctx.length);
    next.lengths = c.first.lengths;
    return next;
  }
  /// x[batch * length, in] -> latent[batch, thought]
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const T* x, T* latent, cache<T>& c,
                      context<T>& ctx) {
    context<T> next = behind(ctx, c);
    layer::template forward<T, S>(p.first, {x, ctx.rows()}, {c.y, next.rows()}, c.first, ctx);
    if constexpr (last)
      pool::forward(c.y, latent, next);
    else
      rest::template forward<T, S>(p.others, c.y, latent, c.others, next);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       const T* x, const T* d_latent, T* dx, cache<T>& c, context<T>& ctx) {
    context<T> next = behind(ctx, c);
    ops::fill(ctx.on, next.rows() * out, T(0), c.dy);
    if constexpr (last)
      pool::backward(d_latent, c.dy, next);
    else
      rest::template backward<T, S>(p.others, dp.others, c.y, d_latent, c.dy, c.others, next);
    layer::template backward<T, S>(p.first, dp.first, {x, ctx.rows()}, {c.dy, next.rows()},
                                   {dx, ctx.rows()}, c.first, ctx);
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
