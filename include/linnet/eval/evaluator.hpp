// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Evaluators: the loss of a packed model on given text, without gradients.

#include <array>

#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>
#include <linnet/nn/timed.hpp>

LINNET_NAMESPACE_BEGIN

/// Computes losses of model `M` from packed weights in any storage type.
template <class M, class T = float>
class evaluator {
  using S = storage_of<M, T>;
  static_assert(detail::check_language_model<M, T, S>() && detail::profile_is_kept<M, S>());

 public:
  using model = M;
  using batch = typename M::batch;

  /// Exact bytes that an evaluator with these limits allocates.
  static constexpr index footprint(const limits& l) {
    return detail::bounded_bytes(l, [](const limits& some) {
      return detail::plan_for<M, T>(some, purpose::scoring).total();
    });
  }

  /// Opens an evaluator for batches up to these limits; it allocates footprint(l) bytes, once. `p`
  /// must outlive it. Errors: errc::invalid for limits that make no sense for the model, by the
  /// name of the field. Also errc::out_of_memory, and the error of `p` if it is not valid().
  static result<evaluator> open(const packed<M, T>& p, const limits& l) LINNET_TRY {
    if (auto fit = detail::acceptable<M>("evaluator::open", l, footprint(l)); !fit)
      return fit.error();
    if (!p.valid()) return p.error();
    if (auto fit = detail::check_base("evaluator::open", p.tree()); !fit) return fit.error();
    evaluator e(p, l);
    if (!e.memory_.data()) return detail::out_of_memory("evaluator::open", footprint(l));
    e.work_ = detail::place_workspace<M, T>(l, purpose::scoring, e.memory_.data());
    return e;
  }
  LINNET_OR_OUT_OF_MEMORY("evaluator::open")
  /// Refuses in words what is no variable of packed weights of this type.
  template <class W>
  requires detail::unfit_weights<W, M, T>
  static result<evaluator> open(W&&, const limits&) { return detail::refuse_weights<W, M, T>(); }

  /// Summed cross-entropy of a batch in nats, and the number of labels it is summed over. `logits`,
  /// if not empty, receives the logits [batch * length of the labels, vocabulary]. The loss is NaN,
  /// and nothing is computed, if `logits` is too short. It is also NaN for a batch that does not
  /// fit the limits or the vocabulary.
  loss_sum loss(const batch& b, std::span<T> logits = {}) {
    return loss(b, cross_entropy_objective{}, logits);
  }
  /// Summed loss of a batch by an objective, such as `distillation`; NaN also for a batch that the
  /// objective does not accept.
  template <class Objective>
  requires objective<Objective, M> loss_sum loss(const batch& b, Objective&& from,
                                                 std::span<T> logits = {}) {
    reason_ = detail::refusal_of<M>(b, limits_, from, logits);
    if (reason_ != refusal::none) return loss_sum::refused();
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::execution& on) {
      const detail::timed<S> time(on.threads, operation::other);
      const auto criterion = from.token_loss(on, b);
      ops::execution watched = on;
      if constexpr (detail::chooses_bits<Objective>) {
        watched.attention = from.attention_tap();
        watched.bits = from.token_bits();
      }
      const loss_sum sum = M::template loss<T, S>(packed_->tree(), nullptr, b, work_.work, watched,
                                                  {.logits = logits.data()}, criterion);
      if (on.threads.rank() == 0) loss = sum;
    });
    return loss;
  }

  /// Losses of a batch at all exits of a decoder, losses[layers]. Exit l applies the final norm and
  /// head to the stream after layer l; the last exit is the model. One forward pass. False, and
  /// nothing done, for a batch that does not fit or another number of losses.
  bool exit_losses(const batch& b, std::span<loss_sum> losses) requires(M::exits > 0) {
    std::array<double, static_cast<std::size_t>(M::exits)> weights;
    reason_ =
        losses.size() == weights.size() ? detail::refusal_of<M>(b, limits_) : refusal::wrong_losses;
    if (reason_ != refusal::none) return false;
    weights.fill(1);
    run(limits_, work_.converted, [&](const ops::execution& on) {
      (void)M::template loss<T, S>(packed_->tree(), nullptr, b, work_.work, on,
                                   {.exits = {weights.data(), losses.data()}});
    });
    return true;
  }
  /// Why the last call gave NaN or false: one of the texts of to_string(refusal), empty after a
  /// call that did what was asked. Static text, zero-terminated and never null.
  std::string_view last_refusal() const noexcept {
    return to_string(limits_.batch < 1 ? refusal::not_valid : reason_);
  }

 private:
  evaluator(const packed<M, T>& p, const limits& l)
      : packed_(&p), limits_(l), memory_(footprint(l)) {}

  const packed<M, T>* packed_;
  detail::owned_limits limits_;
  memory_block memory_;
  detail::placed_workspace<M, T> work_{};
  refusal reason_ = refusal::none;
};

/// Converts nats to bits per byte of text.
inline double bits_per_byte(double nats, index bytes) {
  return nats / (0.69314718055994531 * static_cast<double>(bytes));
}

LINNET_NAMESPACE_END
