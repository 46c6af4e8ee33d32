#pragma once
/// @file
/// Inference: a session owns all mutable state of one running model and shares the constant packed
/// weights with any number of others.

#include <algorithm>
#include <type_traits>

#include <linnet/generate/block_tables.hpp>
#include <linnet/generate/samplers.hpp>
#include <linnet/model/buffers.hpp>

LINNET_NAMESPACE_BEGIN

/// When generation ends.
struct generation {
  index tokens = 0;                  ///< most tokens to generate; 0 means as many as fit
  std::span<const token> stop = {};  ///< tokens that end it; they are not passed on

  /// Whether `t` ends generation: a stop token, or `no_token`.
  bool stops(token t) const {
    return t == no_token || std::find(stop.begin(), stop.end(), t) != stop.end();
  }

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("tokens", self.tokens, detail::count(0, "0: as many as fit"));
  }
};

namespace detail {
/// Calls emit(t); false if it asks to end.
template <class Emit, class Value>
bool goes_on(Emit& emit, const Value& t) {
  if constexpr (std::is_void_v<decltype(emit(t))>) {
    emit(t);
    return true;
  } else {
    return static_cast<bool>(emit(t));
  }
}
/// Numbers that a token of model `M` consists of: one id, but of byte_pooled models a token's
/// bytes.
template <class M>
constexpr index slots_of() {
  if constexpr (requires { M::slots; })
    return M::slots;
  else
    return 1;
}
}  // namespace detail

/// Runs model `M` token by token with a key-value cache. A session is planned once for its limits;
/// afterwards nothing allocates. Not for use by two threads at once; open a second session instead.
template <class M, class T = float>
class session {
  template <class Model, class Scalar>
  friend class self_speculative;
  using S = storage_of<M, T>;
  static constexpr bool encodes = M::family == model_family::t5;
  static constexpr bool continues() {
    if constexpr (encodes)
      return M::decoder_attention::continues;
    else
      return M::attention::continues;
  }
  static_assert(continues(),
                "linnet::session: this kind of attention cannot continue cached sequences, so the "
                "model cannot be run token by token; an evaluator scores whole sequences");

 public:
  using model = M;
  /// Numbers that a token consists of: spans of tokens hold [tokens, slots], spans of logits
  /// [rows, slots, vocabulary].
  static constexpr index slots = detail::slots_of<M>();

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

  /// The limits that it was planned for.
  const limits& planned() const { return limits_; }
  /// Forgets everything fed so far.
  void reset() {
    std::fill_n(past_, limits_.batch, index{0});
    tables_.reset();
    cached_sources_ = 0;
  }
  /// Ends the model (of a decoder) after its first `layers` layers, whose output the final norm and
  /// head then read (LayerSkip, zoo C7), or after all of them again; forgets everything fed so far.
  /// False, and nothing done, for a number outside 1 to the model's layers.
  bool exit_after(index layers) requires(M::family == model_family::decoder) {
    if (layers < 1 || layers > M::shape.layers) return false;
    layers_ = {0, layers};
    reset();
    return true;
  }
  /// Number of tokens fed so far to sequence `b`.
  index position(index b = 0) const { return past_[b]; }
  /// The tokens fed so far to sequence `b`.
  std::span<const token> fed(index b = 0) const {
    return {fed_ + b * capacity() * slots, static_cast<std::size_t>(past_[b] * slots)};
  }
  /// Most tokens that a sequence can be fed.
  index capacity() const { return capacity_for(limits_); }
  /// The same of a session with these limits.
  static constexpr index capacity_for(const limits& l) {
    if constexpr (encodes)
      return l.target;
    else
      return M::longest(l);
  }

  /// Blocks of 32 tokens that are left, where limits.blocks gave some; feed() needs them.
  index free_blocks() const { return tables_.available(); }
  /// Most tokens of a sequence in one call of feed().
  index chunk() const {
    return limits_.chunk > 0 ? (std::min)(limits_.chunk, capacity()) : capacity();
  }

  /// Takes back the last tokens of sequence `b`, so that `length` remain. False, and nothing done,
  /// where a model that forgets old tokens would have to take back more than chunk() of them.
  bool truncate(index length, index b = 0) {
    static_assert(M::rewinds,
                  "linnet::session::truncate: this kind of attention cannot take tokens back");
    if (length < 0 || length > past_[b] || (M::forgets && past_[b] - length > chunk()))
      return false;
    past_[b] = length;
    if (limits_.blocks > 0) tables_.truncate(b, length);
    return true;
  }

  /// Lets sequence `to` continue where sequence `from` is, source included; `from` goes on as
  /// before. Copies only what differs: not the tokens that both begin with, nor a shared source.
  /// False, and nothing done, for sequences outside the limits.
  bool fork(index from, index to) {
    if (from < 0 || to < 0 || from >= limits_.batch || to >= limits_.batch) return false;
    if (from == to) return true;
    const bool same_source = source_of_[from] == source_of_[to];
    const auto a = fed(from), b = fed(to);
    state_part part{.tokens = past_[from], .memory = same_source ? 0 : memory_length_};
    if (same_source)
      part.first =
          (std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin()) / slots;
    M::copy_state(work_.work, from, to, part);
    if (limits_.blocks > 0) tables_.share(from, to);
    std::copy(a.begin(), a.end(), fed_ + to * capacity() * slots);
    past_[to] = past_[from];
    source_of_[to] = source_of_[from];
    memory_lengths_[to] = memory_lengths_[from];
    if (!same_source && from >= cached_sources_)
      cached_sources_ = (std::min)(cached_sources_, to);  // what was there is gone
    else if (!same_source && to == cached_sources_)
      ++cached_sources_;
    return true;
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
    for (index b = 0; b < limits_.batch; ++b) source_of_[b] = b < batch ? b : none;
    std::copy_n(lengths.data(), batch, memory_lengths_);
    run(limits_, work_.converted, flops(batch, length, 0), [&](const ops::machine& on) {
      M::template encode<T, S>(packed_->tree(), source.data(), batch, memory_length_,
                               memory_lengths_, work_.work, on);
    });
    return true;
  }

  /// Feeds tokens to the one sequence; returns the logits [vocabulary] of what follows them, valid
  /// (and yours to overwrite) until the next call. Empty, and nothing done, for tokens that do not
  /// fit the capacity, the free blocks or the vocabulary, or before a source is encoded.
  std::span<T> feed(std::span<const token> tokens) { return feed(tokens, 1, {}); }
  /// Feeds [batch, length] tokens, padded on the right; `lengths` (valid tokens of each sequence,
  /// at least 1) may be empty when all are valid. Returns logits [batch, vocabulary].
  std::span<T> feed(std::span<const token> tokens, index batch, std::span<const index> lengths) {
    return advance(tokens, batch, lengths, false, layers_);
  }
  /// Feeds any number of tokens to the one sequence, in parts of at most chunk(); returns the
  /// logits of what follows them, empty from the first part on that feed() refuses.
  std::span<T> read(std::span<const token> tokens) {
    std::span<T> logits;
    while (!tokens.empty()) {
      const auto part =
          tokens.first((std::min)(tokens.size(), static_cast<std::size_t>(chunk() * slots)));
      logits = feed(part);
      if (logits.empty()) break;
      tokens = tokens.subspan(part.size());
    }
    return logits;
  }
  /// Feeds tokens to the one sequence, at most limits.logits of them; returns the logits
  /// [length, vocabulary] of what follows each.
  std::span<T> feed_all(std::span<const token> tokens) { return feed_all(tokens, 1, {}); }
  /// Feeds [batch, length] tokens like feed(), with length <= limits.logits; returns logits
  /// [batch * length, vocabulary]. Those behind a sequence's valid tokens mean nothing.
  std::span<T> feed_all(std::span<const token> tokens, index batch,
                        std::span<const index> lengths) {
    return advance(tokens, batch, lengths, true, layers_);
  }

  /// Starts anew with the prompt of a decoder, or with the source of an encoder-decoder and the
  /// start token; returns the logits [vocabulary] of the first new token, empty if `tokens` do not
  /// fit.
  std::span<T> start(std::span<const token> tokens) {
    if constexpr (encodes) {
      const token first = M::start;
      return encode(tokens) ? feed({&first, 1}) : std::span<T>();
    } else {
      reset();
      return read(tokens);
    }
  }

  /// Generates after `tokens`: the prompt of a decoder (at least one token), the source of an
  /// encoder-decoder. Calls `choose(logits, scratch, fed)` (or without `fed`, the tokens so far)
  /// and `emit(token)` for each new token as it is chosen; `emit` may return false to end, `choose`
  /// `no_token`. Returns the number of tokens passed to `emit`; 0 if `tokens` do not fit or
  /// `g.tokens` is negative.
  template <class Sampler, class Emit>
  index generate(std::span<const token> tokens, Sampler&& choose, Emit&& emit,
                 const generation& g = {}) requires(slots == 1) {
    if (!detail::in_range(g)) return 0;
    std::span<T> logits = start(tokens);
    if (logits.empty()) return 0;
    const std::span<token> scratch(order_, static_cast<std::size_t>(M::vocabulary));
    for (index n = 0;; ++n) {
      if (g.tokens > 0 && n == g.tokens) return n;
      const token next = detail::choose_token(choose, logits, scratch, fed());
      if (g.stops(next)) return n;
      if (!detail::goes_on(emit, next)) return n + 1;
      if (position() >= capacity() || n + 1 == g.tokens) return n + 1;
      logits = feed({&next, 1});
    }
  }

 private:
  static constexpr index extra_bytes(const limits& l) {
    arena counter;
    (void)counter.take<index>(l.batch);
    (void)counter.take<index>(l.batch);
    (void)counter.take<index>(l.batch);
    (void)counter.take<token>(l.batch * capacity_for(l) * slots);
    (void)counter.take<token>(M::vocabulary);
    if (l.blocks > 0) (void)block_tables(counter, l.batch, capacity_for(l), l.blocks);
    return counter.peak();
  }
  static constexpr index none = -1;  ///< no source
  struct private_tag {};
  session(const packed<M, T>& p, const limits& l, void* memory, private_tag)
      : packed_(&p), limits_(l) {
    const index planned = detail::plan_for<M, T>(l, purpose::decoding).total();
    arena extra(static_cast<std::byte*>(memory) + planned, extra_bytes(l));
    work_ = detail::place_workspace<M, T>(l, purpose::decoding, memory);
    past_ = extra.take<index>(l.batch);
    memory_lengths_ = extra.take<index>(l.batch);
    source_of_ = extra.take<index>(l.batch);
    fed_ = extra.take<token>(l.batch * capacity_for(l) * slots);
    order_ = extra.take<token>(M::vocabulary);
    if (l.blocks > 0) {
      tables_ = block_tables(extra, l.batch, capacity_for(l), l.blocks);
      work_.work.tables = tables_.data();
      work_.work.table_size = tables_.size();
    }
    reset();
  }
  std::span<T> advance(std::span<const token> tokens, index batch, std::span<const index> lengths,
                       bool every, [[maybe_unused]] const layer_range& part) {
    const index length = batch > 0 ? std::ssize(tokens) / slots / batch : 0;
    if (batch > limits_.batch || length < 1 || length > chunk() ||
        std::ssize(tokens) % slots != 0 || (every && length > limits_.logits) ||
        !in_vocabulary(tokens) || (encodes && memory_length_ == 0) ||
        (!lengths.empty() && static_cast<index>(lengths.size()) < batch))
      return {};
    for (index b = 0; b < batch; ++b) {
      if (past_[b] + length > capacity()) return {};
      if (!lengths.empty() && (lengths[static_cast<std::size_t>(b)] < 1 ||
                               lengths[static_cast<std::size_t>(b)] > length))
        return {};
    }
    const index* const valid = lengths.empty() ? nullptr : lengths.data();
    if (limits_.blocks > 0 &&
        !tables_.reserve(
            batch, [&](index b) { return past_[b]; },
            [&](index b) { return valid ? valid[b] : length; },
            [&](index from, index to) { M::copy_state(work_.work, from, to, {.block = true}); }))
      return {};
    run(limits_, work_.converted, flops(batch, 0, length), [&](const ops::machine& on) {
      if constexpr (encodes)
        M::template step<T, S>(packed_->tree(), tokens.data(), batch, length, valid, past_,
                               memory_length_, memory_lengths_, batch <= cached_sources_,
                               work_.work, on, every);
      else if constexpr (M::family == model_family::decoder)
        M::template step<T, S>(packed_->tree(), tokens.data(), batch, length, valid, past_,
                               work_.work, on, every, part);
      else
        M::template step<T, S>(packed_->tree(), tokens.data(), batch, length, valid, past_,
                               work_.work, on, every);
    });
    cached_sources_ = (std::max)(cached_sources_, batch);
    for (index b = 0; b < batch; ++b) {
      const index count = valid ? valid[b] : length;
      std::copy_n(tokens.data() + b * length * slots, count * slots,
                  fed_ + (b * capacity() + past_[b]) * slots);
      past_[b] += count;
    }
    return {work_.work.logits,
            static_cast<std::size_t>(batch * (every ? length : 1) * slots * M::vocabulary)};
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
  layer_range layers_{};  ///< that feed() runs
  memory_block own_;
  detail::placed_workspace<M, T> work_{};
  block_tables tables_{};
  index* past_ = nullptr;            ///< [batch]
  index* memory_lengths_ = nullptr;  ///< [batch]
  index* source_of_ = nullptr;       ///< [batch] number of the encoded source that it reads
  token* fed_ = nullptr;             ///< [batch, capacity, slots]
  token* order_ = nullptr;           ///< [vocabulary] scratch of samplers
  index memory_length_ = 0;
  index cached_sources_ = 0;  ///< the first so many sequences have cached keys of their source
};

LINNET_NAMESPACE_END
