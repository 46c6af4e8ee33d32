// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Log-likelihood of given tokens under a model, on which all evaluation of language models is
/// built.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <linnet/eval/evaluator.hpp>
#include <linnet/generate/samplers.hpp>
#include <linnet/text/token_bytes.hpp>

LINNET_NAMESPACE_BEGIN

/// Score of one token: its log-probability, and whether it was the most likely one.
struct token_score {
  double log_probability = 0;  ///< natural logarithm, given all tokens before it
  bool best = false;           ///< whether greedy decoding would have chosen it
};

/// The score of token `t` under logits [vocabulary]; in double, whatever their type. Of several
/// largest logits the first is the best. NaN where a sampler would find nothing to choose from.
template <class T>
token_score score_of(std::span<T> logits, token t) {
  const token best = detail::most_likely(logits);
  if (best == no_token) return {std::numeric_limits<double>::quiet_NaN(), false};
  const auto top = static_cast<double>(logits[static_cast<std::size_t>(best)]);
  double sum = 0;
  for (const T x : logits) sum += std::exp(static_cast<double>(x) - top);
  return {static_cast<double>(logits[static_cast<std::size_t>(t)]) - top - std::log(sum),
          best == t};
}

/// The score of a token of several bytes under the logits [bytes, byte_values] of its slots. It is
/// the sum over the slots that `rules` count in training: the logarithm of the product of their
/// probabilities. It is the best where each of these slots is.
template <class T>
token_score score_of_bytes(std::span<T> logits, std::span<const token> bytes, byte_rules rules) {
  const auto width = static_cast<std::size_t>(byte_values);
  token_score sum{0, true};
  std::size_t slot = 0;
  detail::each_byte_label(rules, bytes, [&](token label) {
    const auto own = logits.subspan(slot++ * width, width);
    if (label == ignored) return;
    const token_score one = score_of(own, label);
    sum.log_probability += one.log_probability;
    sum.best = sum.best && one.best;
  });
  return sum;
}

/// A scorer of tokens: session_scorer, evaluator_scorer, or a class of your own with the members
/// below.
///  - `longest()`: tokens that a sequence may have. What follows them can still be scored.
///  - `begin(given, scores)`: starts a sequence with at least one token. `scores`, unless empty,
///    receives those of given[1], given[2], …: one less than there are tokens. Without `scores` the
///    given tokens are a prompt: attention::prefix lets them see each other.
///  - `score(rest, scores)`: the scores of tokens behind the given ones. May be called any number
///    of times after begin(): each goes on from the given tokens, not from another's.
/// Both return false, with nothing promised of `scores`, for tokens that the model refuses. Those
/// of linnet also do where memory lacks, and have a member `lacks_memory()` that tells the two
/// apart.
template <class P>
concept loglikelihood_scorer = requires(P& p, std::span<const token> tokens,
                                        std::span<token_score> scores) {
  { p.longest() } -> std::convertible_to<index>;
  { p.begin(tokens, scores) } -> std::same_as<bool>;
  { p.score(tokens, scores) } -> std::same_as<bool>;
};

namespace detail {
/// Numbers that a token of a session consists of; 1 of a class that does not say so.
template <class S>
constexpr index ids_of_token() {
  if constexpr (requires { S::ids_per_token; })
    return S::ids_per_token;
  else
    return 1;
}
/// Words for the tokens that a scorer takes.
inline constexpr const char* scorable =
    "tokens of the model's vocabulary, within its limits and the free blocks of its cache";
/// The error of tokens that a scorer refused.
template <class P>
error not_scored(const P& paths, const char* where, std::string expected) {
  if constexpr (requires { paths.lacks_memory(); })
    if (paths.lacks_memory()) return out_of_memory(where);
  return {errc::invalid, where, "tokens", std::move(expected), "tokens that the model refuses"};
}
}  // namespace detail

/// Tokens behind the given ones, and where their scores go: one for each.
struct continuation {
  std::span<const token> tokens;
  std::span<token_score> scores;
};

/// Scores several continuations of the given tokens: together if `P` has a member score_all(span of
/// continuations), else one after another. False as soon as score() is.
template <loglikelihood_scorer P>
bool score_all(P& paths, std::span<const continuation> all) {
  if constexpr (requires { paths.score_all(all); })
    return paths.score_all(all);
  else
    return std::all_of(all.begin(), all.end(),
                       [&](const continuation& c) { return paths.score(c.tokens, c.scores); });
}

/// Scores tokens with a session, or any class with these members of it: planned, capacity, reset,
/// prefill, feed_all and fork. The common beginning of continuations is computed once. `batch - 1`
/// of them (of the session's limits; at least 1) run together. The last sequence keeps the given
/// tokens while the others go on from them. `logits` tokens of each are fed at a time. The sums of
/// a row may be rounded differently beside others; the same calls with the same limits give the
/// same bits. A session that ends early (session::exit_after) gives the scores of that exit.
///
/// Tokens of a byte_pooled model are ids of a table of their bytes. The score of one is the sum of
/// those of its slots, see score_of_bytes().
template <class S>
class session_scorer {
  using scalar = typename decltype(std::declval<S&>().prefill({}))::element_type;
  static constexpr index id_count = detail::ids_of_token<S>();

 public:
  /// Refers to a session, which must outlive the scorer and serves it alone meanwhile.
  explicit session_scorer(S& session) : session_(&session) {
    if constexpr (requires { S::model::block_tokens; })
      static_assert(S::model::block_tokens == 1,
                    "linnet::session_scorer: tokens of one block see each other, so a score would "
                    "know what it scores; this kind of attention is for masked tokens");
    static_assert(id_count == 1,
                  "linnet::session_scorer: this model's tokens consist of bytes; give their table, "
                  "too: session_scorer(session, token_bytes)");
  }
  /// For a byte_pooled model. `table` must outlive the scorer, too; one with another number of
  /// bytes for each token than the model's has no token that could be scored.
  session_scorer(S& session, const token_bytes& table) : session_(&session), table_(&table) {
    static_assert(id_count > 1,
                  "linnet::session_scorer: this model's tokens are ids; a table of their bytes is "
                  "for byte_pooled models");
  }

  /// Tokens that a sequence may have, see loglikelihood_scorer.
  index longest() const { return session_->capacity(); }
  /// Starts a sequence with the given tokens.
  bool begin(std::span<const token> given, std::span<token_score> scores) LINNET_TRY {
    lacks_memory_ = false;
    session_->reset();
    kept_ = false;
    next_.clear();
    if (given.empty() || (!scores.empty() && scores.size() + 1 != given.size())) return false;
    if (!scores.empty()) {
      const continuation all{given, scores};
      if (!feed({&all, 1})) return false;
      given = given.subspan(given.size() - 1);
    }
    const auto last = session_->prefill(fed(given));
    next_.assign(last.begin(), last.end());
    return !next_.empty();
  }
  LINNET_WITHOUT_MEMORY(lacks_memory_ = true; return false)
  /// Scores one continuation of the given tokens.
  bool score(std::span<const token> rest, std::span<token_score> scores) {
    const continuation one{rest, scores};
    return score_all({&one, 1});
  }
  /// Scores several continuations of the given tokens.
  bool score_all(std::span<const continuation> all) LINNET_TRY {
    lacks_memory_ = false;
    if (next_.empty()) return false;
    waiting_.clear();
    for (const auto& [rest, scores] : all) {
      if (scores.size() != rest.size()) return false;
      if (rest.empty()) continue;
      if (!known(rest[0])) return false;
      scores[0] = one_score(std::span<const scalar>(next_), rest[0]);
      if (rest.size() > 1) waiting_.push_back({rest, scores.subspan(1)});
    }
    // The longest first: those that have tokens left are always the first of their batch.
    std::sort(waiting_.begin(), waiting_.end(),
              [](const auto& a, const auto& b) { return a.tokens.size() > b.tokens.size(); });
    const index keeper = session_->planned().batch - 1;
    for (std::span<const continuation> rest = waiting_; !rest.empty();) {
      if (keeper < 1 || !(kept_ || session_->fork(0, keeper))) return false;
      kept_ = true;
      const auto together = rest.first((std::min)(rest.size(), static_cast<std::size_t>(keeper)));
      for (index b = 0; b < std::ssize(together); ++b)
        if (!session_->fork(keeper, b)) return false;
      if (!feed(together)) return false;
      rest = rest.subspan(together.size());
    }
    return true;
  }
  LINNET_WITHOUT_MEMORY(lacks_memory_ = true; return false)
  /// Whether the last call returned false because memory lacked.
  bool lacks_memory() const { return lacks_memory_; }

 private:
  /// Whether a token can be scored.
  bool known(token t) const {
    if constexpr (id_count > 1)
      return t >= 0 && t < table_->vocabulary() && table_->bytes_per_token() == id_count;
    else
      return t >= 0 && static_cast<std::size_t>(t) < next_.size();
  }
  /// Tokens as the session reads them: themselves, or their bytes; none where one is unknown.
  std::span<const token> fed(std::span<const token> tokens) {
    if constexpr (id_count > 1) {
      bytes_.clear();
      for (const token t : tokens) {
        if (!known(t)) return {};
        bytes_.insert(bytes_.end(), (*table_)[t].begin(), (*table_)[t].end());
      }
      return bytes_;
    } else {
      return tokens;
    }
  }
  /// The score of a known token under the logits of one.
  template <class U>
  token_score one_score(std::span<U> logits, token t) const {
    if constexpr (id_count > 1)
      return score_of_bytes(logits, (*table_)[t], S::model::pooling.rules);
    else
      return score_of(logits, t);
  }
  /// Feeds the tokens of a batch, the longest first, and scores the token behind each.
  bool feed(std::span<const continuation> batch) {
    const auto most = static_cast<std::size_t>(session_->planned().max_logits);
    for (std::size_t at = 0; at + 1 < batch[0].tokens.size();) {
      while (batch.back().tokens.size() <= at + 1) batch = batch.first(batch.size() - 1);
      const std::size_t length = (std::min)(most, batch[0].tokens.size() - 1 - at);
      inputs_.assign(batch.size() * length, 0);
      lengths_.clear();
      for (const continuation& c : batch) {
        const auto part = c.tokens.subspan(at, (std::min)(length, c.tokens.size() - 1 - at));
        std::copy(part.begin(), part.end(),
                  inputs_.begin() + static_cast<index>(lengths_.size() * length));
        lengths_.push_back(std::ssize(part));
      }
      const auto logits = session_->feed_all(fed(inputs_), std::ssize(batch), lengths_);
      if (logits.empty()) return false;
      const std::size_t size = logits.size() / inputs_.size();
      for (std::size_t b = 0; b < batch.size(); ++b)
        for (std::size_t i = 0; i < static_cast<std::size_t>(lengths_[b]); ++i) {
          const token t = batch[b].tokens[at + i + 1];
          if constexpr (id_count > 1) {
            if (!known(t)) return false;
          } else {
            if (t < 0 || static_cast<std::size_t>(t) >= size) return false;
          }
          batch[b].scores[at + i] = one_score(logits.subspan((b * length + i) * size, size), t);
        }
      at += length;
    }
    return true;
  }

  S* session_;
  const token_bytes* table_ = nullptr;             ///< of a byte_pooled model
  std::vector<std::remove_const_t<scalar>> next_;  ///< logits behind the given tokens, or none
  bool kept_ = false;                              ///< the last sequence holds the given tokens
  bool lacks_memory_ = false;
  std::vector<continuation> waiting_;  ///< tokens from the given's last on; scores behind each
  std::vector<token> inputs_;          ///< [batch, length]
  std::vector<index> lengths_;         ///< [batch]
  std::vector<token> bytes_;           ///< [tokens, slots] of what is fed
};

/// Scores tokens with an evaluator, which computes all tokens anew in each call: for kinds of
/// attention that a session cannot run. One pass over a sequence, which is filled up to a multiple
/// of `multiple`.
template <class M, class T = float>
class evaluator_scorer {
  static_assert(std::is_same_v<typename M::batch, decoder_batch>,
                "linnet::evaluator_scorer: the model must be a decoder");
  static_assert(M::block_tokens == 1,
                "linnet::evaluator_scorer: tokens of one block see each other, so a score would "
                "know what it scores; this kind of attention is for masked tokens");
  static_assert(
      M::causal || M::block_tokens > 1,
      "linnet::evaluator_scorer: in whole sequences this kind of attention groups tokens "
      "by later ones, so a score would know what it scores; session_scorer, or the kind's "
      "frozen form, know only what came before");
  static constexpr bool prefixed = M::takes_prefix;

 public:
  /// Scores sequences of up to `l.target` tokens (0: the model's context), or the last multiple of
  /// `multiple` below it; its batch is 1. `p` must outlive it. Errors: those of evaluator::open,
  /// and errc::invalid for a multiple outside 1 to that length.
  static result<evaluator_scorer> open(const packed<M, T>& p, limits l,
                                       index multiple = 1) LINNET_TRY {
    l.batch = 1;
    auto e = evaluator<M, T>::open(p, l);
    if (!e) return e.error();
    const index longest = M::longest(l);
    if (multiple < 1 || multiple > longest)
      return error{errc::invalid, "evaluator_scorer::open", "multiple",
                   "1 to " + std::to_string(longest), std::to_string(multiple)};
    return evaluator_scorer(*std::move(e), longest / multiple * multiple, multiple);
  }
  LINNET_OR_OUT_OF_MEMORY("evaluator_scorer::open")
  /// Refuses in words what is no variable of packed weights of this type.
  template <class W>
  requires linnet::detail::unfit_weights<W, M, T>
  static result<evaluator_scorer> open(W&&, limits, index = 1) {
    return linnet::detail::refuse_weights<W, M, T>();
  }

  /// Tokens that a sequence may have, see loglikelihood_scorer.
  index longest() const { return longest_; }
  /// Starts a sequence with the given tokens.
  bool begin(std::span<const token> given, std::span<token_score> scores) LINNET_TRY {
    lacks_memory_ = false;
    given_.clear();  // and stays so where memory lacks
    given_.assign(given.begin(), given.end());
    prefix_ = scores.empty() ? std::ssize(given) : 0;
    if (given.empty() || (!scores.empty() && scores.size() + 1 != given.size())) return false;
    return scores.empty() || run(given.subspan(1), 0, scores);
  }
  LINNET_WITHOUT_MEMORY(lacks_memory_ = true; return false)
  /// Scores one continuation of the given tokens.
  bool score(std::span<const token> rest, std::span<token_score> scores) LINNET_TRY {
    lacks_memory_ = false;
    if (given_.empty() || scores.size() != rest.size()) return false;
    const std::size_t given = given_.size();
    given_.insert(given_.end(), rest.begin(), rest.end());
    const bool done = rest.empty() || run(rest, static_cast<index>(given) - 1, scores);
    given_.resize(given);
    return done;
  }
  LINNET_WITHOUT_MEMORY(lacks_memory_ = true; return false)
  /// Whether the last call returned false because memory lacked.
  bool lacks_memory() const { return lacks_memory_; }

 private:
  evaluator_scorer(evaluator<M, T>&& e, index longest, index multiple)
      : evaluator_(std::move(e)), longest_(longest), multiple_(multiple) {}

  /// Scores the last tokens of given_; the first of them stands behind given_[first].
  bool run(std::span<const token> labels, index first, std::span<token_score> scores) LINNET_TRY {
    const index n = std::ssize(given_) - 1, length = (n + multiple_ - 1) / multiple_ * multiple_;
    inputs_.assign(given_.begin(), given_.end() - 1);
    inputs_.resize(static_cast<std::size_t>(length));
    ignored_.assign(static_cast<std::size_t>(length), ignored);
    logits_.resize(static_cast<std::size_t>(length * M::vocabulary));
    if (n < 1 || n > longest_ ||
        !linnet::tokens_fit(labels.data(), std::ssize(labels), M::vocabulary, false))
      return false;
    // Only the logits are wanted; a loss that is not a number says that the tokens were refused.
    if (!is_finite(
            evaluator_
                .loss({inputs_.data(), ignored_.data(), 1, length, prefixed ? &prefix_ : nullptr},
                      logits_)
                .nats))
      return false;
    for (std::size_t i = 0; i < labels.size(); ++i)
      scores[i] =
          score_of(std::span<const T>(logits_).subspan((static_cast<std::size_t>(first) + i) *
                                                           static_cast<std::size_t>(M::vocabulary),
                                                       static_cast<std::size_t>(M::vocabulary)),
                   labels[i]);
    return true;
  }
  LINNET_WITHOUT_MEMORY(lacks_memory_ = true; return false)

  evaluator<M, T> evaluator_;
  index longest_, multiple_;
  index prefix_ = 0;  ///< given tokens that see each other
  bool lacks_memory_ = false;
  std::vector<token> given_, inputs_, ignored_;
  std::vector<T> logits_;
};

namespace detail {
/// The windows in which `scores` tokens are scored, see score_windows().
struct window_plan {
  index scores = 0, longest = 1, stride = 1;

  constexpr window_plan(index of_scores, index of_window, index asked)
      : scores(of_scores),
        longest(of_window),
        stride(asked > 0 ? asked : (std::max)(of_window / 2, index{1})) {}
  constexpr bool valid() const { return scores >= 0 && longest >= 1 && stride <= longest; }
  /// Number of windows.
  constexpr index count() const {
    if (scores <= longest) return scores > 0 ? 1 : 0;
    return 1 + (scores - longest + stride - 1) / stride;
  }
  /// The first token of window `i`.
  constexpr index first(index i) const { return i * stride; }
  /// The first score that window `i` gives; all of them for i = count().
  constexpr index scores_before(index i) const {
    return i == 0 ? 0 : (std::min)(first(i - 1) + longest, scores);
  }
};
/// score_windows() for functions that report a lack of memory themselves, in the windows [from, to)
/// of a plan.
template <loglikelihood_scorer P>
bool score_some_windows(P& paths, std::span<const token> tokens, std::span<token_score> scores,
                        const window_plan& plan, std::pair<index, index> some) {
  const auto at = [](index i) { return static_cast<std::size_t>(i); };
  std::vector<token_score> window;
  for (index i = some.first; i < some.second; ++i) {
    const index first = plan.first(i), end = plan.scores_before(i + 1);
    window.resize(at(end - first));  // its last token only gets a score
    const std::span<token_score> all(window);
    if (!paths.begin(tokens.subspan(at(first), at(end - first)), all.first(all.size() - 1)) ||
        !paths.score(tokens.subspan(at(end), 1), all.last(1)))
      return false;
    for (index done = plan.scores_before(i); done < end; ++done)
      scores[at(done)] = window[at(done - first)];
  }
  return true;
}
/// score_windows() for functions that report a lack of memory themselves.
template <loglikelihood_scorer P>
bool score_all_windows(P& paths, std::span<const token> tokens, std::span<token_score> scores,
                       index stride = 0) {
  const window_plan plan(std::ssize(tokens) - 1, paths.longest(), stride);
  return plan.valid() && std::ssize(scores) == plan.scores &&
         score_some_windows(paths, tokens, scores, plan, {0, plan.count()});
}
}  // namespace detail

/// Scores all tokens of a sequence but the first, in windows where it is longer than `longest`
/// allows. Windows begin `stride` tokens after each other (1 to longest; 0 means half of it). Each
/// token is scored in the first window that reaches it. So it has at least longest - stride + 1
/// tokens before it, or all there are. No window but the first begins with the sequence's first
/// token. `scores` receives tokens.size() - 1 of them. False for tokens that are refused, or where
/// memory lacks.
template <loglikelihood_scorer P>
bool score_windows(P& paths, std::span<const token> tokens, std::span<token_score> scores,
                   index stride = 0) LINNET_TRY {
  return detail::score_all_windows(paths, tokens, scores, stride);
}
LINNET_WITHOUT_MEMORY(return false)

LINNET_NAMESPACE_END
