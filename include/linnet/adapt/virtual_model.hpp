// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The common part of adapters that put virtual tokens before a decoder's texts.

#include <linnet/adapt/base.hpp>
#include <linnet/model/decoder.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether a decoder's texts may have virtual tokens before them; words for the others.
template <class M>
consteval bool takes_virtual_tokens() {
  if constexpr (!is_decoder<M>)
    static_assert(never<M>,
                  "linnet::prompt_tuning and prefix_tuning: only decoders take virtual tokens");
  else if constexpr (M::depths::routes)
    static_assert(
        never<M>,
        "linnet::prompt_tuning and prefix_tuning: a mixture of depths would count virtual "
        "tokens among those that it chooses from");
  else if constexpr (!M::embedding::whole_rows)
    static_assert(
        never<M>,
        "linnet::prompt_tuning and prefix_tuning: a tensor train has a row for each token alone");
  else if constexpr (M::block_tokens > 1)
    static_assert(
        never<M>,
        "linnet::prompt_tuning and prefix_tuning: attention::block_causal counts its blocks from "
        "a text's first token, and virtual ones are not among them");
  else if constexpr (M::takes_prefix)
    static_assert(
        never<M>,
        "linnet::prompt_tuning and prefix_tuning: attention::prefix counts a text's first "
        "tokens, and virtual ones are not among them");
  return true;
}

/// A decoder with an adapter that puts `Count` virtual tokens before each text. Limits and batches
/// count the text alone.
template <class M, class Method, index Count>
struct virtual_model : adapted_model<M, Method> {
  static_assert(Count > 0 && Count <= 4096,
                "linnet::prompt_tuning and prefix_tuning: 1 to 4096 virtual tokens");
  static_assert(takes_virtual_tokens<M>());
  using batch = typename M::batch;
  /// Tokens that are put before each text.
  static constexpr index virtual_count = Count;

  /// The longest text for these limits: `target`, or what the context leaves when it is 0.
  static constexpr index longest(const limits& l) {
    return l.target > 0 ? l.target : (std::max)(M::longest(l) - Count, index{0});
  }
  /// A learned table of positions has an end, which virtual tokens come nearer to.
  static constexpr limits_refusal check_limits(const limits& l) {
    if (longest(l) < 1) return {"limits.target", "at least 1 beside the virtual tokens", l.target};
    const limits_refusal refused = M::check_limits(whole(l));
    if (refused.field && refused.most >= 0)
      return {refused.field, "the model's context less the virtual tokens", l.target,
              refused.most - Count};
    return refused;
  }
  /// Why a batch does not fit the limits, the vocabulary or the attention.
  static refusal refuses(const batch& b, const limits& l) {
    limits text = l;
    text.target = longest(l);
    return b.documents ? refusal::documents_unknown : M::refuses(b, text);
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  template <class T>
  using workspace = adapted_workspace<M, T>;
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    return plan_adapted<M, T>(m, whole(l), use, 0);
  }
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    M::prepare(w.base, whole(l));
  }

 private:
  /// Limits of the base's sequences, virtual tokens included.
  static constexpr limits whole(limits l) {
    l.target = add_sizes(longest(l), Count);
    return l;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
