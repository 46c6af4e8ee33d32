// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Speculative decoding: a small model drafts tokens, the large one checks them in one call
/// (Leviathan et al. 2023, algorithm 1). The text follows the large model's distribution exactly.

#include <linnet/generate/draft_tree.hpp>
#include <linnet/generate/session.hpp>

LINNET_NAMESPACE_BEGIN

/// Counts of drafted and accepted tokens since the last start of generate().
struct draft_counts {
  index rounds = 0;    ///< calls of the target
  index drafted = 0;   ///< tokens proposed
  index accepted = 0;  ///< proposed tokens that were taken
  index tokens = 0;    ///< tokens decided: accepted ones and one more per round

  /// Tokens per call of the target model; for independent tokens accepted with probability a, (1 -
  /// a^(drafts + 1)) / (1 - a).
  double per_round() const {
    return rounds > 0 ? static_cast<double>(tokens) / static_cast<double>(rounds) : 0;
  }
};

namespace detail {

/// Buffers of speculation: one text, and the distributions of its drafts. Drafts are judged as
/// Leviathan et al. 2023 says.
struct draft_buffers {
  token* text = nullptr;     ///< [capacity + 1] what is known, then what is drafted
  token* scratch = nullptr;  ///< [vocabulary] of the sampler
  double* p = nullptr;       ///< [vocabulary]
  double* q = nullptr;       ///< [drafts, vocabulary]

  static constexpr draft_buffers place(arena& a, index capacity, index vocabulary, index drafts) {
    draft_buffers made;
    made.text = a.take<token>(capacity + 1);
    made.scratch = a.take<token>(vocabulary);
    made.p = a.take<double>(vocabulary);
    made.q = a.take<double>(drafts * vocabulary);
    return made;
  }
  /// The first `count` tokens.
  std::span<const token> first(index count) const {
    return {text, static_cast<std::size_t>(count)};
  }
  /// Draws draft number `i`, token `end` of the text, from logits. False if there is none.
  template <class Sampler, class T>
  bool propose(Sampler& choose, std::span<T> logits, index i, index end) const {
    return draw(choose, logits, end, q + i * std::ssize(logits));
  }
  /// Draws token `end` of the text from the target's logits.
  template <class Sampler, class T>
  void choose_last(Sampler& choose, std::span<T> logits, index end) const {
    (void)draw(choose, logits, end, p);
  }
  /// Judges the `drafted` tokens behind the `known` ones by the target's logits rows[drafted + 1,
  /// vocabulary]; returns the number accepted. It also draws the token behind them.
  template <class Sampler, class T>
  index judge(Sampler& choose, std::span<T> rows, index vocabulary, index known,
              index drafted) const {
    const auto size = static_cast<std::size_t>(vocabulary);
    const std::span<double> distribution(p, size);
    index accepted = 0;
    for (;; ++accepted) {
      const index end = known + accepted;
      choose.probabilities(rows.subspan(static_cast<std::size_t>(accepted) * size, size),
                           {scratch, size}, first(end), distribution);
      if (accepted == drafted) break;  // one more, from p
      const std::span<const double> by(q + accepted * vocabulary, size);
      const std::size_t x = slot(text[end]);
      if (!choose.accept((std::min)(1.0, distribution[x] / by[x]))) {
        residual(distribution, by);
        break;
      }
    }
    text[known + accepted] = one_of(size, choose.sample(distribution));
    return accepted;
  }

 private:
  /// Draws token `end` of the text from logits, by their distribution [vocabulary], which `to`
  /// receives. False if there is none.
  template <class Sampler, class T>
  bool draw(Sampler& choose, std::span<T> logits, index end, double* to) const {
    const std::span<double> distribution(to, logits.size());
    choose.probabilities(logits, {scratch, logits.size()}, first(end), distribution);
    text[end] = one_of(logits.size(), choose.sample(distribution));
    return text[end] != no_token;
  }
  /// Replaces p by max(0, p - q), not normalised. Distributions that differ by rounding alone leave
  /// nothing; then p stays.
  static void residual(std::span<double> p, std::span<const double> q) {
    bool any = false;
    for (std::size_t i = 0; i < p.size(); ++i) any = any || p[i] > q[i];
    for (std::size_t i = 0; any && i < p.size(); ++i) p[i] = (std::max)(0.0, p[i] - q[i]);
  }
};

/// Whether a session can check so many drafts, or `width` times as many in a tree, in one call and
/// take all of them back.
template <class Session>
result<void> drafts_fit(const char* where, const Session& s, index drafts, index width = 1) {
  const auto refuse = [&](const char* field, std::string expected, index got) {
    return linnet::error{errc::invalid, where, field, std::move(expected), std::to_string(got)};
  };
  const index checked = s.planned().max_logits - 1, most = s.max_truncation();
  if (drafts < 1) return refuse("drafts", "at least 1", drafts);
  if (drafts > most)
    return refuse("drafts", "1 to " + std::to_string(most) + " (that can be taken back)", drafts);
  if (width < 1 || width > Session::model::vocabulary)
    return refuse("width", "1 to the vocabulary", width);
  if (width > 1 && !Session::model::supports_trees)
    return refuse("width", "1, as the target's cache keeps texts, not trees", width);
  if (drafts > checked / width)
    return refuse("limits.max_logits",
                  "at least " + std::to_string(drafts * width + 1) +
                      (width > 1 ? " (drafts x width + 1)" : " (drafts + 1)"),
                  s.planned().max_logits);
  return {};
}

/// Notes a round, in which `accepted` of the `drafted` tokens and one more became known.
inline void count_round(index drafted, index accepted, index& known, draft_counts& counts) {
  known += accepted + 1;
  counts.rounds += 1;
  counts.drafted += drafted;
  counts.accepted += accepted;
  counts.tokens += accepted + 1;
}

/// Emits the `known` tokens of `text` from the last one on, then those of rounds. round(most) makes
/// one to `most` more known, or returns false. Returns the number of tokens emitted; session `s`
/// says why they are fewer than g.tokens.
template <class Session, class Emit, class Round>
index emit_rounds(Session& s, const generation_options& g, const token* text, const index& known,
                  Emit& on_token, Round&& round) {
  for (index n = 0, next = known - 1;;) {
    for (; next < known; ++next) {
      const token t = text[next];
      if (t == no_token) refuse(s, refusal::nothing_chosen);
      if (g.stops(t)) return n;
      ++n;
      if (!goes_on(on_token, t)) return n;
    }
    if (n == g.tokens) return n;
    if (s.position() >= s.capacity()) {
      if (g.tokens > 0) refuse(s, refusal::over_target);
      return n;
    }
    if (!round(g.tokens > 0 ? g.tokens - n : s.capacity())) return n;
  }
}

}  // namespace detail

/// Generates with a session of model `M`, sped up by drafts of a smaller model `D` of the same
/// family and vocabulary. Both distributions are warped by the same sampler. A drafted token x is
/// accepted with probability min(1, p(x) / q(x)); the first that is not is drawn anew from max(0, p
/// - q), normalised, and after `drafts` accepted ones another follows from p. A greedy sampler
/// gives the target's greedy text. All memory is taken by open().
template <class M, class D, class T = float, class U = T>
class speculative {
  static_assert(M::encodes == D::encodes && M::ids_per_token == D::ids_per_token,
                "linnet::speculative: the models are of different families");
  static_assert(M::vocabulary == D::vocabulary,
                "linnet::speculative: the models have different vocabularies");
  static_assert(M::ids_per_token == 1,
                "linnet::speculative: this model's tokens consist of bytes; generate_bytes() runs "
                "it");
  static_assert(M::can_truncate && D::can_truncate,
                "linnet::speculative: rejected tokens must be taken back, which a model's kind of "
                "attention cannot do");
  static_assert(M::block_tokens == 1 && D::block_tokens == 1,
                "linnet::speculative: tokens of one block see each other, so a draft would be "
                "judged by a row that sees it");

 public:
  /// Opens speculation with two sessions, which must outlive it, and `drafts` tokens drafted at a
  /// time. A `width` above 1 drafts a tree: at each depth the draft's `width` likeliest tokens, of
  /// which the first goes on. The target then draws its own tokens and follows those in the tree.
  /// Errors: errc::invalid (drafts below 1, drafts times width not below the target's
  /// limits.max_logits, or more than its cache can take back, see session::max_truncation()). Also
  /// for a width of a target that does not support trees, and errc::out_of_memory.
  static result<speculative> open(session<M, T>& target, session<D, U>& draft, index drafts,
                                  index width = 1) LINNET_TRY {
    if (auto fit = detail::drafts_fit("speculative::open", target, drafts, width); !fit)
      return fit.error();
    speculative made(target, draft, drafts, width);
    const index bytes = footprint(target.planned(), drafts, width);
    made.own_ = memory_block(bytes);
    if (!made.own_.data()) return detail::out_of_memory("speculative::open", bytes);
    arena a(made.own_.data(), bytes);
    made.at_ = place(a, target.planned(), drafts);
    made.tree_ = detail::draft_tree::place(a, drafts, width);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("speculative::open")
  /// Exact bytes that it allocates for a target with these limits.
  static constexpr index footprint(const limits& l, index drafts, index width = 1) {
    arena counter;
    (void)place(counter, l, drafts);
    (void)detail::draft_tree::place(counter, drafts, width);
    return counter.peak();
  }

  /// Generates like the target's session::generate(), with a sampler that has `probabilities()`
  /// (see `greedy`). The target reads the prompt and gives the first token; rounds give the others.
  /// Where the draft has no room for the text, the target goes on alone.
  template <class Sampler, class Emit>
  index generate(std::span<const token> tokens, Sampler&& choose, Emit&& on_token,
                 const generation_options& g = {}) {
    counts_ = {};
    if (!own_.data()) return 0;  // moved from
    if (!detail::in_range(g)) {
      detail::refuse(*target_, refusal::options);
      return 0;
    }
    if (!begin(tokens, choose)) return 0;
    return detail::emit_rounds(*target_, g, at_.text, known_, on_token, [&](index most) {
      return width_ > 1 ? tree_round(choose, most) : round(choose, most);
    });
  }
  /// Why the last generate() did nothing or ended early, see session::last_refusal().
  std::string_view last_refusal() const noexcept {
    return own_.data() ? target_->last_refusal() : to_string(refusal::not_valid);
  }
  /// Draft counts of the text that is being, or was last, generated; its first token is not
  /// counted.
  const draft_counts& counts() const { return counts_; }

 private:
  static constexpr index vocabulary = M::vocabulary;
  using buffers = detail::draft_buffers;
  static constexpr buffers place(arena& a, const limits& l, index drafts) {
    return buffers::place(a, session<M, T>::capacity_for(l), vocabulary, drafts);
  }
  static constexpr std::size_t at(index i) { return static_cast<std::size_t>(i); }

  speculative(session<M, T>& target, session<D, U>& draft, index drafts, index width)
      : target_(&target), draft_(&draft), drafts_(drafts), width_(width) {}

  /// Feeds the prompt and chooses the first token, which is not fed yet. The prompt is fed whole,
  /// as without speculation.
  template <class Sampler>
  bool begin(std::span<const token> tokens, Sampler& choose) {
    const std::span<T> logits = target_->reset_and_prefill(tokens);
    if (logits.empty()) return false;
    drafting_ = !draft_->reset_and_prefill(tokens).empty();
    const auto before = target_->fed();
    std::copy(before.begin(), before.end(), at_.text);
    known_ = std::ssize(before) + 1;
    at_.judge(choose, logits, vocabulary, known_ - 1, 0);
    return true;
  }

  /// Drafts, verifies and decides one to drafts + 1 tokens, at most `most`. False, and nothing
  /// decided, where the cache has no room.
  template <class Sampler>
  bool round(Sampler& choose, index most) {
    const index room = target_->capacity() - target_->position() - 1;
    const index wanted = (std::min)({drafts_, room, most - 1});
    index drafted = 0;
    for (; drafting_ && drafted < wanted; ++drafted) {
      const index end = known_ + drafted;
      const auto logits = draft_behind(end);
      if (logits.empty() || !at_.propose(choose, logits, drafted, end)) break;
    }

    const auto verify_drafts = [&] {
      return target_->feed_all(at_.first(known_ + drafted).subspan(at(known_ - 1)));
    };
    auto rows = verify_drafts();
    if (rows.empty() && drafted > 0) {  // the last block of a paged cache may hold one token more
      drafted = 0;
      rows = verify_drafts();
    }
    if (rows.empty()) return false;
    const index accepted = at_.judge(choose, rows, vocabulary, known_, drafted);

    // Both forget what was rejected; neither has read the last token.
    if (!target_->truncate(known_ + accepted)) return false;
    draft_forgets(known_ + accepted);
    detail::count_round(drafted, accepted, known_, counts_);
    return true;
  }
  /// The draft's logits behind the first `end` tokens of the text. Where it has outgrown the draft
  /// they are empty, and nothing is drafted any more.
  std::span<U> draft_behind(index end) {
    const std::span<U> logits = draft_->prefill(at_.first(end).subspan(at(draft_->position())));
    drafting_ = !logits.empty();
    return logits;
  }
  /// Takes back what the draft has read behind the first `end` tokens.
  void draft_forgets(index end) {
    if (draft_->position() > end) drafting_ = drafting_ && draft_->truncate(end);
  }
  /// round() with a tree of drafts. The target's tokens are drawn as without drafts; those in the
  /// tree need no call of their own.
  template <class Sampler>
  bool tree_round(Sampler& choose, index most) {
    if constexpr (M::supports_trees) {
      const index room = (target_->capacity() - target_->position() - 1) / width_;
      const index wanted = (std::min)({drafts_, most - 1, room});
      tree_.begin(at_.text[known_ - 1]);
      for (index drafted = 0; drafting_ && drafted < wanted; ++drafted) {
        const auto logits = draft_behind(known_ + drafted);
        if (logits.empty() || !tree_.grow(logits, width_)) break;
        at_.text[known_ + drafted] = tree_.tokens[tree_.chain];
      }
      auto rows = target_->feed_tree(tree_.all_tokens(), tree_.all_parents());
      if (rows.empty() && tree_.size > 1) {  // the last block may hold one token more
        tree_.begin(at_.text[known_ - 1]);
        rows = target_->feed_tree(tree_.all_tokens(), tree_.all_parents());
      }
      if (rows.empty()) return false;
      index node = 0, accepted = 0, chained = 0;
      for (;; ++accepted) {
        const index end = known_ + accepted, parent = node;
        const token drafted = at_.text[end];
        const auto row = rows.subspan(at(node * vocabulary), at(vocabulary));
        at_.choose_last(choose, row, end);
        if (const index next = tree_.child(node, at_.text[end]); next >= 0) node = next;
        if (node == parent) break;
        if (chained == accepted && at_.text[end] == drafted) ++chained;
      }
      if (!target_->keep_path(node)) return false;
      draft_forgets(known_ + chained);
      detail::count_round(tree_.size - 1, accepted, known_, counts_);
      return true;
    }
    return false;
  }

  session<M, T>* target_;
  session<D, U>* draft_;
  index drafts_, width_;
  memory_block own_;
  buffers at_{};
  detail::draft_tree tree_{};
  index known_ = 0;
  bool drafting_ = false;  ///< the draft can still follow the text
  draft_counts counts_{};
};

LINNET_NAMESPACE_END
