// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The common part of adapters that put virtual tokens before texts.

#include <linnet/adapt/base.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/model/t5.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Which stack of a model reads what virtual keys stand before, its attention and its layers.
/// `width` is that of soft tokens. Models that are not `known` take neither.
template <class M>
struct virtual_stack {
  static constexpr bool known = false;
};
template <class M>
requires is_decoder<M>
struct virtual_stack<M> {
  static constexpr bool known = true;
  using of = M;
  using attention = typename M::attention;
  static constexpr index layers = M::shape.layers, width = M::d;
};
template <class M>
requires is_encoder<M>  // whose soft tokens stand before its norm, as embedded tokens
struct virtual_stack<M> {
  static constexpr bool known = true;
  using of = typename M::body;
  using attention = typename M::attention;
  static constexpr index layers = M::shape.layers, width = M::width;
};
template <class M>
requires is_t5<M>
struct virtual_stack<M> {
  static constexpr bool known = true;
  using of = typename M::decoder;
  using attention = typename M::decoder_attention;
  static constexpr index layers = M::shape.decoder_layers, width = M::d;
};
/// The shape of that attention.
template <class M>
inline constexpr attention_shape virtual_self = virtual_stack<M>::of::self;

/// Whether the attention that reads virtual tokens counts tokens from the first.
template <class M, bool BeforeSource>
consteval bool virtual_tokens_count() {
  if constexpr (BeforeSource)
    return M::encoder_attention::counts_tokens;
  else
    return virtual_stack<M>::attention::counts_tokens;
}

/// Whether a model's texts may have virtual tokens before them; words for the others.
template <class M, bool BeforeSource>
consteval bool takes_virtual_tokens() {
  if constexpr (!virtual_stack<M>::known)
    static_assert(never<M>,
                  "linnet::prompt_tuning and prefix_tuning: decoders, encoders and T5 take virtual "
                  "tokens, other models do not");
  else if constexpr (virtual_tokens_count<M, BeforeSource>())
    static_assert(
        never<M>,
        "linnet::prompt_tuning and prefix_tuning: this kind of attention counts blocks or "
        "positions from a text's first token, and virtual ones are not among them");
  else if constexpr (is_encoder<M>)
    static_assert(!M::of_images,
                  "linnet::prompt_tuning and prefix_tuning: they stand before texts; an encoder of "
                  "images reads none");
  else if constexpr (is_decoder<M>) {
    static_assert(
        !M::depths::routes,
        "linnet::prompt_tuning and prefix_tuning: a mixture of depths would count virtual "
        "tokens among those that it chooses from");
    static_assert(
        M::embedding::whole_rows,
        "linnet::prompt_tuning and prefix_tuning: a tensor train has a row for each token alone");
    static_assert(
        !M::takes_prefix,
        "linnet::prompt_tuning and prefix_tuning: attention::prefix counts a text's first "
        "tokens, and virtual ones are not among them");
  }
  return true;
}

/// Buffers of a model with virtual tokens.
template <class M, class T>
struct virtual_workspace : adapted_workspace<M, T> {
  index* lengths = nullptr;  ///< [batch] of texts or sources that have lengths, with virtual tokens
};

/// A model with an adapter that puts `Count` virtual tokens before each text, or with
/// `BeforeSource` before each source. Limits and batches count the text alone.
template <class M, class Method, index Count, bool BeforeSource = false>
struct virtual_model : adapted_model<M, Method> {
  static_assert(Count > 0 && Count <= 4096,
                "linnet::prompt_tuning and prefix_tuning: 1 to 4096 virtual tokens");
  static_assert(takes_virtual_tokens<M, BeforeSource>());
  using batch = typename M::batch;
  /// Tokens that are put before each text.
  static constexpr index virtual_count = Count;

  /// The longest text for these limits: `target`, or what the context leaves when it is 0.
  static constexpr index longest(const limits& l) {
    if (BeforeSource) return M::longest(l);
    return l.target > 0 ? l.target : (std::max)(M::longest(l) - Count, index{0});
  }
  /// A learned table of positions has an end, which virtual tokens come nearer to.
  static constexpr limits_refusal check_limits(const limits& l) {
    if constexpr (M::encodes)
      if (const limits_refusal bare = M::check_limits(l); bare.field) return bare;
    if (longest(l) < 1) return {"limits.target", "at least 1 beside the virtual tokens", l.target};
    const limits_refusal refused = M::check_limits(whole(l));
    if (refused.field && refused.most >= 0)
      return {refused.field, "the model's context less the virtual tokens",
              BeforeSource ? l.source : l.target, refused.most - Count};
    return refused;
  }
  /// Why a batch does not fit the limits, the vocabulary or the attention.
  static refusal refuses(const batch& b, const limits& l) {
    limits text = l;
    text.target = longest(l);
    return linnet::detail::has_documents(b) ? refusal::documents_unknown : M::refuses(b, text);
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  template <class T>
  using workspace = virtual_workspace<M, T>;
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    workspace<T> w;
    if (has_lengths) w.lengths = m.saved.take<index>(l.batch);
    static_cast<adapted_workspace<M, T>&>(w) = plan_adapted<M, T>(m, whole(l), use, 0);
    return w;
  }
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    M::prepare(w.base, whole(l));
  }

 protected:
  /// The loss of the base with the hooks of an adapter, as adapted_model::loss_with().
  template <class T, class P, class Criterion>
  static loss_sum loss_behind(const P& p, bool trains, const batch& b, workspace<T>& w,
                              const ops::execution& on, ops::adapter_hooks<T> hooks,
                              const loss_call<T>& call, const Criterion& criterion) {
    if (const index* const lengths = lengths_of(b)) {
      on.threads.each(b.batch, [&](index i) { w.lengths[i] = Count + lengths[i]; });
      hooks.front.lengths = w.lengths;
    }
    return virtual_model::loss_with(p, trains, b, w, on, hooks, call, criterion);
  }

 private:
  static constexpr bool has_lengths = BeforeSource || requires(const batch& b) { b.lengths; };
  /// Lengths of the texts that virtual tokens stand before, where a batch has them.
  static const index* lengths_of([[maybe_unused]] const batch& b) {
    if constexpr (BeforeSource)
      return b.source_lengths;
    else if constexpr (has_lengths)
      return b.lengths;
    else
      return nullptr;
  }
  /// Limits of the base's sequences, virtual tokens included.
  static constexpr limits whole(limits l) {
    if (BeforeSource)
      l.source = add_sizes(l.source, Count);
    else
      l.target = add_sizes(longest(l), Count);
    return l;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
