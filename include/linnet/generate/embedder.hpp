// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Embedders: vectors of texts by an encoder, one per text or one per token.

#include <span>
#include <string_view>
#include <utility>

#include <linnet/model/buffers.hpp>
#include <linnet/model/contract.hpp>
#include <linnet/ops/pooling.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Models with BERT's pooler, which a head of whole sequences reads.
template <class M>
concept has_pooler = requires {
  requires M::reads && M::head::per_sequence;
};

}  // namespace detail

/// Computes the hidden states of an `embedding_model`, such as an encoder with any head, from
/// packed weights in any storage type. Memory is planned once; calls allocate nothing. Labels of
/// batches are not read.
template <class M, class T = float>
class embedder {
  static_assert(embedding_model<M, T>,
                "linnet::embedder: the model must be an encoder<>, or a model of your own that has "
                "what model/contract.hpp says of an embedding_model");
  static_assert(!detail::is_reproducible<M> || std::is_same_v<T, float>,
                "linnet::compute::reproducible: its kernels compute in float; embedders of these "
                "models have that scalar");
  using S = storage_of<M, T>;

 public:
  using model = M;
  using batch = typename M::batch;
  static constexpr index width = M::d;  ///< of a vector

  /// Exact bytes that an embedder with these limits allocates.
  static constexpr index footprint(const limits& l) {
    return detail::bounded_bytes(l, [](const limits& some) {
      return add_sizes(detail::plan_for<M, T>(some, purpose::decoding).total(),
                       add_sizes(round_up(some.batch * width * index{sizeof(T)}, alignment),
                                 some.batch * index{sizeof(T)}));
    });
  }
  /// Opens an embedder for batches up to these limits; it allocates footprint(l) bytes, once. `p`
  /// must outlive it. Errors: errc::invalid for limits that make no sense for the model, by the
  /// name of the field. Also errc::out_of_memory, and the error of `p` if it is not valid().
  static result<embedder> open(const packed<M, T>& p, const limits& l) LINNET_TRY {
    if (auto fit = detail::acceptable<M>("embedder::open", l, footprint(l)); !fit)
      return fit.error();
    if (!p.valid()) return p.error();
    embedder e(p, l);
    if (!e.memory_.data()) return detail::out_of_memory("embedder::open", footprint(l));
    const index planned = detail::plan_for<M, T>(l, purpose::decoding).total();
    auto* const rest = static_cast<std::byte*>(e.memory_.data()) + planned;
    e.work_ = detail::place_workspace<M, T>(l, purpose::decoding, e.memory_.data());
    e.vectors_ = reinterpret_cast<T*>(rest);
    e.lengths_ =
        e.vectors_ + round_up(l.batch * width * index{sizeof(T)}, alignment) / index{sizeof(T)};
    return e;
  }
  LINNET_OR_OUT_OF_MEMORY("embedder::open")
  /// Refuses in words what is no variable of packed weights of this type.
  template <class W>
  requires detail::unfit_weights<W, M, T>
  static result<embedder> open(W&&, const limits&) { return detail::refuse_weights<W, M, T>(); }

  /// One vector [batch, width] of each text, of length 1 unless `normalize` is false. Valid until
  /// the next call; empty, and nothing done, for a batch that does not fit.
  std::span<const T> embed(const batch& b, sentence_pooling how = sentence_pooling::mean,
                           bool normalize = true) {
    if (!takes(b)) return {};
    run_model(b, [&](const ops::execution& on, context<T>& ctx) {
      M::template forward<T, S>(packed_->tree(), b, work_.work, ctx);
      ops::pool_rows(on, how, {b.batch, b.length, b.lengths, width}, work_.work.hidden, vectors_);
      if (normalize) ops::unit_length(on, b.batch, width, vectors_, lengths_);
    });
    return {vectors_, static_cast<std::size_t>(b.batch * width)};
  }
  /// The hidden states [batch, length, width] of the last layer; those of padding mean nothing.
  /// Valid until the next call; empty, and nothing done, for a batch that does not fit.
  std::span<const T> hidden(const batch& b) {
    if (!takes(b)) return {};
    run_model(b, [&](const ops::execution&, context<T>& ctx) {
      M::template forward<T, S>(packed_->tree(), b, work_.work, ctx);
    });
    return {work_.work.hidden, static_cast<std::size_t>(b.batch * b.length * width)};
  }
  /// hidden(b) that also calls f(layer, states) with the hidden states [batch, length, width] of
  /// every layer of an encoder<> in turn: 0 is the embedding, `layers` the last. They are valid
  /// during the call.
  template <class F>
  requires requires { typename M::body; }
  std::span<const T> hidden(const batch& b, F&& f) {
    if (!takes(b)) return {};
    const auto states = [&](const T* x) {
      return std::span<const T>(x, static_cast<std::size_t>(b.batch * b.length * width));
    };
    auto& w = work_.work;
    run_model(b, [&](const ops::execution& on, context<T>& ctx) {
      M::template embed<T, S>(packed_->tree(), b, w, ctx);
      on.threads.once([&] { f(index{0}, states(w.embedded)); });
      const auto show = [&](index layer, const T* x, T*) {
        on.threads.once([&] { f(layer + 1, states(x)); });
      };
      ctx.stack.hook = layer_hook<T>::of(show);
      M::template run_layers<T, S>(packed_->tree(), w, ctx);
      on.threads.once([&] { f(M::shape.layers, states(w.hidden)); });
    });
    return states(w.hidden);
  }
  /// BERT's pooled vectors [batch, width], of models with a pooler: tanh(W h + b) of the first
  /// token. Valid until the next call; empty, and nothing done, for a batch that does not fit.
  std::span<const T> pooled(const batch& b) requires detail::has_pooler<M> {
    if (!takes(b)) return {};
    run_model(b, [&](const ops::execution&, context<T>& ctx) {
      M::template forward<T, S>(packed_->tree(), b, work_.work, ctx);
      M::template pool<T, S>(packed_->tree(), work_.work, ctx);
    });
    return {work_.work.read, static_cast<std::size_t>(b.batch * width)};
  }
  /// Why the last call gave nothing: one of the texts of to_string(refusal), empty after a call
  /// that did what was asked. Static text, zero-terminated and never null.
  std::string_view last_refusal() const noexcept {
    return to_string(limits_.batch < 1 ? refusal::not_valid : reason_);
  }

 private:
  embedder(const packed<M, T>& p, const limits& l)
      : packed_(&p), limits_(l), memory_(footprint(l)) {}

  bool takes(const batch& b) {
    reason_ = M::refuses_texts(b, limits_);
    return reason_ == refusal::none;
  }
  template <class F>
  void run_model(const batch& b, F&& f) {
    run(limits_, work_.converted, M::flops(b.batch, b.length), [&](const ops::execution& on) {
      const detail::timed<S> time(on.threads, operation::other);
      context<T> ctx = M::template context_of<T>(b, on);
      f(on, ctx);
    });
  }

  const packed<M, T>* packed_;
  detail::owned_limits limits_;
  memory_block memory_;
  detail::placed_workspace<M, T> work_{};
  T *vectors_ = nullptr, *lengths_ = nullptr;  ///< [batch, width] and [batch]
  refusal reason_ = refusal::none;
};

LINNET_NAMESPACE_END
