// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Inference sessions: one object holds all mutable state of a running model and shares constant
/// packed weights with any number of others.

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <linnet/core/refusal.hpp>
#include <linnet/generate/generate_text.hpp>
#include <linnet/generate/samplers.hpp>
#include <linnet/generate/session_state.hpp>

LINNET_NAMESPACE_BEGIN

/// Inference session of model `M`: runs it token by token with a key-value cache. A session is
/// planned once for its limits; afterwards nothing allocates. Not for use by two threads at once;
/// open a second session instead.
template <class M, class T = float>
class session : detail::session_state<M, T> {
  template <class Model, class Scalar>
  friend class self_speculative;
  template <class Session>
  friend void detail::refuse(Session&, refusal) noexcept;
  using state = detail::session_state<M, T>;
  using S = storage_of<M, T>;
  using state::checked;
  using state::forget_tree;
  using state::has;
  using state::length_of;
  using state::refuses;
  using state::refuses_all;
  using state::rows_for;
  using state::sees;
  static_assert(detail::check_decoding_model<M, T, S>() && detail::profile_is_kept<M, S>());
  static constexpr bool encodes = M::encodes;

 public:
  using model = M;
  /// Ids of one token: 1, or the bytes of a byte_pooled model's. Spans of tokens are [tokens,
  /// ids_per_token], spans of logits [rows, ids_per_token, vocabulary].
  static constexpr index ids_per_token = M::ids_per_token;
  /// Whether a prompt's tokens see each other, so that it has to come in one call.
  static constexpr bool takes_prefix = M::takes_prefix;

  /// Exact bytes that a session with these limits allocates, or that a caller's memory must have.
  static constexpr index footprint(const limits& l) {
    return detail::bounded_bytes(l, [](const limits& some) {
      return add_sizes(detail::plan_for<M, T>(some, purpose::decoding).total(), extra_bytes(some));
    });
  }

  /// Opens a session that allocates its memory: footprint(l) bytes, once. `p` must outlive it.
  /// Errors: errc::invalid for limits that make no sense for the model, by the name of the field.
  /// Also errc::out_of_memory, and the error of `p` if it is not valid().
  LINNET_COLD static result<session> open(const packed<M, T>& p, const limits& l) LINNET_TRY {
    if (auto fit = acceptable(p, l); !fit) return fit.error();
    memory_block memory(footprint(l));
    if (!memory.data()) return detail::out_of_memory("session::open", footprint(l));
    session s(p, l, memory.data(), private_tag{});
    s.own_ = std::move(memory);
    return s;
  }
  LINNET_OR_OUT_OF_MEMORY("session::open")
  /// Opens a session in the caller's memory: at least footprint(l) bytes, aligned to `alignment`.
  /// Memory and `p` must outlive the session. Nothing is written to memory that is too small.
  /// Errors: as above, and errc::invalid for memory that is too small or not aligned.
  LINNET_COLD static result<session> open(const packed<M, T>& p, const limits& l,
                                          std::span<std::byte> memory) LINNET_TRY {
    if (auto fit = acceptable(p, l); !fit) return fit.error();
    if (auto fit = detail::fits_memory("session::open", memory.data(), memory.size(),
                                       "session::footprint(limits)", footprint(l));
        !fit)
      return fit.error();
    __builtin_memset(memory.data(), 0, static_cast<std::size_t>(footprint(l)));
    return session(p, l, memory.data(), private_tag{});
  }
  LINNET_OR_OUT_OF_MEMORY("session::open")
  /// open() over the caller's memory for programs without results: where open() would fail, the
  /// session is not valid() and refuses every call.
  session(const packed<M, T>& p, const limits& l, std::span<std::byte> memory) {
    if (auto s = open(p, l, memory)) *this = std::move(*s);
  }
  /// Refuses in words what is no variable of packed weights of this type.
  template <class W, class... Rest>
  requires detail::unfit_weights<W, M, T>
  static result<session> open(W&&, const limits&, Rest&&...) {
    return detail::refuse_weights<W, M, T>();
  }
  // Weights that would be gone before they are read.
  session(const packed<M, T>&&, const limits&, std::span<std::byte>) = delete;

  /// Whether the constructor's weights, limits and memory fitted. Always true of an opened session,
  /// and false of one that was moved from, which refuses every call.
  bool valid() const { return limits_.batch > 0; }
  /// Why the last call did nothing: one of the texts of to_string(refusal). It is empty after a
  /// call that did what was asked. After generate() and other ways of decoding it also says why a
  /// text ended before a stop token or `tokens`. Static text, zero-terminated and never null.
  std::string_view last_refusal() const noexcept {
    return to_string(valid() ? reason_ : refusal::not_valid);
  }
  /// The limits that it was planned for.
  const limits& planned() const { return limits_; }
  /// Forgets everything that was fed. Sequences have the adapters again that they were given, and
  /// lose a source that was encoded with another.
  void reset() {
    if (!valid()) return;
    tree_.clear();
    sequences_.reset();
    tables_.reset();
    for (index b = 0; b < limits_.batch; ++b) begin_anew(b);
  }
  /// Ends a decoder after its first `layers` layers, whose output the final norm and head then read
  /// (LayerSkip, Elhoushi et al. 2024). The full number of layers restores the whole model.
  /// Everything fed so far is forgotten. False, and nothing done, for a number outside 1 to the
  /// model's layers.
  [[nodiscard]] bool exit_after(index layers) requires(M::exits > 0) {
    if (!takes(layers < 1 || layers > M::exits ? refusal::no_layer : refusal::none)) return false;
    layers_ = {0, layers};
    reset();
    return true;
  }
  /// Number of tokens fed so far to sequence `b`; 0 for one outside the limits.
  index position(index b = 0) const { return has(b) ? sequences_.length(b) : 0; }
  /// The tokens fed so far to sequence `b`; none for one outside the limits.
  std::span<const token> fed(index b = 0) const {
    return has(b) ? sequences_.tokens(b) : std::span<const token>();
  }
  /// Most tokens that any sequence can be fed: virtual tokens of adapters take their room.
  index capacity() const {
    return valid() ? capacity_for(limits_) - (sees ? 0 : adapters_.most_front()) : 0;
  }
  /// Most tokens that a sequence of a session with these limits can be fed.
  static constexpr index capacity_for(const limits& l) { return M::longest(l); }
  /// Free blocks of 32 tokens, where limits.kv_blocks gave some; feed() needs them.
  index free_blocks() const { return valid() ? tables_.available(sequences_.past()[0]) : 0; }
  /// Most tokens of a sequence in one call of feed().
  index chunk() const { return valid() ? state::chunk_of(limits_) : 0; }

  /// Most tokens of a sequence that truncate() can take back, not counting the prompt of
  /// attention::prefix. It is chunk() where old tokens are evicted, 32 with kv::int4, else all.
  index max_truncation() const {
    const index kept = M::evicts ? chunk() : capacity_for(limits_);
    return M::cache::code == kv_code::int4 ? (std::min)(kept, index{ops::token_block}) : kept;
  }
  /// Takes back the last tokens of sequence `b`, so that `length` remain. False, and nothing done,
  /// for a sequence or length that is not there, or if the cache no longer has its state of that
  /// length. All tokens can be taken back (length 0), else at most max_truncation() behind the
  /// longest that the sequence has been. Tokens of the prompt of attention::prefix have seen each
  /// other, so none of them can be taken back alone.
  [[nodiscard]] bool truncate(index length, index b = 0) {
    static_assert(M::can_truncate,
                  "linnet::session::truncate: this kind of attention cannot take tokens back");
    if (!takes(!has(b)                                                 ? refusal::no_sequence
               : length < 0 || length > position(b)                    ? refusal::no_such_length
               : length > 0 && length < sequences_.floor(b)            ? refusal::length_gone
               : length % M::block_tokens != 0 && length < position(b) ? refusal::inside_block
                                                                       : refusal::none))
      return false;
    sequences_.truncate(b, length);
    if (limits_.kv_blocks > 0) tables_.truncate(b, sequences_.past()[b]);
    if (length == 0) begin_anew(b);
    return true;
  }

  /// Gives sequence `b` an adapter of the session's packed weights, see adapt(). Sequences may have
  /// any adapters, of any ranks, and go on in one call. Nothing is packed again, and reset() keeps
  /// it. `a` must outlive its use. A source has to be encoded after this. Virtual tokens take the
  /// first rows of the caches. False, and nothing done, for a sequence outside the limits or one
  /// that has read tokens, and for an adapter of other weights. Packed weights of an adapter are
  /// taken, or the switch_gates of a lora_switch, which have room for a call's tokens.
  template <detail::session_adapter<T> A>
  [[nodiscard]] bool set_adapter(index b, const A& a) {
    static_assert(detail::serves_session<typename A::model, M, detail::keeps_gates<A>>());
    if (!takes(detail::refuses_adapter(a, packed_, limits_.batch * chunk()))) return false;
    return put_adapter(b, detail::hooks_of<T>(a));
  }
  // Weights that would be gone before they are read.
  template <detail::session_adapter<T> A>
  bool set_adapter(index, const A&&) = delete;
  /// Takes its adapter from sequence `b`. False, and nothing done, as for set_adapter().
  [[nodiscard]] bool clear_adapter(index b) { return put_adapter(b, {}); }

  /// Lets sequence `to` continue where sequence `from` is, source and adapter included; `from` goes
  /// on as before. Where `to` begins anew, it has the adapter that it was given again; if that is
  /// another, it needs a source of its own. Copies only what differs: not the tokens that both
  /// begin with, nor a shared source. False, and nothing done, for sequences outside the limits.
  [[nodiscard]] bool fork(index from, index to) {
    if (!takes(has(from) && has(to) ? refusal::none : refusal::no_sequence)) return false;
    if (from == to) return true;
    if (!adapters_.same(from, to)) {  // equal tokens have unlike states
      sequences_.truncate(to, 0);
      if constexpr (encodes || sees) sequences_.forget_source(to);
      adapters_.fork(from, to);
    }
    // The state of a prefix or a block depends on all of it.
    M::copy_state(work_.work, from, to,
                  sequences_.missing(from, to, takes_prefix || M::block_tokens > 1));
    if (limits_.kv_blocks > 0) tables_.share(from, to);
    sequences_.fork(from, to);
    if constexpr (sees) adapters_.see(to, adapters_.image(from));
    return true;
  }

  /// Encodes one source [length] of an encoder-decoder and starts a new target. False, and nothing
  /// done, for a source that is empty, too long or holds tokens outside the vocabulary.
  [[nodiscard]] bool encode(std::span<const token> source) requires(encodes) {
    const auto length = static_cast<index>(source.size());
    return encode(source, 1, {&length, 1});
  }
  /// Encodes [batch, length] sources, padded on the right to one length, and starts new targets.
  /// Virtual tokens before sources take the first rows of limits.source.
  [[nodiscard]] bool encode(std::span<const token> source, index batch,
                            std::span<const index> lengths) requires(encodes) {
    const index length = length_of(source, batch);
    const index front = has(batch - 1) ? adapters_.most_before_source(batch) : 0;
    auto c = checked(source, batch, lengths, limits_.source - front, refusal::over_source);
    c.no(lengths.empty(), refusal::lengths_missing);
    if (!takes(c.why)) return false;
    reset();
    sequences_.encode(batch, length + front, adapters_.source_lengths(batch, lengths.data()));
    const index* const whole = sequences_.source(batch).lengths;
    this->run_adapted(batch, detail::step_flops<M>(batch, length + front, 0),
                      [&](const ops::execution& on) {
                        M::template encode<T, S>(packed_->tree(), source.data(), batch, length,
                                                 whole, work_.work, on);
                      },
                      {.count = front, .lengths = whole, .before_source = front > 0});
    return true;
  }

  /// Encodes [batch] images, which the first sequences read before their tokens, and starts new
  /// texts. False, and nothing done, for images that do not fit the model.
  [[nodiscard]] bool encode(const image_view& images, index batch = 1) requires(sees) {
    const auto b = M::images_of(images, batch);
    if (!takes(M::refuses_images(b, limits_))) return false;
    reset();
    sequences_.encode(batch, M::image_tokens, nullptr);
    this->run_adapted(batch, M::flops(batch, 0), [&](const ops::execution& on) {
      M::template encode_images<T, S>(packed_->tree(), b, work_.work, on);
    });
    for (index i = 0; i < batch; ++i) adapters_.see(i, M::image_rows(work_.work, i));
    return true;
  }

  /// Feeds tokens to the one sequence and returns the logits [vocabulary] of what follows. They are
  /// valid, and yours to overwrite, until the next call. Empty, and nothing done, for tokens that
  /// do not fit the capacity, the free blocks or the vocabulary, or before a source is encoded.
  /// With attention::prefix the tokens of a sequence's first call are its prefix and see each
  /// other.
  [[nodiscard]] std::span<T> feed(std::span<const token> tokens) { return feed(tokens, 1, {}); }
  /// Feeds [batch, length] tokens, padded on the right. `lengths` [batch] counts the valid tokens
  /// of each sequence, at least 1; it may be empty when all are valid. Returns logits [batch,
  /// vocabulary].
  [[nodiscard]] std::span<T> feed(std::span<const token> tokens, index batch,
                                  std::span<const index> lengths) {
    return advance(tokens, batch, lengths, false, layers_);
  }
  /// Feeds any number of tokens to the one sequence, in parts of at most chunk(), and returns the
  /// logits [vocabulary] of what follows. They are empty, and nothing is done, if feed() would
  /// refuse a part. A prompt of attention::prefix cannot come in parts: one longer than chunk() is
  /// refused.
  [[nodiscard]] std::span<T> prefill(std::span<const token> tokens) {
    if (!takes(refuses(tokens, 1, {}, takes_prefix && position() == 0 ? chunk() : capacity())))
      return {};
    return parts(tokens);
  }
  /// Feeds tokens to the one sequence, at most limits.max_logits of them; returns the logits
  /// [length, vocabulary] of what follows each. None of them is a prefix: each predicts the next.
  [[nodiscard]] std::span<T> feed_all(std::span<const token> tokens) {
    return feed_all(tokens, 1, {});
  }
  /// Feeds [batch, length] tokens like feed(), with length <= limits.max_logits; returns logits
  /// [batch * length, vocabulary]. Those behind a sequence's valid tokens mean nothing.
  [[nodiscard]] std::span<T> feed_all(std::span<const token> tokens, index batch,
                                      std::span<const index> lengths) {
    return advance(tokens, batch, lengths, true, layers_);
  }

  /// Feeds a tree of at most limits.max_logits tokens behind the one sequence. Token i follows
  /// token parents[i], which stands before it, or with parent -1 the text. It sees its ancestors
  /// and the text alone. Returns the logits [tokens, vocabulary] of what follows each, as if each
  /// path were fed alone. position() stays until keep_path(). Another call forgets the tree.
  [[nodiscard]] std::span<T> feed_tree(std::span<const token> tokens,
                                       std::span<const index> parents) {
    static_assert(detail::takes_trees<M>());
    const refusal why = refuses_all(tokens, 1, {});
    if (!takes(why == refusal::none ? tree_.refuses(std::ssize(tokens), parents) : why)) return {};
    tree_.set(tokens, parents);
    return continued(tokens, 1, {}, true, layers_);
  }
  /// Lets the sequence go on behind token `last` of the tree of the last feed_tree(), and forgets
  /// the other branches; -1 forgets the whole tree. The cache is as if only that path had been fed.
  /// False, and nothing done, without a tree or such a token.
  [[nodiscard]] bool keep_path(index last) {
    reason_ = tree_.has(last) ? refusal::none : refusal::no_tree;
    if (!tree_.has(last)) return false;
    const auto path = tree_.path_to(last, sequences_.past()[0], [&](state_part moved) {
      moved.pages = work_.work.pages;
      M::copy_state(work_.work, 0, 0, moved);
    });
    sequences_.add({.tokens = path.data(), .batch = 1, .length = std::ssize(path)},
                   max_truncation(), false);
    forget_tree();
    return true;
  }

  /// Resets the session and feeds a decoder's prompt, or an encoder-decoder's source and start
  /// token. Returns the logits [vocabulary] of the first new token. They are empty, and nothing is
  /// done, if `tokens` do not fit.
  [[nodiscard]] std::span<T> reset_and_prefill(std::span<const token> tokens) {
    if constexpr (encodes) {
      const token first = M::start;
      return encode(tokens) ? feed({&first, 1}) : std::span<T>();
    } else {
      if (!takes(refuses(tokens, 1, {}, takes_prefix ? chunk() : capacity(), true))) return {};
      reset();
      return parts(tokens);
    }
  }

  /// Generates behind `tokens`: a decoder's prompt of at least one token, or an encoder-decoder's
  /// source. For each new token it calls `choose(logits, scratch, fed)` and then `on_token(token)`.
  /// `choose` is a sampler (see `greedy`): logits [vocabulary], scratch ids [vocabulary] and, if it
  /// takes them, the tokens fed so far. `on_token` may return false to end. Generation also ends at
  /// a stop token, after `g.tokens` tokens, or where the capacity or a paged cache is full. It ends
  /// where `choose` returns `no_token` or an id outside the vocabulary. Returns the number of
  /// tokens passed to `on_token`; 0 if `tokens` do not fit or `g.tokens` is negative.
  template <class Sampler, class Emit>
  index generate(std::span<const token> tokens, Sampler&& choose, Emit&& on_token,
                 const generation_options& g = {}) requires(ids_per_token == 1) {
    static_assert(M::block_tokens == 1,
                  "linnet::session::generate: tokens of one block see each other, so they are not "
                  "written one after the other; feed() whole blocks");
    if (!takes(detail::in_range(g) ? refusal::none : refusal::options)) return 0;
    return detail::generate_text(*this, {order_, static_cast<std::size_t>(M::vocabulary)}, tokens,
                                 choose, on_token, g);
  }

 private:
  static constexpr index extra_bytes(const limits& l) {
    arena counter;
    (void)detail::fed_sequences(counter, l.batch, capacity_for(l), ids_per_token);
    (void)counter.take<token>(M::vocabulary);
    (void)detail::session_adapters<T>(counter, l.batch);
    if (M::supports_trees) (void)detail::fed_tree(counter, l.max_logits);
    if (l.kv_blocks > 0) (void)block_tables(counter, l.batch, rows_for(l), l.kv_blocks);
    return counter.peak();
  }
  static result<void> acceptable(const packed<M, T>& p, const limits& l) {
    auto fit = detail::acceptable<M>("session::open", l, footprint(l));
    if (!fit || !p.valid()) return fit ? p.error() : fit;
    if (detail::scales_keys<M, T> && !p.key_scales())
      return detail::failure(errc::invalid, "session::open", "packed weights",
                             "scales of keys for kv::channel_int8 or kv::channel_int4: "
                             "calibrate_keys(), then set_key_scales()",
                             "none");
    return fit;
  }
  struct private_tag {};
  LINNET_COLD session(const packed<M, T>& p, const limits& l, void* memory, private_tag)
      : state(p, l) {
    const index planned = detail::plan_for<M, T>(l, purpose::decoding).total();
    arena extra(static_cast<std::byte*>(memory) + planned, extra_bytes(l));
    work_ = detail::place_workspace<M, T>(l, purpose::decoding, memory);
    sequences_ = detail::fed_sequences(extra, l.batch, capacity_for(l), ids_per_token);
    order_ = extra.take<token>(M::vocabulary);
    adapters_ = detail::session_adapters<T>(extra, l.batch);
    if (M::supports_trees) tree_ = detail::fed_tree(extra, l.max_logits);
    if (l.kv_blocks > 0) {
      tables_ = block_tables(extra, l.batch, rows_for(l), l.kv_blocks);
      work_.work.pages = {tables_.data(), tables_.size()};
    }
    reset();
  }
  std::span<T> advance(std::span<const token> tokens, index batch, std::span<const index> lengths,
                       bool every, const layer_range& part) {
    const refusal why =
        every ? refuses_all(tokens, batch, lengths) : refuses(tokens, batch, lengths, chunk());
    return takes(why) ? continued(tokens, batch, lengths, every, part) : std::span<T>();
  }
  /// Gives sequence `b` its own adapter again. It loses a source that was encoded with another.
  void begin_anew(index b) {
    const bool other = adapters_.reset(b);
    if constexpr (encodes || sees)
      if (other) sequences_.forget_source(b);
  }
  /// Notes why a call does nothing, or that it does what was asked.
  bool takes(refusal why) {
    reason_ = why;
    if (!valid() || why != refusal::none) return false;
    forget_tree();
    return true;
  }
  /// Feeds tokens that fit to the one sequence, in parts.
  std::span<T> parts(std::span<const token> tokens) {
    const auto most = static_cast<std::size_t>(chunk() * ids_per_token);
    for (; tokens.size() > most; tokens = tokens.subspan(most))
      (void)continued(tokens.first(most), 1, {}, false, layers_);
    return continued(tokens, 1, {}, false, layers_);
  }
  /// Feeds tokens that fit.
  std::span<T> continued(std::span<const token> tokens, index batch, std::span<const index> lengths,
                         bool every, const layer_range& part) {
    const index length = length_of(tokens, batch);
    const step_call call{.tokens = tokens.data(),
                         .batch = batch,
                         .length = length,
                         .lengths = lengths.empty() ? nullptr : lengths.data(),
                         .tree = tree_.size() > 0 ? tree_.view() : ops::token_tree{},
                         .every = every,
                         .layers = part};
    this->feed_behind(call, chunk(), max_truncation(), takes_prefix && !every);
    return {work_.work.logits,
            static_cast<std::size_t>(batch * (every ? length : 1) * ids_per_token * M::vocabulary)};
  }
  /// Gives a sequence that has read nothing hooks, or empty ones.
  bool put_adapter(index b, const ops::adapter_hooks<T>& one) {
    if (!takes(!has(b)           ? refusal::no_sequence
               : position(b) > 0 ? refusal::adapter_late
                                 : refusal::none))
      return false;
    if constexpr (encodes || sees) sequences_.forget_source(b);
    adapters_.give(b, one);
    return true;
  }
  using state::adapters_;
  using state::limits_;
  using state::own_;
  using state::packed_;
  using state::sequences_;
  using state::tables_;
  using state::tree_;
  using state::work_;
  layer_range layers_{};    ///< that feed() runs
  token* order_ = nullptr;  ///< [vocabulary] scratch of samplers
  refusal reason_ = refusal::none;
};

LINNET_NAMESPACE_END
