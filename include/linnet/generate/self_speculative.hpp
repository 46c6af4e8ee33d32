// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Self-speculative decoding: a model's first layers draft tokens, its other layers check them in
/// one call (LayerSkip, Elhoushi et al. 2024).

#include <linnet/generate/speculative.hpp>

LINNET_NAMESPACE_BEGIN

/// Generates with one session of decoder `M`, which drafts for itself by early exit. In a round the
/// layers before `exit` run on the last known token and on up to `drafts` drafted tokens. The final
/// norm and head draft each from their output. Then the other layers run once over the outputs for
/// all of these, and the drafts are judged as in `speculative`. Both halves use the session's one
/// cache, and nothing is computed twice. The text follows the whole model's distribution; a greedy
/// sampler gives its greedy text. It helps a model that was trained with early exits
/// (train/layer_skip.hpp). All memory is taken by open().
template <class M, class T = float>
class self_speculative {
  static_assert(M::exits > 0,
                "linnet::self_speculative: the model has no early exits to draft from");
  static_assert(M::ids_per_token == 1,
                "linnet::self_speculative: tokens of byte_pooled models consist of several bytes, "
                "which are not drafted");
  static_assert(M::can_truncate,
                "linnet::self_speculative: rejected tokens must be taken back, which the model's "
                "kind of attention cannot do");
  static_assert(M::block_tokens == 1,
                "linnet::self_speculative: tokens of one block see each other, so a draft would be "
                "judged by a row that sees it");

 public:
  /// Opens speculation in a session, which must outlive it: the first `exit` layers draft `drafts`
  /// tokens at a time. Errors: errc::invalid for an exit outside 1 to the model's layers, and for
  /// drafts below 1 or not below the session's limits.max_logits. Also for more drafts than its
  /// cache can take back, see session::max_truncation(). errc::out_of_memory.
  static result<self_speculative> open(session<M, T>& s, index exit, index drafts) LINNET_TRY {
    if (exit < 1 || exit > layers)
      return linnet::error{errc::invalid, "self_speculative::open", "exit",
                           "1 to the model's layers, " + std::to_string(layers),
                           std::to_string(exit)};
    if (auto fit = detail::drafts_fit("self_speculative::open", s, drafts); !fit)
      return fit.error();
    self_speculative made(s, exit, drafts);
    const index bytes = footprint(s.planned(), drafts);
    made.own_ = memory_block(bytes);
    if (!made.own_.data()) return detail::out_of_memory("self_speculative::open", bytes);
    arena a(made.own_.data(), bytes);
    made.at_ = place(a, s.planned(), drafts);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("self_speculative::open")
  /// Exact bytes that it allocates for a session with these limits.
  static constexpr index footprint(const limits& l, index drafts) {
    arena counter;
    (void)place(counter, l, drafts);
    return counter.peak();
  }

  /// Generates like session::generate(), with a sampler that has `probabilities()` (see `greedy`).
  /// The whole model reads the prompt and gives the first token; rounds give the others. Also ends
  /// where a paged cache has no block left.
  template <class Sampler, class Emit>
  index generate(std::span<const token> tokens, Sampler&& choose, Emit&& on_token,
                 const generation_options& g = {}) {
    counts_ = {};
    if (!own_.data()) return 0;  // moved from
    if (!detail::in_range(g)) {
      detail::refuse(*session_, refusal::options);
      return 0;
    }
    if (!begin(tokens, choose)) return 0;
    return detail::emit_rounds(*session_, g, at_.drafts.text, known_, on_token,
                               [&](index most) { return round(choose, g, most); });
  }
  /// Why the last generate() did nothing or ended early, see session::last_refusal().
  std::string_view last_refusal() const noexcept {
    return own_.data() ? session_->last_refusal() : to_string(refusal::not_valid);
  }
  /// Draft counts of the text that is being, or was last, generated; its first token is not
  /// counted.
  const draft_counts& counts() const { return counts_; }

 private:
  static constexpr index layers = M::exits, vocabulary = M::vocabulary, d = M::d;
  struct buffers {
    detail::draft_buffers drafts{};
    T* streams = nullptr;  ///< [drafts + 1, d] that enter layer `exit`
  };
  static constexpr buffers place(arena& a, const limits& l, index drafts) {
    buffers made;
    made.drafts =
        detail::draft_buffers::place(a, session<M, T>::capacity_for(l), vocabulary, drafts);
    made.streams = a.take<T>((drafts + 1) * d);
    return made;
  }

  self_speculative(session<M, T>& s, index exit, index drafts)
      : session_(&s), exit_(exit), drafts_(drafts) {}

  /// Feeds the prompt and chooses the first token, which is not fed yet.
  template <class Sampler>
  bool begin(std::span<const token> tokens, Sampler& choose) {
    if (session_->adapters_.routes_once(0)) {  // a draft's gates are gone when others check it
      detail::refuse(*session_, refusal::switch_drafts);
      return false;
    }
    (void)session_->exit_after(layers);  // all of them
    const std::span<T> logits = session_->prefill(tokens);
    if (logits.empty()) return false;
    std::copy(tokens.begin(), tokens.end(), at_.drafts.text);
    known_ = std::ssize(tokens) + 1;
    at_.drafts.judge(choose, logits, vocabulary, known_ - 1, 0);
    return true;
  }

  /// Drafts, verifies and decides one to drafts + 1 tokens, at most `most`. False, and nothing
  /// decided, where the cache has no room.
  template <class Sampler>
  bool round(Sampler& choose, const generation_options& g, index most) {
    session<M, T>& s = *session_;
    const index start = s.position(), room = s.capacity() - start - 1;
    const index wanted = (std::min)({drafts_, room, most - 1});
    const auto unread = [&](index i, index n) {  // tokens from number i of this round on
      return at_.drafts.first(start + i + n).last(static_cast<std::size_t>(n));
    };
    index drafted = 0;
    for (;; ++drafted) {
      // The last draft needs no successor, but the other layers need its stream.
      const bool more =
          drafted < wanted && (drafted == 0 || !g.stops(at_.drafts.text[start + drafted]));
      const auto logits = s.advance(unread(drafted, 1), 1, {}, false, {0, exit_, more});
      if (logits.empty()) {  // no block of a paged cache is left
        if (drafted == 0) return false;
        --drafted;  // the last draft cannot be checked
        break;
      }
      std::copy_n(s.work_.work.out, d, at_.streams + drafted * d);
      if (!more) break;
      if (!at_.drafts.propose(choose, logits, drafted, known_ + drafted)) break;
    }
    // The other layers have not read these tokens yet, nor has anything been overwritten.
    s.sequences_.truncate(0, start);
    std::copy_n(at_.streams, (drafted + 1) * d, s.work_.work.embedded);
    const auto rows = s.advance(unread(0, drafted + 1), 1, {}, true, {exit_, layers});
    const index accepted = at_.drafts.judge(choose, rows, vocabulary, known_, drafted);

    if (!s.truncate(known_ + accepted)) return false;
    detail::count_round(drafted, accepted, known_, counts_);
    return true;
  }

  session<M, T>* session_;
  index exit_, drafts_;
  memory_block own_;
  buffers at_{};
  index known_ = 0;  ///< tokens of the text; the last is not fed yet
  draft_counts counts_{};
};

LINNET_NAMESPACE_END
