// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The memory of a session, which tokens fit, and how it runs its model on those.

#include <algorithm>
#include <span>

#include <linnet/core/refusal.hpp>
#include <linnet/generate/block_tables.hpp>
#include <linnet/generate/fed_sequences.hpp>
#include <linnet/generate/session_adapters.hpp>
#include <linnet/generate/token_tree.hpp>
#include <linnet/model/buffers.hpp>
#include <linnet/nn/timed.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The weights, limits and memory of a session. Calls that run the model check nothing.
template <class M, class T>
class session_state {
  using S = storage_of<M, T>;

 protected:
  /// Whether images stand before texts, and whether the tokens of a prompt see them both ways.
  static constexpr bool sees = M::image_tokens > 0, sees_prefix = sees && M::takes_prefix;

  session_state() = default;
  session_state(const packed<M, T>& p, const limits& l) : packed_(&p), limits_(l) {}

  /// Rows of a sequence's cache: an image's stand before the tokens.
  static constexpr index rows_for(const limits& l) {
    return add_sizes(M::longest(l), M::image_tokens);
  }
  /// Whether the limits have a sequence `b`.
  bool has(index b) const { return b >= 0 && b < limits_.batch; }
  /// Tokens of each sequence.
  static index length_of(std::span<const token> tokens, index batch) {
    return batch > 0 ? std::ssize(tokens) / M::ids_per_token / batch : 0;
  }
  /// Looks for what does not fit in [batch, length] tokens with these lengths, if any.
  batch_check checked(std::span<const token> tokens, index batch, std::span<const index> lengths,
                      index most, refusal over) const {
    const index length = length_of(tokens, batch);
    batch_check c(batch, limits_.batch);
    c.no(tokens.empty(), refusal::no_tokens);
    c.no(c.fits() && std::ssize(tokens) % (batch * M::ids_per_token) != 0, refusal::uneven);
    c.tokens(tokens.data(), length * M::ids_per_token, M::vocabulary);
    c.no(!lengths.empty() && std::ssize(lengths) < batch, refusal::lengths_missing);
    c.length(length, most, over, lengths.empty() ? nullptr : lengths.data());
    return c;
  }

  /// Most tokens of a sequence in one call.
  static constexpr index chunk_of(const limits& l) {
    return l.chunk > 0 ? (std::min)(l.chunk, M::longest(l)) : M::longest(l);
  }
  /// Why tokens cannot follow what was fed, or with `anew` begin new texts; at most `most` of each
  /// sequence. What a tree holds is free, as a call that is taken forgets it.
  refusal refuses(std::span<const token> tokens, index batch, std::span<const index> lengths,
                  index most, bool anew = false) const {
    const index length = length_of(tokens, batch), room = rows_for(limits_),
                chunk = chunk_of(limits_);
    auto c = checked(tokens, batch, lengths, room, refusal::over_target);
    const auto past = [&](index b) { return anew ? index{0} : sequences_.past()[b]; };
    const auto front = [&](index b) { return adapters_.lacking(sequences_, b, anew); };
    const auto more = [&](index b) {
      return front(b) + (lengths.empty() ? length : lengths.data()[b]);
    };
    for (index b = 0; c.fits() && b < batch; ++b) {
      c.no((M::encodes || sees) && !sequences_.has_source(b), refusal::no_source);
      c.no(past(b) + front(b) + length > room, refusal::over_target);
    }
    if constexpr (M::block_tokens > 1) {
      for (index b = 0; c.fits() && b < batch; ++b)
        c.no(past(b) % M::block_tokens != 0, refusal::inside_block);
      c.no(length > chunk && chunk % M::block_tokens != 0, refusal::inside_block);
    }
    c.no(length > most, refusal::over_chunk);
    if (!c.fits() || limits_.kv_blocks == 0) return c.why;
    c.no(anew ? block_tables::blocks_of(front(0) + length) > limits_.kv_blocks
              : tables_.needed(batch, past, more) > tables_.available(past(0)),
         refusal::no_blocks);
    return c.why;
  }
  /// Why tokens whose logits are all asked for cannot follow.
  refusal refuses_all(std::span<const token> tokens, index batch,
                      std::span<const index> lengths) const {
    const refusal why =
        refuses(tokens, batch, lengths, (std::min)(chunk_of(limits_), limits_.max_logits));
    return why == refusal::over_chunk ? refusal::over_logits : why;
  }
  /// Frees what a tree holds.
  void forget_tree() {
    if (limits_.kv_blocks > 0 && tree_.size() > 0) tables_.truncate(0, sequences_.past()[0]);
    tree_.clear();
  }

  /// Feeds the tokens of a call behind the virtual ones that their sequences still lack, of which a
  /// step takes `chunk` at most. At most `back` tokens can be taken back, and none of a `prefix`.
  void feed_behind(step_call call, index chunk, index back, bool prefix) {
    if (sees_prefix && !call.every)
      if (const index front = adapters_.next_front(sequences_, call.batch, M::image_tokens);
          front > 0)
        return feed_with_image(call, front, back);
    while (read_front(call, sees_prefix ? M::image_tokens : chunk)) {
    }
    reserve(call.batch, [&](index b) { return call.lengths ? call.lengths[b] : call.length; });
    call.past = sequences_.past();
    call.source = sequences_.source(call.batch);
    step(call);
    if (call.tree.parents == nullptr) sequences_.add(call, back, prefix);
  }
  /// Runs f(execution) with the adapters of the first `batch` sequences, which put `source` before
  /// what it encodes.
  template <class F>
  void run_adapted(index batch, index work, F&& f, const ops::virtual_tokens<T>& source = {}) {
    const ops::sequence_adapters<T> all = adapters_.of(batch);
    ops::adapter_hooks<T> hooks = all.hooks();
    hooks.front = source;
    const bool any = all.any();
    run(limits_, work_.converted, work, [&](const ops::execution& on) {
      const detail::timed<S> time(on.threads, operation::other);
      ops::execution with = on;
      with.key_scales = packed_->key_scales();
      if (any) with.adapter = &hooks;
      f(with);
    });
  }

  const packed<M, T>* packed_ = nullptr;
  owned_limits limits_;  ///< refuses everything until it is opened
  memory_block own_;
  placed_workspace<M, T> work_{};
  block_tables tables_{};
  fed_sequences sequences_{};
  fed_tree tree_{};
  session_adapters<T> adapters_{};

 private:
  /// Makes room for `more` tokens of sequences in a paged cache.
  template <class More>
  void reserve(index batch, More&& more) {
    if (limits_.kv_blocks > 0)
      tables_.reserve(
          batch, [&](index b) { return sequences_.past()[b]; }, more,
          [&](index from, index to) { M::copy_state(work_.work, from, to, {.block = true}); });
  }
  /// Runs the model on new tokens.
  void step(const step_call& call) {
    const index work = step_flops<M>(call.batch, 0, call.length);
    run_adapted(call.batch, work, [&](const ops::execution& on) {
      M::template step<T, S>(packed_->tree(), call, work_.work, on);
    });
  }
  /// Reads virtual tokens of a call's sequences, a chunk at most; false if none is left.
  bool read_front(const step_call& call, index chunk) {
    const index most = adapters_.next_front(sequences_, call.batch, chunk);
    if (most == 0) return false;
    reserve(call.batch, [&](index b) { return adapters_.lengths()[b]; });
    step({.batch = call.batch,
          .length = most,
          .lengths = adapters_.lengths(),
          .past = sequences_.past(),
          .front = most,
          .layers = {call.layers.first, call.layers.last, false},
          .source = sequences_.source(call.batch)});
    sequences_.add_front(call.batch, adapters_.lengths());
    return true;
  }
  /// Feeds prompts and the images that they see in one step; `front` is the most rows of those that
  /// adapters_.next_front() has found.
  void feed_with_image(const step_call& call, index front, index back) {
    adapters_.add_tokens(call.batch, call.length, call.lengths, 1);
    reserve(call.batch, [&](index b) { return adapters_.lengths()[b]; });
    step_call all = call;
    all.length += front;
    all.lengths = adapters_.lengths();
    all.past = sequences_.past();
    all.front = front;
    step(all);
    sequences_.add(call, back, true);
    adapters_.add_tokens(call.batch, call.length, call.lengths, -1);
    sequences_.add_front(call.batch, adapters_.lengths());
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
