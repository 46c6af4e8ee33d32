// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Batches that the student writes itself, for on-policy distillation (GKD, Agarwal et al. 2024).

#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <linnet/generate/session.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of on_policy.
struct on_policy_options {
  double share = 0.5;        ///< lambda: probability that a step's batch is a written one
  double temperature = 0.9;  ///< of sampling; the loss has one of its own
  index prompt = 1;          ///< fewest inputs of a sequence that are kept; a T5 has none
  token end = no_token;      ///< a text ends behind this token; none by default
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("share", self.share, detail::between(0, 1, "0 never samples"));
    f("temperature", self.temperature, detail::at_least(0, "0 is greedy"));
    f("prompt", self.prompt, detail::count(1));
  }
};

namespace detail {

/// Checks the token that texts of model `M` end behind; `options` names the caller's.
template <class M>
result<void> acceptable_end(const char* where, const char* options, token end) {
  if (end == no_token || (end >= 0 && end < M::vocabulary)) return {};
  return linnet::error{errc::invalid, where, std::string(options) + ".end",
                       "no_token or a token of the vocabulary", std::to_string(end)};
}

/// A number that depends on a seed and three counters alone.
inline std::uint64_t rollout_bits(std::uint64_t key, index step, index sequence, index row) {
  const auto both = [](random_stream from) {
    const std::uint64_t high = from.bits();
    return high << 32 | from.bits();
  };
  const std::uint64_t of_step =
      both(random_stream(seed{key}, stream_of("rollout") + static_cast<std::uint64_t>(step)));
  return both(random_stream(
      seed{of_step}, static_cast<std::uint64_t>(sequence) << 32 | static_cast<std::uint64_t>(row)));
}

/// Why a model cannot write the texts of a batch within these limits.
template <class M>
refusal rollout_refusal(const typename M::batch& b, const limits& l) {
  const refusal why = refusal_of<M>(b, l);
  return why == refusal::none && has_documents(b) ? refusal::documents_written : why;
}

/// Copies of batches in which what follows the prompts is chosen token by token. A prompt ends
/// where the labels begin to count.
template <class M>
class rollout {
  static_assert(M::ids_per_token == 1 && !M::takes_prefix,
                "linnet: a model of tokens without a prefix writes the texts");

 public:
  using batch = typename M::batch;
  /// Whether a batch says what its rows read. Those of a T5 read the labels before them.
  static constexpr bool has_inputs = requires(const batch& b) { b.tokens; };

  constexpr rollout() = default;
  /// Takes its memory for batches up to these limits from an arena.
  constexpr rollout(arena& from, const limits& l) {
    const index all = l.batch * M::longest(l);
    tokens_ = from.take<token>(all);
    labels_ = from.take<token>(all);
    fed_ = from.take<token>(all);
    begins_ = from.take<index>(l.batch);
  }

  /// Writes behind the prompts of `b`, which the model accepts. `feed(tokens, sequences)` feeds
  /// [sequences, length] tokens. `choose(sequence, row)` returns what follows a row; `ignored` ends
  /// the sequence before it, `no_token` the whole. Whether both always answered.
  template <class Feed, class Choose>
  bool write(const batch& b, index prompt, token end, Feed&& feed, Choose&& choose) {
    const index length = labels_per_sequence<M>(b), count = b.batch;
    index common = length;
    for (index s = 0; s < count; ++s) {
      const token* const labels = b.labels + s * length;
      index begin = 0;
      while (begin < length && labels[begin] == ignored) ++begin;
      if (has_inputs && begin < length) begin = (std::max)(begin, (std::min)(prompt, length) - 1);
      begins_[s] = begin;
      common = (std::min)(common, begin);
      std::fill_n(labels_ + s * length, length, ignored);
      for (index i = 0; i < length; ++i)
        tokens_[s * length + i] = i > begin ? 0 : given(b, s * length + i);
    }
    open_ = std::count_if(begins_, begins_ + count, [&](index n) { return n < length; });
    if (open_ == 0) return true;
    for (index s = 0; s < count; ++s)
      for (index i = 0; i <= common; ++i) fed_[s * (common + 1) + i] = tokens_[s * length + i];
    if (!feed({fed_, static_cast<std::size_t>(count * (common + 1))}, count)) return false;
    for (index i = common;; ++i) {
      for (index s = 0; s < count; ++s) {
        const index row = s * length + i;
        if (i < begins_[s]) continue;
        const token next = choose(s, i);
        if (next == no_token) return false;
        labels_[row] = next;
        if (i + 1 < length && next != ignored) tokens_[row + 1] = next;
        if (next == end || next == ignored || i + 1 == length) {
          begins_[s] = length;
          --open_;
        }
      }
      if (open_ == 0) return true;
      for (index s = 0; s < count; ++s) fed_[s] = tokens_[s * length + i + 1];
      if (!feed({fed_, static_cast<std::size_t>(count)}, count)) return false;
    }
  }
  /// A batch with the texts of write().
  batch written(const batch& b) const {
    batch made = b;
    made.labels = labels_;
    if constexpr (has_inputs) made.tokens = tokens_;
    return made;
  }

 private:
  /// The input of a row of a prompt; a T5 reads its start token.
  static token given(const batch& b, index row) {
    if constexpr (has_inputs)
      return b.tokens[row];
    else
      return M::start;
  }

  token *tokens_ = nullptr, *labels_ = nullptr, *fed_ = nullptr;
  index* begins_ = nullptr;  ///< row of a sequence that is chosen first; its length behind the end
  index open_ = 0;           ///< sequences that go on
};

/// A session that a rollout is written with, and its logits.
template <class M, class T>
struct rollout_reader {
  static_assert(M::block_tokens == 1,
                "linnet: tokens of one block see each other, so texts are not written one token "
                "after the other");

  session<M, T> run;
  std::span<T> logits{};

  /// Begins with the batch.
  bool begin(const typename M::batch& b) {
    if constexpr (M::encodes) {
      for (index i = 0; i < b.batch; ++i)
        lengths[i] = b.source_lengths ? b.source_lengths[i] : b.source_length;
      return run.encode({b.source, static_cast<std::size_t>(b.batch * b.source_length)}, b.batch,
                        {lengths, static_cast<std::size_t>(b.batch)});
    } else {
      run.reset();
      return true;
    }
  }
  /// Feeds [sequences, length] tokens.
  bool feed(std::span<const token> tokens, index sequences) {
    logits = run.feed(tokens, sequences, {});
    return !logits.empty();
  }
  /// The logits behind the last token of a sequence.
  std::span<T> row(index sequence) const {
    return logits.subspan(static_cast<std::size_t>(sequence * M::vocabulary),
                          static_cast<std::size_t>(M::vocabulary));
  }

  index* lengths = nullptr;  ///< [batch] of sources
};

}  // namespace detail

/// Lets a model of packed weights, such as trainer::current() of the student, write the batches of
/// some steps (Agarwal et al. 2024, algorithm 1). What follows the prompts of a batch is drawn from
/// the model. The loss is that of any objective, such as distillation by divergence::jsd; no
/// gradient goes through the draws. The texts are a function of seed, step, weights and prompts
/// alone, for any number of threads. So a run that is resumed goes on with the same bits. Opened on
/// the teacher's weights, it gives the texts of sequence-level distillation.
template <class M, class T = float>
class on_policy {
 public:
  using batch = typename M::batch;

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) {
    return add_sizes(session<M, T>::footprint(l), detail::bounded_bytes(l, own_bytes));
  }
  /// Opens it for batches up to these limits. The packed weights must outlive it and not move; they
  /// may change between calls. Errors: errc::invalid for options and limits out of their range, the
  /// error of the weights, errc::out_of_memory.
  static result<on_policy> open(std::reference_wrapper<const packed<M, T>> p, const limits& l,
                                const on_policy_options& how = {}) LINNET_TRY {
    constexpr const char* where = "on_policy::open";
    if (auto fit = detail::acceptable(where, "on_policy_options", how); !fit) return fit.error();
    if (auto fit = detail::acceptable_end<M>(where, "on_policy_options", how.end); !fit)
      return fit.error();
    auto run = session<M, T>::open(p.get(), l);
    if (!run) return run.error();
    memory_block memory(own_bytes(l));
    if (!memory.data()) return detail::out_of_memory(where, footprint(l));
    return on_policy(std::move(*run), std::move(memory), how);
  }
  LINNET_OR_OUT_OF_MEMORY("on_policy::open")

  /// Whether the batch of a step is written by the model.
  bool writes(index step) const {
    random_stream draw(seed{detail::rollout_bits(how_.seed, step, -1, 0)});
    return draw.uniform() < how_.share;
  }
  /// The batch of a step: `b`, or its prompts with what the model writes behind them. It refers to
  /// memory of this object until the next call. A batch that does not fit, or has documents,
  /// becomes one of no sequences, which trainers refuse; last_refusal() says why.
  batch next(index step, const batch& b) {
    why_ = {};
    if (!writes(step)) return b;
    const sampling_options draw{.temperature = how_.temperature};
    const refusal refused = detail::rollout_refusal<M>(b, reader_.run.planned());
    if (refused != refusal::none) {
      why_ = to_string(refused);
      return {};
    }
    const bool done =
        reader_.begin(b) &&
        places_.text.write(
            b, how_.prompt, how_.end,
            [&](std::span<const token> tokens, index count) { return reader_.feed(tokens, count); },
            [&](index sequence, index row) {
              sampling_options own = draw;
              own.seed = detail::rollout_bits(how_.seed, step, sequence, row);
              return sampler(own)(reader_.row(sequence),
                                  {places_.order, static_cast<std::size_t>(M::vocabulary)});
            });
    if (done) return places_.text.written(b);
    why_ = reader_.run.last_refusal();
    if (why_.empty()) why_ = to_string(refusal::nothing_chosen);
    return {};
  }
  /// Why the last call of next() gave no batch; empty after one that did. Static text.
  std::string_view last_refusal() const noexcept { return why_; }
  /// The options that it was opened with.
  const on_policy_options& settings() const { return how_; }

 private:
  /// Where things are in its memory.
  struct places {
    detail::rollout<M> text;
    token* order;
    index* lengths;
  };
  static constexpr places place(arena& from, const limits& l) {
    return {detail::rollout<M>(from, l), from.take<token>(M::vocabulary),
            from.take<index>(l.batch)};
  }
  static constexpr index own_bytes(const limits& l) {
    arena counter;
    (void)place(counter, l);
    return counter.peak();
  }
  on_policy(session<M, T>&& run, memory_block&& memory, const on_policy_options& how)
      : how_(how), memory_(std::move(memory)), reader_{std::move(run)} {
    arena all(memory_.data(), memory_.size());
    places_ = place(all, reader_.run.planned());
    reader_.lengths = places_.lengths;
  }

  on_policy_options how_;
  memory_block memory_;
  detail::rollout_reader<M, T> reader_;
  places places_{};
  std::string_view why_{};
};

LINNET_NAMESPACE_END
