// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Sessions of models that are chosen at run time: one type for all of them, by pointers to the
/// functions of a static session. No RTTI, no exceptions, and one call through a pointer for each
/// call of a session.

#include <new>
#include <span>
#include <string_view>
#include <utility>

#include <linnet/generate/session.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The calls of a session whose type is not known, and what a caller has to know of its model.
struct any_session_calls {
  using logits = std::span<float>;
  using tokens = std::span<const token>;

  logits (*feed)(void*, tokens);
  logits (*prefill)(void*, tokens);
  logits (*reset_and_prefill)(void*, tokens);
  void (*reset)(void*);
  void (*end)(void*);
  index (*position)(const void*);
  index (*capacity)(const void*);
  index (*chunk)(const void*);
  tokens (*fed)(const void*);
  std::string_view (*last_refusal)(const void*);
  index vocabulary;
};

/// The calls of a session of model `M`.
template <class M>
struct any_session_of {
  static session<M>& of(void* self) { return *static_cast<session<M>*>(self); }
  static const session<M>& of(const void* self) { return *static_cast<const session<M>*>(self); }

  using tokens = any_session_calls::tokens;
  static constexpr any_session_calls calls{
      .feed = [](void* s, tokens t) { return of(s).feed(t); },
      .prefill = [](void* s, tokens t) { return of(s).prefill(t); },
      .reset_and_prefill = [](void* s, tokens t) { return of(s).reset_and_prefill(t); },
      .reset = [](void* s) { of(s).reset(); },
      .end = [](void* s) { of(s).~session<M>(); },
      .position = [](const void* s) { return of(s).position(); },
      .capacity = [](const void* s) { return of(s).capacity(); },
      .chunk = [](const void* s) { return of(s).chunk(); },
      .fed = [](const void* s) { return of(s).fed(); },
      .last_refusal = [](const void* s) { return of(s).last_refusal(); },
      .vocabulary = M::vocabulary};
};

}  // namespace detail

/// A session whose model is known only at run time. Its calls are those of session with one
/// sequence, and so are their logits and tokens, bit for bit. Nothing allocates after it was
/// opened. Movable; not for use by two threads at once.
class any_session {
 public:
  /// Bytes that a session of `M` with these limits allocates, or that a caller's memory must have.
  template <class M>
  static constexpr index footprint(const limits& l) {
    return add_sizes(session<M>::footprint(l), own_bytes<M>());
  }
  /// Opens a session of `p`, which must outlive it, in memory that it allocates once. Errors: those
  /// of session::open().
  template <class M>
  static result<any_session> open(const packed<M, float>& p, const limits& l) LINNET_TRY {
    if (auto fit = detail::acceptable<M>("any_session::open", l, footprint<M>(l)); !fit)
      return fit.error();
    memory_block memory(footprint<M>(l));
    if (!memory.data()) return detail::out_of_memory("any_session::open", footprint<M>(l));
    auto made = open(
        p, l, {static_cast<std::byte*>(memory.data()), static_cast<std::size_t>(footprint<M>(l))});
    if (made) made->own_ = std::move(memory);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("any_session::open")
  /// Opens a session in the caller's memory: at least footprint<M>(l) bytes, aligned to
  /// `alignment`. Memory and `p` must outlive the session. Errors: those of session::open().
  template <class M>
  static result<any_session> open(const packed<M, float>& p, const limits& l,
                                  std::span<std::byte> memory) LINNET_TRY {
    if (auto fit = detail::acceptable<M>("any_session::open", l, footprint<M>(l)); !fit)
      return fit.error();
    if (auto fit = detail::fits_memory("any_session::open", memory.data(), memory.size(),
                                       "any_session::footprint(limits)", footprint<M>(l));
        !fit)
      return fit.error();
    auto run = session<M>::open(p, l, memory.subspan(static_cast<std::size_t>(own_bytes<M>())));
    if (!run) return run.error();
    any_session made;
    made.self_ = new (memory.data()) session<M>(std::move(*run));
    made.calls_ = &detail::any_session_of<M>::calls;
    made.scratch_ = reinterpret_cast<token*>(memory.data() + object_bytes<M>());
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("any_session::open")
  // Weights that would be gone before they are read.
  template <class M>
  static result<any_session> open(const packed<M, float>&&, const limits&) = delete;
  template <class M>
  static result<any_session> open(const packed<M, float>&&, const limits&,
                                  std::span<std::byte>) = delete;

  any_session(any_session&& other) noexcept
      : own_(std::move(other.own_)),
        calls_(std::exchange(other.calls_, nullptr)),
        self_(std::exchange(other.self_, nullptr)),
        scratch_(other.scratch_),
        reason_(other.reason_) {}
  any_session& operator=(any_session&& other) noexcept {
    std::swap(own_, other.own_);
    std::swap(calls_, other.calls_);
    std::swap(self_, other.self_);
    std::swap(scratch_, other.scratch_);
    std::swap(reason_, other.reason_);
    return *this;
  }
  ~any_session() {
    if (valid()) calls_->end(self_);
  }

  /// Whether it was not moved from; such a session refuses every call.
  bool valid() const { return self_ != nullptr; }
  /// Number of ids of the model's vocabulary, and so of logits.
  index vocabulary() const { return valid() ? calls_->vocabulary : 0; }
  /// @copydoc session::reset()
  void reset() {
    if (takes()) calls_->reset(self_);
  }
  /// Number of tokens fed so far.
  index position() const { return valid() ? calls_->position(self_) : 0; }
  /// Most tokens that it can be fed.
  index capacity() const { return valid() ? calls_->capacity(self_) : 0; }
  /// Most tokens in one call of feed().
  index chunk() const { return valid() ? calls_->chunk(self_) : 0; }
  /// The tokens fed so far.
  std::span<const token> fed() const {
    return valid() ? calls_->fed(self_) : std::span<const token>();
  }
  /// Why the last call did nothing, as session::last_refusal() says it.
  std::string_view last_refusal() const noexcept {
    if (!valid()) return to_string(refusal::not_valid);
    return reason_ != refusal::none ? to_string(reason_) : calls_->last_refusal(self_);
  }

  /// Feeds up to chunk() tokens; returns the logits [vocabulary] of what follows, empty where
  /// session::feed() refuses.
  [[nodiscard]] std::span<float> feed(std::span<const token> tokens) {
    return takes() ? calls_->feed(self_, tokens) : std::span<float>();
  }
  /// Feeds any number of tokens, as session::prefill() does.
  [[nodiscard]] std::span<float> prefill(std::span<const token> tokens) {
    return takes() ? calls_->prefill(self_, tokens) : std::span<float>();
  }
  /// Begins anew with a prompt, or an encoder-decoder's source.
  [[nodiscard]] std::span<float> reset_and_prefill(std::span<const token> tokens) {
    return takes() ? calls_->reset_and_prefill(self_, tokens) : std::span<float>();
  }
  /// Generates behind `tokens`, as session::generate() does, which describes what is given.
  template <class Sampler, class Emit>
  index generate(std::span<const token> tokens, Sampler&& choose, Emit&& on_token,
                 const generation_options& g = {}) {
    if (!takes()) return 0;
    if (!detail::in_range(g)) return reason_ = refusal::options, 0;
    return detail::generate_text(*this, {scratch_, static_cast<std::size_t>(vocabulary())}, tokens,
                                 choose, on_token, g);
  }

 private:
  template <class Session>
  friend void detail::refuse(Session&, refusal) noexcept;

  any_session() = default;
  /// The session's object, and behind it the samplers' scratch: what stands before its own memory.
  template <class M>
  static constexpr index object_bytes() {
    return round_up(static_cast<index>(sizeof(session<M>)), alignment);
  }
  template <class M>
  static constexpr index own_bytes() {
    static_assert(
        M::ids_per_token == 1,
        "linnet::any_session: models whose tokens are one id each; tokens of this one are "
        "several bytes");
    static_assert(M::block_tokens == 1,
                  "linnet::any_session: tokens of one block see each other, so they are neither "
                  "written nor scored one after the other");
    return object_bytes<M>() +
           round_up(M::vocabulary * static_cast<index>(sizeof(token)), alignment);
  }
  bool takes() {
    reason_ = refusal::none;
    return valid();
  }

  memory_block own_;
  const detail::any_session_calls* calls_ = nullptr;
  void* self_ = nullptr;
  token* scratch_ = nullptr;
  refusal reason_ = refusal::none;  ///< of generate() itself
};

LINNET_NAMESPACE_END
