#pragma once
/// @file
/// Inference: a session owns all mutable state of one running model and shares the constant packed
/// weights with any number of others.

#include <type_traits>

#include <linnet/generate/samplers.hpp>
#include <linnet/model/buffers.hpp>

LINNET_NAMESPACE_BEGIN

/// When generation ends.
struct generation {
  index tokens = 0;                  ///< most tokens to generate; 0 means as many as fit
  std::span<const token> stop = {};  ///< tokens that end it; they are not passed on
};

/// Runs model `M` token by token with a key-value cache. A session is planned once for its limits;
/// afterwards nothing allocates. Not for use by two threads at once; open a second session instead.
template <class M, class T = float>
class session {
  using S = storage_of<M, T>;
  static constexpr bool encodes = M::family == model_family::t5;

 public:
  using model = M;

  /// Exact bytes that a session with these limits allocates, or that a caller's memory must have.
  static constexpr index footprint(const limits& l) {
    return detail::plan_for<M, T>(l, purpose::decoding).total() + extra_bytes(l);
  }

  /// A session with memory of its own. `p` must outlive it.
  static result<session> open(const packed<M, T>& p, const limits& l) {
    if (auto fit = detail::acceptable<M>("session::open", l); !fit) return fit.error();
    if (!p.valid())
      return linnet::error{errc::invalid, "session::open", "packed weights", "valid weights",
                           "none"};
    memory_block memory(footprint(l));
    if (!memory.data()) return detail::out_of_memory("session::open", footprint(l));
    session s(p, l, memory.data(), private_tag{});
    s.own_ = std::move(memory);
    return s;
  }
  /// A session in the caller's zeroed memory of at least footprint(l) bytes, aligned to
  /// `alignment`. Cannot fail.
  session(const packed<M, T>& p, const limits& l, std::span<std::byte> memory)
      : session(p, l, memory.data(), private_tag{}) {
    assert(static_cast<index>(memory.size()) >= footprint(l) &&
           "linnet::session: the span is smaller than footprint()");
  }

  /// Forgets everything fed so far.
  void reset() {
    std::fill_n(past_, limits_.batch, index{0});
    memory_cached_ = false;
  }
  /// Tokens fed so far to sequence `b`.
  index position(index b = 0) const { return past_[b]; }
  /// Most tokens that a sequence can be fed.
  index capacity() const {
    if constexpr (encodes)
      return limits_.target;
    else
      return M::longest(limits_);
  }

  /// Takes back the last tokens of sequence `b`, so that `length` remain. Not there for models with
  /// a recurrent state, which cannot forget: reset() and feed again.
  void truncate(index length, index b = 0) requires(M::rewinds) {
    if (length >= 0 && length < past_[b]) past_[b] = length;
  }

  /// Encodes one source (encoder-decoders) and starts a new target. False, and nothing done, for a
  /// source that is empty, too long or holds tokens outside the vocabulary.
  bool encode(std::span<const token> source) requires(encodes) {
    const auto length = static_cast<index>(source.size());
    return encode(source, 1, {&length, 1});
  }
  /// Encodes [batch, length] sources, padded on the right to one length, and starts new targets.
  bool encode(std::span<const token> source, index batch,
              std::span<const index> lengths) requires(encodes) {
    const index length = batch > 0 ? static_cast<index>(source.size()) / batch : 0;
    if (batch > limits_.batch || length < 1 || length > limits_.source || !in_vocabulary(source) ||
        static_cast<index>(lengths.size()) < batch)
      return false;
    for (index b = 0; b < batch; ++b)
      if (lengths[static_cast<std::size_t>(b)] < 1 || lengths[static_cast<std::size_t>(b)] > length)
        return false;
    reset();
    memory_length_ = length;
    std::copy_n(lengths.data(), batch, memory_lengths_);
    run(limits_, work_.converted, flops(batch, length, 0), [&](const ops::machine& on) {
      M::template encode<T, S>(packed_->tree(), source.data(), batch, memory_length_,
                               memory_lengths_, work_.work, on);
    });
    return true;
  }

  /// Feeds tokens to the one sequence; returns the logits [vocabulary] of what follows them, valid
  /// (and yours to overwrite) until the next call. Empty, and nothing done, for tokens that do not
  /// fit the capacity or the vocabulary, or before a source is encoded.
  std::span<T> feed(std::span<const token> tokens) { return feed(tokens, 1, {}); }
  /// Feeds [batch, length] tokens, padded on the right; `lengths` (valid tokens of each sequence,
  /// at least 1) may be empty when all are valid. Returns logits [batch, vocabulary].
  std::span<T> feed(std::span<const token> tokens, index batch, std::span<const index> lengths) {
    const index length = batch > 0 ? static_cast<index>(tokens.size()) / batch : 0;
    if (batch > limits_.batch || length < 1 || !in_vocabulary(tokens) ||
        (encodes && memory_length_ == 0) ||
        (!lengths.empty() && static_cast<index>(lengths.size()) < batch))
      return {};
    for (index b = 0; b < batch; ++b) {
      if (past_[b] + length > capacity()) return {};
      if (!lengths.empty() && (lengths[static_cast<std::size_t>(b)] < 1 ||
                               lengths[static_cast<std::size_t>(b)] > length))
        return {};
    }
    const index* const valid = lengths.empty() ? nullptr : lengths.data();
    run(limits_, work_.converted, flops(batch, 0, length), [&](const ops::machine& on) {
      if constexpr (encodes)
        M::template step<T, S>(packed_->tree(), tokens.data(), batch, length, valid, past_,
                               memory_length_, memory_lengths_, memory_cached_, work_.work, on);
      else
        M::template step<T, S>(packed_->tree(), tokens.data(), batch, length, valid, past_,
                               work_.work, on);
    });
    memory_cached_ = true;
    for (index b = 0; b < batch; ++b) past_[b] += valid ? valid[b] : length;
    return {work_.work.logits, static_cast<std::size_t>(batch * M::vocabulary)};
  }

  /// Generates after `tokens`: the prompt of a decoder (at least one token), the source of an
  /// encoder-decoder. Calls `emit(token)` for each new token as it is chosen; `emit` may return
  /// false to end. Returns the number of tokens passed to `emit`; 0 if `tokens` do not fit.
  template <class Sampler, class Emit>
  index generate(std::span<const token> tokens, Sampler&& choose, Emit&& emit,
                 const generation& g = {}) {
    std::span<T> logits;
    if constexpr (encodes) {
      if (!encode(tokens)) return 0;
      const token first = M::start;
      logits = feed({&first, 1});
    } else {
      reset();
      logits = feed(tokens);
    }
    if (logits.empty()) return 0;
    const std::span<token> scratch(order_, static_cast<std::size_t>(M::vocabulary));
    for (index n = 0;; ++n) {
      if (g.tokens > 0 && n == g.tokens) return n;
      const token next = choose(logits, scratch);
      if (std::find(g.stop.begin(), g.stop.end(), next) != g.stop.end()) return n;
      if constexpr (std::is_void_v<decltype(emit(next))>) {
        emit(next);
      } else {
        if (!emit(next)) return n + 1;
      }
      if (position() >= capacity() || n + 1 == g.tokens) return n + 1;
      logits = feed({&next, 1});
    }
  }

 private:
  static constexpr index extra_bytes(const limits& l) {
    arena counter;
    (void)counter.take<index>(l.batch);
    (void)counter.take<index>(l.batch);
    (void)counter.take<token>(M::vocabulary);
    return counter.peak();
  }
  struct private_tag {};
  session(const packed<M, T>& p, const limits& l, void* memory, private_tag)
      : packed_(&p), limits_(l) {
    const index planned = detail::plan_for<M, T>(l, purpose::decoding).total();
    arena extra(static_cast<std::byte*>(memory) + planned, extra_bytes(l));
    work_ = detail::place_workspace<M, T>(l, purpose::decoding, memory);
    past_ = extra.take<index>(l.batch);
    memory_lengths_ = extra.take<index>(l.batch);
    order_ = extra.take<token>(M::vocabulary);
    reset();
  }
  /// Work of a call that reads `source` tokens or continues targets by `target` ones.
  static constexpr index flops(index batch, index source, index target) {
    if constexpr (encodes)
      return M::flops(batch, source, target);
    else
      return M::flops(batch, target);
  }
  static bool in_vocabulary(std::span<const token> tokens) {
    return std::all_of(tokens.begin(), tokens.end(),
                       [](token t) { return t >= 0 && t < M::vocabulary; });
  }

  const packed<M, T>* packed_;
  limits limits_;
  memory_block own_;
  detail::placed_workspace<M, T> work_{};
  index* past_ = nullptr;            ///< [batch]
  index* memory_lengths_ = nullptr;  ///< [batch]
  token* order_ = nullptr;           ///< [vocabulary] scratch of samplers
  index memory_length_ = 0;
  bool memory_cached_ = false;
};

LINNET_NAMESPACE_END
